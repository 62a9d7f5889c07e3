"""Whose signature counts, for what, where and how long: each refusal by its own name."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from seeded import from_seed

from pytest_decisionos.errors import KeysError
from pytest_decisionos.model.target import Target
from pytest_decisionos.trust import dsse, ed25519
from pytest_decisionos.trust.trustfile import ROLES, TrustFile, TrustKey, refusal

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PRODUCTION = Target(service="checkout", environment="production", region="eu-1", tenant="acme")
STAGING = PRODUCTION.model_copy(update={"environment": "staging"})
KEYS = [from_seed(bytes([seed]) * 32) for seed in range(1, 9)]
GATE, PEER, LOG = KEYS[:3]


def entry(key, role="gate", **more):
    fields = {"keyid": key.keyid, "role": role, "public_key": key.public.pem}
    return {**fields, "targets": ["checkout/production/*/*"], **more}


def trust_of(*entries, **more):
    fields = {"version": 1, "expires": "2031-01-01T00:00:00Z", "keys": list(entries)}
    return TrustFile.model_validate(json.loads(json.dumps({**fields, **more})))


def signed(*keys, payload=b"{}", hints=True):
    document = json.loads(dsse.sign(payload, keys))
    for signature in document["signatures"]:
        if not hints:
            del signature["keyid"]
    return dsse.parse(json.dumps(document).encode())


# Each refusal, by its cause and in words

REFUSED = {
    "revoked": ({"revoked": True}, {}, "revoked_key", "is revoked"),
    "wrong role": ({"role": "index"}, {}, "wrong_role", "has the role index, not gate"),
    "a judge for a gate": (
        {"role": "judge", "judge": "peer"},
        {},
        "wrong_role",
        "has the role judge, not gate",
    ),
    "wrong judge": (
        {"role": "judge", "judge": "peer"},
        {"role": "judge", "judge": "log"},
        "wrong_judge",
        "is judge peer's, not log's",
    ),
    "wrong target": (
        {},
        {"target": STAGING},
        "wrong_target",
        "is for checkout/production/*/*, not for checkout/staging/eu-1/acme",
    ),
    "not yet": (
        {"not_before": "2030-01-01T00:00:01Z"},
        {},
        "outside_validity",
        "is valid only from 2030-01-01T00:00:01+00:00",
    ),
    "no longer": (
        {"not_after": "2029-12-31T23:59:59Z"},
        {},
        "outside_validity",
        "was valid only until 2029-12-31T23:59:59+00:00",
    ),
}


@pytest.mark.parametrize(("fields", "asked", "cause", "words"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("hints", [True, False], ids=["hinted", "no key id"])
def test_refusals(fields, asked, cause, words, hints):
    asked = {"role": "gate", "target": PRODUCTION, "at": NOW, "judge": None, **asked}
    judge = asked.pop("judge")
    trust = trust_of(entry(GATE, **fields), entry(PEER, "operator"))
    (key, _) = trust.keys
    assert refusal(key, **asked, judge=judge) == (cause, words)
    assert trust.usable(**asked, judge=judge) == {}
    found = trust.why_not(signed(GATE, hints=hints), **asked, judge=judge)
    assert found == (cause, f"is signed by key {GATE.keyid[:16]}…, which {words}")
    # The same key without that fault counts: it is this that was refused.
    sound = trust_of(entry(GATE, asked["role"], judge=judge, targets=["*/*/*/*"]))
    assert list(sound.usable(**asked, judge=judge)) == [GATE.keyid]


def test_a_key_that_did_sign_is_named_before_a_signature_that_does_not_verify():
    trust = trust_of(entry(GATE, revoked=True), entry(PEER))
    good = signed(GATE)
    both = good._replace(signatures=(dsse.Signature(PEER.keyid, b"x" * 64), *good.signatures))
    assert trust.why_not(both, "gate", PRODUCTION, NOW)[0] == "revoked_key"


def test_what_nobody_may_have_signed():
    trust = trust_of(entry(GATE))
    ask = ("gate", PRODUCTION, NOW)
    good = signed(GATE)
    assert trust.why_not(signed(), *ask) == ("unsigned", "has no signature: a dry-run")
    assert trust.why_not(good._replace(payload=b"[]"), *ask)[0] == "bad_signature"
    assert trust.why_not(signed(PEER), *ask) == (
        "unknown_key",
        "is signed by no key of the trust file",
    )
    # A hint that lies does not make an unknown key known.
    lying = good._replace(signatures=(dsse.Signature(GATE.keyid, signed(PEER).signatures[0].sig),))
    assert trust.why_not(lying, *ask)[0] == "bad_signature"


def test_at_the_very_ends_it_counts():
    at = NOW.isoformat()
    trust = trust_of(entry(GATE, not_after=at), entry(PEER, not_before=at))
    assert set(trust.usable("gate", PRODUCTION, NOW)) == {GATE.keyid, PEER.keyid}
    assert set(trust.usable("gate", PRODUCTION, NOW + DAY)) == {PEER.keyid}
    assert set(trust.usable("gate", PRODUCTION, NOW - DAY)) == {GATE.keyid}


def test_usable_are_those_of_the_role_and_judge():
    trust = trust_of(
        entry(GATE),
        entry(PEER, "judge", judge="peer"),
        entry(LOG, "judge", judge="log"),
        *(entry(key, role) for key, role in zip(KEYS[3:], ROLES[2:], strict=False)),
    )
    assert list(trust.usable("judge", PRODUCTION, NOW)) == [PEER.keyid, LOG.keyid]
    assert list(trust.usable("judge", PRODUCTION, NOW, judge="log")) == [LOG.keyid]
    for role in ("gate", *ROLES[2:]):
        (public,) = trust.usable(role, PRODUCTION, NOW).values()
        assert trust.key(public.keyid).role == role


# Targets


@pytest.mark.parametrize(
    ("globs", "target", "covers"),
    [
        ("checkout/production/*/*", "checkout production eu-1 acme", True),
        ("*/*/*/*", "checkout production eu-1 acme", True),
        ("checkout/prod*/eu-?/[a-c]*", "checkout production eu-1 acme", True),
        ("checkout/*/eu-[!23]/a[b-d][!x]?", "checkout production eu-1 acme", True),
        ("checkout/*/eu-[!1]/*", "checkout production eu-1 acme", False),
        ("결제/운영/*/*", "결제 운영 eu-1 all", True),
        ("checkout/production/*/*", "checkout staging eu-1 acme", False),
        ("checkout/production/*/*", "Checkout production eu-1 acme", False),
        ("checkout/production/eu-1/all", "checkout production eu-1 acme", False),
        ("check/production/*/*", "checkout production eu-1 acme", False),
        ("checkout/production/*/*", "checkout production\n eu-1 acme", False),
    ],
)
def test_targets(globs, target, covers):
    service, environment, region, tenant = target.split(" ")
    asked = Target(service=service, environment=environment, region=region, tenant=tenant)
    (key,) = trust_of(entry(GATE, targets=["other/*/*/*", globs])).keys
    assert key.covers(asked) is covers


PARTS = st.text(st.sampled_from("ab*?[]!-é\n"), min_size=1, max_size=6)


@given(st.tuples(PARTS, PARTS, PARTS, PARTS), st.integers(0, 3), PARTS)
def test_a_star_takes_one_part_and_no_other(parts, place, other):
    assume(parts[place] != other)
    key = TrustKey.model_validate(
        {**entry(GATE), "targets": ("/".join("*" if i == place else "x" for i in range(4)),)}
    )
    names = ("service", "environment", "region", "tenant")

    def covers(values):
        return key.covers(Target(**dict(zip(names, values, strict=True))))

    alone = ["x"] * 4
    alone[place] = other
    assert covers(alone)
    assert covers(parts) is all(part == "x" for i, part in enumerate(parts) if i != place)


# One key has one name


def test_one_key_twice_is_no_trust_file():
    pem = GATE.public.pem
    for spelling in (
        pem,
        pem.replace("\n", "\r\n"),
        f"A comment\n{pem}",
        pem.replace("\n", "\n\n", 1),
    ):
        two = entry(GATE, "index", public_key=spelling)
        with pytest.raises(ValidationError, match="one key stands twice|not an Ed25519"):
            trust_of(entry(GATE), two)
        with pytest.raises(ValidationError, match="not the digest of public_key|not an Ed25519"):
            trust_of(entry(GATE), {**two, "keyid": "0" * 64})


P = 2**255 - 19
Y8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
WEAK = {
    "of order 1": 1,
    "of order 2": P - 1,
    "of order 4": 0,
    "of order 8": Y8,
    "of order 8, too": P - Y8,
    "0 once more": P,
    "1 once more": P + 1,
}


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", WEAK.values(), ids=WEAK)
def test_a_key_that_anybody_can_sign_with_is_none(y, sign):
    raw = (y | sign << 255).to_bytes(32, "little")
    weak = ed25519.PublicKey(Ed25519PublicKey.from_public_bytes(raw))
    with pytest.raises(KeysError, match="weak"):
        ed25519.parse_public(weak.pem)
    with pytest.raises(ValidationError, match="public_key.*weak"):
        trust_of({**entry(GATE), "keyid": weak.keyid, "public_key": weak.pem})


@pytest.mark.parametrize("y", WEAK.values(), ids=WEAK)
def test_why_weak_keys_are_refused(y):
    # R = B, s = 1: no secret is in it, and by a point of order n it signs one message of n.
    forged = bytes([0x58]) + b"\x66" * 31 + (1).to_bytes(32, "little")
    weak = ed25519.PublicKey(Ed25519PublicKey.from_public_bytes(y.to_bytes(32, "little")))
    assert any(weak.verifies(forged, b"message %d" % number) for number in range(200))


# Faults of the file

FAULTS = {
    "version 0": ({"version": 0}, "greater than or equal to 1"),
    "version as text": ({"version": "1"}, "valid integer"),
    "version as float": ({"version": 1.0}, "valid integer"),
    "version true": ({"version": True}, "valid integer"),
    "version beyond 2^53": ({"version": 2**53}, "less than or equal"),
    "a naive time": ({"expires": "2031-01-01T00:00:00"}, "timezone"),
    "no time": ({"expires": None}, "datetime"),
    "k beyond n": ({"min_k": 3, "min_n": 2}, "min_k is more than min_n"),
    "k of 0": ({"min_k": 0}, "greater than or equal to 1"),
    "too many remote": ({"min_remote": 100}, "less than or equal to 99"),
    "no digest": ({"policy_sha256": ["**"]}, "pattern|'\\*'"),
    "digest in capitals": ({"policy_sha256": ["A" * 64]}, "pattern|'\\*'"),
    "too many policies": ({"policy_sha256": ["*"] * 1001}, "at most 1000"),
    "an unknown field": ({"min_r": 1}, "Extra inputs"),
}


@pytest.mark.parametrize(("fields", "says"), FAULTS.values(), ids=FAULTS)
def test_faults_of_the_file(fields, says):
    with pytest.raises(ValidationError, match=says):
        trust_of(entry(GATE), **fields)


KEY_FAULTS = {
    "an unknown role": ({"role": "root"}, "'gate', 'judge'"),
    "a judge without name": ({"role": "judge"}, "the name of the judge"),
    "a name without judge": ({"judge": "peer"}, "the name of the judge"),
    "a hostile name": ({"role": "judge", "judge": "../peer"}, "pattern"),
    "no target": ({"targets": []}, "at least 1"),
    "three parts": ({"targets": ["a/b/c"]}, "pattern"),
    "five parts": ({"targets": ["a/b/c/d/e"]}, "pattern"),
    "an empty part": ({"targets": ["a//c/d"]}, "pattern"),
    "a newline at the end": ({"targets": ["a/b/c/d\n"]}, "pattern"),
    "a newline and a fifth part": ({"targets": ["a/b/c/d\n/"]}, "pattern"),
    "a null": ({"targets": ["a/b\0/c/d"]}, "pattern"),
    "an escape": ({"targets": ["a/\x1b31m/c/d"]}, "pattern"),
    "a bracket alone": ({"targets": ["[/b/c/d"]}, "pattern"),
    "a class that does not end": ({"targets": ["a/b/c/[d"]}, "pattern"),
    "a class that does not begin": ({"targets": ["a/b]/c/d"]}, "pattern"),
    "a class over two parts": ({"targets": ["a/[b/c]/d"]}, "pattern"),
    "an empty class": ({"targets": ["a/b/c/[]"]}, "pattern"),
    "a class of nothing else": ({"targets": ["a/b/c/[!]"]}, "pattern"),
    "a long target": ({"targets": ["a/b/c/" + "d" * 600]}, "at most 600"),
    "too many targets": ({"targets": ["a/b/c/d"] * 101}, "at most 100"),
    "another's key": ({"public_key": PEER.public.pem}, "not the digest of public_key"),
    "no key": ({"public_key": "none"}, "not an Ed25519 public key"),
    "a large key": ({"public_key": GATE.public.pem + "\n" * 4096}, "at most 4096"),
    "an id in capitals": ({"keyid": GATE.keyid.upper()}, "pattern"),
    "an id and a newline": ({"keyid": GATE.keyid + "\n"}, "pattern"),
    "ends before it begins": (
        {"not_before": "2030-01-02T00:00:00Z", "not_after": "2030-01-01T00:00:00Z"},
        "not_before is not before not_after",
    ),
    "revoked as text": ({"revoked": "false"}, "valid boolean"),
    "revoked as number": ({"revoked": 0}, "valid boolean"),
}


@pytest.mark.parametrize(("fields", "says"), KEY_FAULTS.values(), ids=KEY_FAULTS)
def test_faults_of_a_key(fields, says):
    with pytest.raises(ValidationError, match=says):
        trust_of(entry(GATE, **fields))


def test_too_many_keys():
    with pytest.raises(ValidationError, match="at most 1000"):
        trust_of(*[entry(GATE)] * 1001)


def test_policies():
    digest, other = "a" * 64, "b" * 64
    assert not trust_of().allows_policy(digest)
    assert not trust_of(policy_sha256=[digest]).allows_policy(other)
    assert trust_of(policy_sha256=[other, digest]).allows_policy(digest)
    assert trust_of(policy_sha256=["*"]).allows_policy(digest)
    assert trust_of().key("0" * 64) is None
