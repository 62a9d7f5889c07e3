"""A verified question → the judge's signed verdict."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import ValidationError

from pytest_decisionos.errors import DecisionOSError, UnusableInputError, shown
from pytest_decisionos.evidence.seal import target_of
from pytest_decisionos.judge.decide import ballot_of
from pytest_decisionos.judge.gate import load_gate
from pytest_decisionos.judge.rules import Jury
from pytest_decisionos.judge.server import documents
from pytest_decisionos.judge.server.problems import ProblemError
from pytest_decisionos.judge.verdicts import Case, numbers_of, verdict_claims
from pytest_decisionos.judge.wire import MAX_AGE_SEC, Question
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.policy_text import parse_policy
from pytest_decisionos.model.statement import verdict_statement
from pytest_decisionos.model.validate import first_fault
from pytest_decisionos.slo.compile import compile_slo
from pytest_decisionos.trust import dsse
from pytest_decisionos.trust.ed25519 import load_private

if TYPE_CHECKING:
    from datetime import datetime

    from pytest_decisionos.judge.server.documents import Seals
    from pytest_decisionos.judge.server.numbers import Numbers
    from pytest_decisionos.judge.server.options import ServeOptions
    from pytest_decisionos.model.decision import Vote
    from pytest_decisionos.model.evidence import Evidence
    from pytest_decisionos.model.policy import Slo
    from pytest_decisionos.model.target import Target
    from pytest_decisionos.trust.ed25519 import PrivateKey
    from pytest_decisionos.trust.keys import KeyRing

KEPT_SLO: Final = 64 * 1024
"""Longer SLO files are compiled each time, so that the kept ones stay small."""


class Judge(NamedTuple):
    """Who judges: its name, the key that it signs with, and the only target that it judges for."""

    id: str
    key: PrivateKey
    target: Target


class Answered(NamedTuple):
    """The answer's body, and how it votes."""

    body: bytes
    vote: Vote


def load_judge(options: ServeOptions) -> Judge:
    """The judge that ``options`` name; read again at SIGHUP.

    Raises:
        KeysError: its key is missing, or others may read it.
        PolicyError: gate.yaml cannot be used.
    """
    return Judge(options.judge, load_private(options.key), load_gate(options.gate).target)


def parse_question(body: bytes, max_body: int) -> Question:
    """The question in the body of a request.

    Raises:
        ProblemError: 400 ``malformed``: not JSON; 422 ``question``: no question.
    """
    try:
        document = strict_json.loads(body, file="body", max_bytes=max_body)
    except UnusableInputError as fault:
        raise ProblemError(400, "malformed", str(fault)) from None
    try:
        return Question.model_validate(document)
    except ValidationError as fault:
        first = first_fault(fault)
        where = shown(first.field or "body")
        raise ProblemError(422, "question", f"{where}: {first.words}") from None


def answer(
    question: Question,
    judge: Judge,
    numbers: Numbers,
    seals: Seals,
    *,
    nonce: str,
    ring: KeyRing,
    now: datetime,
    max_skew_sec: float,
) -> Answered:
    """Judge, and sign.

    Args:
        question: from somebody whose signature verified, and whose nonce was claimed.
        judge: who judges.
        numbers: what its own logs say.
        seals: what seals proved before.
        nonce: of the request; the verdict answers this and no other.
        ring: the judge's own keys, for the seal of the evidence.
        now: the time here.
        max_skew_sec: how far the clock of who asks may be ahead.

    Raises:
        ProblemError: 422: ``as_of``, ``evidence``, ``slo`` or ``foreign_target``.
    """
    age = now - question.as_of
    if not timedelta(seconds=-max_skew_sec) <= age <= timedelta(seconds=MAX_AGE_SEC + max_skew_sec):
        words = f"as_of is {question.as_of.isoformat()}, and it is {now.isoformat()} here"
        raise ProblemError(422, "as_of", words)
    evidence, slo = _evidence(question), _slo(question)
    target = target_of(evidence.blocks)
    if target != judge.target:
        words = f"the evidence is about {shown(str(target or 'no target'), 200)}"
        raise ProblemError(422, "foreign_target", f"{words}; this judge is for {judge.target}")
    seal = seals.of(evidence, ring, now)
    own = numbers.of(evidence, question.as_of).model_copy(update={"seal": seal})
    jury = Jury(evidence.blocks, evidence.file, [own], seal=seal, now=question.as_of)
    ballot = ballot_of(own, jury, slo, question.as_of)
    text = numbers_of(own)
    claims = verdict_claims(
        own,
        ballot,
        Case(question.phase, target, evidence.sha256, slo.stem, slo.sha256, as_of=question.as_of),
        numbers=text,
        judged_at=now,
        nonce=nonce,
    )
    envelope = dsse.sign(verdict_statement(claims).payload(), [judge.key])
    body: dict[str, Any] = {"verdict": json.loads(envelope), "numbers": text.decode()}
    return Answered(json.dumps(body, ensure_ascii=False).encode(), ballot.vote)


def _evidence(question: Question) -> Evidence:
    try:
        return documents.read(question.evidence)
    except DecisionOSError as fault:
        raise ProblemError(422, "evidence", str(fault)) from None


def _slo(question: Question) -> Slo:
    data = question.slo.text.encode()
    try:
        compiled = _compiled_once if len(data) <= KEPT_SLO else _compiled
        return compiled(question.slo.file, data)
    except DecisionOSError as fault:
        raise ProblemError(422, "slo", str(fault)) from None


def _compiled(file: str, data: bytes) -> Slo:
    path = Path(file)
    return compile_slo(parse_policy(data, path), data, path)


_compiled_once = lru_cache(maxsize=64)(_compiled)
