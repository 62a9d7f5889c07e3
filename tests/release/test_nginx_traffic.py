"""Real nginx, real requests: who is served by whom, what users notice, and what the log says."""

import contextlib
import fcntl
import http.client
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from services.nginx import Front, require_nginx

from demo.traffic import Site, free_ports
from pytest_decisionos.errors import RolloutError
from pytest_decisionos.release import rollout_nginx
from pytest_decisionos.release.rollout_nginx import NginxRollout
from pytest_decisionos.release.traffic import Traffic

pytestmark = pytest.mark.untraced
V1 = Traffic(release="v1")


@contextlib.contextmanager
def connected(front):
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=60)
    try:
        yield connection
    finally:
        connection.close()


def ask(connection, path="/pay/card", method="GET", body=None, **headers):
    """Status and release of one request; the connection is kept."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body=body, headers=names)
    answer = connection.getresponse()
    said = answer.read()
    ours = answer.headers.get_content_type() == "application/json"
    return answer.status, json.loads(said)["release"] if ours else None


def sides(front, users, *, header="Cookie", form="user={}"):
    """The release that each user gets."""

    def some(names):
        with connected(front) as connection:
            return {name: ask(connection, **{header: form.format(name)})[1] for name in names}

    with ThreadPoolExecutor(8) as pool:
        parts = pool.map(some, [users[start::8] for start in range(8)])
        return {name: release for part in parts for name, release in part.items()}


def rows(front):
    return [json.loads(line) for line in front.log.read_bytes().decode().splitlines()]


def when(condition, sec=60.0):
    """Wait for it: what it waits for comes, or the test fails."""
    until = time.monotonic() + sec
    while not condition():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.01)


# The split


@pytest.mark.parametrize(
    ("sticky", "header", "form"),
    [("cookie:user", "Cookie", "a=b; user={}"), ("header:X-User", "X-User", "{}")],
)
def test_users_stay_on_their_side_and_the_share_is_right(front_of, sticky, header, form):
    front = front_of(sticky=sticky)
    users = [f"user-{number}" for number in range(800)]
    canaries = set()
    for pct in (5.0, 25.0, 60.0):
        front.step(pct)
        now = sides(front, users, header=header, form=form)
        assert set(now.values()) == {"v1", "v2"}
        before, canaries = canaries, {user for user, release in now.items() if release == "v2"}
        assert before < canaries  # whoever is on the canary stays there when its share grows
        share = pct / 100
        spread = math.sqrt(len(users) * share * (1 - share))
        assert abs(len(canaries) - share * len(users)) < 4 * spread
    assert sides(front, users[:100], header=header, form=form) == {u: now[u] for u in users[:100]}
    front.step(100.0, keep_warm=True)
    assert set(sides(front, users[:50], header=header, form=form).values()) == {"v2"}


def test_each_release_has_other_users_go_first(front_of):
    front = front_of()
    v3 = front.site.upstream("v3")
    front.settings["releases"]["v3"] = [f"127.0.0.1:{v3.port}"]
    users = [f"user-{number}" for number in range(200)]
    first = []
    for release in ("v2", "v3"):
        front.adapter().apply(Traffic(pct=20.0, release=release, baseline_release="v1"))
        first.append({u for u, r in sides(front, users).items() if r == release})
    assert first[0]
    assert first[1]
    assert first[0] != first[1]


def test_without_the_key_a_user_has_a_side_too(front):
    front.step(50.0)
    with connected(front) as connection:
        got = {
            agent: {ask(connection, User_Agent=agent)[1] for _ in range(5)}
            for agent in ("curl", "firefox", "chrome", "safari", "opera", "wget", "lynx", "edge")
        }
    assert all(len(releases) == 1 for releases in got.values())
    assert {release for releases in got.values() for release in releases} == {"v1", "v2"}


def test_by_address_all_of_one_host_are_on_one_side(front_of):
    front = front_of(sticky="ip")
    front.step(50.0)
    assert len(set(sides(front, [f"u{n}" for n in range(40)]).values())) == 1


# Shadow


@pytest.mark.parametrize("behaviour", ["hang", "dead", "slow", "errors"])
def test_users_neither_wait_for_the_shadow_nor_see_its_answers(front, behaviour):
    front.site.become(front.v2, behaviour)
    front.step(0)
    with connected(front) as connection:
        ask(connection)
        local = connection.sock.getsockname()
        for _ in range(40):  # one after the other, through one kept connection
            assert ask(connection, Cookie="user=a") == (200, "v1")
        assert connection.sock.getsockname() == local
    copied = [row for row in rows(front) if row["variant"] == "shadow"]
    if behaviour == "hang":
        # All were answered before the first copy was given up, so nobody waited for one.
        assert front.v2.copies > 0
        assert not copied
    else:
        when(lambda: sum(row["variant"] == "shadow" for row in rows(front)) >= 20)
    assert front.v2.users == front.v1.copies == 0


def test_copies_are_whole_and_marked_and_users_cannot_mark_theirs(front_of):
    front = front_of(shadow_methods=["GET", "POST"])
    front.step(0)
    body = b"0123456789" * 30_000  # more than nginx keeps in memory
    path = "/%7Ea%2Fb/../c%20d?x=%26&y=%EC%98%A4"
    with connected(front) as connection:
        assert ask(connection, path, "POST", body, X_DecisionOS_Shadow="1") == (200, "v1")
        assert ask(connection, "/big", "GET", b"of a GET") == (200, "v1")
    when(lambda: front.v2.copies == 2)
    assert (front.v1.users, front.v1.copies) == (2, 0)
    assert front.v1.bodies == front.v2.bodies == Counter({body: 1, b"of a GET": 1})
    assert front.v1.paths == front.v2.paths == Counter({path: 1, "/big": 1})


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_what_may_change_something_is_not_copied(front, method):
    front.step(0)
    with connected(front) as connection:
        assert ask(connection, method=method, body=b"x") == (200, "v1")
        assert ask(connection) == (200, "v1")
    when(lambda: front.v2.copies == 1)
    time.sleep(0.1)  # the other copy would be there by now
    assert front.v2.copies == 1


def test_a_hanging_shadow_takes_only_so_many(front):
    front.site.become(front.v2, "hang")
    front.step(0)
    assert set(sides(front, [f"u{n}" for n in range(600)]).values()) == {"v1"}
    assert 0 < front.v2.copies <= 128


def test_the_old_side_is_kept_warm_and_takes_all_back_at_once(front):
    front.step(100.0, keep_warm=True)
    with connected(front) as connection:
        assert {ask(connection, Cookie=f"user={n}") for n in range(10)} == {(200, "v2")}
    when(lambda: front.v1.copies == 10)
    front.rollout.apply(V1)
    with connected(front) as connection:
        assert {ask(connection, Cookie=f"user={n}") for n in range(10)} == {(200, "v1")}
    when(lambda: len(rows(front)) == 30)  # a row is written after the answer
    found = Counter((row["variant"], row["release"]) for row in rows(front))
    assert found == {("canary", "v2"): 10, ("mirror", "v1"): 10, ("control", "v1"): 10}


# The log


def test_the_log_gives_evidence(front):
    front.step(0)
    users = [f"u{n}" for n in range(120)]
    sides(front, users[:30])
    when(lambda: front.v2.copies == 30)
    front.step(50.0)
    front.site.become(front.v2, "errors")
    now = sides(front, users)
    counts = Counter(now.values())
    when(lambda: len(rows(front)) == 180)
    blocks = harvest(front)
    assert (blocks["meta"]["release"], blocks["meta"]["baseline_release"]) == ("v2", "v1")
    assert blocks["perf"]["count"] == 150
    assert blocks["canary"]["canary_perf"]["count"] == counts["v2"]
    assert filtered(blocks, "variant=shadow") == 30
    assert 1 <= blocks["perf"]["latency_ms"]["p50"] < 1000
    assert {g["name"] for g in blocks["perf"]["groups"]} == {"/pay"}


def test_whatever_a_client_sends_the_log_can_be_harvested(front_of):
    front = front_of(tenant="header:X-Tenant", route_segments=2)
    front.step(50.0)
    sent = [
        b"GET /%FF%FE/x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\nX-Tenant: \xff\r\n\r\n",
        b'GET /"a"%22,%7B%5C HTTP/1.1\r\nHost: a\r\nX-Tenant: {"a":"\\\r\n\r\n',
        b"GET /a%0Ab%00c HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xec\x98\xa4\xeb\xa5\x98/%EA%B2%B0%EC%A0%9C?x=1 HTTP/1.1\r\nHost: a\r\nX-Tenant: \xec\x84\x9c\xec\x9a\xb8\r\n\r\n",
        b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: a\r\nX-Tenant: " + b"t" * 3000 + b"\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /\r\n",  # HTTP/0.9
        b"GET //a///b/c/d HTTP/1.1\r\nHost: a\r\nX-Tenant: acme\r\n\r\n",
        b"GET /healthz/live HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
        b"BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\nCookie: user=$host;user={}\r\n\r\n",
        b"GET /.decisionos/copy HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    for data in sent:
        with socket.create_connection(("127.0.0.1", front.port), timeout=30) as talk:
            talk.sendall(data)
            talk.shutdown(socket.SHUT_WR)
            while talk.recv(65_536):
                pass
    with socket.create_connection(("127.0.0.1", front.port), timeout=30) as talk:
        talk.sendall(b"GET /gone HTTP/1.1\r\nHost: a\r\n\r\n")  # and never reads
    when(lambda: any(row["route"] == "/gone" for row in rows(front)))
    seen = rows(front)
    assert {row["route"] for row in seen} >= {"/오류/결제", "/a/b", "/", "(other)", "/healthz/live"}
    assert {row["tenant"] for row in seen} == {"", "acme", "서울", '{"a":"\\', "(other)"}
    assert {row["variant"] for row in seen} <= {"control", "canary"}
    assert all(100 <= row["status"] <= 599 for row in seen)
    blocks = harvest(front)
    assert blocks["perf"]["count"] == len(seen) - 1
    assert filtered(blocks, "route=/healthz/*") == 1


def filtered(blocks, text):
    (source,) = blocks["witness"]["sources"]
    return {one["text"]: one["rows"] for one in source["filters"]}[text]


def harvest(front):
    """Evidence of the log, by the command that people use."""
    out = front.root / "evidence.json"
    command = [
        sys.executable, "-m", "pytest_decisionos.cli.main", "evidence", "build", "--reqlog", front.log,
        "--target", "checkout/production", "--guardband", "0", "--out", out,
    ]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=front.root, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def test_a_dead_canary_is_in_the_log_as_errors(front):
    front.step(50.0)
    front.site.become(front.v2, "dead")
    with connected(front) as connection:
        said = [ask(connection, Cookie=f"user={n}") for n in range(60)]
    assert {status for status, _ in said} == {200, 502}
    when(lambda: len(rows(front)) == 60)
    found = Counter((row["variant"], row["status"]) for row in rows(front))
    assert set(found) == {("control", 200), ("canary", 502)}
    assert found["canary", 502] == sum(status == 502 for status, _ in said)


# Reloads


def test_no_request_is_lost_while_traffic_moves(front):
    load = front.site.load(front.port, users=40, rate=200)
    for pct in (0, 5.0, 25.0, 50.0, 100.0):
        front.step(pct, keep_warm=pct == 100)
        assert front.rollout.running() == front.at(pct, keep_warm=pct == 100)
        time.sleep(0.4)
    front.rollout.apply(Traffic(release="v2"))
    front.step(5.0)
    front.rollout.apply(V1)
    back = time.time()
    time.sleep(0.4)
    account = load.stop()
    assert account.lost == 0, [one for one in account.answers if one.why]
    assert account.sent == account.answered == sum(account.statuses.values()) > 300
    assert set(account.statuses) == {200}
    assert set(account.releases) == {"v1", "v2"}
    assert set(account.since(back).releases) == {"v1"}  # and nobody is left behind

    def logged():
        users = (row for row in rows(front) if row["variant"] in {"control", "canary"})
        return Counter(row["release"] for row in users)

    when(lambda: logged().total() >= account.sent)
    assert logged() == account.releases


def test_the_same_again_reloads_nothing(front):
    front.step(5.0)
    workers = children(front.nginx.pid)
    front.step(5.0)
    assert children(front.nginx.pid) == workers
    front.step(10.0)
    when(lambda: not (children(front.nginx.pid) & workers))


def children(pid):
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_a_crash_between_swap_and_reload_is_healed_by_applying_again(front, monkeypatch):
    front.step(5.0)

    class CrashError(BaseException):
        pass

    def crash(self, generation):
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(NginxRollout, "_load", crash)
        with pytest.raises(CrashError):
            front.step(25.0)
    assert front.rollout.running() == front.at(5.0)
    front.adapter().apply(front.at(25.0))
    assert front.rollout.running() == front.at(25.0)


# What fails


BROKEN = {
    "syntax": ("http {", "http { gibberish;", "unknown directive"),
    "no placeholder": ("%%{server}", "", "a template without our part"),
    "unknown placeholder": ("http {", "http { # %%{secret}", "not a template"),
    "not there": (None, None, "cannot be read"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_template_changes_nothing(front, how):
    front.step(5.0)
    before = front.rollout.conf.read_bytes()
    ours = Path(sys.modules[NginxRollout.__module__].__file__).with_name("nginx") / "nginx.conf"
    old, new, says = BROKEN[how]
    if old:
        (front.root / "own.conf").write_text(ours.read_text().replace(old, new))
    with pytest.raises(RolloutError, match=says):
        front.adapter(template="own.conf").apply(front.at(25.0))
    assert front.rollout.conf.read_bytes() == before
    assert not front.rollout.conf.with_name("nginx.conf.new").exists()
    assert front.rollout.running() == front.at(5.0)


def test_a_configuration_that_nginx_tests_well_and_cannot_load(front):
    front.step(5.0)
    before = front.rollout.conf.read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = [*front.settings["listen"], f"127.0.0.1:{port}"]
        with pytest.raises(RolloutError) as told:
            front.adapter(listen=listen, timeout_sec=1.0).apply(front.at(25.0))
        assert f"bind() to 127.0.0.1:{port} failed" in str(told.value)
    assert front.rollout.conf.read_bytes() == before
    assert front.rollout.running() == front.at(5.0)
    front.step(25.0)
    assert front.rollout.running() == front.at(25.0)


def test_a_reload_that_fails_is_taken_back_but_never_forward_to_a_canary(front, tmp_path):
    front.step(5.0)
    at_5 = front.rollout.conf.read_bytes()
    fake = tmp_path / "fake"
    fake.write_text(
        '#!/bin/sh\ncase "$*" in *"-s reload") echo no right to >&2; exit 1;; esac\nexec nginx "$@"\n'
    )
    fake.chmod(0o755)
    cannot = front.adapter(program=[str(fake)])
    with pytest.raises(RolloutError, match="no right to"):
        cannot.apply(front.at(25.0))
    assert front.rollout.conf.read_bytes() == at_5
    with pytest.raises(RolloutError, match="no right to"):
        cannot.apply(V1)
    assert b'"release": "v1", "baseline_release": null' in front.rollout.conf.read_bytes()
    assert front.rollout.running() == front.at(5.0)
    front.rollout.apply(V1)
    assert front.rollout.running() == V1


def test_a_nginx_that_does_not_run(front):
    front.step(5.0)
    at_5 = front.rollout.conf.read_bytes()
    front.nginx.stop()
    assert front.rollout.running() is None
    with pytest.raises(RolloutError, match="nginx does not answer.*nginx -c"):
        front.step(25.0)
    assert front.rollout.conf.read_bytes() == at_5
    with pytest.raises(RolloutError, match="nginx does not answer"):
        front.rollout.apply(Traffic())  # nobody says which release served but the file
    front.nginx.start()  # with what the abort left: nobody comes back to the canary
    assert front.rollout.running() == V1


def test_the_first_start_is_without_a_canary(tmp_path):
    require_nginx()
    with Site() as site:
        front = Front(tmp_path / "var", site)
        with pytest.raises(RolloutError, match="nginx does not answer"):
            front.step(25.0)
        with front.nginx:
            assert front.rollout.running() == V1
            front.step(25.0)
            assert front.rollout.running() == front.at(25.0)


def test_nobody_else_is_signalled(front_of, tmp_path):
    front = front_of()
    front.nginx.stop()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        try:
            (front.root / "rollout/nginx.pid").write_text(f"{other.pid}\n")
            with pytest.raises(RolloutError, match="nginx does not answer"):
                front.step(5.0)
            assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (200, b"{}"), (200, b"hello"), (200, b'{"generation": "x", "pct": 101}'), (200, b"[]"),
        (404, b'{"generation": "x"}'), (200, b'{"generation": "x", "pct": NaN}'),
    ],
)  # fmt: skip
def test_somebody_else_at_the_control_port_is_not_believed(tmp_path, status, says):
    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(says)

        def log_message(self, *_):
            pass

    class Nowhere:
        def upstream(self, release):
            return type("Upstream", (), {"port": free_ports(1)[0]})

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        front = Front(tmp_path, Nowhere(), control=f"127.0.0.1:{server.server_port}")
        assert front.rollout.running() is None
        server.shutdown()
        thread.join()


# The way back


@pytest.mark.parametrize("pct", [0, 25.0, 100.0])
def test_back_without_knowing_to_which_release(front, pct):
    front.step(pct)
    front.rollout.apply(Traffic())
    assert front.rollout.running() == V1
    front.rollout.apply(Traffic())
    assert front.rollout.running() == V1


def test_nobody_knows_which_release_serves(tmp_path, front_of):
    front = front_of()
    front.nginx.stop()
    front.rollout.conf.unlink()
    with pytest.raises(RolloutError, match="nobody says which release serves"):
        front.rollout.apply(Traffic())


FULL = """
import json, resource, signal, sys
from pathlib import Path
from pytest_decisionos.errors import DecisionOSError
from pytest_decisionos.release.nginx_config import NginxConfig
from pytest_decisionos.release.rollout_nginx import NginxRollout
from pytest_decisionos.release.traffic import Traffic
settings, root, want = sys.argv[1:]
root = Path(root)
rollout = NginxRollout(NginxConfig.model_validate_json(settings), strategy="canary", root=root, beside=root)
want = Traffic.model_validate_json(want)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file can grow by a byte
try:
    rollout.apply(want)
