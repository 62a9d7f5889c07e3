"""DSSE: whoever did not sign these very bytes, of this type, is never named."""

import json
import os
from base64 import b64decode, b64encode, urlsafe_b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seeded import from_seed

from pytest_decisionos.errors import UnusableInputError
from pytest_decisionos.trust import dsse

VECTORS = Path(__file__).parents[2] / "../shared/vectors/dsse.json"
A, B, C = (from_seed(bytes([seed]) * 32) for seed in (1, 2, 3))
TRUSTED = {key.keyid: key.public for key in (A, B)}
PAYLOAD = '{"verdict": "GO", "이유": "모두 통과"}'.encode()


def document(*keys, payload=PAYLOAD, kind=dsse.IN_TOTO):
    """What ``dsse.sign`` makes; ``kind`` is of a payload that is no in-toto statement."""
    message = dsse.pae(payload, kind)
    return {
        "payloadType": kind,
        "payload": b64encode(payload).decode(),
        "signatures": [
            {"keyid": key.keyid, "sig": b64encode(key.sign(message)).decode()} for key in keys
        ],
    }


def parsed(made):
    return dsse.parse(json.dumps(made).encode())


def signers(made):
    return dsse.signers(parsed(made), TRUSTED)


# The published vectors


def vectors():
    return json.loads(VECTORS.read_text()) if VECTORS.is_file() else {"vectors": []}


@pytest.mark.skipif(not VECTORS.is_file(), reason="the published vectors are not on this machine")
def test_there_are_nine_vectors():
    assert len(vectors()["vectors"]) == 9


@pytest.mark.parametrize("vector", vectors()["vectors"], ids=lambda vector: vector["id"])
def test_published_vectors(vector):
    keys = {}
    for name in vector["trustedKeys"]:
        listed = vectors()["keys"][name]
        private = from_seed(bytes.fromhex(listed["seed"]))
        assert private.public._key.public_bytes_raw().hex() == listed["public"]
        keys[name] = private.public
    envelope = parsed(vector["envelope"])
    signed = dsse.signers(envelope, keys)
    if vector["expect"] == "accept":
        assert set(signed) == set(keys)
        assert envelope.payload_type in vector["supportedPayloadTypes"]
    else:
        enough = len(signed) >= vector["threshold"]
        assert not enough or envelope.payload_type not in vector["supportedPayloadTypes"]


# What is signed


