"""The decision: the verdict, the action, and everything it was made from."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.outcome import Outcome
from pytest_decisionos.model.policy import Quorum, Waiver
from pytest_decisionos.model.target import Target


class Verdict(StrEnum):
    """What the gate says."""

    GO = "GO"
    HOLD = "HOLD"
    NO_GO = "NO-GO"


class Action(StrEnum):
    """What the release should do about it."""

    PROCEED = "proceed"
    WAIT = "wait"
    ABORT = "abort"


class Vote(StrEnum):
    """What one judge says of one SLO."""

    PASS = "pass"  # noqa: S105 - a vote, no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"
    ABSTAIN = "abstain"
    MISSING = "missing"


JudgeState = Literal["ready", "absent", "error"]


class InputFile(Frozen):
    """A file that the decision was made from."""

    file: str
    sha256: str


class JudgeInfo(Frozen):
    """A judge, and what it looked at.

    Attributes:
        id: its name in gate.yaml.
        source: ``evidence``, ``log``, or the name of another package's source.
        state: ready; absent (nothing to look at: it abstains); or error.
        reason: why it is not ready.
        recomputed: the evidence blocks whose numbers it computed itself.
        logs: the files that it computed them from.
    """

    id: str
    source: str
    state: JudgeState
    reason: str = ""
    recomputed: tuple[str, ...] = ()
    logs: tuple[InputFile, ...] = ()


class Ballot(Frozen):
    """One judge's vote on one SLO, and the outcomes that make it; none if it abstains."""

    judge: str
    vote: Vote
    reason: str = ""
    outcomes: tuple[Outcome, ...] = ()


class SloDecision(Frozen):
    """What the quorum makes of one SLO.

    Attributes:
        dissent: judges whose vote the quorum outvoted.
    """

    slo: str
    file: str
    sha256: str
    quorum: Quorum
    verdict: Verdict
    action: Action
    ballots: tuple[Ballot, ...]
    dissent: tuple[str, ...] = ()
    waivers: tuple[Waiver, ...] = ()

    def votes(self, vote: Vote) -> int:
        """How many judges gave this vote."""
        return sum(ballot.vote is vote for ballot in self.ballots)


class Reason(Frozen):
    """Why it is not GO: one reason code, and who says so.

    Attributes:
        code: ``<rule id>:<cause>``.
        label: its label in labels.json.
        judges: who says so; empty for a check.
        slos: the SLOs it stands in; empty for a check.
        message: in words, with the numbers.
        outvoted: whether the quorum outvoted it.
    """

    code: str
    label: str
    judges: tuple[str, ...]
    slos: tuple[str, ...]
    message: str
    outvoted: bool = False

    @property
    def count(self) -> int:
        """How many outcomes say so."""
        return max(1, len(self.judges)) * max(1, len(self.slos))


class Decision(Frozen):
    """May this release go on?

    Attributes:
        version: of this format.
        decision_id: unique name of this decision.
        verdict: GO, NO-GO or HOLD.
        action: proceed, wait or abort.
        signed: always False here: only ``dosctl decision sign`` makes authority.
        partial: why this run cannot decide (a run with something missing is never GO).
        phase: which phase of the gate.
        target: what is released where.
        release: the release candidate, as the evidence says.
        baseline_release: what it is compared with.
        decided_at: ISO-8601.
        evidence: the evidence document.
        evidence_digest: ``integrity.signature_sha256`` as recomputed.
        evidence_window: start and end of the measured time, as the evidence says.
        gate: the gate configuration.
        judges: the judges and what they looked at.
        slos: one decision per SLO.
        checks: conditions that must pass, without vote.
        reasons: why not, worst and most frequent first.
        notes: what a reader should know besides (expired waivers, unsigned evidence …).
        versions: of the software that decided.
    """

    version: Literal["1"] = "1"
    decision_id: str
    verdict: Verdict
    action: Action
    signed: Literal[False] = False
    partial: tuple[str, ...] = ()
    phase: str
    target: Target
    release: str | None
    baseline_release: str | None
    decided_at: str
    evidence: InputFile
    evidence_digest: str
    evidence_window: tuple[str, str] | None
    gate: InputFile
    judges: tuple[JudgeInfo, ...]
    slos: tuple[SloDecision, ...]
    checks: tuple[Outcome, ...]
    reasons: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str]
