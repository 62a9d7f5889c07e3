"""``dosctl judge serve`` as a process: it starts or says why not, serves, reloads, drains."""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from judge_host import REQUEST, SEALS, until, workspace
from services.ntp import servers

pytestmark = pytest.mark.untraced


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """One server for the tests that change nothing."""
    with pytest.MonkeyPatch.context() as patch, servers({}, {}, {}) as clocks:
        for name in list(os.environ):
            if name.startswith("DECISIONOS_"):
                patch.delenv(name)
        host = workspace(tmp_path_factory.mktemp("plain"))
        ntp = ",".join(clock.name for clock in clocks)
        with host.serve("--timeout", "2", DECISIONOS_NTP=ntp) as served:
            yield served
        assert served.process.returncode == 0
        assert served.errors.read_text().splitlines() == [f"listening on {served.url}"]


def test_it_is_ready_in_exactly_these_bytes(plain):
    until(lambda: plain.get("/readyz")[0] == 200)
    status, headers, body = plain.get("/readyz")
    assert (status, body) == (200, b'{"status":"ready"}')
    assert headers["content-type"] == "application/json"
    assert "server" not in {name.lower() for name in headers}


def test_it_judges(plain):
    status, _, body = plain.ask(plain.host.question())
    assert status == 200
    assert set(json.loads(body)) == {"verdict", "numbers"}
    assert plain.get("/metrics")[0] == 200
    assert plain.get("/healthz")[2] == b'{"status":"ok"}'


def test_an_answer_does_not_wait_for_the_client_to_confirm_its_head(tmp_path):
    from pytest_decisionos.judge.server.run import _listening

    options = workspace(tmp_path).options(port=0)
    with (
        _listening(options) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as link,
    ):
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def head(length, *more, path="/judge", method="POST"):
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *more]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_body_of_one_byte_too_much(plain):
    size = 8 * 1024 * 1024 + 1
    answer = plain.raw(head(size) + b"x" * size)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"reason": "body_too_large"' in answer


def test_chunks_of_one_byte_too_much(plain):
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    data = head(None, "Transfer-Encoding: chunked") + chunk * 128 + b"1\r\nx\r\n0\r\n\r\n"
    answer = plain.raw(data)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_chunks_of_a_signed_body(plain):
    body = plain.host.question()
    signed = [
        f"{n}: {v}" for n, v in plain.host.signed(body, f"{plain.url}/judge") if n != "content-type"
    ]
    data = head(None, "Transfer-Encoding: chunked", "Connection: close").replace(
        b"Host: x\r\n", b""
    )
    data = data[:-2] + "\r\n".join([*signed, "", ""]).encode()
    data += b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:100], body[100:])) + b"0\r\n\r\n"
    assert plain.raw(data).startswith(b"HTTP/1.1 200 ")


def test_a_slow_body(plain):
    answer = plain.raw(head(100) + b"x")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()


def test_a_head_that_does_not_come_is_not_waited_for(plain):
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    sent = [b"", b"G", b"GET /readyz HTTP/1.1\r\nHost", one, one + b"GET /hea"]
    with ThreadPoolExecutor(len(sent)) as threads:
        answers = list(threads.map(plain.raw, sent))  # each until the server closes, or it fails
    assert answers[:3] == [b"", b"", b""]
    assert [answer.count(b"200 OK") for answer in answers[3:]] == [1, 1]


