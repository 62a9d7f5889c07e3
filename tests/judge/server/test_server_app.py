"""Routes, limits and refusals of the judge's server, in this process."""

import asyncio
import json
import secrets
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from judge_host import REQUEST, SEALS, ask, exchange, reason, until, workspace

from pytest_decisionos.errors import KeysError, ReplayStoreError
from pytest_decisionos.judge.server import app as app_module
from pytest_decisionos.judge.server import limits as limits_module
from pytest_decisionos.judge.server import service as service_module
from pytest_decisionos.judge.server.app import make_app
from pytest_decisionos.judge.server.readiness import Probe, Readiness
from pytest_decisionos.trust.keys import make_ring

HOST = ("host", "127.0.0.1:8080")
BEARER = ("authorization", "Bearer scope=ops:read")
JSON = ("content-type", "application/json")


def post(judge, body, headers=None, **more):
    headers = judge.host.signed(body) if headers is None else headers
    return ask(judge.app, "POST", b"/judge", headers, body, **more)


def ready(judge):
    until(lambda: not judge.readiness.faults())


def metric(judge, name, **labels):
    for family in judge.metrics._registry.collect():
        for sample in family.samples:
            if sample.name == f"decisionos_judge_{name}" and sample.labels == labels:
                return sample.value
    return 0.0


# Readiness


def test_ready_is_said_in_exactly_these_bytes(judge):
    ready(judge)
    status, headers, body = ask(judge.app)
    assert (status, body) == (200, b'{"status":"ready"}')
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"


@pytest.fixture
def granted(opened, tmp_path):
    made = opened(workspace(tmp_path), settings={"allow_scopes": "ops:read"})
    ready(made)
    return made


def test_details_only_with_the_scope(granted):
    granted.host.logs.rename(granted.host.path / "away")
    until(granted.readiness.faults)
    plain = (503, b'{"status":"not_ready","reasons":["witness_root"]}')
    for headers in ([HOST], [HOST, BEARER, ("via", "1.1 x")], [("host", "evil"), BEARER], [BEARER]):
        status, _, body = ask(granted.app, target=b"/readyz?explain=1", headers=headers)
        assert (status, body) == plain
    assert ask(granted.app, target=b"/readyz", headers=[HOST, BEARER])[::2] == plain
    assert ask(granted.app, target=b"/readyz?explain=2", headers=[HOST, BEARER])[::2] == plain
    status, _, body = ask(granted.app, target=b"/readyz?explain=1", headers=[HOST, BEARER])
    assert status == 503
    told = {"witness_root": "cannot be read: No such file or directory"}
    assert json.loads(body) == {
        "status": "not_ready", "reasons": ["witness_root"], "details": told,
    }  # fmt: skip
    (granted.host.path / "away").rename(granted.host.logs)


def test_details_of_one_that_is_ready(granted):
    status, _, body = ask(granted.app, target=b"/readyz?explain=1", headers=[HOST, BEARER])
    assert (status, json.loads(body)) == (200, {"status": "ready", "details": {}})


def test_without_the_scope_of_the_server_nobody_gets_details(judge):
    ready(judge)
    answer = ask(judge.app, target=b"/readyz?explain=1", headers=[HOST, BEARER])
    assert answer[2] == b'{"status":"ready"}'


@pytest.mark.slow
def test_what_makes_it_not_ready(opened, tmp_path):
    host = workspace(tmp_path)
    judge = opened(host)
    ready(judge)
    host.ring([REQUEST | {"state": "grace"}, SEALS])
    until(lambda: set(judge.readiness.faults()) == {"active_key"})
    host.ring([REQUEST, SEALS])
    ready(judge)
    host.logs.rename(host.path / "away")
    until(lambda: set(judge.readiness.faults()) == {"witness_root"})
    (host.path / "away").rename(host.logs)
    ready(judge)
    (host.root / "log").rename(host.path / "log-away")
    (host.root / "log").write_text("no folder")
    until(lambda: set(judge.readiness.faults()) == {"access_log"})
    (host.root / "log").unlink()
    ready(judge)
    (host.root / "judge/replay.sqlite").unlink()
    until(lambda: set(judge.readiness.faults()) == {"replay_store"})
    body = host.question()
    assert reason(post(judge, body)) == (503, "replay_store")


