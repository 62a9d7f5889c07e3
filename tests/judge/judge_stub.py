"""A small honest judge for the client's tests, and what it can be told to do wrong."""

import contextlib
import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bundle_cases import key

from pytest_decisionos.evidence import seal as sealing
from pytest_decisionos.judge.decide import JudgeInput, ballot_of
from pytest_decisionos.judge.rules import Jury
from pytest_decisionos.judge.verdicts import Case, numbers_of, verdict_claims
from pytest_decisionos.judge.wire import Answer, Question
from pytest_decisionos.model.evidence import parse_evidence
from pytest_decisionos.model.policy_text import parse_policy
from pytest_decisionos.model.statement import verdict_statement
from pytest_decisionos.slo.compile import compile_slo
from pytest_decisionos.trust import dsse
from pytest_decisionos.trust.http_sign import verify_request
from pytest_decisionos.trust.keys import make_ring

KEYS = [
    {"key_id": "e1", "secret": "hex:" + "ab" * 32, "state": "active", "use": ["evidence"]},
    {"key_id": "r1", "secret": "hex:" + "cd" * 32, "state": "active", "use": ["request"]},
]
RING = make_ring(KEYS, "test")


def claims_of(judge, question, nonce, *, numbers, judged_at=None):
    """The claims of an honest verdict of ``judge`` (a ``JudgeInput``) on a question."""
    evidence = parse_evidence(question.evidence.encode(), Path("evidence.json"))
    data, path = question.slo.text.encode(), Path(question.slo.file)
    slo = compile_slo(parse_policy(data, path), data, path)
    jury = Jury(evidence.blocks, "e", [judge], seal=judge.seal, now=question.as_of)
    ballot = ballot_of(judge, jury, slo, question.as_of)
    target = sealing.target_of(evidence.blocks)
    case = Case(question.phase, target, evidence.sha256, slo.stem, slo.sha256, question.as_of)
    when = judged_at or datetime.now(UTC)
    return verdict_claims(judge, ballot, case, numbers=numbers, judged_at=when, nonce=nonce)


def envelope(claims, by):
    return json.loads(dsse.sign(verdict_statement(claims).payload(), [by]))


class Stub:
    """A judge on a free port of this host.

    Attributes:
        said: how often it was asked.
        spoil: a function that changes the parts of an answer: ``(parts, question) -> None``; parts
            are ``judge`` (its numbers), ``claims``, ``by`` (its key), then ``answer`` (a dict).
        reply: a function that answers instead of it: ``(handler, honest) -> None``.
    """

    def __init__(self, name="j1", p95=400.0, ring=RING, tls=None):
        self.name, self.p95, self.ring = name, p95, ring
        self.said, self.nonces, self.spoil, self.reply = 0, [], None, None
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                with contextlib.suppress(OSError):  # the client may have gone
                    stub._post(self)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.scheme = "http"
        if tls is not None:
            self.scheme = "https"
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{self.scheme}://127.0.0.1:{self.port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def _post(self, handler):
        self.said += 1
        body = handler.rfile.read(int(handler.headers["content-length"]))

        def honest():
            signed = verify_request(
                "POST", self.url + handler.path, handler.headers.items(), body,
                ring=self.ring, now=datetime.now(UTC), max_age_sec=300, max_skew_sec=2,
            )  # fmt: skip
            self.nonces.append(signed.nonce)
            return self.answer(Question.model_validate_json(body), signed.nonce)

        if self.reply is not None:
            self.reply(handler, honest)
        else:
            send(handler, honest())

    def answer(self, question, nonce):
        blocks = parse_evidence(question.evidence.encode(), Path("e")).blocks
        found = sealing.check(blocks, self.ring, now=datetime.now(UTC))
        own = {"perf": {**blocks.get("perf", {})}}
        if "perf" in blocks:
            own["perf"]["latency_ms"] = {**own["perf"]["latency_ms"], "p95": self.p95}
        parts = {
            "judge": JudgeInput(id=self.name, source="remote", blocks=own, seal=found),
            "by": key(self.name),
        }
        numbers = numbers_of(parts["judge"])
        parts["claims"] = claims_of(parts["judge"], question, nonce, numbers=numbers)
        parts["numbers"] = numbers.decode()
        if self.spoil is not None:
            self.spoil(parts, question)
        answer = Answer(verdict=envelope(parts["claims"], parts["by"]), numbers=parts["numbers"])
        return answer.model_dump_json().encode()


def send(handler, body, status=200, **headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
