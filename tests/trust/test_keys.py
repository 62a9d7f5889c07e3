"""The key ring: published vectors, forms of a secret, who verifies what when; and no secret told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import string
from datetime import UTC, datetime, timedelta

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pytest_decisionos.errors import KeysError, SignatureError
from pytest_decisionos.trust.keys import (
    MAX_KEYS,
    USES,
    KeyEntry,
    canonical,
    fingerprint,
    make_ring,
    parse_ring,
    ring_json,
)

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECRET = "correct horse battery staple, and more"


def entry(key_id="k", state="active", use=("request",), secret=SECRET, **more):
    return {"key_id": key_id, "secret": secret, "state": state, "use": list(use), **more}


def ring(*entries):
    return make_ring(list(entries), "here")


# Published vectors. RFC 4231 §4: number, key, data, HMAC-SHA-256 (of case 5 the first 128 bits).

RFC_4231 = [
    (1, "0b" * 20, b"Hi There".hex(), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (2, b"Jefe".hex(), b"what do ya want for nothing?".hex(), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    (3, "aa" * 20, "dd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    (4, "0102030405060708090a0b0c0d0e0f10111213141516171819", "cd" * 50, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    (5, "0c" * 20, b"Test With Truncation".hex(), "a3b6167473100ee06e0c796c2955552b"),
    (6, "aa" * 131, b"Test Using Larger Than Block-Size Key - Hash Key First".hex(), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
    (7, "aa" * 131, b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.".hex(), "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "key", "data", "expected"), RFC_4231, ids=lambda v: str(v)[:4])
def test_rfc_4231(number, key, data, expected):
    # HMAC fills a key shorter than a block with zeros (RFC 2104 §2), so zeros behind a short key of
    # the RFC change nothing, and bring it to the length that we ask for.
    raw = bytes.fromhex(key).ljust(32, b"\0")
    made = KeyEntry.model_validate(entry(secret=f"hex:{raw.hex()}")).mac(
        "request", bytes.fromhex(data)
    )
    assert len(made) == 64
    assert made[: len(expected)] == expected


def hkdf(ikm, info, length, salt=b""):
    """RFC 5869 §2, by hmac alone."""
    prk = hmac.digest(salt or bytes(32), ikm, "sha256")
    made, block = b"", b""
    for i in range(1, -(-length // 32) + 1):
        block = hmac.digest(prk, block + info + bytes([i]), "sha256")
        made += block
    return made[:length]


def test_rfc_5869_holds_for_the_sub_keys():
    # A.1 and A.3: what the tests compare with is right.
    ikm = b"\x0b" * 22
    info = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9")
    okm1 = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    okm3 = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert hkdf(ikm, info, 42, salt=bytes(range(13))).hex() == okm1
    assert hkdf(ikm, b"", 42).hex() == okm3
    for use in USES:
        key = KeyEntry.model_validate(entry(use=()))
        sub = hkdf(SECRET.encode(), f"decisionos/{use}".encode(), 32)
        assert key.mac(use, b"m") == hmac.digest(sub, b"m", "sha256").hex()


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("secret", [SECRET, f"hex:{'ab' * 32}", "한글 비밀 " * 8])
def test_mac_key_is_what_macs_are_made_with(use, secret):
    shared = KeyEntry.model_validate(entry(use=(), secret=secret))
    own = KeyEntry.model_validate(entry(use=(use,), secret=secret))
    assert shared.mac_key(use) == hkdf(shared.raw, f"decisionos/{use}".encode(), 32)
    assert own.mac_key(use) == own.raw
    for key in (shared, own):
        assert key.mac(use, b"m") == hmac.digest(key.mac_key(use), b"m", "sha256").hex()


def test_one_uses_mac_is_worthless_for_another():
    shared = KeyEntry.model_validate(entry(use=()))
    own = KeyEntry.model_validate(entry(use=("request",)))
    made = {shared.mac(use, b"m") for use in USES} | {own.mac("request", b"m")}
    assert len(made) == 4


# The forms of a secret

RAW = bytes(range(32))


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        (f"hex:{RAW.hex()}", RAW),
        (f"hex:{RAW.hex().upper()}", RAW),
        (f"b64:{base64.b64encode(RAW).decode()}", RAW),
        ("x" * 32, b"x" * 32),
        ("한" * 11, ("한" * 11).encode()),  # 33 bytes: bytes count, not characters
        ("hax:" + "0" * 28, b"hax:" + b"0" * 28),
        ("HEX:" + "0" * 28, b"HEX:" + b"0" * 28),
    ],
)
def test_forms_of_a_secret(text, raw):
    assert KeyEntry.model_validate(entry(secret=text)).raw == raw


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x" * 31, "shorter than 32 bytes"),
        ("", "shorter than 32 bytes"),
        (f"hex:{RAW[:31].hex()}", "shorter than 32 bytes"),
        (f"b64:{base64.b64encode(RAW[:31]).decode()}", "shorter than 32 bytes"),
        ("hex:" + "zz" * 32, "not the hex"),
        ("hex:" + "0" * 63, "not the hex"),
        ("b64:" + "*" * 44, "not the b64"),
        (f"b64:{base64.b64encode(RAW).decode()[:-1]}", "not the b64"),
        ("b64:" + "한" * 32, "not the b64"),
        ("x" * 4097, "at most 4096"),
    ],
)
def test_secrets_that_are_none(text, says):
    with pytest.raises(KeysError, match=says) as caught:
        ring(entry(secret=text))
    assert not text or text not in str(caught.value)


# What is no ring


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([], "a list of one key or more"),
        ({}, "a list of one key or more"),
        ("x", "a list of one key or more"),
        ([1], "keys[0]: "),
        ([entry(), entry()], "two keys have one key_id"),
        ([entry("a"), entry("b")], "a, b are all active for request"),
        ([entry("a"), entry("b", use=())], "a, b are all active for request"),
        ([entry("a", use=("stage",)), entry("b", use=("request", "stage"))], "active for stage"),
        ([entry(state="Active")], "keys[0].state: "),
        ([entry(use=("sign",))], "keys[0].use[0]: "),
        ([entry(use=("stage", "stage"))], "a use stands twice"),
        ([{**entry(), "use": "request"}], "keys[0].use: "),
        ([entry(key_id="")], "keys[0].key_id: "),
        ([entry(key_id="한글")], "keys[0].key_id: "),
        ([entry(key_id="a b")], "keys[0].key_id: "),
        ([entry(key_id="x" * 65)], "keys[0].key_id: "),
        ([entry(key_id=1)], "keys[0].key_id: "),
        ([{**entry(), "secret": 1}], "keys[0].secret: "),
        ([{"key_id": "k", "state": "active"}], "keys[0].secret: Field required"),
        ([{**entry(), "usage": []}], "keys[0].usage: Extra"),
        ([entry(not_before="2026-01-05T09:00:00")], "keys[0].not_before: "),
        ([entry(not_before="2026-01-05T09:00:00Z", not_after="2026-01-05T09:00:00Z")], "not before not_after"),
        ([entry(not_after="never")], "keys[0].not_after: "),
        ([entry(f"k{i}", "retired") for i in range(MAX_KEYS + 1)], "at most 256"),
    ],
)  # fmt: skip
def test_what_is_no_ring(entries, says):
    with pytest.raises(KeysError) as caught:
        make_ring(entries, "here")
    text = str(caught.value)
    assert says in text
    assert text.startswith("here: ")
    assert SECRET not in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "data",
    [b"", b" ", b"{", b"null", b"NaN", b"\xff", b"[", b'[{"a": 1, "a": 2}]', b"[1e999]", b"[" * 5000]
    + [b'"' + SECRET.encode(), SECRET.encode(), b'{"' + SECRET.encode() + b'": 1, "' + SECRET.encode() + b'": 2}'],
)  # fmt: skip
def test_what_is_no_json(data):
    with pytest.raises(KeysError, match="a JSON list of keys|a list of one key") as caught:
        parse_ring(data, "here")
    assert SECRET not in str(caught.value)


def test_too_large_is_refused_unread():
    with pytest.raises(KeysError, match="not a key ring"):
        parse_ring(b"[" + b" " * 1024 * 1024 + b"]", "here")


# Which key signs


def test_the_active_key_signs():
    found = ring(entry("a"), entry("b", "grace"), entry("c", use=("stage",)))
    assert found.signing("request", NOW).key_id == "a"
    assert found.signing("stage", NOW).key_id == "c"
    with pytest.raises(KeysError, match="no key is active for evidence.*rotate --use evidence"):
        found.signing("evidence", NOW)


@pytest.mark.parametrize("state", ["grace", "retired", "revoked"])
def test_no_other_key_signs(state):
    with pytest.raises(KeysError, match="no key is active for request"):
        ring(entry(state=state)).signing("request", NOW)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (NOW, NOW + HOUR, None),
        (NOW - HOUR, NOW, None),
        (NOW + HOUR, None, "is valid only from 2026-01-05T10"),
        (None, NOW - HOUR, "was valid only until 2026-01-05T08"),
    ],
)
def test_an_active_key_signs_only_in_its_time(before, after, says):
    found = ring(entry(not_before=before, not_after=after))
    if says is None:
        assert found.signing("request", NOW).key_id == "k"
    else:
        with pytest.raises(KeysError, match=f"the active key of request {says}"):
            found.signing("request", NOW)


# Which key verifies: states × uses × times

LONG = {"not_before": NOW - HOUR, "not_after": NOW + HOUR}
BEFORE, AFTER = NOW - 2 * HOUR, NOW + 2 * HOUR
TABLE = [
    # state, use, times, for, made at, anchored at, cause of the refusal
    (state, use, {}, wanted, NOW, None, None if right else "wrong_use")
    for state in ("active", "grace")
    for use, wanted, right in [
        (("request",), "request", True),
        (("request",), "stage", False),
        (("evidence", "stage"), "stage", True),
        ((), "evidence", True),
    ]
] + [
    *((state, (), LONG, "request", at, None, cause)
      for state in ("active", "grace")
      for at, cause in [(NOW, None), (NOW - HOUR, None), (NOW + HOUR, None),
                        (NOW - HOUR - timedelta(microseconds=1), "outside_validity"),
                        (NOW + HOUR + timedelta(microseconds=1), "outside_validity")]),
    *(("retired", (), LONG, "evidence", at, anchored, cause)
      for at, anchored, cause in [
          (NOW, None, "retired_key"),
          (NOW, NOW, None),
          (NOW, NOW + HOUR, None),
          (NOW, AFTER, "retired_key"),
          (BEFORE, NOW, "outside_validity"),
          (AFTER, NOW, "outside_validity"),
          (AFTER, AFTER, "retired_key"),
      ]),
    ("retired", (), {}, "evidence", NOW, NOW, "retired_key"),  # an end that nobody knows is none
    ("retired", ("stage",), LONG, "evidence", NOW, NOW, "wrong_use"),
    *(("revoked", use, times, wanted, NOW, anchored, "revoked_key")
      for use, wanted in [((), "request"), (("stage",), "stage"), (("stage",), "request")]
      for times in ({}, LONG)
      for anchored in (None, NOW)),
    ("active", (), LONG, "stage", NOW, AFTER, None),  # when it was anchored counts for retired ones only
    ("grace", (), LONG, "stage", NOW, AFTER, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "use", "times", "wanted", "made_at", "anchored_at", "cause"), TABLE
)
def test_who_verifies(state, use, times, wanted, made_at, anchored_at, cause):
    found = ring(entry(state=state, use=use, **times))
    if cause is None:
        key = found.verifying(wanted, "k", made_at=made_at, anchored_at=anchored_at)
        assert key.key_id == "k"
        return
    with pytest.raises(SignatureError) as caught:
        found.verifying(wanted, "k", made_at=made_at, anchored_at=anchored_at)
    assert caught.value.cause == cause
    assert SECRET not in str(caught.value)


def test_an_unknown_key_verifies_nothing():
    with pytest.raises(SignatureError, match="no such key; found other") as caught:
        ring(entry()).verifying("request", "other", made_at=NOW)
    assert caught.value.cause == "unknown_key"


# Writing and reading


def test_a_ring_is_read_as_it_was_written():
    found = ring(
        entry("a", not_before=NOW, not_after=NOW + HOUR),
        entry("b", "grace", use=(), secret="비밀" * 8),
        entry("c", "revoked", secret=f"hex:{RAW.hex()}"),
    )
    again = parse_ring(ring_json(found), "here")
    assert again == found
    assert [key.raw for key in again.keys] == [key.raw for key in found.keys]


def test_a_byte_order_mark_is_no_fault():
    assert parse_ring(b"\xef\xbb\xbf" + json.dumps([entry()]).encode(), "here").keys


def test_canonical_and_fingerprint():
    assert canonical({"b": 1.0, "a": "é"}) == '{"a":"é","b":1}'.encode()
    with pytest.raises(ValueError, match="."):
        canonical({"a": 2**60})
    with pytest.raises(ValueError, match="."):
        canonical({"a": float("nan")})
    assert fingerprint(b"abc") == hashlib.sha256(b"abc").hexdigest()


# No secret is told

secret_texts = st.text(
    st.sampled_from(string.ascii_letters + string.digits + "+/=-_.{}[]\",:' 한글"),
    min_size=32,
    max_size=60,
)
# One thing that is wrong with an entry that holds a secret.
FAULTS = {
    "not a list": lambda e, s: e,
    "secret is the entry": lambda e, s: [s],
    "secret is the key_id": lambda e, s: [{**e, "key_id": "_" + s}],
    "secret is the state": lambda e, s: [{**e, "state": s}],
    "secret is a use": lambda e, s: [{**e, "use": [s]}],
    "secret is a time": lambda e, s: [{**e, "not_before": s}],
    "secret is a field": lambda e, s: [{**e, s: 1}],
    "secret in a list": lambda e, s: [{**e, "secret": [s]}],
    "secret in an object": lambda e, s: [{**e, "secret": {s: s}}],
    "false hex": lambda e, s: [{**e, "secret": f"hex:{s}!"}],
    "false b64": lambda e, s: [{**e, "secret": f"b64:{s}!"}],
    "twice": lambda e, s: [e, e],
    "two active": lambda e, s: [e, {**e, "key_id": "other"}],
    "times": lambda e, s: [{**e, "not_before": "2026-01-05T09:00:00Z", "not_after": "2026-01-05T08:00:00Z"}],
    "no state": lambda e, s: [{k: v for k, v in e.items() if k != "state"}],
}  # fmt: skip


@given(secret_texts, st.sampled_from(sorted(FAULTS)))
def test_no_error_tells_a_secret(secret, fault):
    bad = FAULTS[fault](entry(secret=secret), secret)
    with pytest.raises(KeysError) as caught:
        make_ring(bad, "here")
    assert_untold(secret, caught.value)
    with pytest.raises(KeysError) as caught:
        parse_ring(json.dumps(bad, ensure_ascii=False).encode(), "here")
    assert_untold(secret, caught.value)


def assert_untold(secret, fault):
    for text in (str(fault), repr(fault), repr(vars(fault))):
        assert secret not in text
        assert repr(secret)[1:-1] not in text
    assert fault.__cause__ is None


@given(secret_texts, st.integers(0, 400), st.sampled_from(["", "}", "\x00", ",", "é"]))
def test_no_error_of_a_broken_document_tells_a_secret(secret, cut, put):
    data = json.dumps([entry(secret=secret)], ensure_ascii=False)
    broken = data[:cut] + put + data[cut + 1 :]
    try:
        parse_ring(broken.encode(), "here")
    except KeysError as fault:
        assert secret not in str(fault)
        assert len(str(fault)) < 300


@given(secret_texts)
def test_nothing_shows_a_secret(secret):
    found = ring(entry(secret=secret))
    key = found.keys[0]
    for text in (
        repr(found),
        str(found),
        repr(key),
        str(key),
        f"{key}",
        repr(found.model_dump()),
        repr(dict(key)),
    ):
        assert secret not in text
        assert repr(secret)[1:-1] not in text
    with pytest.raises(ValidationError) as caught:
        KeyEntry.model_validate({**entry(secret=secret), "state": "x"})
    assert secret not in str(caught.value)
    assert key.raw == secret.encode()


NUMBERS = st.one_of(
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [-0.0, 0.0, 1.0, 1e15, 1e16, 1e20, 1e21, 1e-4, 9.9e-5, 1e-6, 1e-7, 5e-324, 0.1]
    ),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.slow
@settings(max_examples=200)
@given(
    st.dictionaries(
        TEXTS,
        st.recursive(
            st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
            lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
            max_leaves=12,
        ),
    )
)
def test_the_fast_way_is_the_librarys_way(value):
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value",
    [
        {"\U0001f600": 1, "\ufb33": 2},  # as UTF-16 the other way round than as code points
        {"a": 1e-5},
        {"a": 1e21},
        {"a": (1, 2)},
        {"a": '\x7f\u2028\x00\x1f\b\t\n\f\r"\\/'},
    ],
)
def test_what_python_spells_otherwise(value):
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value",
    [{"a": 2**53}, {"a": float("nan")}, {"a": float("inf")}, {"a": "\ud800"}, {"\ud800": 1}],
)
def test_what_has_no_canonical_form(value):
    with pytest.raises(ValueError, match=".+"):
        canonical(value)