def test_a_clock_that_nobody_vouches_for(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(service_module, "clock_fault", lambda ntp, skew: f"{list(ntp)} {skew}")
    settings = {"ntp": "a.example, b.example", "max_skew": 0.25}
    judge = opened(workspace(tmp_path), settings=settings)
    until(lambda: judge.readiness.faults() == {"clock": "['a.example', 'b.example'] 0.25"})
    assert ask(judge.app)[2] == b'{"status":"not_ready","reasons":["clock"]}'


def test_who_looks_may_hang_or_break_and_nothing_is_well_before_it_looked():
    hang, stop = threading.Event(), threading.Event()

    def hangs():
        if hang.is_set():
            stop.wait(30)

    def raises():
        raise RuntimeError("a secret")

    def refuses():
        raise KeysError("is gone", file="ring")

    looks = {"a": hangs, "b": raises, "c": refuses, "d": lambda: None}
    made = Readiness([Probe({n: look}, every_sec=0.01, stale_sec=0.2) for n, look in looks.items()])
    try:
        until(lambda: made.faults() == {"b": "RuntimeError", "c": "ring: is gone"})
        hang.set()
        until(lambda: made.faults().get("a", "").startswith("no answer for"))
        assert "d" not in made.faults()
    finally:
        stop.set()
        made.close()
    never = Readiness([Probe({"x": lambda: stop.wait(0.2) and None}, every_sec=0.01)])
    assert set(never.faults()) <= {"x"}
    never.close()


def test_health_is_that_it_answers(judge):
    assert ask(judge.app, target=b"/healthz")[::2] == (200, b'{"status":"ok"}')


# Metrics and description


def test_metrics_count_what_happened(judge):
    body = judge.host.question()
    headers = judge.host.signed(body)
    before = metric(judge, "verdicts_total", vote="pass")
    assert post(judge, body, headers)[0] == 200
    assert reason(post(judge, body, headers)) == (401, "signature")
    assert metric(judge, "verdicts_total", vote="pass") == before + 1
    assert metric(judge, "replay_refusals_total", cause="replayed") >= 1
    assert metric(judge, "signature_errors_total", cause="replayed") >= 1
    assert metric(judge, "requests_total", route="/judge", status="200") >= 1
    assert metric(judge, "latency_seconds_count", route="/judge") >= 2
    status, headers, text = ask(judge.app, target=b"/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert b'decisionos_judge_verdicts_total{vote="pass"}' in text


@pytest.mark.parametrize("header", [("x-forwarded-for", "1.2.3.4"), ("host", "evil.example")])
def test_metrics_are_for_this_host(judge, header):
    headers = [header] if header[0] == "host" else [HOST, header]
    assert reason(ask(judge.app, target=b"/metrics", headers=headers)) == (403, "scope")


def test_metrics_behind_a_proxy_need_the_scope(opened, tmp_path):
    judge = opened(
        workspace(tmp_path),
        public_url="https://judge.example",
        settings={"allow_scopes": "ops:read"},
    )
    assert reason(ask(judge.app, target=b"/metrics")) == (403, "scope")
    assert ask(judge.app, target=b"/metrics", headers=[HOST, BEARER])[0] == 200


def test_metrics_of_a_listener_that_others_reach_are_nobodys(opened, tmp_path):
    judge = opened(workspace(tmp_path), host="judge.example", settings={"allow_scopes": "*"})
    headers = [("host", "judge.example:8080"), BEARER]
    assert reason(ask(judge.app, target=b"/metrics", headers=headers)) == (403, "scope")


def test_labels_are_not_made_up_by_clients(judge):
    for _ in range(50):
        ask(judge.app, target=b"/" + secrets.token_hex(8).encode())
    routes = {
        sample.labels["route"]
        for family in judge.metrics._registry.collect()
        for sample in family.samples
        if "route" in sample.labels
    }
    assert routes <= {*app_module.ROUTES, "(unknown)"}


# Routes


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", b"/", (404, "not_found")),
        ("GET", b"/judge/", (404, "not_found")),
        ("GET", b"//judge", (404, "not_found")),
        ("GET", b"/readyz/", (404, "not_found")),
        ("GET", b"/judge", (405, "method")),
        ("PUT", b"/judge", (405, "method")),
        ("POST", b"/readyz", (405, "method")),
        ("FOO", b"/metrics", (405, "method")),
        ("GET", b"/" + b"x" * 9000, (414, "target_too_long")),
    ],
)
def test_what_is_not_there(judge, method, target, expected):
    answer = ask(judge.app, method, target)
    assert reason(answer) == expected
    if expected[0] == 405:
        assert answer[1]["allow"]


# Limits


