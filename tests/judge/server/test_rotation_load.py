"""Keys rotate while 100 questions a second come in: none that is valid is refused."""

import http.client
import secrets
import signal
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from judge_host import REQUEST, SEALS, workspace

from pytest_decisionos.trust.http_sign import sign_request
from pytest_decisionos.trust.sources import read_ring_file

pytestmark = pytest.mark.slow
CLIENTS = 5
PER_SEC = 100


def key(name, state, **more):
    return {**REQUEST, "key_id": name, "secret": "hex:" + name * 32, "state": state, **more}


class Client(threading.Thread):
    """Asks at its pace, with the key that the ring file says; as `dosctl` does at each start."""

    def __init__(self, host, served, body):
        super().__init__(daemon=True)
        self.host, self.served, self.body = host, served, body
        self.stop, self.answers, self.used = threading.Event(), [], {}

    def run(self):
        link = http.client.HTTPConnection("127.0.0.1", self.served.port, timeout=60)
        due = time.monotonic()
        while not self.stop.is_set():
            now = datetime.now(UTC)
            by = read_ring_file(self.host.ring_file).signing("request", now)
            self.used[by.key_id] = self.used.get(by.key_id, 0) + 1
            url = f"{self.served.url}/judge"
            nonce = secrets.token_urlsafe(24)
            headers = sign_request("POST", url, self.body, by, now=now, nonce=nonce)
            link.request(
                "POST", "/judge", self.body, {"content-type": "application/json", **headers}
            )
            answer = link.getresponse()
            self.answers.append((answer.status, by.key_id, answer.read()))
            due += CLIENTS / PER_SEC
            time.sleep(max(0.0, due - time.monotonic()))
        link.close()


def test_a_whole_rotation_refuses_nobody(tmp_path):
    host = workspace(tmp_path)
    host.ring([SEALS, key("a1", "active")])
    with host.serve() as served:
        body = host.question()

        def status(by):
            return served.ask(body, key=by)[0]

        clients = [Client(host, served, body) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        until = datetime.now(UTC) + timedelta(hours=1)
        steps = [
            [key("a1", "active"), key("b2", "grace")],
            [key("a1", "grace", not_after=until.isoformat()), key("b2", "active")],
            [key("a1", "retired", not_after=until.isoformat()), key("b2", "active")],
            # In one go, without a word to the judge before: it reads the ring that it does not know.
            [key("b2", "grace"), key("c3", "active")],
            [key("b2", "revoked"), key("c3", "active")],
        ]
        old = {name: host_key(host, name) for name in ("a1",)}
        for number, step in enumerate(steps):
            host.ring([SEALS, *step])
            if number in {2, 4}:
                served.process.send_signal(
                    signal.SIGHUP
                )  # SIGHUP: what may not be used any more is forgotten now
            time.sleep(1.5)
            if number == 1:
                old["b2"] = host_key(host, "b2")
            if number == 2:
                assert status(old["a1"]) == 401, "a retired key was accepted"
        assert status(old["b2"]) == 401, "a revoked key was accepted"
        for client in clients:
            client.stop.set()
        for client in clients:
            client.join(60)
    answers = [answer for client in clients for answer in client.answers]
    refused = [answer for answer in answers if answer[0] != 200]
    assert not refused, refused[:3]
    for name in ("a1", "b2", "c3"):
        assert sum(client.used.get(name, 0) for client in clients) > 20


def host_key(host, name):
    return next(one for one in host.keys_of_ring.keys if one.key_id == name)
