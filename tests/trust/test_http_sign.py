"""Request signatures: published vectors, one wrong thing a case, every byte changed, any bytes at all."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta

import pytest
from http_message_signatures import HTTPMessageVerifier, MappingKeyResolver
from http_message_signatures.algorithms import HMAC_SHA256
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_decisionos.errors import SignatureError
from pytest_decisionos.trust.http_sign import (
    COVERED,
    MAX_FIELD,
    TAG,
    Verified,
    sign_request,
    verify_message,
    verify_request,
)
from pytest_decisionos.trust.keys import KeyEntry, make_ring

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
AT = int(NOW.timestamp())
URL = "http://127.0.0.1:8080/judge"
BODY = '{"evidence": "결제 서비스"}'.encode()
NONCE = "0123456789abcdef"
SECRET = "correct horse battery staple, and more"
OTHER = "another secret that is long enough here"
AGE, SKEW = 300.0, 0.5


def entry(key_id="k", state="active", use=("request",), secret=SECRET, **more):
    return {"key_id": key_id, "secret": secret, "state": state, "use": list(use), **more}


def ring(*entries):
    return make_ring(list(entries), "here")


RING = ring(entry())
KEY = RING.keys[0]


def verified(headers, *, method="POST", url=URL, body=BODY, keys=RING, now=NOW, age=AGE, skew=SKEW):
    listed = list(headers.items()) if isinstance(headers, dict) else headers
    return verify_request(
        method, url, listed, body, ring=keys, now=now, max_age_sec=age, max_skew_sec=skew
    )


def refused(headers, **how):
    with pytest.raises(SignatureError) as caught:
        verified(headers, **how)
    for text in (str(caught.value), repr(vars(caught.value))):
        assert "\n" not in text
        assert SECRET not in text
    assert caught.value.__cause__ is None
    return caught.value.cause


def digest_of(body):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


PARAMS = {
    "created": AT,
    "keyid": '"k"',
    "alg": '"hmac-sha256"',
    "nonce": f'"{NONCE}"',
    "tag": f'"{TAG}"',
}
COMPONENTS = '("@method" "@target-uri" "content-digest")'


def by_hand(
    components=COMPONENTS,
    digest=None,
    method="POST",
    url=URL,
    body=BODY,
    secret=None,
    fields=(),
    **params,
):
    """Headers signed without the library (RFC 9421 §2.5), so that what it would not sign is signed."""
    told = {**PARAMS, **params}
    signed = components + "".join(f";{n}={v}" for n, v in told.items() if v is not None)
    digest = digest_of(body) if digest is None else digest
    known = {"@method": method, "@target-uri": url, "content-digest": digest, **dict(fields)}
    lines = [f"{c}: {known[c.split(chr(34))[1]]}" for c in re.findall(r'"[^"]*"[^ )]*', components)]
    base = "\n".join([*lines, f'"@signature-params": {signed}'])
    made = hmac.digest(secret or SECRET.encode(), base.encode(), "sha256")
    mac = base64.b64encode(made).decode()
    return {
        "content-digest": digest,
        "signature-input": f"s={signed}",
        "signature": f"s=:{mac}:",
        **dict(fields),
    }


# Published vectors

SHARED_SECRET = (  # RFC 9421 B.1.5
    "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
)
TEST_REQUEST = {  # RFC 9421 B.2
    "host": "example.com",
    "date": "Tue, 20 Apr 2021 02:07:55 GMT",
    "content-type": "application/json",
    "content-length": "18",
}
AUDIOHOOK_SECRET = "TXlTdXBlclNlY3JldEtleVRlbGxOby0xITJAMyM0JDU="
AUDIOHOOK_URL = "https://audiohook.example.com/api/v1/voicebiometrics/ws"
AUDIOHOOK = {
    "host": "audiohook.example.com",
    "audiohook-organization-id": "d7934305-0972-4844-938e-9060eef73d05",
    "audiohook-session-id": "30b0e395-84d3-4570-ac13-9a62d8f514c0",
    "audiohook-correlation-id": "e160e428-53e2-487c-977d-96989bf5c99d",
    "x-api-key": "SGVsbG8sIEkgYW0gdGhlIEFQSSBrZXkh",
}
AUDIOHOOK_IDS = (
    '"audiohook-organization-id" "audiohook-session-id" "audiohook-correlation-id" "x-api-key"'
)
AUDIOHOOK_PARAMS = (
    ';keyid="SGVsbG8sIEkgYW0gdGhlIEFQSSBrZXkh";nonce="VGhpc0lzQVVuaXF1ZU5vbmNl"'
    ';alg="hmac-sha256";created=1641013200;expires=3282026430'
)
PUBLISHED = {
    "RFC 9421 B.2.5": (
        "POST", "https://example.com/foo?param=Value&Pet=dog", TEST_REQUEST, SHARED_SECRET,
        'sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"',
        "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
    ),
    "draft-ietf-httpbis-message-signatures-07 B.2.5": (
        "POST", "https://example.com/foo?param=value&pet=dog", TEST_REQUEST, SHARED_SECRET,
        'sig1=("@authority" "date" "content-type");created=1618884475;keyid="test-shared-secret"',
        "sig1=:fN3AMNGbx0V/cIEKkZOvLOoC3InI+lM2+gTv22x3ia8=:",
    ),
    "Genesys AudioHook, example of its documentation": (
        "GET", AUDIOHOOK_URL, AUDIOHOOK, AUDIOHOOK_SECRET,
        f'sig1=("@request-target" "host" {AUDIOHOOK_IDS}){AUDIOHOOK_PARAMS}',
        "sig1=:zupMJUMfd/kMuvKc5zhRyfJPE3jTROuz1S1hn8SCTpE=:",
    ),
    "Genesys AudioHook, as github.com/jbowes/httpsig tests it": (
        "GET", AUDIOHOOK_URL, AUDIOHOOK, AUDIOHOOK_SECRET,
        f'sig1=("@request-target" "@authority" {AUDIOHOOK_IDS}){AUDIOHOOK_PARAMS}',
        "sig1=:NZBwyBHRRyRoeLqy1IzOa9VYBuI8TgMFt2GRDkDuJh4=:",
    ),
}  # fmt: skip


def verify_published(name, **changes):
    method, url, headers, secret, signed, signature = PUBLISHED[name]
    headers = {**headers, "signature-input": signed, "signature": signature, **changes}
    asked = []

    def key_of(key_id, created):
        asked.append((key_id, created))
        return base64.b64decode(secret)

    created = datetime.fromtimestamp(int(re.search(r"created=(\d+)", signed)[1]), UTC)
    found = verify_message(
        method,
        url,
        list(headers.items()),
        covered=re.findall(r'"([^"]*)"', signed.partition(")")[0]),
        tag=None,
        key_of=key_of,
        now=created + timedelta(days=1000),
        max_age_sec=None,
        max_skew_sec=0,
    )
    assert asked == [(found.key_id, created)]
    assert found.created == created
    assert f'keyid="{found.key_id}"' in signed
    assert found.nonce == ("VGhpc0lzQVVuaXF1ZU5vbmNl" if "nonce" in signed else "")
    return headers


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cases_verify_and_nothing_near_them_does(name):
    headers = verify_published(name)
    signed = re.findall(r'"([a-z-]+)"', headers["signature-input"].partition(")")[0])
    assert len(signed) >= 2
    for field in [*signed, "signature-input", "signature"]:
        for index, letter in enumerate(headers[field]):
            other = chr(ord(letter) ^ 1)
            changed = headers[field][:index] + other + headers[field][index + 1 :]
            with pytest.raises(SignatureError):
                verify_published(name, **{field: changed})


def test_a_published_case_is_no_request_to_a_judge():
    _, _, headers, secret, signed, signature = PUBLISHED["RFC 9421 B.2.5"]
    keys = ring(entry("test-shared-secret", secret=f"b64:{secret}"))
    sent = {**headers, "signature-input": signed, "signature": signature}
    assert refused(sent, keys=keys) == "missing_field"
    assert refused({**sent, "content-digest": digest_of(BODY)}, keys=keys) == "wrong_tag"


# Signing, and who else understands it


def test_what_is_signed_is_told_by_the_rfc():
    made = sign_request("POST", URL, BODY, KEY, now=NOW, nonce=NONCE)
    expected = by_hand()
    assert made["content-digest"] == expected["content-digest"]
    assert made["signature-input"] == "judge=" + expected["signature-input"][2:]
    assert made["signature"] == "judge=" + expected["signature"][2:]
    assert verified(made) == verified(expected) == Verified("k", NONCE, NOW)


def test_the_library_verifies_it_by_its_own_rules():
    made = sign_request("POST", URL, BODY, KEY, now=datetime.now(UTC))
    keys = MappingKeyResolver(public_keys={"k": SECRET.encode()}, private_keys={})
    theirs = HTTPMessageVerifier(signature_algorithm=HMAC_SHA256, key_resolver=keys)

    class Message:
        method, url, headers = "POST", URL, made

    (result,) = theirs.verify(
        Message, max_age=timedelta(minutes=5), expect_tag=TAG, require_components=COVERED, body=BODY
    )
    assert result.body == BODY


def test_nonces_are_random():
    made = {verified(sign_request("POST", URL, BODY, KEY, now=NOW)).nonce for _ in range(100)}
    assert len(made) == 100
    assert all(len(nonce) == 32 for nonce in made)


@pytest.mark.parametrize(
    ("method", "url", "nonce"),
    [
        ("post", URL, NONCE),
        ("PO\nST", URL, NONCE),
        ("결제", URL, NONCE),
        ("POST", "/judge", NONCE),
        ("POST", "http://127.0.0.1:8080", NONCE),
        ("POST", "http://user:word@127.0.0.1:8080/judge", NONCE),
        ("POST", URL + "#part", NONCE),
        ("POST", URL + "/결제", NONCE),
        ("POST", URL + "/\ud800", NONCE),
        ("POST", URL, ""),
        ("POST", URL, NONCE[:15]),
        ("POST", URL, "n" * 257),
        ("POST", URL, NONCE + " "),
        ("POST", URL, NONCE + "\n"),
        ("POST", URL, NONCE + "한"),
    ],
)
def test_what_cannot_be_signed(method, url, nonce):
    with pytest.raises(SignatureError) as caught:
        sign_request(method, url, BODY, KEY, now=NOW, nonce=nonce)
    assert caught.value.cause == "malformed"
    assert "\n" not in str(caught.value)


def test_a_key_for_another_use_signs_no_request():
    key = KeyEntry.model_validate(entry(use=("evidence", "stage")))
    with pytest.raises(SignatureError) as caught:
        sign_request("POST", URL, BODY, key, now=NOW)
    assert caught.value.cause == "wrong_use"
    assert SECRET not in str(caught.value)


# Round trips

UNRESERVED = "abcXYZ019-._~!$&'()*+,;=:@"
parts = st.text(UNRESERVED, max_size=20) | st.sampled_from(["%ED%95%9C%EA%B8%80", "a%20b", "%2F"])
hosts = st.sampled_from(
    ["judge.example", "127.0.0.1", "[::1]", "[2001:db8::1]", "a-b.c_d", "JUDGE"]
)
urls = st.builds(
    lambda scheme, host, port, path, query: f"{scheme}://{host}{port}/{path}{query}",
    st.sampled_from(["http", "https"]),
    hosts,
    st.sampled_from(["", ":80", ":443", ":8080"]),
    st.lists(parts, max_size=4).map("/".join),
    parts.map("?{}".format) | st.just(""),
)
bodies = st.binary() | st.text().map(lambda text: text.encode(errors="replace"))
nonces = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=16, max_size=256)
other_headers = st.lists(
    st.tuples(st.sampled_from(["host", "Cookie", "x-한글", "date"]), st.text(max_size=20)),
    max_size=4,
)


@given(urls, bodies, st.sampled_from(["POST", "GET", "PUT"]), nonces, other_headers, st.randoms())
@example(URL, "한글 증거 문서".encode(), "POST", NONCE, [("x-한글", "한글")], None)
@example(URL, b"", "POST", '"\\' * 8, [], None)
def test_what_is_signed_verifies(url, body, method, nonce, others, order):
    when = NOW + timedelta(milliseconds=999)
    made = sign_request(method, url, body, KEY, now=when, nonce=nonce)
    headers = [(name.title(), f" {value} ") for name, value in made.items()] + others
    if order:
        order.shuffle(headers)
    found = verified(headers, method=method, url=url, body=body, now=when)
    assert found == Verified("k", nonce, NOW)


@given(bodies, bodies)
def test_one_bodys_signature_is_no_other_bodys(body, other):
    made = sign_request("POST", URL, body, KEY, now=NOW)
    if body == other:
        assert verified(made, body=other)
    else:
        assert refused(made, body=other) == "digest_mismatch"


@given(urls, urls)
@example("http://h/", "http://h")
@example("http://h/", "http://u@h/")
@example("http://h/", "http://h/#")
@example("http://h/", "HTTP://h/")
@example("http://h:80/", "http://h/")
@example("http://h/a", "http://h/%61")
def test_one_urls_signature_is_no_other_urls(url, other):
    made = sign_request("POST", url, BODY, KEY, now=NOW)
    if url == other:
        assert verified(made, url=other)
    else:
        assert refused(made, url=other) in {"bad_signature", "malformed"}


@pytest.mark.parametrize("year", [1971, 2001, 2100, 9000])
def test_only_the_time_that_is_given_counts(year):
    now = NOW.replace(year=year)
    assert verified(sign_request("POST", URL, BODY, KEY, now=now), now=now).created == now


# Every byte

LABELLED = sign_request("POST", URL, BODY, KEY, now=NOW, nonce=NONCE)
PLACES = ["method", "url", "body", *LABELLED]


def changes(text):
    """Every byte replaced in several ways, and left out; and something put before and behind."""
    data = text if isinstance(text, bytes) else text.encode("latin-1")
    for index, old in enumerate(data):
        for new in {old ^ 1, old ^ 0x20, old ^ 0x80, 0, 0x20, 0x22, 0x3D, 0x41, 0xFF} - {old}:
            yield data[:index] + bytes([new]) + data[index + 1 :]
        yield data[:index] + data[index + 1 :]
    yield b"A" + data
    yield data + b"A"


def with_change(place, changed):
    how = {"method": "POST", "url": URL, "body": BODY}
    headers = dict(LABELLED)
    if place == "body":
        how["body"] = changed
    elif place in how:
        how[place] = changed.decode("latin-1")
    else:
        headers[place] = changed.decode("latin-1")
    return headers, how


@pytest.mark.parametrize("place", PLACES)
def test_every_byte_counts(place):
    original = {"method": "POST", "url": URL, "body": BODY, **LABELLED}[place]
    causes = set()
    for changed in changes(original):
        headers, how = with_change(place, changed)
        causes.add(refused(headers, **how))
    if place == "body":
        assert causes == {"digest_mismatch"}
    else:
        assert causes >= {"bad_signature", "malformed"} or place == "signature"


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_every_byte_counts_whatever_it_becomes(place):
    original = {"method": "POST", "url": URL, "body": BODY, **LABELLED}[place]
    data = original if isinstance(original, bytes) else original.encode()
    for index, old in enumerate(data):
        for new in set(range(256)) - {old}:
            changed = data[:index] + bytes([new]) + data[index + 1 :]
            headers, how = with_change(place, changed)
            with pytest.raises(SignatureError):
                verified(headers, **how)


# One wrong thing a case


def without(name, *how, **more):
    headers = by_hand(*how, **more)
    del headers[name]
    return headers


def put(name, value):
    return {**by_hand(), name: value}


def twice(name, spelt=None):
    headers = by_hand()
    return [*headers.items(), (spelt or name, headers[name])]


MAC = by_hand()["signature"][2:]
OLD_DIGEST = f"sha-512=:{base64.b64encode(hashlib.sha512(BODY).digest()).decode()}:"
ALSO = {"fields": [("content-type", "text/plain")]}
REFUSED = [
    ("no header", {}, "missing_signature"),
    ("no input", without("signature-input"), "missing_signature"),
    ("no signature", without("signature"), "missing_signature"),
    ("no digest", without("content-digest"), "missing_field"),
    ("signature twice", twice("signature"), "several_values"),
    ("input twice", twice("signature-input", "SIGNATURE-INPUT"), "several_values"),
    ("digest twice", twice("content-digest", "Content-Digest"), "several_values"),
    # The form
    ("empty signature", put("signature", ""), "malformed"),
    ("empty input", put("signature-input", ""), "malformed"),
    ("two labels", {**by_hand(), "signature": f"s={MAC}, t={MAC}", "signature-input": f"s={COMPONENTS}, t={COMPONENTS}"}, "malformed"),
    ("two signatures", put("signature", f"s={MAC}, t={MAC}"), "malformed"),
    ("two inputs", put("signature-input", by_hand()["signature-input"] + f", t={COMPONENTS}"), "malformed"),
    ("label twice", put("signature-input", by_hand()["signature-input"] + f", s={COMPONENTS}"), "malformed"),
    ("another label", put("signature", f"t={MAC}"), "malformed"),
    ("no label", put("signature", MAC), "malformed"),
    ("parameter of the signature", put("signature", f"s={MAC};a"), "malformed"),
    ("no padding", put("signature", f"s={MAC.replace('=:', ':')}"), "malformed"),
    ("left-over bits", put("signature", f"s={MAC[:43]}{chr(ord(MAC[43]) + 1)}{MAC[44:]}"), "malformed"),
    ("short MAC", put("signature", "s=:AAAAAAAAAAAAAAAAAAAAAA==:"), "malformed"),
    ("long MAC", put("signature", f"s=:{'A' * 86}==:"), "malformed"),
    ("signature is a string", put("signature", f's="{MAC[1:-1]}"'), "malformed"),
    ("input is no list", put("signature-input", "s=1"), "malformed"),
    ("input is no dictionary", put("signature-input", "(((("), "malformed"),
    ("component is a token", put("signature-input", by_hand()["signature-input"].replace('"content-digest"', "content-digest")), "malformed"),
    ("not ASCII", put("signature-input", by_hand()["signature-input"] + ";x=%\"é\""), "malformed"),
    ("a line break", put("content-digest", digest_of(BODY) + "\r\n "), "malformed"),
    ("a tab", put("signature", by_hand()["signature"] + "\t"), "malformed"),
    ("a lone surrogate", put("content-digest", "\ud800"), "malformed"),
    ("too long", put("signature-input", by_hand()["signature-input"] + " " * MAX_FIELD), "malformed"),
    # The parameters
    ("no tag", by_hand(tag=None), "wrong_tag"),
    ("another tag", by_hand(tag='"decisionos"'), "wrong_tag"),
    ("tag is a token", by_hand(tag=TAG), "malformed"),
    ("another algorithm", by_hand(alg='"ed25519"'), "wrong_algorithm"),
    ("another hash", by_hand(alg='"hmac-sha512"'), "wrong_algorithm"),
    ("algorithm is a token", by_hand(alg="hmac-sha256"), "malformed"),
    ("no created", by_hand(created=None), "malformed"),
    ("created is text", by_hand(created=f'"{AT}"'), "malformed"),
    ("created is a decimal", by_hand(created=f"{AT}.0"), "malformed"),
    ("created is a date", by_hand(created=f"@{AT}"), "malformed"),
    ("created is true", by_hand(created="?1"), "malformed"),
    ("created is no year", by_hand(created=10**15 - 1), "malformed"),
    ("created is no number", by_hand(created=10**15), "malformed"),
    ("created before 1970", by_hand(created=-1), "expired"),
    ("expires is no year", by_hand(expires=10**15 - 1), "malformed"),
    ("expires is text", by_hand(expires='"never"'), "malformed"),
    ("no nonce", by_hand(nonce=None), "malformed"),
    ("nonce of 15", by_hand(nonce=f'"{NONCE[:15]}"'), "malformed"),
    ("nonce of 257", by_hand(nonce=f'"{"n" * 257}"'), "malformed"),
    ("nonce with a space", by_hand(nonce='"0123456789abcdef g"'), "malformed"),
    ("nonce is a token", by_hand(nonce="a123456789abcdef"), "malformed"),
    ("nonce is a number", by_hand(nonce="123456789012345"), "malformed"),
    ("no keyid", by_hand(keyid=None), "malformed"),
    ("empty keyid", by_hand(keyid='""'), "malformed"),
    ("keyid with a space", by_hand(keyid='"k "'), "malformed"),
    ("keyid of 65", by_hand(keyid=f'"{"k" * 65}"'), "malformed"),
    ("an unknown parameter", by_hand(more="1"), "malformed"),
    # What is covered
    ("method is not covered", by_hand('("@target-uri" "content-digest")'), "not_covered"),
    ("url is not covered", by_hand('("@method" "content-digest")'), "not_covered"),
    ("body is not covered", by_hand('("@method" "@target-uri")'), "not_covered"),
    ("nothing is covered", by_hand("()"), "not_covered"),
    ("only a member is covered", by_hand('("@method" "@target-uri" "content-digest";key="sha-256")'), "not_covered"),
    ("another request's method", by_hand('("@method";req "@target-uri" "content-digest")'), "not_covered"),
    ("upper case", without("content-digest", '("@method" "@target-uri" "Content-Digest")', fields=[("Content-Digest", digest_of(BODY))]), "not_covered"),
    ("more is covered", by_hand(COMPONENTS[:-1] + ' "content-type")', **ALSO), "covers_more"),
    ("covered twice", by_hand(COMPONENTS[:-1] + ' "@method")'), "covers_more"),
    ("more that is not there", by_hand(COMPONENTS[:-1] + ' "@x")', fields=[("@x", "1")]), "covers_more"),
    # The key and the MAC
    ("an unknown key", by_hand(keyid='"other"'), "unknown_key"),
    ("another secret", by_hand(secret=OTHER.encode()), "bad_signature"),
    ("another method", by_hand(method="PUT"), "bad_signature"),
    ("another url", by_hand(url=URL + "?"), "bad_signature"),
    ("another created", put("signature-input", by_hand(created=AT - 1)["signature-input"]), "bad_signature"),
    # The body
    ("another body's digest", by_hand(digest=digest_of(b"")), "digest_mismatch"),
    ("digest of sha-512", by_hand(digest=OLD_DIGEST), "digest_mismatch"),
    ("two digests", by_hand(digest=f"{digest_of(BODY)}, {OLD_DIGEST}"), "digest_mismatch"),
    ("no digest in the field", by_hand(digest=""), "digest_mismatch"),
    ("digest without padding", by_hand(digest=digest_of(BODY).replace("=:", ":")), "digest_mismatch"),
    ("digest with a parameter", by_hand(digest=digest_of(BODY) + ";a"), "digest_mismatch"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "cause"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_what_is_refused(headers, cause):
    assert refused(headers) == cause


@pytest.mark.parametrize(
    "headers",
    [
        by_hand(),
        by_hand(alg=None),
        by_hand('("content-digest" "@target-uri" "@method")'),
        by_hand(nonce=f'"{"n" * 256}"'),
        by_hand(expires=AT),
        {name.upper(): f"  {value} " for name, value in by_hand().items()},
        {**by_hand(), "signature-input": by_hand()["signature-input"].replace(";", ";  ")},
        {**by_hand(), "content-type": "text/한글", "x": "\ud800" * 9000},
    ],
)
def test_what_makes_no_difference(headers):
    assert verified(headers).key_id == "k"


@pytest.mark.parametrize("label", ["s", "*", "sig-b25", "a.b_c*"])
def test_the_label_is_free(label):
    made = {name: value.replace("judge=", f"{label}=") for name, value in LABELLED.items()}
    assert verified(made) == Verified("k", NONCE, NOW)


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("post", URL),
        ("", URL),
        ("P" * (MAX_FIELD + 1), URL),
        ("POST", ""),
        ("POST", "/judge"),
        ("POST", URL + "#part"),
        ("POST", URL.replace("127", "user@127")),
        ("POST", URL + "/" + "a" * MAX_FIELD),
        ("POST", "http://[::1/judge"),
        ("POST", URL + "/%zz"),
        ("POST", "http://호스트/judge"),
        ("\ud800", URL),
        ("POST", URL + "\ud800"),
        ("PO\nST", URL),
    ],
)
def test_requests_that_cannot_be_signed_do_not_verify(method, url):
    assert refused(by_hand(), method=method, url=url) in {"malformed", "bad_signature"}


def test_what_is_longer_than_the_limit_is_refused_though_it_is_signed():
    for length, cause in ((MAX_FIELD, None), (MAX_FIELD + 1, "malformed")):
        long = {"url": f"{URL}?".ljust(length, "q")}, {"method": "P" * length}
        for how in long:
            if cause is None:
                assert verified(by_hand(**how), **how).key_id == "k"
            else:
                assert refused(by_hand(**how), **how) == cause


def test_an_error_names_the_field_and_what_is_wrong():
    with pytest.raises(SignatureError, match="^signature: not printable ASCII; found 's=é'$"):
        verified(put("signature", "'s=é'"))


def test_a_url_is_never_read_as_another():
    for url in ("http://h", "http://u@h/", "http://h/#x"):
        assert refused(by_hand(url="http://h/"), url=url) == "malformed"


# Times, to the border

MICRO = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("now", "cause"),
    [
        (NOW + timedelta(seconds=AGE), None),
        (NOW + timedelta(seconds=AGE) + MICRO, "expired"),
        (NOW + timedelta(days=3000), "expired"),
        (NOW, None),
        (NOW - timedelta(seconds=SKEW), None),
        (NOW - timedelta(seconds=SKEW) - MICRO, "from_the_future"),
        (NOW - timedelta(days=3000), "from_the_future"),
    ],
)
def test_times_of_created(now, cause):
    for headers in (LABELLED, by_hand(expires=AT + 10**9)):
        if cause is None:
            assert verified(headers, now=now).created == NOW
        else:
            assert refused(headers, now=now) == cause


@pytest.mark.parametrize(
    ("expires", "now", "cause"),
    [
        (AT + 10, NOW + timedelta(seconds=10), None),
        (AT + 10, NOW + timedelta(seconds=10) + MICRO, "expired"),
        (AT - 1, NOW, "expired"),
        (AT + 10**6, NOW + timedelta(seconds=AGE) + MICRO, "expired"),
    ],
)
def test_times_of_expires(expires, now, cause):
    headers = by_hand(expires=expires)
    if cause is None:
        assert verified(headers, now=now).created == NOW
    else:
        assert refused(headers, now=now) == cause


def test_age_and_skew_are_those_that_are_given():
    assert refused(LABELLED, now=NOW + timedelta(seconds=2), age=1) == "expired"
    assert refused(LABELLED, now=NOW - timedelta(seconds=1), skew=0) == "from_the_future"
    assert verified(LABELLED, now=NOW - timedelta(seconds=60), skew=60)


def test_a_strangers_request_does_not_tell_the_time():
    # The MAC comes first: only who holds a key learns that the time is wrong.
    late = NOW + timedelta(days=1)
    assert refused(by_hand(secret=OTHER.encode()), now=late) == "bad_signature"
    assert refused(by_hand(keyid='"other"'), now=late) == "unknown_key"
    assert refused(by_hand(), now=late) == "expired"


# Keys

LONG = {"not_before": NOW - timedelta(hours=1), "not_after": NOW + timedelta(hours=1)}


@pytest.mark.parametrize(
    ("key", "cause"),
    [
        (entry(state="grace"), None),
        (entry(use=("stage", "request")), None),
        (entry(**LONG), None),
        (entry(state="revoked"), "revoked_key"),
        (entry(state="retired", **LONG), "retired_key"),
        (entry(use=("evidence",)), "wrong_use"),
        (entry(use=("stage", "evidence")), "wrong_use"),
        (entry(not_before=NOW + timedelta(seconds=1)), "outside_validity"),
        (entry(not_after=NOW - timedelta(seconds=1)), "outside_validity"),
        (entry(secret=OTHER), "bad_signature"),
        (entry(use=()), "bad_signature"),  # its secret itself signs nothing
        (entry("another"), "unknown_key"),
    ],
)
def test_which_keys_verify(key, cause):
    if cause is None:
        assert verified(by_hand(), keys=ring(key)).key_id == "k"
    else:
        assert refused(by_hand(), keys=ring(key)) == cause


def test_a_key_that_ended_signs_nothing_new():
    # Whoever finds an old secret may say that it is yesterday; then it is too late.
    ended = ring(entry(not_after=NOW - timedelta(hours=1)))
    assert refused(by_hand(), keys=ended) == "outside_validity"
    assert refused(by_hand(created=AT - 7200), keys=ended) == "expired"


def test_a_sub_key_of_another_use_signs_no_request():
    shared = ring(entry(use=()))
    (key,) = shared.keys
    assert verified(sign_request("POST", URL, BODY, key, now=NOW), keys=shared).key_id == "k"
    assert verified(by_hand(secret=key.mac_key("request")), keys=shared).key_id == "k"
    for use in ("evidence", "stage"):
        assert refused(by_hand(secret=key.mac_key(use)), keys=shared) == "bad_signature"


def test_two_keys_each_verify_their_own():
    both = ring(entry("new", secret=OTHER), entry("old", "grace"))
    new, old = (sign_request("POST", URL, BODY, key, now=NOW) for key in both.keys)
    assert verified(new, keys=both).key_id == "new"
    assert verified(old, keys=both).key_id == "old"
    swapped = {**new, "signature-input": new["signature-input"].replace('"new"', '"old"')}
    assert refused(swapped, keys=both) == "bad_signature"
    assert refused({**new, "signature": old["signature"]}, keys=both) == "bad_signature"


# Any bytes at all

names = st.sampled_from(["signature", "Signature-Input", "content-digest", "host"]) | st.text(
    max_size=9
)
scraps = st.sampled_from([
    "s", "t", "=", ":", ";", ",", " ", "\t", "(", ")", '"', "\\", "@", "?1", "%", "1", "-", ".", "é", "\x00", "\ud800",
    "s=", '"@method"', '"content-digest"', '"@query-param";name="a"', '"set-cookie";bs', ";sf", ";key=\"sha-256\"", ";req", ";tr",
    "created=", "expires=", "999999999999999", "@1", "keyid=", "nonce=", "tag=", "alg=", f'"{TAG}"', "::", ":AAAA:", ":=:", MAC,
    COMPONENTS, *by_hand().values(), *(f";{name}={value}" for name, value in PARAMS.items()),
])  # fmt: skip
values = st.text(max_size=50) | st.lists(scraps, max_size=12).map("".join)


@given(
    st.lists(st.tuples(names, values), max_size=8),
    st.text(max_size=10) | st.just("POST"),
    st.text(max_size=40) | st.just(URL),
    st.binary(max_size=30),
)
def test_any_request_is_refused_in_words(headers, method, url, body):
    refused(headers, method=method, url=url, body=body)


@given(
    st.sampled_from(sorted(LABELLED)),
    st.integers(0, 250),
    st.integers(0, 30),
    values | st.binary(max_size=20).map(lambda data: data.decode("latin-1")),
)
def test_a_request_with_a_part_replaced_is_the_same_or_refused(name, start, length, new):
    old = LABELLED[name]
    headers = {**LABELLED, name: old[:start] + new + old[start + length :]}
    try:
        found = verified(headers)
    except SignatureError as fault:
        assert "\n" not in str(fault)
    else:
        assert found == Verified("k", NONCE, NOW)  # another spelling of the very same


@pytest.mark.parametrize(
    "value",
    ["(" * MAX_FIELD, "s=" + "(" * 8000, "s=(" + '"a" ' * 2000, "s=()" + ";a" * 4000, "a," * 4000]
    + ["s=:" + "A" * 8000, 's="' + "\\" * 8000, "s=1" + "0" * 8000, "s=" * 4000, " " * MAX_FIELD],
)
def test_hostile_fields_are_refused(value):
    for name in LABELLED:
        assert refused({**LABELLED, name: value[:MAX_FIELD]}) in {
            "malformed",
            "bad_signature",
            "wrong_tag",
        }
