"""One judge is asked over a real socket: what is tried again, what is not, and what never hurts."""

import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from judge_stub import KEYS, RING, Stub, send

from pytest_decisionos.errors import KeysError, RemoteError, UsageError
from pytest_decisionos.judge import client as clients
from pytest_decisionos.judge.client import JudgeClient, RequestKeys, tls_of
from pytest_decisionos.settings import Settings
from pytest_decisionos.trust.http_sign import verify_request
from pytest_decisionos.trust.keys import make_ring


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(clients, "BACKOFF_SEC", 0.001)


def nothing():
    return None


def ask(url, *, within=5.0, keys=None, tls=None, body=b'{"a": 1}'):
    client = JudgeClient(url, keys or RequestKeys(RING, nothing), tls)
    try:
        return client.ask(body, time.monotonic() + within)
    finally:
        client.close()


def echo(seen, status=200, **headers):
    """Verifies the request, and answers its nonce."""

    def reply(handler, honest):
        body = b'{"a": 1}'
        url = f"http://{handler.headers['host']}{handler.path}"
        signed = verify_request(
            "POST", url, handler.headers.items(), body, ring=RING, now=datetime.now(UTC),
            max_age_sec=300, max_skew_sec=2,
        )  # fmt: skip
        seen.append(signed)
        send(handler, signed.nonce.encode(), status, **headers)

    return reply


def test_the_request_is_signed_and_the_answer_is_its_own():
    seen = []
    with Stub() as judge:
        judge.reply = echo(seen)
        before = datetime.now(UTC)
        answer = ask(judge.url + "/some/where/")
    assert answer.body.decode() == answer.nonce == seen[0].nonce
    assert seen[0].key_id == "r1"
    assert before <= answer.sent <= answer.received <= datetime.now(UTC)


def test_the_url_is_signed_as_the_judge_will_tell_it():
    keys = RequestKeys(RING, nothing)
    for given, signed in (
        ("http://H.example:80/x", "http://h.example/x/judge"),
        ("https://h:443/", "https://h/judge"),
        ("https://h:8443", "https://h:8443/judge"),
        ("http://[::1]:8080/a/../b", "http://[::1]:8080/b/judge"),
    ):
        client = JudgeClient(given, keys, None)
        assert client.url == signed
        client.close()
    with pytest.raises(UsageError, match="not a URL"):
        JudgeClient("http://[::1", keys, None)