def test_strangers_that_only_connect_keep_nobody_out(tmp_path):
    host = workspace(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    served = host.serve(ready=False, wait=False)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with served, contextlib.ExitStack() as links:
        served.listens()
        served.store_remembers()
        for _ in range(600):  # more than uvicorn lets in, and than files were allowed
            links.enter_context(socket.create_connection(("127.0.0.1", served.port)))
        assert served.ask(host.question())[0] == 200
        assert served.get("/healthz")[0] == 200
        assert served.errors.read_text().count("\n") == 1  # no file was lacking


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /readyz HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"x: y\r\n" * 20_000,
        b"POST /judge HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /judge HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_what_is_no_http(plain, data):
    answer = plain.raw(data)
    assert answer.split()[1] in {b"400", b"414", b"431"}
    assert b"content-type: application/problem+json" in answer
    assert answer.endswith(b"}")
    assert plain.get("/healthz")[0] == 200


@pytest.mark.parametrize("length", ["1", "0"])
def test_chunks_and_a_length_are_one_request_or_none(plain, length):
    """What two readers may cut differently must not be read as two requests."""
    inner = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    data = head(length, "Transfer-Encoding: chunked") + b"0\r\n\r\n" + inner
    answer = plain.raw(data + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    first = int(answer.split()[1])
    assert first in {400, 401}


def test_upgrades_are_not_known(plain):
    data = head(
        None, "Connection: Upgrade, close", "Upgrade: websocket", path="/readyz", method="GET"
    )
    assert plain.raw(data).split()[1] in {b"200", b"400", b"503"}


# The end


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_work_is_answered_and_nothing_new_is_taken(tmp_path, workers, signal_):
    host = workspace(tmp_path)
    with host.serve("--workers", str(workers)) as served:
        body = host.question()
        connection = served.connect()
        connection.putrequest("POST", "/judge", skip_host=True)
        for name, value in host.signed(body, f"{served.url}/judge"):
            connection.putheader(name, value)
        connection.putheader("content-length", str(len(body)))
        connection.endheaders()
        connection.send(body[:100])
        time.sleep(0.3)  # so that it is in work; were it not, it would be refused below, and fail
        idle = served.connect()
        idle.connect()
        served.process.send_signal(signal_)
        until(lambda: refused(served.port))
        connection.send(body[100:])
        answer = connection.getresponse()
        assert answer.status == 200
        assert set(json.loads(answer.read())) == {"verdict", "numbers"}
        connection.close()
        idle.close()
        assert served.ended() == 0


def refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


# Reload


def test_sighup_takes_up_the_judges_key_and_says_what_it_cannot_use(tmp_path):
    host = workspace(tmp_path)
    with host.serve() as served:
        first = signer(served)
        path = host.keys / "judge-j1.key"
        path.chmod(0o644)
        served.process.send_signal(signal.SIGHUP)
        until(lambda: "not reloaded: " in served.errors.read_text())
        assert signer(served) == first
        renew(path)
        served.process.send_signal(signal.SIGHUP)
        until(lambda: signer(served) != first)
        served.term()
        assert served.ended() == 0


MOMENTS = """
import os, signal, sys
from pytest_decisionos.cli.main import main
from pytest_decisionos.judge.server import worker

moment, sent = sys.argv.pop(1), getattr(signal, sys.argv.pop(1))
owner, name = {
    "opening": (worker.Service, "__init__"),
    "before uvicorn listens to signals": (worker._Server, "run"),
    "closing": (worker.Service, "close"),
}[moment]
real = getattr(owner, name)

def then(self, *args, **kwargs):
    os.kill(os.getpid(), sent)
    return real(self, *args, **kwargs)

setattr(owner, name, then)
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("moment", "sent"),
    [
        ("opening", "SIGHUP"),
        ("before uvicorn listens to signals", "SIGHUP"),
        ("before uvicorn listens to signals", "SIGTERM"),
        ("closing", "SIGHUP"),
    ],
)
def test_a_signal_at_a_bad_moment(tmp_path, moment, sent):
    host = workspace(tmp_path)
    command = [sys.executable, "-c", MOMENTS, moment, sent, "judge", "serve", "--port", "0"]
    with host.serve(ready=False, command=command, wait=sent == "SIGHUP") as served:
        if sent == "SIGHUP":
            assert served.get("/healthz")[0] == 200
            served.term()
        assert served.ended() == 0
    store = host.root / "judge" / "replay.sqlite"
    assert store.exists()
    assert not store.with_name("replay.sqlite-wal").exists()  # whoever closes it last removes it


def test_sighup_reaches_every_worker(tmp_path):
    host = workspace(tmp_path)
    with host.serve("--workers", "2") as served:
        first = signer(served)
        renew(host.keys / "judge-j1.key")
        served.process.send_signal(signal.SIGHUP)
        until(lambda: first not in {signer(served) for _ in range(20)})
        assert served.errors.read_text().count("\n") == 1  # and none of them ended


def signer(served):
    status, _, body = served.ask(served.host.question())
    assert status == 200, body
    return json.loads(body)["verdict"]["signatures"][0]["keyid"]


def renew(path):
    from pytest_decisionos.trust.ed25519 import generate, write_private

    path.unlink()
    path.with_suffix(".pub").unlink()
    write_private(path, generate())


def test_keys_rotate_without_a_refused_request(tmp_path):
    host = workspace(tmp_path)
    steps = [
        [REQUEST, SEALS],
        [REQUEST | {"state": "grace"}, other("r2"), SEALS],
        [REQUEST | {"state": "revoked"}, other("r2"), SEALS],
        [other("r2", "grace"), other("r3"), SEALS],
    ]
    with host.serve("--workers", "2") as served:
        stop, statuses = threading.Event(), []

        evidence = host.evidence()

        def go():
            while not stop.is_set():
                statuses.append(served.ask(host.question(evidence=evidence))[0])

        thread = threading.Thread(target=go)
        thread.start()
        revoked = host.keys_of_ring.signing("request", datetime.now(UTC))
        for step in steps[1:]:
            host.ring(step)
            time.sleep(1.5)
        stop.set()
        thread.join()
        assert set(statuses) == {200}
        assert len(statuses) > 20
        assert {served.ask(host.question(), key=revoked)[0] for _ in range(5)} == {401}


def other(key_id, state="active"):
    return REQUEST | {"key_id": key_id, "secret": f"hex:{key_id[1] * 64}", "state": state}


# Workers


def workers_of(pid):
    """The processes that serve: those that listen, too."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{entry}/stat") as stream:
                    parent = int(stream.read().rpartition(")")[2].split()[1])
                with open(f"/proc/{entry}/cmdline") as stream:
                    if parent == pid and "spawn_main" in stream.read():
                        found.append(int(entry))
    return found


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks into /proc")


@needs_proc
def test_several_workers_answer_alike_and_are_minded(tmp_path):
    host = workspace(tmp_path)
    (host.logs / "lb.csv").write_text((host.logs / "reqlog.csv").read_text())
    with host.serve("--workers", "2", "--peer", "lb.csv") as served:
        until(lambda: len(workers_of(served.process.pid)) == 2)
        # Its own log grows; every worker says of one decision what the first one read.
        body = host.question()
        numbers = set()
        for i in range(20):
            with (host.logs / "lb.csv").open("a") as stream:
                stream.write(f"{host.now.isoformat()},200,{i}\n")
            status, _, answer = served.ask(body)
            assert status == 200
            numbers.add(json.loads(answer)["numbers"])
        assert len(numbers) == 1
        text = served.get("/metrics")[2].decode()
        counted = re.search(r'verdicts_total\{vote="pass"\} ([0-9.]+)', text)
        assert float(counted[1]) >= 20  # of both together
        first = workers_of(served.process.pid)
        os.kill(first[0], signal.SIGKILL)
        until(lambda: "another one starts" in served.errors.read_text())
        until(lambda: len(set(workers_of(served.process.pid)) - {first[0]}) == 2)
        assert served.ask(body)[0] == 200
        header = "ts,status,latency_ms,signature_error,route,reason"
        log = (host.root / "log/judgelog.csv").read_text().splitlines()
        assert log.count(header) == 1
        served.term()
        assert served.ended() == 0
    assert "Traceback" not in served.errors.read_text()


@needs_proc
def test_a_worker_that_cannot_start_again_is_tried_again(tmp_path):
    host = workspace(tmp_path)
    with host.serve("--workers", "2") as served:
        workers = until(lambda: (w := workers_of(served.process.pid)) and len(w) == 2 and w)
        key = host.keys / "judge-j1.key"
        key.chmod(0o644)
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: "others may use this secret" in served.errors.read_text(), seconds=60)
        assert served.ask(host.question())[0] == 200  # the other one goes on
        key.chmod(0o600)
        until(lambda: len(set(workers_of(served.process.pid)) - set(workers[:1])) == 2, seconds=60)
        served.term()
        assert served.ended() == 0