def test_too_many_or_too_large_headers(judge):
    many = [HOST, *((f"x-{i}", "1") for i in range(70))]
    large = [HOST, ("x-large", "x" * 40_000)]
    for headers in (many, large):
        assert reason(ask(judge.app, headers=headers)) == (431, "headers_too_large")


@pytest.mark.parametrize(
    "types",
    [
        [],
        ["text/plain"],
        ["application/jsonx"],
        ["application/json; charset=utf-16"],
        ["application/json", "application/json"],
        ["multipart/form-data"],
    ],
)
def test_only_json(judge, types):
    headers = [HOST, *(("content-type", one) for one in types)]
    assert reason(post(judge, b"{}", headers)) == (415, "media_type")


def test_no_encoded_body(judge):
    headers = [HOST, JSON, ("content-encoding", "gzip")]
    assert reason(post(judge, b"{}", headers)) == (415, "media_type")


@pytest.mark.parametrize(
    "spelling", ['Application/JSON; charset="UTF-8"', "application/json ;charset=utf-8"]
)
def test_json_by_any_spelling(judge, spelling):
    body = judge.host.question()
    headers = [h for h in judge.host.signed(body) if h[0] != "content-type"]
    assert post(judge, body, [*headers, ("content-type", spelling)])[0] == 200


