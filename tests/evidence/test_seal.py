"""The seal: what it proves, what it refuses, and that no change of any bit goes through."""

from __future__ import annotations

import copy
import json
import random
import struct
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_decisionos.errors import EvidenceError, KeysError
from pytest_decisionos.evidence.digest import digest, digest_fault
from pytest_decisionos.evidence.seal import check, sealed, verify
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.seal import Seal
from pytest_decisionos.testing import healthy
from pytest_decisionos.trust.keys import canonical, make_ring

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
TARGET = {"service": "checkout", "environment": "production", "region": "eu-1", "tenant": "all"}
KEY = {"key_id": "k1", "secret": "made-up for tests, of 32 bytes or more", "state": "active"}


def ring(*changes):
    return make_ring([KEY | change for change in changes or ({},)], "test ring")


RING = ring({"use": ["evidence"]})


def seal(blocks=None, keys=RING, now=NOW):
    return sealed({"meta": {"target": TARGET}, "perf": {"p95": 1.5, "count": 3}} if blocks is None else blocks, keys, now=now)  # fmt: skip


def cause(document, keys=RING, **more):
    found = verify(document, keys, **({"now": NOW} | more))
    assert (found.state == "refused") is bool(found.cause) is bool(found.message)
    return found.cause if found.state == "refused" else found.state