@needs_proc
def test_workers_do_not_outlive_who_minds_them(tmp_path):
    host = workspace(tmp_path)
    with host.serve("--workers", "2") as served:
        workers = until(lambda: (w := workers_of(served.process.pid)) and len(w) == 2 and w)
        served.process.kill()
        served.process.wait()
        until(lambda: refused(served.port))
        for pid in workers:
            until(lambda pid=pid: not os.path.isdir(f"/proc/{pid}"))


def test_a_nonce_is_claimed_for_all_workers(tmp_path):
    host = workspace(tmp_path)
    with host.serve("--workers", "2") as served:
        for _ in range(10):
            body = host.question()
            headers = dict(host.signed(body, f"{served.url}/judge"))
            statuses = []
            for _ in range(3):
                connection = served.connect()
                connection.request("POST", "/judge", body, headers)
                statuses.append(connection.getresponse().status)
                connection.close()
            assert statuses == [200, 401, 401]


# TLS


class Authority:
    """A certificate authority, made for one test."""

    def __init__(self, folder, name="ca"):
        self.folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        ca = x509.BasicConstraints(ca=True, path_length=0)
        self.file = folder / f"{name}.pem"
        certificate = self._signed(self._name, self._key.public_key(), (ca, True))
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _signed(self, name, key, *extensions):
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            self._name,
            name,
            key,
            x509.random_serial_number(),
            now - timedelta(hours=1),
            now + timedelta(hours=1),
        )
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        own = x509.SubjectKeyIdentifier.from_public_key(key)
        for extension, critical in (*extensions, (issuer, False), (own, False)):
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, name, mode=0o600):
        """Certificate and key of ``name`` for localhost, as files."""
        import ipaddress

        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._signed(subject, key.public_key(), (names, False))
        cert, private = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        private.chmod(mode)
        return cert, private