@pytest.fixture(scope="module")
def small(opened, tmp_path_factory):
    host = workspace(tmp_path_factory.mktemp("small"))
    return opened(host, max_body=1000, timeout_sec=0.3, concurrency=2)


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("size", [1001, 100_000])
def test_a_body_that_is_too_large(small, stated, size):
    headers = [HOST, JSON, *([("content-length", str(size))] if stated else [])]
    chunks = [b"x" * 100 for _ in range(size // 100)] + [b"x" * (size % 100)]
    assert reason(post(small, b"", headers, chunks=chunks)) == (413, "body_too_large")


def test_a_body_of_just_that_size(small):
    assert reason(post(small, b"x" * 1000, [HOST, JSON])) == (401, "signature")


@pytest.mark.parametrize("length", ["-1", "x", "9" * 30, "", "1e3"])
def test_a_length_that_is_none_is_counted(small, length):
    headers = [HOST, JSON, ("content-length", length)]
    assert reason(post(small, b"x" * 1001, headers)) == (413, "body_too_large")


async def endless(app, headers, more=b"x", every=0.01):
    """A client that never ends its body, or sends nothing."""
    sent = []

    async def receive():
        await asyncio.sleep(every)
        return {"type": "http.request", "body": more, "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/judge", "raw_path": b"/judge", "root_path": "",
        "query_string": b"", "http_version": "1.1", "scheme": "http", "server": ("x", 1),
        "headers": [(n.encode(), v.encode()) for n, v in headers],
    }  # fmt: skip
    await app(scope, receive, send)
    body = b"".join(m.get("body", b"") for m in sent)
    return sent[0]["status"], {n.decode(): v.decode() for n, v in sent[0]["headers"]}, body


def test_a_body_that_comes_too_slowly(small):
    answer = asyncio.run(endless(small.app, [HOST, JSON]))
    assert reason(answer) == (408, "body_timeout")
    assert answer[1]["connection"] == "close"
    answer = asyncio.run(endless(small.app, [HOST, JSON], every=3600))
    assert reason(answer) == (408, "body_timeout")


def test_an_endless_body_is_not_read_for_ever(small, monkeypatch):
    monkeypatch.setattr(limits_module, "DRAINED", 10_000)
    answer = asyncio.run(endless(small.app, [HOST, JSON], more=b"x" * 600, every=0))
    assert reason(answer) == (413, "body_too_large")


def test_a_client_that_goes_away(judge):
    async def go():
        async def receive():
            return {"type": "http.disconnect"}

        async def send(message):
            pass

        scope = {
            "type": "http", "method": "POST", "path": "/judge", "raw_path": b"/judge",
            "query_string": b"", "headers": [(b"content-type", b"application/json")],
        }  # fmt: skip
        await judge.app(scope, receive, send)

    before = metric(judge, "requests_total", route="/judge", status="499")
    asyncio.run(go())
    assert metric(judge, "requests_total", route="/judge", status="499") == before + 1


def test_more_at_a_time_than_it_takes(small):
    async def go():
        slow = [endless(small.app, [HOST, JSON], every=0.05) for _ in range(2)]
        waiting = [asyncio.ensure_future(one) for one in slow]
        await asyncio.sleep(0.1)
        busy = await exchange(small.app, "POST", b"/judge", [HOST, JSON], [b"{}"])
        probe = await exchange(small.app, "GET", b"/healthz", [HOST], [])
        return busy, probe, [await one for one in waiting]

    busy, probe, slow = asyncio.run(go())
    assert reason(busy) == (503, "busy")
    assert busy[1]["retry-after"] == "1"
    assert probe[0] == 200
    assert [reason(one) for one in slow] == [(408, "body_timeout")] * 2
    assert reason(post(small, b"{}", [HOST, JSON])) == (401, "signature")  # there is room again


def test_strangers_take_nobodys_place_who_has_a_key(opened, tmp_path):
    judge = opened(workspace(tmp_path), concurrency=2, timeout_sec=5)
    body = judge.host.question()
    unknown = make_ring([REQUEST | {"key_id": "nobody"}], "x").signing("request", datetime.now(UTC))
    signed = judge.host.signed(body)
    forged = [
        [HOST, JSON],
        judge.host.signed(body, key=unknown),
        replaced(signed, "signature", lambda v: v[:-3] + ("A=:" if v[-3] != "A" else "E=:")),
    ]

    async def go():
        waiting = [
            asyncio.ensure_future(endless(judge.app, headers, every=3600)) for headers in forged
        ]
        await asyncio.sleep(0.1)
        known = await exchange(judge.app, "POST", b"/judge", signed, [body])
        again = await exchange(judge.app, "POST", b"/judge", [HOST, JSON], [b"{}"])
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return known, again

    known, again = asyncio.run(go())
    assert known[0] == 200
    assert reason(again) == (503, "busy")


def test_work_that_takes_too_long_is_not_waited_for_but_still_counts(opened, tmp_path, monkeypatch):
    judge = opened(workspace(tmp_path), timeout_sec=0.2, concurrency=1)
    leave = threading.Event()
    real = judge.answer

    def slow(received):
        leave.wait(30)
        return real(received)

    monkeypatch.setattr(judge, "answer", slow)
    body = judge.host.question()

    async def go():
        first = await exchange(judge.app, "POST", b"/judge", judge.host.signed(body), [body])
        second = await exchange(judge.app, "POST", b"/judge", judge.host.signed(body), [body])
        leave.set()
        for _ in range(500):
            await asyncio.sleep(0.01)
            third = await exchange(judge.app, "POST", b"/judge", judge.host.signed(body), [body])
            if third[0] == 200:
                break
        return first, second, third

    first, second, third = asyncio.run(go())
    assert reason(first) == (503, "timeout")
    assert first[1]["retry-after"] == "1"
    assert reason(second) == (503, "busy")
    assert third[0] == 200


def test_a_bug_is_told_by_its_kind_and_place_only(opened, tmp_path, monkeypatch, caplog):
    judge = opened(workspace(tmp_path))

    def breaks(received):
        raise RuntimeError("a secret")

    monkeypatch.setattr(judge, "answer", breaks)
    answer = post(judge, judge.host.question())
    assert reason(answer) == (500, "internal")
    assert b"secret" not in answer[2]
    assert "RuntimeError at " in caplog.text
    assert "secret" not in caplog.text
    assert metric(judge, "faults_total") == 1


# Signatures


def refused(judge, body, headers, **more):
    answer = post(judge, body, headers, **more)
    assert reason(answer) == (401, "signature")
    return answer


def replaced(headers, name, change):
    return [(n, change(v) if n == name else v) for n, v in headers]


def test_refused_signatures_look_alike(judge):
    body = judge.host.question()
    now = datetime.now(UTC)
    good = judge.host.signed(body)
    stranger = make_ring([REQUEST | {"secret": "hex:" + "00" * 32}], "x").signing("request", now)
    unknown = make_ring([REQUEST | {"key_id": "nobody"}], "x").signing("request", now)
    used = judge.host.signed(body)
    assert post(judge, body, used)[0] == 200
    causes = {
        "missing_signature": (body, [HOST, JSON]),
        "bad_signature": (body, judge.host.signed(body, key=stranger)),
        "unknown_key": (body, judge.host.signed(body, key=unknown)),
        "digest_mismatch": (body + b" ", good),
        "expired": (body, judge.host.signed(body, now=now - timedelta(seconds=400))),
        "from_the_future": (body, judge.host.signed(body, now=now + timedelta(seconds=60))),
        "replayed": (body, used),
        "malformed": (body, replaced(good, "signature", lambda v: "x")),
        "wrong_tag": (body, replaced(good, "signature-input", lambda v: v.replace("-judge", "-x"))),
    }
    before = {cause: metric(judge, "signature_errors_total", cause=cause) for cause in causes}
    answers = {cause: refused(judge, *said) for cause, said in causes.items()}
    assert len({json.dumps(answer[1:2]) for answer in answers.values()}) == 1
    assert len({answer[2] for answer in answers.values()}) == 1
    for cause in causes:  # and the metrics and the log tell
        assert metric(judge, "signature_errors_total", cause=cause) == before[cause] + 1
    log = judge.host.root / "log/judgelog.csv"
    until(lambda: all(f",true,/judge,{cause}\n" in log.read_text() for cause in causes))


def test_only_a_verified_request_claims_its_nonce(judge):
    body = judge.host.question()
    headers = judge.host.signed(body)
    refused(judge, body + b" ", headers)
    refused(judge, body, replaced(headers, "signature", lambda v: v[:10] + "AAAA" + v[14:]))
    assert post(judge, body, headers)[0] == 200
    refused(judge, body, headers)


def test_a_question_that_cannot_be_judged_uses_its_nonce_up(judge):
    headers = judge.host.signed(b"{}")
    assert reason(post(judge, b"{}", headers)) == (422, "question")
    refused(judge, b"{}", headers)


def test_a_request_older_than_the_store(opened, tmp_path):
    judge = opened(workspace(tmp_path))
    body = judge.host.question()
    old = judge.host.signed(body, now=datetime.now(UTC) - timedelta(seconds=200))
    assert post(judge, body, old)[0] == 200

    def claim(key_id, nonce, *, created):
        raise ReplayStoreError("forgot")

    judge.store.claim = claim
    answer = post(judge, body)
    assert reason(answer) == (503, "replay_store")
    assert b"forgot" not in answer[2]


@pytest.mark.parametrize(
    ("url", "host", "status"),
    [
        ("http://127.0.0.1:8080/judge", None, 200),
        ("http://localhost:8080/judge", None, 200),
        ("http://LOCALHOST:8080/judge", None, 200),
        ("http://[::1]:8080/judge", None, 200),
        ("http://evil.example/judge", None, 401),
        ("http://evil.example:8080/judge", None, 401),
        ("http://127.0.0.1:8081/judge", None, 401),
        ("https://127.0.0.1:8080/judge", None, 401),
        ("http://localhost:8080/judge", "127.0.0.1:8080", 401),
        ("http://127.0.0.1:8080/judge", "evil.example", 200),  # Host says nothing then
        ("http://127.0.0.1:8080/judge?x=1", None, 401),
        ("http://127.0.0.1:8080/judg", None, 401),
    ],
)
def test_the_url_that_was_signed_is_this_servers(judge, url, host, status):
    body = judge.host.question()
    headers = judge.host.signed(body, url)
    if host is not None:
        headers = replaced(headers, "host", lambda v: host)
    assert post(judge, body, headers)[0] == status


def test_path_and_query_are_verified_as_they_came(judge):
    body = judge.host.question()
    url = "http://127.0.0.1:8080/judge?a=%20b"
    headers = judge.host.signed(body, url)
    assert ask(judge.app, "POST", b"/judge?a=%20b", headers, body)[0] == 200
    headers = judge.host.signed(body, url)
    assert ask(judge.app, "POST", b"/judge?a=+b", headers, body)[0] == 401
    headers = judge.host.signed(body)
    assert ask(judge.app, "POST", b"/judge?", headers, body)[0] == 200  # ASGI tells no empty query


def test_behind_a_proxy_the_public_url_is_what_clients_signed(opened, tmp_path):
    judge = opened(workspace(tmp_path), public_url="https://judge.example/base")
    body = judge.host.question()
    headers = judge.host.signed(body, "https://judge.example/base/judge")
    assert post(judge, body, replaced(headers, "host", lambda v: "127.0.0.1:8080"))[0] == 200
    refused(judge, body, judge.host.signed(body))


# Rotation


def rotated(state="grace"):
    new = REQUEST | {"key_id": "r2", "secret": "hex:" + "12" * 32}
    return [REQUEST | {"state": state}, new, SEALS]


def test_a_key_that_the_ring_did_not_know_yet_is_looked_for_before_it_is_refused(opened, tmp_path):
    judge = opened(workspace(tmp_path))
    judge.keys._interval = 3600  # it reads by itself no more
    judge.keys.refresh_now()
    judge.host.ring(rotated())
    body = judge.host.question()
    assert post(judge, body)[0] == 200
    assert judge.keys.ring().signing("request", datetime.now(UTC)).key_id == "r2"
    old = judge.host.keys_of_ring.verifying("request", "r1", made_at=datetime.now(UTC))
    assert post(judge, body, judge.host.signed(body, key=old))[0] == 200
    judge.host.ring(rotated("revoked"))
    judge.reload()
    until(lambda: judge.keys.ring().keys[0].state == "revoked")
    refused(judge, body, judge.host.signed(body, key=old))


@pytest.mark.slow
def test_unknown_keys_cause_one_read_a_second_and_leave_room_for_known_ones(opened, tmp_path):
    judge = opened(workspace(tmp_path), concurrency=8)
    judge.keys._interval = 3600
    judge.keys.refresh_now()
    reads = []
    real = judge.keys._source
    time.sleep(0.2)

    def counted():
        reads.append(time.monotonic())
        return real()

    judge.keys._source = counted
    body = judge.host.question()
    unknown = make_ring([REQUEST | {"key_id": "nobody"}], "x").signing("request", datetime.now(UTC))

    async def go():
        made = [judge.host.signed(body, key=unknown) for _ in range(7)]
        waiting = [
            asyncio.ensure_future(exchange(judge.app, "POST", b"/judge", headers, [body]))
            for headers in made
        ]
        await asyncio.sleep(0)
        known = await exchange(judge.app, "POST", b"/judge", judge.host.signed(body), [body])
        return known, [await one for one in waiting]

    known, answers = asyncio.run(go())
    assert known[0] == 200
    reasons = [reason(answer) for answer in answers]
    assert reasons.count((401, "signature")) == 4
    assert reasons.count((503, "busy")) == 3
    assert len(reads) == 1


@pytest.mark.slow
def test_while_the_ring_cannot_be_read_an_unknown_key_is_not_refused_but_put_off(opened, tmp_path):
    judge = opened(workspace(tmp_path))
    judge.keys._interval = 3600
    judge.keys.refresh_now()
    body = judge.host.question()
    unknown = make_ring([REQUEST | {"key_id": "new"}], "x").signing("request", datetime.now(UTC))
    judge.host.ring_file.rename(tmp_path / "away")
    answer = post(judge, body, judge.host.signed(body, key=unknown))
    assert reason(answer) == (503, "keys")
    assert answer[1]["retry-after"] == "1"
    assert post(judge, body)[0] == 200  # the last good ring holds
    stuck = threading.Event()
    judge.keys._source = lambda: stuck.wait(30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app_module, "RING_WAIT_SEC", 0.1)
        answer = post(judge, body, judge.host.signed(body, key=unknown))
    stuck.set()
    assert reason(answer) == (503, "keys")


def test_a_ring_that_is_too_old_verifies_nothing(opened, tmp_path):
    judge = opened(workspace(tmp_path))
    judge.keys._grace, judge.keys._interval = -100.0, 0.01
    assert reason(post(judge, judge.host.question())) == (503, "keys")


def test_reload_takes_up_key_and_target_or_leaves_all_as_it_was(opened, tmp_path):
    from pytest_decisionos.trust.ed25519 import generate, write_private

    judge = opened(workspace(tmp_path))
    first = judge.judge
    path = judge.host.keys / "judge-j1.key"
    path.chmod(0o644)
    with pytest.raises(KeysError):
        judge.reload()
    assert judge.judge == first
    path.unlink()
    path.with_suffix(".pub").unlink()
    write_private(path, generate())
    judge.host.gate({"service": "other", "environment": "production"})
    judge.reload()
    assert judge.judge.key.keyid != first.key.keyid
    assert reason(post(judge, judge.host.question())) == (422, "foreign_target")


def test_nothing_stays_open_when_it_does_not_start(opened, tmp_path, monkeypatch):
    def refuses(options):
        raise ReplayStoreError("it forgot")

    monkeypatch.setattr(service_module, "replay_store", refuses)
    before = threading.active_count()
    with pytest.raises(ReplayStoreError):
        opened(workspace(tmp_path))
    until(lambda: threading.active_count() == before)


def test_lifespan_is_none_of_its_business(judge):
    async def go():
        events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent = []

        async def receive():
            return events.pop(0)

        async def send(message):
            sent.append(message["type"])

        await make_app(judge)({"type": "lifespan", "asgi": {}, "state": {}}, receive, send)
        return sent

    assert asyncio.run(go()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
