"""Judges on other hosts, asked in parallel: each has its own deadline, and none waits for another."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from pytest_decisionos.errors import DecisionOSError, EvidenceError, UsageError
from pytest_decisionos.judge.client import Exchange, JudgeClient, RequestKeys, tls_of
from pytest_decisionos.judge.heard import Inquiry, failed, hear, words_of
from pytest_decisionos.judge.verdicts import RefusedVerdict
from pytest_decisionos.judge.wire import MAX_BODY, Question, SloText
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.evidence import parse_evidence
from pytest_decisionos.model.seal import Seal
from pytest_decisionos.model.validate import first_fault
from pytest_decisionos.settings import from_environment
from pytest_decisionos.slo.compile import compile_slo
from pytest_decisionos.trust.clock import Reading, from_answer
from pytest_decisionos.trust.sources import ring_of
from pytest_decisionos.trust.trust_load import load_trust

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_decisionos.judge.gate import JudgeConfig
    from pytest_decisionos.judge.gather import Request
    from pytest_decisionos.judge.heard import Heard
    from pytest_decisionos.model.evidence import Evidence
    from pytest_decisionos.model.policy import Slo
    from pytest_decisionos.settings import Settings
    from pytest_decisionos.trust.keys import KeyRing
    from pytest_decisionos.trust.trustfile import TrustFile

    Progress = Callable[[float, str], None]

PER_JUDGE: Final = 4
"""Requests that one judge is sent at a time."""
MAX_ANSWERS: Final = 32 * 1024 * 1024
"""Bytes that one judge may answer in all."""
GRACE_SEC: Final = 0.5
"""How long after a judge's deadline its request may take to say so itself."""
LATE: Final = "it did not answer in time"


@dataclass
class _Line:
    """One judge, and what has come of it."""

    judge: JudgeConfig
    client: JudgeClient
    until: float
    jobs: deque[tuple[str, bytes]]
    answers: dict[str, Exchange] = field(default_factory=dict)
    size: int = 0
    fault: str = ""

    def end(self, fault: str) -> None:
        """It is in error: what it was not yet asked, it is not asked any more."""
        self.fault = self.fault or fault
        self.jobs.clear()


_Results = queue.SimpleQueue[tuple[_Line, str, Exchange | str]]


def ask_judges(
    judges: Sequence[JudgeConfig],
    request: Request,
    evidence: Evidence,
    slos: Sequence[Slo],
    seal: Seal,
    *,
    progress: Progress | None = None,
) -> dict[str, Heard]:
    """Ask each of ``judges`` about each of ``slos``; what each says, or why it is in error.

    Args:
        judges: those with a url.
        request: what is judged; its settings say by what trust file, keys and certificates.
        evidence: as read; the judges are sent the file's own text.
        slos: likewise.
        seal: what the evidence's MAC proves to the gate.
        progress: is told the share of answers that are there.

    Raises:
        UsageError: no trust file or no keys are configured, or a file cannot be sent.
        TrustError: the trust file may not be believed.
        KeysError: no key signs requests.
    """
    settings = request.settings or from_environment()
    trust = trusted(settings, request.now)
    keys = request_keys(settings, request.ring)
    asked = Inquiry(
        phase=request.phase,
        target=request.loaded_gate.target,
        evidence=evidence,
        seal=seal,
        slos=tuple(slos),
        as_of=request.now,
        trust=trust,
        max_skew_sec=settings.max_skew,
    )
    bodies = _bodies(asked)
    tls = tls_of(settings) if any(_is_https(judge) for judge in judges) else None
    start, in_all = time.monotonic(), request.loaded_gate.spec.judges_timeout_sec
    lines = [
        _Line(
            judge,
            JudgeClient(
                str(judge.url), keys, tls if _is_https(judge) else None, connections=PER_JUDGE
            ),
            start + min(judge.timeout_sec, in_all),
            deque(bodies.items()),
        )
        for judge in judges
    ]
    _ask_all(lines, len(bodies), progress)
    return {
        line.judge.id: failed(line.judge.id, line.fault)
        if line.fault
        else hear(line.judge.id, line.answers, asked)
        for line in lines
    }


def trusted(settings: Settings, now: datetime) -> TrustFile:
    """The trust file, which says whose signature is whose.

    Raises:
        UsageError: none is configured.
        TrustError: it may not be believed.
    """
    if settings.trust is None:
        raise UsageError(
            "a judge is on another host, and no trust file says which key is its own",
            field="DECISIONOS_TRUST",
            next_step="export it, or ask only local judges with --judges",
        )
    return load_trust(
        settings.trust, now=now, sha256_pin=settings.trust_sha256, state_dir=settings.state_dir
    )


def request_keys(settings: Settings, ring: KeyRing | None) -> RequestKeys:
    """What requests are signed with.

    Raises:
        UsageError: no keys are configured.
        KeysError: none of them signs requests now.
    """
    if ring is None:
        raise UsageError(
            "a judge is on another host, and it takes signed requests only",
            field="DECISIONOS_JUDGE_KEYS",
            next_step="export it as @FILE with a ring that has a key for request",
        )
    keys = RequestKeys(ring, lambda: ring_of(settings))
    keys.current()  # now, and not judge by judge
    return keys


def _is_https(judge: JudgeConfig) -> bool:
    return str(judge.url).startswith("https:")


