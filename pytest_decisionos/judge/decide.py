"""The one authority: ``decide`` turns everything that was gathered into a decision, and is pure.

It reads no file, no clock and no environment: the same inputs give the same decision years later.
"""

from __future__ import annotations

import hashlib
import platform
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import Field

import pytest_decisionos
from pytest_decisionos.judge.admission import admission
from pytest_decisionos.judge.gate import HarvestLimits, LabelFile
from pytest_decisionos.judge.quorum import must_abort, tally, vote_of
from pytest_decisionos.judge.reasons import is_tampering, reasons
from pytest_decisionos.judge.rules import Jury, expand, note_waivers, waive
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.decision import (
    Action,
    Ballot,
    Decision,
    InputFile,
    JudgeInfo,
    JudgeState,
    SloDecision,
    Verdict,
    Vote,
)
from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.model.outcome import Outcome, Status
from pytest_decisionos.model.policy import Quorum, Slo
from pytest_decisionos.model.seal import Seal
from pytest_decisionos.model.target import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_decisionos.model.policy import Rule


class JudgeInput(Frozen):
    """A judge, and what it computed.

    Attributes:
        id: its name in gate.yaml.
        source: ``evidence``, ``log``, ``remote`` or another package's source.
        state: ready; absent (it has nothing to look at); or error.
        reason: why it is not ready.
        exact: whether it read the very bytes that the evidence names, so that its numbers must be
            those of the evidence.
        blocks: the numbers that it computed itself, as evidence blocks.
        logs: the files that it computed them from; of each, the digest of the bytes that it read.
        seal: what the evidence's MAC proves to a remote judge, which has keys of its own; None is
            what it proves to the gate.
    """

    id: str
    source: str
    state: JudgeState = "ready"
    reason: str = ""
    exact: bool = False
    blocks: dict[str, Any] = Field(default_factory=dict)
    logs: tuple[InputFile, ...] = ()
    seal: Seal | None = None


class RemoteVerdicts(Frozen):
    """What a remote judge signed itself, in its own words: a bundle keeps them as they came.

    Attributes:
        keyid: of the key that signed all of them.
        numbers: text of its ``JudgeInput``, whose digest stands in them.
        verdicts: SLO → text of the DSSE envelope.
    """

    keyid: str
    numbers: str
    verdicts: dict[str, str]


class GatedSlo(Frozen):
    """An SLO, and the quorum that it must reach."""

    slo: Slo
    quorum: Quorum


class GateInputs(Frozen):
    """Everything that a decision is made from, as plain data.

    Attributes:
        phase: of the gate.
        target: what the gate is for.
        gate: the gate.yaml that was read.
        evidence: the evidence file that was read.
        blocks: the evidence's value.
        seal: what its MAC proves, as found by whoever has the keys.
        max_evidence_age_sec: how old the evidence may be.
        require_blocks: the blocks it must have.
        harvest: what it may leave out of its logs.
        slos: what is judged.
        judges: who judges.
        remote: what each remote judge signed; of one in error nothing. No part of the decision:
            its ``JudgeInput`` is among ``judges``, like everybody's.
        checks: outcomes of the phase's checks.
        labels: reason code → label.
        now: the time of the decision, with a zone.
        notes: what the reader of the decision should know besides.
    """

    phase: str
    target: Target
    gate: InputFile
    evidence: InputFile
    blocks: dict[str, Any]
    seal: Seal = Seal()
    max_evidence_age_sec: float
    require_blocks: tuple[str, ...]
    harvest: HarvestLimits = HarvestLimits()
    slos: tuple[GatedSlo, ...]
    judges: tuple[JudgeInput, ...]
    remote: dict[str, RemoteVerdicts] = Field(default_factory=dict)
    checks: tuple[Outcome, ...] = ()
    labels: LabelFile
    now: datetime
    notes: tuple[str, ...] = ()


