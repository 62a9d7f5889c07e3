"""A host with a judge on it: keys, ring, gate.yaml, logs, and evidence that its logs bear out."""

import asyncio
import copy
import hashlib
import http.client
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

from pytest_decisionos.evidence.seal import sealed
from pytest_decisionos.harvest.recompute import recompute
from pytest_decisionos.judge.server.options import ServeOptions
from pytest_decisionos.settings import Settings
from pytest_decisionos.testing import TARGET, healthy
from pytest_decisionos.trust.ed25519 import generate, write_private
from pytest_decisionos.trust.http_sign import sign_request
from pytest_decisionos.trust.keys import make_ring

SLO = {
    "version": "v1",
    "latency": {"max_p95_ms": 900, "max_p99_ms": 1800, "min_samples": 100},
    "error": {"max_error_rate": 0.05},
    "judge_infra": {"latency": {"max_p95_ms": 900}, "availability": {"min_availability": 0.9}},
}
REQUEST = {"key_id": "r1", "secret": "hex:" + "cd" * 32, "state": "active", "use": ["request"]}
SEALS = {"key_id": "e1", "secret": "hex:" + "ab" * 32, "state": "active", "use": ["evidence"]}
MINUTES = 20
SERVE = [sys.executable, "-m", "pytest_decisionos.cli.main", "judge", "serve", "--port", "0"]


def rows(now, *, latency=lambda i: 100 + i % 50, signature=False):
    start = now - timedelta(minutes=MINUTES)
    head = "ts,status,latency_ms" + (",signature_error" if signature else "")
    lines = [head]
    for i in range(MINUTES * 60):
        ts = (start + timedelta(seconds=i)).isoformat(timespec="milliseconds")
        lines.append(f"{ts},200,{latency(i)}" + (",false" if signature else ""))
    return "\n".join(lines) + "\n"


class Host:
    """Files under ``path``; ``options`` serve them in this process, ``serve`` as another one."""

    def __init__(self, path, judge="j1"):
        self.path, self.judge = path, judge
        self._blocks = None
        self.now = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=30)
        self.root = path / "var"
        self.logs = path / "witness"
        self.keys = path / "keys"
        for folder in (self.root, self.logs, self.keys, path / "configs"):
            folder.mkdir(parents=True)
        self.key = generate()
        write_private(self.keys / f"judge-{judge}.key", self.key)
        self.ring_file = path / "ring.json"
        self.ring([REQUEST, SEALS])
        self.gate(TARGET.model_dump())
        (self.logs / "reqlog.csv").write_text(rows(self.now))
        (self.logs / "judgelog.csv").write_text(rows(self.now, signature=True))

    def ring(self, keys):
        self.keys_of_ring = make_ring(keys, "test")
        beside = self.ring_file.with_suffix(".new")
        beside.write_text(json.dumps(keys))
        beside.chmod(0o600)
        beside.replace(self.ring_file)

    def gate(self, target):
        phase = {"slos": ["slo/slo-own.json"]}
        judges = [{"id": "evidence", "source": "evidence"}]
        spec = {"version": 1, "target": target, "judges": judges, "phases": {"cutover": phase}}
        (self.path / "configs/gate.yaml").write_text(json.dumps(spec))

    def options(self, **more):
        settings = Settings(judge_keys=f"@{self.ring_file}", **more.pop("settings", {}))
        fields = {
            "judge": self.judge,
            "key": self.keys / f"judge-{self.judge}.key",
            "gate": self.path / "configs/gate.yaml",
            "root": self.root,
            "witness_root": self.logs,
            "settings": settings,
        }
        return ServeOptions(**(fields | more))

    def blocks(self):
        """The evidence's blocks, with the very numbers of the logs as they were first."""
        if self._blocks is None:
            self._blocks = self._built()
        return copy.deepcopy(self._blocks)

    def _built(self):
        blocks = healthy(datetime.now(UTC))
        end = self.now.isoformat()
        start = (self.now - timedelta(minutes=MINUTES)).isoformat()
        blocks["meta"]["window"] = {"start": start, "end": end}
        for name in ("canary", "anomaly"):
            blocks.pop(name, None)
        sources = []
        for role in ("reqlog", "judgelog"):
            data = (self.logs / f"{role}.csv").read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            sources.append(
                {"role": role, "name": f"{role}.csv", "sha256": digest, "bytes": len(data)}
            )
        blocks["witness"] = {"sources": sources}
        made = recompute(sources, self.logs, blocks, limits=True, exact=True)
        return {**blocks, **{k: v for k, v in made.blocks.items() if k.startswith("perf")}}

    def evidence(self, blocks=None, ring=True):
        blocks = self.blocks() if blocks is None else blocks
        keys = self.keys_of_ring if ring else None
        return json.dumps(sealed(blocks, keys, now=datetime.now(UTC)), ensure_ascii=False)

    def question(self, **changes):
        question = {
            "evidence": changes.pop("evidence", None) or self.evidence(),
            "slo": {"file": "slo-own.json", "text": json.dumps(SLO)},
            "phase": "cutover",
            "as_of": datetime.now(UTC).isoformat(),
        }
        return json.dumps(question | changes, ensure_ascii=False).encode()

    def signed(self, body, url="http://127.0.0.1:8080/judge", *, key=None, now=None, method="POST"):
        now = now or datetime.now(UTC)
        key = key or self.keys_of_ring.signing("request", now)
        made = sign_request(method, url, body, key, now=now, nonce=secrets.token_urlsafe(24))
        host = url.partition("://")[2].partition("/")[0]
        return [("host", host), ("content-type", "application/json"), *made.items()]

    def serve(self, *args, ready=True, wait=True, command=SERVE, **env):
        return Served(self, command, args, env, ready=ready, wait=wait)


