"""Why a decision is not GO: the same reason of several judges told once, the worst first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_decisionos.model.decision import Decision, Reason, Verdict, Vote
from pytest_decisionos.model.outcome import Outcome, Status

if TYPE_CHECKING:
    from pytest_decisionos.judge.gate import LabelFile


def reasons(decision: Decision, labels: LabelFile) -> tuple[Reason, ...]:
    """The reasons of ``decision``: those that decided first, then worst, then most frequent."""
    found: dict[str, list[tuple[str, str, Outcome, bool]]] = {}
    for check in decision.checks:
        if check.status is not Status.SUCCESSFUL:
            found.setdefault(check.reason, []).append(("", "", check, False))
    for slo in decision.slos:
        for ballot in slo.ballots:
            outvoted = slo.verdict is Verdict.GO
            if ballot.vote is Vote.MISSING:
                lost = Outcome(
                    id=slo.slo,
                    status=Status.ERROR,
                    cause="missing",
                    message=f"no vote of {ballot.judge}",
                )
                found.setdefault(lost.reason, []).append((ballot.judge, slo.slo, lost, outvoted))
            for outcome in ballot.outcomes:
                if outcome.status is not Status.SUCCESSFUL and outcome.counts:
                    found.setdefault(outcome.reason, []).append(
                        (ballot.judge, slo.slo, outcome, outvoted and not is_tampering(outcome))
                    )
    made = [_reason(code, said, labels) for code, said in found.items()]
    return tuple(reason for _, reason in sorted(made, key=lambda pair: pair[0]))


def is_tampering(outcome: Outcome) -> bool:
    """Whether ``outcome`` says that the evidence was changed: no quorum can outvote that."""
    return outcome.status is Status.FAILED and outcome.cause == "tampered"


def _reason(
    code: str, said: list[tuple[str, str, Outcome, bool]], labels: LabelFile
) -> tuple[tuple[bool, int, int, str], Reason]:
    outvoted = all(over for _, _, _, over in said)
    speaker = max(
        (outcome for _, _, outcome, _ in said), key=lambda outcome: outcome.status.badness
    )
    made = Reason(
        code=code,
        # A rule's own label is for its violation; that it could not be judged is another matter.
        label=(speaker.status is Status.FAILED and speaker.label) or labels.label_of(code),
        judges=tuple(dict.fromkeys(judge for judge, _, _, _ in said if judge)),
        slos=tuple(dict.fromkeys(slo for _, slo, _, _ in said if slo)),
        message=speaker.message,
        outvoted=outvoted,
    )
    return (outvoted, -speaker.status.badness, -len(said), code), made