def trusting(authority, cert=None):
    context = ssl.create_default_context(cafile=authority.file)
    if cert is not None:
        context.load_cert_chain(*cert)
    return context


@pytest.mark.parametrize("workers", [1, 2])
def test_tls_and_a_renewed_certificate(tmp_path, workers):
    host, authority = workspace(tmp_path), Authority(tmp_path)
    cert, key = authority.issue("judge")
    arguments = ("--tls-cert", cert, "--tls-key", key, "--workers", str(workers))
    with host.serve(*arguments) as served:
        assert served.url.startswith("https://")
        context = trusting(authority)
        assert served.ask(host.question(), context=context)[0] == 200
        serial = presented(served, context)
        assert served.raw(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")[:4] != b"HTTP"
        authority.issue("judge")
        served.process.send_signal(signal.SIGHUP)
        until(lambda: {presented(served, context) for _ in range(10)}.isdisjoint({serial}))
        key.chmod(0o644)
        served.process.send_signal(signal.SIGHUP)
        until(lambda: "not reloaded: " in served.errors.read_text())
        assert served.ask(host.question(), context=context)[0] == 200


def presented(served, context):
    link = socket.create_connection(("127.0.0.1", served.port), timeout=30)
    with link, context.wrap_socket(link, server_hostname="127.0.0.1") as secure:
        der = secure.getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(der).serial_number


def test_a_handshake_that_does_not_come_is_not_waited_for(tmp_path):
    authority, host = Authority(tmp_path), workspace(tmp_path)
    cert, key = authority.issue("judge")
    with (
        host.serve("--tls-cert", cert, "--tls-key", key) as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=30) as link,
    ):
        assert link.recv(1) == b""  # asyncio alone waits for a minute


def test_mutual_tls(tmp_path):
    host, authority = workspace(tmp_path), Authority(tmp_path)
    stranger = Authority(tmp_path, "stranger")
    cert, key = authority.issue("judge")
    client = authority.issue("client")
    arguments = ("--tls-cert", cert, "--tls-key", key, "--tls-client-ca", authority.file)
    with host.serve(*arguments, ready=False) as served:
        known = trusting(authority, client)
        until(lambda: served.ask(host.question(), context=known)[0] == 200, every=0.3)
        for context in (trusting(authority), trusting(authority, stranger.issue("impostor"))):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                served.get("/readyz", context=context)


# What keeps it from starting