async def exchange(app, method, target, headers, chunks):
    """One request to an ASGI application: status, headers, body."""
    path, _, query = target.partition(b"?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": unquote(path.decode("latin-1")), "raw_path": path, "query_string": query,
        "root_path": "", "server": ("127.0.0.1", 8080), "client": ("127.0.0.1", 1),
        "headers": [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers],
    }  # fmt: skip
    events = [{"type": "http.request", "body": c, "more_body": True} for c in chunks]
    events.append({"type": "http.request", "body": b"", "more_body": False})
    sent = []

    async def receive():
        if events:
            return events.pop(0)
        return await asyncio.sleep(3600)

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    head = next(m for m in sent if m["type"] == "http.response.start")
    body = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
    named = {n.decode(): v.decode() for n, v in head["headers"]}
    return head["status"], named, body


def ask(
    app,
    method="GET",
    target=b"/readyz",
    headers=(("host", "127.0.0.1:8080"),),
    body=b"",
    chunks=None,
):
    return asyncio.run(exchange(app, method, target, headers, [body] if chunks is None else chunks))


def reason(answer):
    assert answer[1]["content-type"] == "application/problem+json", answer
    document = json.loads(answer[2])
    assert document["status"] == answer[0]
    assert document["type"] == f"urn:decisionos:problem:{document['reason']}"
    return answer[0], document["reason"]


def until(done, *, seconds=30, every=0.02):
    """Wait for what another thread or process does; a test that waits in vain fails."""
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(every)
    return found


class Served:
    """``dosctl judge serve`` as a process."""

    def __init__(self, host, command, args, env, *, ready, wait):
        command = [
            *command, "--keys", host.keys, "--root", host.root, "--witness-root", host.logs,
            "--gate", host.path / "configs/gate.yaml", *args,
        ]  # fmt: skip
        given = {
            "DECISIONOS_JUDGE_KEYS": f"@{host.ring_file}",
            "DECISIONOS_MAX_SKEW": "0.2",
            **{k: str(v) for k, v in env.items()},
        }
        self.host = host
        self.errors = host.path / f"serve-{secrets.token_hex(4)}.err"
        with self.errors.open("wb") as stream:
            self.process = subprocess.Popen(
                [str(part) for part in command], stderr=stream, stdout=subprocess.DEVNULL,
                env={**os.environ, **given}, cwd=host.path,
            )  # fmt: skip
        if wait:
            self.listens()
        if ready:
            self.store_remembers()

    def listens(self):
        line = until(self._line, seconds=60)
        self.url = line.removeprefix("listening on ").strip()
        self.port = int(self.url.rpartition(":")[2])

    def _line(self):
        text = self.errors.read_text()
        assert self.process.poll() is None, text
        return text if text.endswith("\n") else ""

    def store_remembers(self):
        """What is made in the store's first second is refused; and a worker may still be starting."""
        until(lambda: self.ask(self.host.question())[0] == 200, seconds=60, every=0.3)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def connect(self, context=None, timeout=60):
        if self.url.startswith("https"):
            context = context or ssl._create_unverified_context()
            return http.client.HTTPSConnection(
                "127.0.0.1", self.port, context=context, timeout=timeout
            )
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def get(self, path, headers=None, context=None):
        connection = self.connect(context)
        try:
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def ask(self, body, *, context=None, key=None):
        headers = dict(self.host.signed(body, f"{self.url}/judge", key=key))
        connection = self.connect(context)
        try:
            connection.request("POST", "/judge", body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def raw(self, data, *, timeout=60):
        """All that comes back for these bytes, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as link:
            link.sendall(data)
            parts = []
            while part := link.recv(65536):
                parts.append(part)
            return b"".join(parts)

    def term(self):
        self.process.send_signal(signal.SIGTERM)

    def ended(self):
        return self.process.wait(timeout=60)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def workspace(path: Path, judge="j1"):
    return Host(path / judge, judge)