def _bodies(asked: Inquiry) -> dict[str, bytes]:
    """The question on each SLO, with the very text of the files."""
    evidence = _text(asked.evidence.file, asked.evidence.sha256)
    return {
        slo.stem: _body(
            evidence, Path(slo.file).name, _text(slo.file, slo.sha256), asked.phase, asked.as_of
        )
        for slo in asked.slos
    }


def _body(evidence: str, slo_file: str, slo: str, phase: str, as_of: datetime) -> bytes:
    try:
        text = SloText(file=slo_file, text=slo)
        question = Question(evidence=evidence, slo=text, phase=phase, as_of=as_of)
    except ValidationError as fault:
        first = first_fault(fault)
        raise UsageError(
            f"cannot be sent to a judge: {first.words}", file=slo_file, field=first.field
        ) from None
    body = question.model_dump_json().encode()
    if len(body) > MAX_BODY:
        raise UsageError(
            "cannot be sent to a judge: too large, with its evidence",
            file=slo_file,
            found=f"{len(body):,} bytes",
            expected=f"at most {MAX_BODY:,}",
        )
    return body


def _text(file: str, digest: str) -> str:
    """The text that was judged here; it is read again, so it must still be the same."""
    data = strict_json.read_bytes(Path(file), error=EvidenceError)
    if hashlib.sha256(data).hexdigest() != digest:
        raise UsageError("was changed while it was judged", file=file, next_step="judge again")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError("cannot be sent to a judge: not UTF-8", file=file) from None


def _ask_all(lines: Sequence[_Line], questions: int, progress: Progress | None) -> None:
    results: _Results = queue.SimpleQueue()
    for line in lines:
        for _ in range(min(PER_JUDGE, questions)):
            # Daemons, not a pool: a host that drips one byte a second must not keep this process.
            threading.Thread(
                target=_work, args=(line, results), name=f"judge-{line.judge.id}", daemon=True
            ).start()
    while open_ := [one for one in lines if not one.fault and len(one.answers) < questions]:
        now = time.monotonic()
        for line in open_:
            if now > line.until + GRACE_SEC:
                line.end(f"{line.client.url}: {LATE}")
        try:
            soonest = min(line.until for line in open_) + GRACE_SEC - now
            line, slo, got = results.get(timeout=max(soonest, 0.01))
        except queue.Empty:
            continue
        if isinstance(got, str):
            line.end(got)
        else:
            line.answers[slo] = got
            line.size += len(got.body)
            if line.size > MAX_ANSWERS:
                line.end(f"{line.client.url}: it answers more than {MAX_ANSWERS:,} bytes in all")
        if progress is not None:
            done = sum(questions if one.fault else len(one.answers) for one in lines)
            progress(done / (questions * len(lines)), f"judge {line.judge.id}")
    for line in lines:
        line.client.close()


def _work(line: _Line, results: _Results) -> None:
    while True:
        try:
            slo, body = line.jobs.popleft()
        except IndexError:
            return
        try:
            results.put((line, slo, line.client.ask(body, line.until)))
        except DecisionOSError as fault:
            results.put((line, slo, str(fault)))
        except Exception as fault:  # noqa: BLE001 - whatever a host does, the gate goes on without it
            results.put((line, slo, f"{line.client.url}: {type(fault).__name__}"))


def judge_clock(judge_id: str, request: Request) -> Reading:
    """What a remote judge's clock says of ours: it is asked about nothing, and signs when.

    Args:
        judge_id: a judge of gate.yaml.
        request: names gate.yaml, phase, keys and settings; its evidence is not read.

    Raises:
        UsageError: no such judge, or it is not remote; no trust file or no keys are configured.
        KeysError: no key signs requests.
        TrustError: the trust file may not be believed.
    """
    gate = request.loaded_gate
    judge = next((one for one in gate.spec.judges if one.id == judge_id and one.url), None)
    if judge is None:
        there = ", ".join(one.id for one in gate.spec.judges if one.url)
        raise UsageError(
            "no such judge on another host" + ("" if there else ": gate.yaml names none"),
            file=gate.file,
            field="judges",
            found=judge_id,
            expected=there or None,
        )
    settings = request.settings or from_environment()
    name = Path("clock.json")
    evidence = strict_json.dumps({"meta": {"target": gate.target.model_dump()}})
    rule = {"version": "v1", "latency": {"max_p95_ms": 1, "min_samples": 1}}
    slo = compile_slo(rule, strict_json.dumps(rule).encode(), name)
    asked = Inquiry(
        phase=request.phase,
        target=gate.target,
        evidence=parse_evidence(evidence.encode(), name),
        seal=Seal(),
        slos=(slo,),
        as_of=datetime.now(UTC),
        trust=trusted(settings, request.now),
        max_skew_sec=settings.max_skew,
    )
    keys = request_keys(settings, request.ring)
    client = JudgeClient(str(judge.url), keys, tls_of(settings) if _is_https(judge) else None)
    body = _body(evidence, name.name, strict_json.dumps(rule), asked.phase, asked.as_of)
    try:
        answer = client.ask(body, time.monotonic() + judge.timeout_sec)
        claims = words_of(judge.id, answer, asked, slo).claims
    except (DecisionOSError, RefusedVerdict) as fault:
        return Reading(source=f"judge {judge.id}", fault=str(fault))
    finally:
        client.close()
    return from_answer(
        answer.sent.timestamp(), answer.received.timestamp(), claims.judged_at, f"judge {judge.id}"
    )