@contextmanager
def raw(*scripts):
    """A server that does one of ``scripts`` with each connection: ``(connection, request) -> None``."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        tried = []

        def run():
            for script in scripts:
                with suppress(OSError):
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(5)
                        data = connection.recv(65536)
                        while data.count(b"\r\n\r\n") == 0 or not data.endswith(b"}"):
                            data += connection.recv(65536)
                        tried.append(data)
                        script(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", tried
        thread.join(timeout=10)


def says(text):
    return lambda connection: connection.sendall(text)


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


OK = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


def nonce_of(request):
    return request.partition(b'nonce="')[2].partition(b'"')[0]


@pytest.mark.parametrize("gone", [reset, lambda connection: None], ids=["reset", "closed"])
def test_a_connection_that_ends_before_the_answer_is_tried_again_with_a_new_nonce(gone):
    with raw(gone, gone, OK) as (url, tried):
        assert ask(url).body == b"{}"
    assert len(tried) == 3
    assert len({nonce_of(one) for one in tried}) == 3


def test_it_gives_up_after_some_tries():
    with (
        raw(*[reset] * clients.TRIES) as (url, tried),
        pytest.raises(RemoteError, match="broke off before it answered"),
    ):
        ask(url)
    assert len(tried) == clients.TRIES


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(
        RemoteError, match=f"http://127.0.0.1:{port}/judge: cannot be reached: Conn"
    ):
        ask(f"http://127.0.0.1:{port}")


def test_a_name_that_is_none():
    with pytest.raises(RemoteError, match="its name cannot be resolved"):
        ask("http://judge.invalid")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"garbage\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "its answer broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "its answer broke off"),
        (b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n", "it answered 400"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n[]", "it answered 404$"),
        (b"HTTP/1.1 413 Big\r\nContent-Length: 21\r\n\r\n{\"reason\": \"too_big\"}",
         r"it answered 413 \(too_big\)"),
        (b"HTTP/1.1 422 No\r\nContent-Length: 13\r\n\r\n{\"reason\": 5}", "it answered 422$"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\n\xff\x00{", "it answered 500$"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "it answered 503"),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: soon\r\nContent-Length: 0\r\n\r\n", "it answered 503"),
        (b"HTTP/1.1 503 B\r\nRetry-After: 99999999999999999999\r\nContent-Length: 0\r\n\r\n", "it answered 503"),
        (b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "it answered 307"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: gzip\r\n\r\n{}", None),
    ],
)  # fmt: skip
def test_what_was_answered_is_not_asked_again(text, words):
    with raw(says(text)) as (url, tried):
        if words is None:
            assert ask(url).body == b"{}"  # as it came: nothing is unpacked
        else:
            with pytest.raises(RemoteError, match=words):
                ask(url)
    assert len(tried) == 1


def test_a_busy_judge_is_asked_again_when_it_says():
    seen = []
    with Stub() as judge:
        calm = echo(seen)

        def busy(handler, honest):
            if judge.said > 2:
                calm(handler, honest)
            else:
                send(handler, b"", 503, Retry_After="0")

        judge.reply = busy
        assert ask(judge.url).nonce == seen[0].nonce
        assert judge.said == 3


@pytest.mark.parametrize(
    "after",
    ["60", format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)],
    ids=["seconds", "date"],
)
def test_a_busy_judge_that_says_later_than_the_deadline(after):
    with Stub() as judge:
        judge.reply = lambda handler, honest: send(handler, b"", 503, Retry_After=after)
        with pytest.raises(RemoteError, match="it answered 503"):
            ask(judge.url)
        assert judge.said == 1


def test_too_late():
    over = threading.Event()
    with Stub() as judge:
        judge.reply = lambda handler, honest: over.wait(10)
        with pytest.raises(RemoteError, match="it did not answer in time"):
            ask(judge.url, within=0.2)
        over.set()
        assert judge.said == 1
        with pytest.raises(RemoteError, match="it did not answer in time"):
            ask(judge.url, within=0)
        assert judge.said == 1


def test_an_answer_that_drips():
    def drip(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with suppress(OSError):
            for _ in range(200):
                connection.sendall(b"x")
                time.sleep(0.02)

    with raw(drip) as (url, tried), pytest.raises(RemoteError, match="in time"):
        ask(url, within=0.3)
    assert len(tried) == 1


def test_an_answer_that_never_ends(monkeypatch):
    monkeypatch.setattr(clients, "MAX_ANSWER", 100_000)

    def flood(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with suppress(OSError):
            while True:
                connection.sendall(b"x" * 65536)

    with raw(flood) as (url, _), pytest.raises(RemoteError, match="larger than 100,000 bytes"):
        ask(url)


def rotated():
    new = {"key_id": "r2", "secret": "hex:" + "ef" * 32, "state": "active", "use": ["request"]}
    return make_ring([KEYS[0], {**KEYS[1], "state": "revoked"}, new], "test")


def only(key_id):
    def reply(handler, honest):
        right = f'keyid="{key_id}"' in handler.headers["signature-input"]
        send(handler, b"{}" if right else b"", 200 if right else 401)

    return reply


def test_a_ring_that_was_rotated_meanwhile_is_read_once_again():
    reads = []

    def reread():
        reads.append(1)
        return rotated()

    with Stub() as judge:
        judge.reply = only("r2")
        keys = RequestKeys(RING, reread)
        assert ask(judge.url, keys=keys).body == b"{}"
        assert ask(judge.url, keys=keys).body == b"{}"
        assert judge.said == 3  # from then on with the new key at once
        judge.reply = only("nobody")
        with pytest.raises(RemoteError, match="it answered 401"):
            ask(judge.url, keys=keys)
        assert judge.said == 4
    assert len(reads) == 1


def no_ring():
    raise KeysError("gone")


def no_key():
    return make_ring([KEYS[0]], "test")


@pytest.mark.parametrize("reread", [lambda: RING, nothing, no_ring, no_key])
def test_a_refused_signature_is_not_sent_again_with_the_same_key(reread):
    with Stub() as judge:
        judge.reply = only("r2")
        with pytest.raises(RemoteError, match="it answered 401"):
            ask(judge.url, keys=RequestKeys(RING, reread))
        assert judge.said == 1


def test_two_threads_that_are_refused_at_once_both_go_on():
    keys = RequestKeys(RING, rotated)
    old = keys.current()
    assert keys.renewed(old).key_id == "r2"
    assert keys.renewed(old).key_id == "r2"
    assert keys.renewed(keys.current()) is None


def test_no_key_for_requests():
    with pytest.raises(KeysError, match="no key is active for request"):
        RequestKeys(make_ring([KEYS[0]], "test"), nothing).current()


def test_no_proxy_of_the_environment(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    seen = []
    with Stub() as judge:
        judge.reply = echo(seen)
        ask(judge.url)
    assert seen


# TLS


def openssl(folder, *args):
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A private authority, a server's and a client's certificate by it, and a stranger's."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ca", "stranger"):
        openssl(
            folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem",
            "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip
    for name, san in (("server", "IP:127.0.0.1"), ("client", "DNS:ci"), ("elsewhere", "DNS:other")):
        (folder / f"{name}.ext").write_text(f"subjectAltName={san}\n")
        openssl(
            folder, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )  # fmt: skip
        openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem",
        )  # fmt: skip
    openssl(
        folder, "ec", "-aes256", "-in", "client.key", "-out", "locked.key", "-passout", "pass:x"
    )
    for key in folder.glob("*.key"):
        key.chmod(0o600)
    return folder


def server_tls(folder, name="server", client_ca=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    if client_ca:
        context.load_verify_locations(folder / f"{client_ca}.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # refuses within the handshake
    return context


def settings_of(folder, **names):
    return Settings(**{f"judge_{name}": folder / file for name, file in names.items()})


def ok(handler, honest):
    send(handler, b"{}")


def test_https_by_our_own_authority(certificates):
    with Stub(tls=server_tls(certificates)) as judge:
        judge.reply = ok
        tls = tls_of(settings_of(certificates, ca="ca.pem"))
        assert ask(judge.url, tls=tls).body == b"{}"


@pytest.mark.parametrize(
    ("server", "ca"), [("server", "stranger.pem"), ("server", None), ("elsewhere", "ca.pem")]
)
def test_a_certificate_that_is_not_the_judges(certificates, server, ca):
    with Stub(tls=server_tls(certificates, server)) as judge:
        judge.reply = ok
        tls = tls_of(settings_of(certificates, **({"ca": ca} if ca else {})))
        with pytest.raises(RemoteError, match="TLS: .*certificate verify failed"):
            ask(judge.url, tls=tls)
        assert judge.said == 0


def test_a_client_certificate(certificates):
    with Stub(tls=server_tls(certificates, client_ca="ca")) as judge:
        judge.reply = ok
        mine = settings_of(certificates, ca="ca.pem", cert="client.pem", cert_key="client.key")
        assert ask(judge.url, tls=tls_of(mine)).body == b"{}"
        with pytest.raises(RemoteError):
            ask(judge.url, tls=tls_of(settings_of(certificates, ca="ca.pem")))
        assert judge.said == 1


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"ca": "none.pem"}, "DECISIONOS_JUDGE_CA: cannot be used"),
        ({"ca": "ca.key"}, "DECISIONOS_JUDGE_CA: cannot be used"),
        ({"cert_key": "client.key"}, "DECISIONOS_JUDGE_CERT: a key without its certificate"),
        ({"cert": "client.pem", "cert_key": "none.key"}, "none.key: cannot be read"),
        ({"cert": "client.pem", "cert_key": "open.key"}, "others may use this secret"),
        ({"cert": "client.pem", "cert_key": "server.key"}, "DECISIONOS_JUDGE_CERT: cannot be used"),
        ({"cert": "client.pem", "cert_key": "locked.key"}, "DECISIONOS_JUDGE_CERT: cannot be used"),
        ({"cert": "shut.pem"}, "DECISIONOS_JUDGE_CERT: cannot be used"),
    ],
)
def test_certificates_that_cannot_be_used(certificates, names, says):
    (certificates / "open.key").write_bytes((certificates / "client.key").read_bytes())
    (certificates / "open.key").chmod(0o644)
    (certificates / "shut.pem").write_bytes((certificates / "client.pem").read_bytes())
    (certificates / "shut.pem").chmod(0o600)
    with pytest.raises((UsageError, KeysError)) as caught:
        tls_of(settings_of(certificates, **names))
    assert says in str(caught.value)
    assert "PRIVATE" not in str(caught.value)
