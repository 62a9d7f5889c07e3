"""Whatever comes over the wire: what is covered is refused when it was changed, the rest is no 5xx."""

import json
import string

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge_host import ask, reason, until
from schemathesis import checks

from pytest_decisionos.errors import SignatureError
from pytest_decisionos.judge.server.openapi import DOCUMENT

pytestmark = pytest.mark.slow
SMALL = {"slo": {"file": "s.json", "text": "{}"}, "phase": "cutover", "evidence": "{}"}
BODY = json.dumps(SMALL | {"as_of": "2026-01-15T12:00:00+00:00"}).encode()
# It verifies, and only then is found too old to be judged.
VERIFIED = (422, "as_of")
FEW = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


def post(judge, body, headers, target=b"/judge", method="POST"):
    return ask(judge.app, method, target, headers, body)


def test_what_was_not_changed_verifies(judge):
    assert reason(post(judge, BODY, judge.host.signed(BODY))) == VERIFIED


def other(char):
    """Another visible character."""
    return "~" if char != "~" else "!"


def changes(text):
    for i, char in enumerate(text):
        yield text[:i] + other(char) + text[i + 1 :]
        yield text[:i] + text[i + 1 :]
        if char.swapcase() != char:
            yield text[:i] + char.swapcase() + text[i + 1 :]


def test_each_byte_of_the_body(judge):
    for i in range(len(BODY)):
        for flip in (1, 0x80):
            changed = bytearray(BODY)
            changed[i] ^= flip
            answer = post(judge, bytes(changed), judge.host.signed(BODY))
            assert reason(answer) == (401, "signature"), changed
    for changed in (BODY[:-1], BODY[1:], BODY + b"\n", b" " + BODY, b""):
        assert reason(post(judge, changed, judge.host.signed(BODY))) == (401, "signature")


@pytest.mark.parametrize("name", ["content-digest", "signature", "signature-input"])
def test_each_byte_of_what_signs(judge, name, monkeypatch):
    monkeypatch.setattr(
        "pytest_decisionos.trust.refresh.GAP_SEC", 0.01
    )  # a changed keyid is unknown
    headers = dict(judge.host.signed(BODY))
    for changed in changes(headers[name]):
        answer = post(judge, BODY, list((headers | {name: changed}).items()))
        assert reason(answer) == (401, "signature"), changed
    for without in ([h for h in headers.items() if h[0] != name], [*headers.items(), (name, "x")]):
        assert reason(post(judge, BODY, without)) == (401, "signature")
    assert reason(post(judge, BODY, list(headers.items()))) == VERIFIED  # none used the nonce up


def test_each_byte_of_the_url(judge):
    url = "http://127.0.0.1:8080/judge"
    headers = judge.host.signed(BODY)
    signed = 0
    for changed in changes(url):
        try:
            theirs = dict(judge.host.signed(BODY, changed))
        except SignatureError:  # not even that
            continue
        signed += 1
        theirs["host"] = "127.0.0.1:8080"
        assert reason(post(judge, BODY, list(theirs.items()))) == (401, "signature"), changed
    assert signed > 40
    for target in (b"/judge?x", b"/judge?x=1", b"/%6audge", b"/judg%65"):
        assert reason(post(judge, BODY, headers, target=target)) == (401, "signature")
    assert reason(post(judge, BODY, headers)) == VERIFIED


def test_each_method(judge):
    for method in ("PUT", "POSTX", "GET", "DELETE"):
        headers = judge.host.signed(BODY, method=method)
        assert reason(post(judge, BODY, headers)) == (401, "signature")
        assert reason(post(judge, BODY, headers, method=method)) == (405, "method")


CONFORMS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
NAMES = st.sampled_from(
    ["content-type", "content-length", "content-encoding", "host", "authorization", "signature",
     "signature-input", "content-digest", "transfer-encoding", "accept", "expect", "x-forwarded-for"]
) | st.text(string.ascii_letters + "-", min_size=1, max_size=20)  # fmt: skip
VALUES = st.text(st.characters(max_codepoint=255), max_size=80)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


def fine(answer):
    """No answer of the server is a fault of the server; a limit that holds is none."""
    return answer[0] < 500 or answer[0] == 503


@FEW
@given(HEADERS, st.binary(max_size=300))
def test_any_headers_and_body_beside_a_good_signature(judge, more, body):
    signed = judge.host.signed(BODY)
    assert fine(post(judge, BODY, [*signed, *more]))
    assert fine(post(judge, body, [*signed, *more]))
    assert fine(post(judge, body, more))


@FEW
@given(st.binary(max_size=300) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_body_that_is_signed(judge, body):
    assert 400 <= post(judge, body, judge.host.signed(body))[0] < 500


@FEW
@given(
    evidence=st.text(max_size=60) | st.just("{}"),
    text=st.text(max_size=60),
    file=st.sampled_from(["s.json", "s.yaml", "s.yml", "한.yaml", "..yaml", ".json"]),
    phase=st.text(max_size=10) | st.just("cutover"),
)
def test_any_question_that_is_signed(judge, evidence, text, file, phase):
    question = {"evidence": evidence, "slo": {"file": file, "text": text}, "phase": phase}
    body = json.loads(judge.host.question(evidence="{}")) | question
    data = json.dumps(body).encode()
    answer = post(judge, data, judge.host.signed(data))
    assert 400 <= answer[0] < 500
    assert len(answer[2]) < 10_000


@FEW
@given(
    st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "TRACE"]), st.binary(max_size=40), HEADERS
)
def test_any_request(judge, method, path, headers):
    target = b"/" + path.replace(b"?", b"").replace(b" ", b"")
    answer = ask(judge.app, method, target, [(n, v) for n, v in headers])
    assert fine(answer)


def test_the_description_describes_what_there_is(judge):
    status, headers, body = ask(judge.app, target=b"/openapi.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == DOCUMENT
    until(lambda: not judge.readiness.faults())


@pytest.mark.parametrize("path", sorted(set(DOCUMENT["paths"]) - {"/openapi.json"}))
def test_schemathesis_finds_no_fault_of_the_server(judge, path):
    schema = schemathesis.openapi.from_asgi("/openapi.json", judge.app)
    (operation,) = [o.ok() for o in schema.get_all_operations() if o.ok().path == path]

    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy())
    def check(case):
        response = case.call(headers={"host": "127.0.0.1:8080"})
        assert response.status_code < 500 or response.status_code == 503
        case.validate_response(response, checks=CONFORMS)

    check()