# RFC 8785


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("ffefffffffffffff", "-1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("c340000000000000", "-9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("7fffffffffffffff", None),
        ("7ff0000000000000", None),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555554", "333333333.33333325"),
        ("41b3de4355555555", "333333333.3333333"),
        ("41b3de4355555556", "333333333.3333334"),
        ("41b3de4355555557", "333333333.33333343"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_rfc_8785_appendix_b(bits, text):
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    if text is None:
        with pytest.raises(ValueError, match="not representable"):
            canonical({"n": value})
    else:
        assert canonical({"n": value}) == f'{{"n":{text}}}'.encode()


RFC_3_2_2 = rb"""{
  "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
  "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
  "literals": [null, true, false]
}"""
RFC_3_2_4 = """
7b 22 6c 69 74 65 72 61 6c 73 22 3a 5b 6e 75 6c 6c 2c 74 72 75 65 2c 66 61 6c 73 65 5d 2c 22 6e
75 6d 62 65 72 73 22 3a 5b 33 33 33 33 33 33 33 33 33 2e 33 33 33 33 33 33 33 2c 31 65 2b 33 30
2c 34 2e 35 2c 30 2e 30 30 32 2c 31 65 2d 32 37 5d 2c 22 73 74 72 69 6e 67 22 3a 22 e2 82 ac 24
5c 75 30 30 30 66 5c 6e 41 27 42 5c 22 5c 5c 5c 5c 5c 22 2f 22 7d
"""
RFC_3_2_3 = rb"""{
  "\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh",
  "1": "One", "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control",
  "\u00f6": "Latin Small Letter O With Diaeresis"
}"""


def test_rfc_8785_serialisation():
    assert canonical(strict_json.loads(RFC_3_2_2)) == bytes.fromhex(RFC_3_2_4)


def test_rfc_8785_sorting():
    made = json.loads(canonical(strict_json.loads(RFC_3_2_3)))
    assert [name.split()[0] for name in made.values()] == [
        *("Carriage", "One", "Control", "Latin", "Euro", "Emoji:", "Hebrew")
    ]


# What a seal says


def test_a_seal_by_its_form():
    blocks = {
        "meta": {"target": TARGET},
        "perf": {"p95": 1.5},
        "rating": None,
        "integrity": {"x": 1},
    }
    document = sealed(blocks, RING, now=NOW.replace(microsecond=123_999))
    assert list(document) == ["meta", "perf", "integrity"]
    mac = document["integrity"].pop("mac")
    assert document["integrity"] == {"signature_sha256": digest(blocks)}
    created = "2026-01-15T12:00:00.123Z"
    assert (mac["alg"], mac["key_id"], mac["created"]) == ("HMAC-SHA256", "k1", created)
    # The formula, made again by hand.
    message = (
        '{"blocks":{"meta":{"target":{"environment":"production","region":"eu-1",'
        '"service":"checkout","tenant":"all"}},"perf":{"p95":1.5}},"created":"' + created + '",'
        '"target":{"environment":"production","region":"eu-1","service":"checkout","tenant":"all"},'
        '"use":"evidence"}'
    )
    import hashlib
    import hmac

    value = hmac.new(KEY["secret"].encode(), message.encode(), hashlib.sha256).hexdigest()
    assert mac["value"] == value
    assert sealed(blocks) == {k: blocks[k] for k in ("meta", "perf")} | {
        "integrity": {"signature_sha256": digest(blocks)}
    }


def test_a_valid_seal():
    document = seal()
    found = verify(document, RING, now=NOW)
    assert found == Seal(state="valid", key_id="k1", created="2026-01-15T12:00:00.000Z")
    assert verify(document, None, now=NOW) == Seal()
    assert verify(seal(keys=None), None, now=NOW) == Seal()


def test_with_keys_a_right_digest_is_not_enough():
    assert cause(seal(keys=None)) == "missing"
    assert cause(seal(keys=None), None) == "unchecked"


def test_a_key_that_serves_every_use_seals_by_a_sub_key():
    keys = ring({"use": []})
    assert cause(seal(keys=keys), keys) == "valid"
    assert cause(seal(keys=keys), RING) == "tampered"
    assert cause(seal(), keys) == "tampered"


def changed(document, **changes):
    """``document`` with things put into it: ``meta__target`` is the path; digest made good again."""
    made = copy.deepcopy(document)
    for path, value in changes.items():
        place = made
        *steps, last = path.split("__")
        for step in steps:
            place = place[step]
        if value is KeyError:
            del place[last]
        else:
            place[last] = value
    if isinstance(made.get("integrity"), dict) and "signature_sha256" not in str(changes):
        made["integrity"]["signature_sha256"] = digest(made)
    return made


DOCUMENT = seal()
UPPER = DOCUMENT["integrity"]["mac"]["value"].upper()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "valid"),
        ({"perf__p95": 1.4}, "tampered"),
        ({"perf__count": True}, "tampered"),
        ({"perf__count": "3"}, "tampered"),
        ({"perf__extra": None}, "tampered"),
        ({"perf": KeyError}, "tampered"),
        ({"usage": {}}, "tampered"),
        ({"usage": None}, "tampered"),
        ({"meta__target__service": "other"}, "tampered"),
        ({"meta__target__environment": "staging"}, "tampered"),
        ({"meta__target__region": KeyError}, "tampered"),
        ({"meta__target__more": "x"}, "missing"),
        ({"meta__target": KeyError}, "missing"),
        ({"meta__target": "checkout"}, "missing"),
        ({"meta": []}, "missing"),
        ({"perf__count": 2**60}, "out_of_range"),
        ({"integrity": KeyError}, "missing"),
        ({"integrity": []}, "missing"),
        ({"integrity": {}}, "missing"),
        ({"integrity__signature_sha256": KeyError}, "missing"),
        ({"integrity__signature_sha256": None}, "missing"),
        ({"integrity__signature_sha256": 5}, "wrong_type"),
        ({"integrity__signature_sha256": DOCUMENT["integrity"]["signature_sha256"].upper()}, "wrong_type"),
        ({"integrity__signature_sha256": "é" * 64}, "wrong_type"),
        ({"integrity__signature_sha256": "0" * 64 + "\n"}, "wrong_type"),
        ({"integrity__signature_sha256": "0" * 64}, "tampered"),
        ({"integrity__more": None}, "wrong_type"),
        ({"integrity__mac": KeyError}, "missing"),
        ({"integrity__mac": None}, "missing"),
        ({"integrity__mac": UPPER}, "wrong_type"),
        ({"integrity__mac__more": "x"}, "wrong_type"),
        ({"integrity__mac__alg": KeyError}, "wrong_type"),
        ({"integrity__mac__alg": "none"}, "wrong_type"),
        ({"integrity__mac__alg": "hmac-sha256"}, "wrong_type"),
        ({"integrity__mac__value": UPPER}, "wrong_type"),
        ({"integrity__mac__value": "é" * 64}, "wrong_type"),
        ({"integrity__mac__value": "０" * 64}, "wrong_type"),
        ({"integrity__mac__value": ""}, "wrong_type"),
        ({"integrity__mac__value": 5}, "wrong_type"),
        ({"integrity__mac__value": "0" * 64}, "tampered"),
        ({"integrity__mac__key_id": "k2"}, "unknown_key"),
        ({"integrity__mac__key_id": ["k1"]}, "wrong_type"),
        ({"integrity__mac__created": "2026-01-15T12:00:00.001Z"}, "tampered"),
        ({"integrity__mac__created": "2026-01-15T12:00:00.000+00:00"}, "tampered"),
        ({"integrity__mac__created": "2026-01-15T12:00:06Z"}, "out_of_range"),
        ({"integrity__mac__created": "2026-01-15T12:00:00"}, "out_of_range"),
        ({"integrity__mac__created": "0001-01-01T00:00:00+14:00"}, "tampered"),
        ({"integrity__mac__created": "9999-12-31T23:59:59-14:00"}, "out_of_range"),
        ({"integrity__mac__created": "now"}, "out_of_range"),
        ({"integrity__mac__created": None}, "wrong_type"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_seal_does_not_let_through(changes, expected):
    assert cause(changed(DOCUMENT, **changes)) == expected


def test_a_value_without_its_digest_is_found_without_keys():
    made = copy.deepcopy(DOCUMENT)
    made["perf"]["count"] = 3.0  # the same number, spelled as another type
    assert cause(made, None) == "tampered"
    assert digest_fault(DOCUMENT) is None


def test_swapped_seals():
    one, two = seal(), seal({"meta": {"target": TARGET}, "perf": {"p95": 9}})
    for left, right in ((one, two), (two, one)):
        assert cause(left | {"integrity": right["integrity"]}) == "tampered"
        mac = right["integrity"]["mac"]
        swapped = left["integrity"] | {"mac": mac}
        assert cause(left | {"integrity": swapped}) == "tampered"


def test_what_another_use_made_is_no_seal():
    other = ring({"use": ["request"]})
    blocks = {"meta": {"target": TARGET}}
    with pytest.raises(KeysError, match="no key is active for evidence"):
        sealed(blocks, other, now=NOW)
    document = seal(blocks)
    assert cause(document, other) == "wrong_use"
    # The same secret, the same message; but made as a request.
    mac = document["integrity"]["mac"]
    message = canonical({"use": "request", "target": TARGET, "created": mac["created"], "blocks": blocks})  # fmt: skip
    mac["value"] = other.keys[0].mac("request", message)
    assert cause(document) == "tampered"


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("change", "anchored", "expected"),
    [
        ({"state": "active"}, None, "valid"),
        ({"state": "grace"}, None, "valid"),
        ({"state": "revoked"}, NOW, "revoked_key"),
        ({"state": "retired", "not_after": NOW + HOUR}, None, "retired_key"),
        ({"state": "retired", "not_after": NOW + HOUR}, NOW, "valid"),
        ({"state": "retired", "not_after": NOW + HOUR}, NOW + 2 * HOUR, "retired_key"),
        ({"state": "retired"}, NOW, "retired_key"),
        ({"not_before": NOW + HOUR}, None, "outside_validity"),
        ({"not_after": NOW - HOUR}, None, "outside_validity"),
        ({"not_before": NOW, "not_after": NOW + HOUR}, None, "valid"),
        ({"secret": "another one, of 32 bytes or even more"}, None, "tampered"),
        ({"key_id": "k2"}, None, "unknown_key"),
    ],
    ids=str,
)
def test_states_of_keys(change, anchored, expected):
    timed = {k: v.isoformat() if isinstance(v, datetime) else v for k, v in change.items()}
    keys = ring({"use": ["evidence"]} | timed)
    assert cause(DOCUMENT, keys, anchored_at=anchored) == expected
    assert check(DOCUMENT, keys, now=NOW, anchored_at=anchored).cause == (
        "" if expected == "valid" else expected
    )


@pytest.mark.parametrize(
    "change",
    [{"state": "grace"}, {"state": "retired"}, {"not_before": "2026-01-15T12:00:00.001Z"}, {"not_after": "2026-01-15T11:59:59Z"}],
)  # fmt: skip
def test_who_does_not_seal(change):
    with pytest.raises(KeysError):
        seal(keys=ring(change))


def test_a_key_verifies_from_the_very_time_on_that_it_seals():
    for micro in (123_400, 123_500, 123_999):
        keys = ring({"use": ["evidence"], "not_before": "2026-01-15T12:00:00.123400Z"})
        now = NOW.replace(microsecond=micro)
        with pytest.raises(KeysError):  # the seal would say .123: before the key was valid
            seal(keys=keys, now=now)
    now = NOW.replace(microsecond=124_000)
    assert cause(seal(keys=keys, now=now), keys, now=now) == "valid"


@pytest.mark.parametrize(
    ("blocks", "says"),
    [
        ({"perf": {}}, "/meta/target"),
        ({"meta": {"target": {"service": "x"}}}, "/meta/target"),
        ({"meta": {"target": TARGET}, "a": {"b": [0, {"c": 2**53}]}}, "/a/b/1/c: has no RFC 8785"),
        ({"meta": {"target": TARGET}, "a": -(2**60)}, "/a: has no RFC 8785 form"),
    ],
)
def test_what_cannot_be_sealed(blocks, says):
    with pytest.raises(EvidenceError) as caught:
        seal(blocks)
    assert says in str(caught.value)


def test_a_seal_tells_no_secret():
    assert KEY["secret"] not in repr(DOCUMENT) + repr(RING) + str(verify(DOCUMENT, RING, now=NOW))


# Properties

text = st.text(st.characters(codec="utf-8"), max_size=6)
numbers = st.integers(1 - 2**53, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)
documents = st.dictionaries(text.filter(lambda name: name not in {"meta", "integrity"}), values, max_size=4).map(
    lambda blocks: {"meta": {"target": TARGET}} | blocks
)  # fmt: skip


@given(documents)
def test_what_is_sealed_is_valid(blocks):
    document = seal(blocks)
    data = strict_json.dumps(document).encode()
    for read in (document, strict_json.loads(data)):
        assert cause(read) == "valid"
        assert cause(read, None) == "unchecked"


def leaves(value, path=()):
    if isinstance(value, dict | list) and value:
        for step, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, step))
    else:
        yield path