@pytest.mark.parametrize(
    ("payload", "kind", "encoded"),
    [
        # The example of the specification, and lengths that are of bytes, not of characters.
        (b"hello world", "http://example.com/HelloWorld",
         b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"),
        (b"", "", b"DSSEv1 0  0 "),
        (b"\xff\n", "가", b"DSSEv1 3 \xea\xb0\x80 2 \xff\n"),
    ],
)  # fmt: skip
def test_encoding(payload, kind, encoded):
    assert dsse.pae(payload, kind) == encoded


@given(st.binary(max_size=100), st.integers(0, 2))
def test_what_was_signed_comes_back(payload, count):
    data = dsse.sign(payload, [A, B][:count])
    envelope = dsse.parse(data)
    assert json.loads(data) == document(*[A, B][:count], payload=payload)
    assert (envelope.payload, envelope.payload_type) == (payload, dsse.IN_TOTO)
    assert dsse.signers(envelope, TRUSTED) == [A.keyid, B.keyid][:count]


# Who signed


def without_ids(made):
    for signature in made["signatures"]:
        del signature["keyid"]


def test_two_keys_are_two_signers_in_any_spelling():
    made = document(A, B)
    for change in (
        lambda m: None,
        without_ids,
        lambda m: [s.update(keyid="") for s in m["signatures"]],
        lambda m: [s.update(keyid="nobody") for s in m["signatures"]],
        lambda m: m["signatures"].reverse(),
        lambda m: m["signatures"].extend(document(C)["signatures"]),
        lambda m: m["signatures"].insert(0, {"sig": ""}),
        lambda m: m["signatures"].insert(0, {"sig": "AAAA", "keyid": A.keyid}),
    ):
        changed = json.loads(json.dumps(made))
        change(changed)
        assert set(signers(changed)) == {A.keyid, B.keyid}


def test_one_key_twice_is_one_signer():
    made = document(A, A, A)
    spellings = [
        made,
        {**made, "signatures": [made["signatures"][0], {"sig": made["signatures"][0]["sig"]}]},
        {
            **made,
            "signatures": [{**made["signatures"][0], "keyid": k} for k in ("", A.keyid, B.keyid)],
        },
    ]
    for spelling in spellings:
        assert signers(spelling) == [A.keyid]


def test_one_key_under_two_ids_of_the_caller_counts_once_by_each_signature():
    # The caller's mapping is of the trust file, where one key has one id; so is a signature's.
    keys = {"one": A.public, "two": A.public}
    made = document(A)
    del made["signatures"][0]["keyid"]
    assert dsse.signers(parsed(made), keys) == ["one"]


CHANGES = {
    "payload": lambda m: m.update(payload=b64encode(PAYLOAD + b" ").decode()),
    "no payload": lambda m: m.update(payload=""),
    "another's signature": lambda m: m.update(signatures=document(C)["signatures"]),
    "another's under our id": lambda m: m["signatures"][0].update(
        sig=document(C)["signatures"][0]["sig"]
    ),
    "the hint of another key": lambda m: m["signatures"][0].update(keyid=B.keyid),
    "a signature cut": lambda m: m["signatures"][0].update(
        sig=b64encode(b64decode(m["signatures"][0]["sig"])[:-1]).decode()
    ),
    "a signature and more": lambda m: m["signatures"][0].update(
        sig=b64encode(b64decode(m["signatures"][0]["sig"]) + b"\0").decode()
    ),
    "an empty signature": lambda m: m["signatures"][0].update(sig=""),
    "a signature of nothing": lambda m: m["signatures"][0].update(
        sig=b64encode(bytes(64)).decode()
    ),
    "of the bare payload": lambda m: m["signatures"][0].update(
        sig=b64encode(A.sign(PAYLOAD)).decode()
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_found(change):
    made = document(A)
    change(made)
    assert signers(made) == []


def test_signatures_swapped_between_two_envelopes():
    one, two = document(A, B), document(A, B, payload=b"[]")
    one["signatures"], two["signatures"] = two["signatures"], one["signatures"]
    assert signers(one) == signers(two) == []
    mixed = document(A, B)
    mixed["signatures"][0] = document(A, payload=b"[]")["signatures"][0]
    assert signers(mixed) == [B.keyid]


@given(st.binary(max_size=20), st.text(max_size=20), st.integers(0, 6))
def test_bytes_moved_between_type_and_payload_are_a_change(payload, kind, cut):
    made = document(A, payload=payload, kind=kind)
    moved = (kind.encode() + payload)[cut:]
    kind_ = (kind.encode() + payload)[:cut].decode("utf-8", "replace")
    changed = {**made, "payload": b64encode(moved).decode(), "payloadType": kind_}
    same = (moved, kind_) == (payload, kind)
    assert signers(changed) == ([A.keyid] if same else [])


def test_a_payload_type_swapped():
    made = document(A)
    made["payloadType"] = "application/json"
    assert signers(made) == []
    assert signers(document(A, kind="application/json")) == [A.keyid]


def test_unsigned_and_nobody_trusted():
    assert signers(document()) == []
    assert dsse.signers(parsed(document(A)), {}) == []


# Base64: one spelling of some bytes in each alphabet


@given(st.binary(max_size=80))
def test_both_alphabets(data):
    for encode in (b64encode, urlsafe_b64encode):
        made = document(payload=b"")
        made["payload"] = encode(data).decode()
        made["signatures"] = [{"sig": encode(data).decode()}]
        envelope = parsed(made)
        assert envelope.payload == envelope.signatures[0].sig == data


@given(st.text(st.sampled_from("AQgw+/-_= \n\0é"), max_size=9))
def test_what_is_taken_has_one_spelling(text):
    made = {"payloadType": "t", "payload": text, "signatures": []}
    try:
        data = parsed(made).payload
    except UnusableInputError:
        return
    assert text in {b64encode(data).decode(), urlsafe_b64encode(data).decode()}


SPELLINGS = {
    "trailing bits": "QR==",
    "trailing bits of two": "QUJ=",
    "no padding": "QQ",
    "half the padding": "QQ=",
    "more padding": "QQ===",
    "padding alone": "====",
    "padding for nothing": "QUJD====",
    "padding in the middle": "QQ==QQ==",
    "both alphabets": "-_+/",
    "both alphabets, apart": "-___++++",
    "a newline at the end": "QUJD\n",
    "a newline inside": "QU\nJD",
    "a space": "QU JD",
    "a letter that is none": "QUJ*",
    "wide letters": "ＱＵＪＤ",
    "a null": "QUJD\0",
    "one letter": "Q",
    "no text": 5,
    "nothing": None,
    "a list": ["QUJD"],
    "an object": {},
    "true": True,
}


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS)
def test_other_spellings_are_refused(text):
    for place in ("payload", "sig"):
        made = document(A)
        (made if place == "payload" else made["signatures"][0])[place] = text
        with pytest.raises(UnusableInputError, match="not Base64; expected with padding") as caught:
            dsse.parse(json.dumps(made).encode(), "verdict.json")
        assert caught.value.file == "verdict.json"
        assert caught.value.field == ("payload" if place == "payload" else "signatures.sig")


# What is no envelope

NONE = {
    "a list": ([], "not a DSSE envelope"),
    "null": (None, "not a DSSE envelope"),
    "nothing in it": ({}, "not a DSSE envelope"),
    "no signatures": ({"payload": "", "payloadType": ""}, "not a DSSE envelope"),
    "more than that": ({**document(A), "more": 1}, "not a DSSE envelope"),
    "signatures of one": ({**document(A), "signatures": {"sig": ""}}, "not signatures"),
    "signatures null": ({**document(A), "signatures": None}, "not signatures"),
    "a huge list": ({**document(A), "signatures": [{"sig": ""}] * 17}, "at most 16"),
    "a very huge list": ({**document(A), "signatures": [{"sig": ""}] * 100_000}, "at most 16"),
    "a type as list": ({**document(A), "payloadType": []}, "not a payload type"),
    "a long type": ({**document(A), "payloadType": "x" * 1025}, "not a payload type"),
    "a signature as text": ({**document(A), "signatures": ["x"]}, "not a signature"),
    "a signature without": ({**document(A), "signatures": [{"keyid": ""}]}, "not a signature"),
    "a signature and more": (
        {**document(A), "signatures": [{"sig": "", "cert": ""}]},
        "not a signature",
    ),
    "a key id as number": (
        {**document(A), "signatures": [{"sig": "", "keyid": 1}]},
        "not a key id",
    ),
    "a key id of null": (
        {**document(A), "signatures": [{"sig": "", "keyid": None}]},
        "not a key id",
    ),
    "a long key id": (
        {**document(A), "signatures": [{"sig": "", "keyid": "x" * 1025}]},
        "not a key id",
    ),
}


@pytest.mark.parametrize(("made", "says"), NONE.values(), ids=NONE)
def test_no_envelope(made, says):
    with pytest.raises(UnusableInputError, match=says):
        parsed(made)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty file"),
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nested deeper"),
        (
            b'{"payload": "", "payload": "QQ==", "payloadType": "", "signatures": []}',
            "duplicate key",
        ),
        (b'{"payload": "", "payloadType": "\\ud800", "signatures": []}', "surrogate"),
        (b" " * (8 * 1024 * 1024 + 1), "too large"),
    ],
)
def test_no_json(data, says):
    with pytest.raises(UnusableInputError, match=says):
        dsse.parse(data)


def test_the_most_signatures():
    made = document(A)
    made["signatures"] = [{"sig": b64encode(os.urandom(64)).decode()}] * 15 + made["signatures"]
    assert signers(made) == [A.keyid]


# Every bit


@pytest.mark.untraced
@pytest.mark.parametrize(("keys", "threshold"), [((A,), 1), ((A, B), 2), ((A, B), 1)])
def test_every_bit_counts(keys, threshold):
    payload = json.dumps(
        {"verdict": "GO", "outcomes": ["succ/essful?"] * 40, "이유": "통과"}
    ).encode()
    data = dsse.sign(payload, keys)
    assert 1000 < len(data) < 4000
    refused = 0
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            envelope = dsse.parse(bytes(changed))
        except UnusableInputError:
            refused += 1
            continue
        if len(dsse.signers(envelope, TRUSTED)) < threshold:
            refused += 1
        else:
            assert (envelope.payload, envelope.payload_type) == (payload, dsse.IN_TOTO)
    # What may change is the white space between, hints, and of two signatures the one not needed.
    assert refused > len(data) * 8 * (0.85 if threshold == len(keys) else 0.7)