def tried(host, *args, **env):
    command = [
        sys.executable, "-m", "pytest_decisionos.cli.main", "judge", "serve", "--port", "0",
        "--keys", host.keys, "--root", host.root, "--gate", host.path / "configs/gate.yaml", *args,
    ]  # fmt: skip
    given = {"DECISIONOS_JUDGE_KEYS": f"@{host.ring_file}", **env}
    result = subprocess.run(
        [str(part) for part in command], env={**os.environ, **given}, cwd=host.path,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    return result.returncode, result.stderr


def no_key(host):
    (host.keys / "judge-j1.key").unlink()


def open_key(host):
    (host.keys / "judge-j1.key").chmod(0o644)


def two_keys(host):
    from pytest_decisionos.trust.ed25519 import generate, write_private

    write_private(host.keys / "judge-j2.key", generate())


def open_ring(host):
    host.ring_file.chmod(0o644)


def no_gate(host):
    (host.path / "configs/gate.yaml").unlink()


def no_store(host):
    (host.root / "judge").mkdir(mode=0o700)
    (host.root / "judge/replay.sqlite").write_text("nonsense" * 100)
    (host.root / "judge/replay.sqlite").chmod(0o600)


def tls_files(host):
    (host.path / "no.pem").write_text("nonsense")
    (host.path / "no.key").write_text("nonsense")
    (host.path / "no.key").chmod(0o600)


def good_tls(host):
    _, key = Authority(host.path).issue("a")
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    locked = host.path / "locked.key"
    locked.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    locked.chmod(0o600)


def log_of_somebody_else(host):
    (host.root / "log").mkdir()
    (host.root / "log/judgelog.csv").write_text("ts,status,latency_ms,signature_error\n")


def nothing(host):
    pass


STARTS = [
    (no_key, (), {}, "no judge's key is there"),
    (no_key, ("--judge", "j1"), {}, "judge-j1.key: cannot be read"),
    (two_keys, (), {}, "--judge: which judge?; expected one of j1, j2"),
    (nothing, ("--judge", "../j1"), {}, "no name of a judge"),
    (open_key, (), {}, "others may use this secret"),
    (open_ring, (), {}, "others may use this secret"),
    (nothing, (), {"DECISIONOS_JUDGE_KEYS": "@nowhere.json"}, "nowhere.json"),
    (nothing, (), {"DECISIONOS_JUDGE_KEYS": "[]"}, "not a key ring"),
    (nothing, (), {"DECISIONOS_REPLAY": "redis://127.0.0.1:1/0"}, "error: "),
    (no_store, (), {}, "replay.sqlite"),
    (log_of_somebody_else, ("--witness-root", "."), {}, "log/judgelog.csv: the access log"),
    (no_gate, (), {}, "gate.yaml: no such file"),
    (nothing, ("--host", "0.0.0.0"), {}, "--public-url"),
    (nothing, ("--host", "no such host"), {}, "cannot listen"),
    (nothing, ("--host", "192.0.2.1"), {}, "cannot listen"),
    (nothing, ("--port", "70000"), {}, "--port"),
    (nothing, ("--public-url", "ftp://x"), {}, "--public-url"),
    (nothing, ("--public-url", "https://x/a?b"), {}, "--public-url"),
    (nothing, ("--peer", "../lb.csv"), {}, "--peer"),
    (nothing, ("--tls-cert", "no.pem"), {}, "--tls-key"),
    (tls_files, ("--tls-cert", "no.pem", "--tls-key", "no.key"), {}, "cannot be used for TLS"),
    (nothing, ("--tls-cert", "no.pem", "--tls-key", "no.key"), {}, "no.key"),
    (
        good_tls,
        ("--tls-cert", "a.pem", "--tls-key", "a.key", "--tls-client-ca", "no.pem"),
        {},
        "--tls-client-ca",
    ),
    (good_tls, ("--tls-cert", "a.pem", "--tls-key", "locked.key"), {}, "asks for a password"),
    (good_tls, ("--tls-cert", "ca.pem", "--tls-key", "a.key"), {}, "cannot be used for TLS"),
]
# Options are read before there are workers.
STARTS = [
    (workers, *case)
    for case in STARTS
    for workers in "12"
    if workers == "1" or "--" not in case[-1]
]


@pytest.mark.parametrize(("workers", "spoil", "args", "env", "says"), STARTS)
def test_it_says_in_one_line_why_it_does_not_start(tmp_path, spoil, args, env, says, workers):
    host = workspace(tmp_path)
    spoil(host)
    code, told = tried(host, "--workers", workers, *args, **env)
    assert code == 4
    assert says in told


def test_no_ring_at_all(tmp_path, monkeypatch):
    host = workspace(tmp_path)
    code, told = tried(host, DECISIONOS_JUDGE_KEYS="")
    assert code == 4
    assert "DECISIONOS_JUDGE_KEYS: is set and empty" in told
    monkeypatch.delenv("DECISIONOS_JUDGE_KEYS", raising=False)
    result = subprocess.run(
        [sys.executable, "-m", "pytest_decisionos.cli.main", "judge", "serve", "--port", "0", "--keys", host.keys, "--gate", host.path / "configs/gate.yaml"],
        capture_output=True, text=True, timeout=60, check=False, cwd=host.path,
    )  # fmt: skip
    assert (result.returncode, "no keys are configured" in result.stderr) == (4, True)


def test_no_keys_folder(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "pytest_decisionos.cli.main", "judge", "serve"],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (result.returncode, "DECISIONOS_KEYS_DIR" in result.stderr) == (4, True)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken(tmp_path, workers):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, told = tried(workspace(tmp_path), "--port", str(port), "--workers", workers)
    assert code == 4
    assert f"cannot listen: Address already in use; found 127.0.0.1:{port}" in told


def test_help_has_an_example():
    result = subprocess.run(
        [sys.executable, "-m", "pytest_decisionos.cli.main", "judge", "serve", "--help"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "dosctl judge serve" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 88


def test_the_job_harvests_its_log(plain, tmp_path):
    plain.ask(plain.host.question())
    plain.get("/readyz")
    out = tmp_path / "perf_judge.json"
    log = plain.host.root / "log/judgelog.csv"
    until(lambda: ",/judge," in log.read_text())
    result = subprocess.run(
        [sys.executable, "-m", "jobs.evidence_harvest_judgelog", "--csv", str(log), "--out", str(out), "--lag", "0"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads(out.read_text())["perf_judge"]["count"] >= 1