except DecisionOSError as fault:
    sys.exit(str(fault))
"""


def test_the_way_back_needs_no_disk_space(front):
    front.step(5.0)

    def on_a_full_disk(want):
        arguments = [json.dumps(front.settings), str(front.root), want.model_dump_json()]
        # Not even coverage can write.
        env = {k: v for k, v in os.environ.items() if not k.startswith(("COVERAGE_", "COV_"))}
        return subprocess.run(
            [sys.executable, "-c", FULL, *arguments],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )

    forward = on_a_full_disk(front.at(25.0))
    assert forward.returncode == 1
    assert "cannot be written: File too large" in forward.stderr
    assert front.rollout.running() == front.at(5.0)
    back = on_a_full_disk(Traffic())
    assert (back.returncode, back.stderr) == (0, "")
    assert front.rollout.running() == V1


def test_the_way_back_does_not_wait_for_a_run_that_hangs(front, monkeypatch):
    front.step(25.0)
    monkeypatch.setattr(rollout_nginx, "BACK_LOCK_SEC", 0.05)
    with (front.root / "rollout/.nginx.conf.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        front.rollout.apply(Traffic())
    assert front.rollout.running() == V1


def test_two_at_once_end_with_what_one_of_them_wanted(front):
    wants = [front.at(pct) for pct in (5.0, 10.0, 25.0, 50.0)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(front.adapter().apply, wants))
    running = front.rollout.running()
    assert running in wants
    front.rollout.apply(running)
    assert front.rollout.running() == running


def test_workers_that_were_killed_come_back_with_the_same(front):
    front.step(25.0)
    before = children(front.nginx.pid)
    for pid in before:
        os.kill(int(pid), signal.SIGKILL)
    when(lambda: children(front.nginx.pid) and not children(front.nginx.pid) & before)
    when(lambda: front.rollout.running() == front.at(25.0))