def decide(inputs: GateInputs) -> Decision:
    """The decision on ``inputs``.

    Raises:
        ValueError: ``inputs`` contradict themselves: no SLO, or a quorum that is not of these
            judges. Whatever is wrong with the evidence gives an outcome, never an exception.
    """
    if not inputs.slos:
        raise ValueError("nothing to judge: no SLO")
    jury = Jury(
        inputs.blocks, inputs.evidence.file, inputs.judges, seal=inputs.seal, now=inputs.now
    )
    fault = jury.sealed.integrity
    conditions = admission(
        inputs.blocks,
        source=inputs.evidence.file,
        integrity=fault,
        seal=inputs.seal,
        target=inputs.target,
        max_age_sec=inputs.max_evidence_age_sec,
        require_blocks=inputs.require_blocks,
        harvest=inputs.harvest,
        now=inputs.now,
    )
    judged = tuple(_judge_slo(gated, jury, inputs) for gated in inputs.slos)
    meta = inputs.blocks.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    seal = hashlib.sha256(
        "\n".join(
            [
                jury.digest,
                inputs.evidence.sha256,
                inputs.gate.sha256,
                *(g.slo.sha256 for g in inputs.slos),
            ]
        ).encode()
    )
    draft = Decision(
        decision_id=f"{inputs.now.astimezone(UTC):%Y%m%dT%H%M%S%fZ}-{seal.hexdigest()[:12]}",
        verdict=Verdict.NO_GO,
        action=Action.WAIT,
        phase=inputs.phase,
        target=inputs.target,
        release=_text(meta.get("release")),
        baseline_release=_text(meta.get("baseline_release")),
        decided_at=inputs.now.astimezone(UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z"),
        evidence=inputs.evidence,
        evidence_digest=jury.digest,
        evidence_window=_window(meta.get("window")),
        gate=inputs.gate,
        judges=tuple(
            JudgeInfo(
                id=j.id,
                source=j.source,
                state=j.state,
                reason=j.reason,
                recomputed=tuple(sorted(j.blocks)),
                logs=j.logs,
            )
            for j in inputs.judges
        ),
        slos=judged,
        checks=(*conditions, *inputs.checks),
        notes=(*inputs.notes, *note_waivers(inputs.slos, inputs.now)),
        versions={
            "pytest-decisionos": pytest_decisionos.__version__,
            "python": platform.python_version(),
        },
    )
    return concluded(draft, inputs)


def concluded(draft: Decision, inputs: GateInputs) -> Decision:
    """``draft`` with the verdict, action, dissent and reasons that its outcomes make."""
    slos = tuple(
        _conclude_slo(slo, gated, inputs)
        for slo, gated in zip(draft.slos, inputs.slos, strict=True)
    )
    verdicts = {slo.verdict for slo in slos}
    passed = all(
        check.status is Status.SUCCESSFUL for check in draft.checks if check.severity == "block"
    )
    tampered = any(is_tampering(check) for check in draft.checks) or any(
        is_tampering(outcome)
        for slo in slos
        for ballot in slo.ballots
        for outcome in ballot.outcomes
    )
    if not passed or tampered or draft.partial or Verdict.NO_GO in verdicts:
        verdict = Verdict.NO_GO
    else:
        verdict = Verdict.HOLD if Verdict.HOLD in verdicts else Verdict.GO
    if verdict is Verdict.GO:
        action = Action.PROCEED
    elif tampered or any(slo.action is Action.ABORT for slo in slos) or _waited_too_long(inputs):
        action = Action.ABORT
    else:
        action = Action.WAIT
    made = draft.model_copy(update={"slos": slos, "verdict": verdict, "action": action})
    return made.model_copy(update={"reasons": reasons(made, inputs.labels)})


def _judge_slo(gated: GatedSlo, jury: Jury, inputs: GateInputs) -> SloDecision:
    slo = gated.slo
    rules = expand(slo.rules, jury.sealed)
    ballots = [_ballot(judge, jury, rules, slo, inputs.now) for judge in inputs.judges]
    return SloDecision(
        slo=slo.stem,
        file=slo.file,
        sha256=slo.sha256,
        quorum=gated.quorum,
        verdict=Verdict.NO_GO,
        action=Action.WAIT,
        ballots=tuple(ballots),
        waivers=slo.waivers,
    )


def ballot_of(judge: JudgeInput, jury: Jury, slo: Slo, now: datetime) -> Ballot:
    """The vote of one judge on one SLO: what a judge says of itself, and the gate of it again."""
    return _ballot(judge, jury, expand(slo.rules, jury.sealed), slo, now)


def _ballot(
    judge: JudgeInput, jury: Jury, rules: Sequence[Rule], slo: Slo, now: datetime
) -> Ballot:
    reason = jury.abstains(judge, rules)
    if reason is not None:
        return Ballot(judge=judge.id, vote=Vote.ABSTAIN, reason=reason)
    outcomes = waive([jury.outcome(judge, rule) for rule in rules], slo.waivers, now)
    # Also where all rules are warnings, which stop no vote: one that cannot say must not pass.
    vote = Vote.ERROR if judge.state == "error" else vote_of(outcomes)
    return Ballot(judge=judge.id, vote=vote, reason=judge.reason, outcomes=tuple(outcomes))


def _conclude_slo(slo: SloDecision, gated: GatedSlo, inputs: GateInputs) -> SloDecision:
    votes = [ballot.vote for ballot in slo.ballots]
    verdict = tally(votes, slo.quorum, gated.slo.on_inconclusive)
    if verdict is Verdict.GO:
        action = Action.PROCEED
    elif must_abort(votes, slo.quorum) or _over(gated.slo.max_wait_sec, inputs):
        action = Action.ABORT
    else:
        action = Action.WAIT
    dissent = tuple(
        ballot.judge
        for ballot in slo.ballots
        if verdict is Verdict.GO
        and ballot.vote not in {Vote.PASS, Vote.ABSTAIN}
        and not any(is_tampering(outcome) for outcome in ballot.outcomes)
    )
    return slo.model_copy(update={"verdict": verdict, "action": action, "dissent": dissent})


def _waited_too_long(inputs: GateInputs) -> bool:
    return _over(min(gated.slo.max_wait_sec for gated in inputs.slos), inputs)


def _over(max_wait_sec: float, inputs: GateInputs) -> bool:
    """Whether the step began so long ago that waiting is over; also if it is not known when."""
    canary, meta = inputs.blocks.get("canary"), inputs.blocks.get("meta")
    start = parse_time(canary.get("step_start")) if isinstance(canary, dict) else None
    if start is None:
        window = meta.get("window") if isinstance(meta, dict) else None
        start = parse_time(window.get("start")) if isinstance(window, dict) else None
    return start is None or inputs.now - start > timedelta(seconds=max_wait_sec)


def _text(value: object) -> str | None:
    # Never cut: of two releases with one beginning, a decision on one would name both.
    return value if isinstance(value, str) and len(value) <= 1024 else None


def _window(value: object) -> tuple[str, str] | None:
    if not isinstance(value, dict):
        return None
    start, end = _text(value.get("start")), _text(value.get("end"))
    return (start, end) if start is not None and end is not None else None