@given(documents, values, st.data())
def test_any_changed_value_is_refused(blocks, value, data):
    document = seal(blocks)
    path = data.draw(st.sampled_from(list(leaves(blocks))))
    made = copy.deepcopy(document)
    place = made
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    strict = cause(made)
    assert (
        strict == ("valid" if exact(made) == exact(document) else "tampered") or path[0] == "meta"
    )
    # Whoever changes it can make the digest good again, but not the MAC.
    made["integrity"]["signature_sha256"] = digest(made)
    del document["integrity"]
    integrity = made.pop("integrity")
    nothing_changed = canonical(made) == canonical(document)
    assert (cause(made | {"integrity": integrity}) == "valid") is nothing_changed


def exact(value):
    """``value`` with the types told apart: 1, 1.0, True, -0.0 are four."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items() if key != "integrity"}
    return [exact(item) for item in value] if isinstance(value, list) else repr(value)


def respelled(value, draw):
    """Another spelling of the same JSON value, down to the types that Python reads from it."""
    space = draw.choice(["", " ", "\n", "\t ", "\r\n"])
    if isinstance(value, dict):
        items = list(value.items())
        draw.shuffle(items)
        return "{" + ",".join(f"{space}{respelled(k, draw)}{space}:{respelled(v, draw)}" for k, v in items) + space + "}"  # fmt: skip
    if isinstance(value, list):
        return "[" + ",".join(space + respelled(item, draw) for item in value) + space + "]"
    if isinstance(value, str):
        return "".join(_letter(c, draw) for c in value).join('""')
    if isinstance(value, float):
        plain = repr(value)
        if "e" not in plain:
            return plain + "0" * draw.randrange(3)
        return draw.choice([plain, plain.upper(), plain.replace("e", "0e" if "." in plain else ".0e")])  # fmt: skip
    return json.dumps(value)


def _letter(c, draw):
    if draw.random() < 0.5:
        units = c.encode("utf-16-be")
        pairs = [units[i : i + 2].hex() for i in range(0, len(units), 2)]
        return "".join("\\u" + (p.upper() if draw.random() < 0.5 else p) for p in pairs)
    return json.dumps(c, ensure_ascii=False)[1:-1]


@given(documents, st.integers(0, 2**32).map(random.Random))
def test_another_spelling_is_no_change(blocks, draw):
    document = seal(blocks)
    again = strict_json.loads(respelled(document, draw).encode())
    assert exact(again) == exact(document)
    assert cause(again) == "valid"
    assert cause(again, None) == "unchecked"


# Every bit


def sample():
    """A sealed document of about 4 kB with every kind of value and of spelling in it."""
    blocks = healthy(NOW)
    kept = {
        name: blocks[name] for name in ("meta", "witness", "budget", "quota", "usage", "anomaly")
    }
    perf = blocks["perf"]
    perf["groups"] = [{**perf["groups"][3], "limits": {}}]
    perf["release_notes"] = "한글 텍스트 " * 15
    kept |= {
        "perf": perf,
        "rating": {
            "무료": '한글 é 😀 "quoted" \\ / \n',
            "numbers": [0, -1, 10, 100, 1e5, 1e-7, 1.5e300, -0.25, 9007199254740991],
            "flags": [True, False, None, "true", "", [], {}],
        },
    }
    document = sealed(kept, RING, now=NOW)
    text = strict_json.dumps(document).replace("한글 é", "\\ud55c\\uae00 \\u00E9").replace("1e-07", "1E-07")  # fmt: skip
    data = text.encode()
    assert 3500 < len(data) < 4600
    assert cause(strict_json.loads(data)) == "valid"
    return document, data


@pytest.mark.untraced
def test_every_bit_flipped():
    document, data = sample()
    before = exact(document)
    refused = {"reader": 0, "digest": 0, "MAC": 0}
    same = unseen = 0
    changed = bytearray(data)
    for bit in range(len(data) * 8):
        changed[bit // 8] ^= 1 << bit % 8
        try:
            found = strict_json.loads(bytes(changed), error=EvidenceError)
        except EvidenceError:
            found = None
        changed[bit // 8] ^= 1 << bit % 8
        if not isinstance(found, dict):
            refused["reader"] += 1
        elif digest_fault(found) is not None:
            refused["digest"] += 1
        else:
            # The digest covers every value but itself and the MAC.
            assert exact(found) == before, bit
            if check(found, RING, now=NOW).state == "valid":
                assert repr(found["integrity"]) == repr(document["integrity"]), bit
                same += 1
            else:
                refused["MAC"] += 1
                unseen += 1
    assert bytes(changed) == data
    assert min(refused.values()) > 100, refused
    # Upper case of an escape or exponent, and white space: nothing else reads as the same.
    assert 0 < same < 100
    assert unseen < 8 * len(json.dumps(document["integrity"]["mac"], indent=8))
