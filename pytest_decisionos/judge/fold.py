"""What pytest reported → the run's decision. Reports can only take a GO away, never make one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_decisionos.judge.decide import concluded
from pytest_decisionos.judge.quorum import vote_of
from pytest_decisionos.model.decision import Ballot, Decision, Vote
from pytest_decisionos.model.outcome import Outcome, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_decisionos.judge.decide import GateInputs


class TestReport(NamedTuple):
    """The final word on one test.

    Attributes:
        nodeid: pytest's id of the test.
        status: successful only if it ran and passed, plainly.
        cause: why it is not successful: ``failed``, ``skipped``, ``xfailed``, ``crashed`` …
        message: in one line.
        slo: the SLO it is about, if any.
        rule: the rule it is about, if any.
        judge: the judge whose vote it belongs to; None means that it must pass.
        check: the check it is about, if any.
    """

    nodeid: str
    status: Status
    cause: str | None = None
    message: str = ""
    slo: str | None = None
    rule: str | None = None
    judge: str | None = None
    check: str | None = None


TestReport.__test__ = False  # type: ignore[attr-defined]  # pytest shall not collect it


def fold(
    decision: Decision,
    inputs: GateInputs,
    reports: Iterable[TestReport],
    partial: Sequence[str] = (),
) -> Decision:
    """``decision`` as far as the reports let it stand.

    An outcome is the worse of what the judge found and what the test about it reported. A test that
    takes a judge but no rule is one more outcome of that judge's ballots; any other test must pass.

    Args:
        decision: of ``decide(inputs)``.
        inputs: what it was made from.
        reports: one for each test of the run.
        partial: why the run is not whole; anything here makes NO-GO.
    """
    votes: dict[tuple[str | None, str], list[TestReport]] = {}
    checks = {check.id: check for check in decision.checks}
    for report in reports:
        if report.judge is not None:
            votes.setdefault((report.slo, report.judge), []).append(report)
        elif report.check is not None and report.check in checks:
            checks[report.check] = _worse(checks[report.check], report)
        elif report.status is not Status.SUCCESSFUL:
            made = _outcome(report)
            checks[made.id] = made
    slos = tuple(
        slo.model_copy(
            update={
                "ballots": tuple(
                    _recount(
                        ballot,
                        [
                            *votes.get((slo.slo, ballot.judge), ()),
                            *votes.get((None, ballot.judge), ()),
                        ],
                    )
                    for ballot in slo.ballots
                )
            }
        )
        for slo in decision.slos
    )
    draft = decision.model_copy(
        update={"slos": slos, "checks": tuple(checks.values()), "partial": tuple(partial)}
    )
    return concluded(draft, inputs)


def _recount(ballot: Ballot, reports: Sequence[TestReport]) -> Ballot:
    outcomes = {outcome.id: outcome for outcome in ballot.outcomes}
    for report in reports:
        if report.rule is not None and report.rule in outcomes:
            outcomes[report.rule] = _worse(outcomes[report.rule], report)
        elif report.status is not Status.SUCCESSFUL and not (
            ballot.vote is Vote.ABSTAIN and report.cause == "skipped"
        ):
            made = _outcome(report)
            outcomes[made.id] = made
    if ballot.vote is Vote.ABSTAIN and not outcomes:
        return ballot  # a passing test cannot make an abstention a vote
    vote = vote_of(outcomes.values())
    if vote is Vote.PASS:
        vote = ballot.vote  # a judge in error has no vote that its tests could make a pass
    return ballot.model_copy(update={"outcomes": tuple(outcomes.values()), "vote": vote})


def _worse(outcome: Outcome, report: TestReport) -> Outcome:
    """The judge's own finding, unless the test about it says worse."""
    if report.status.badness <= outcome.status.badness:
        return outcome
    if not outcome.counts and report.cause in {"failed", "skipped", "xfailed"}:
        return outcome  # the report of a waived or warning rule says no more than the outcome does
    update = {
        "status": report.status,
        "cause": report.cause,
        "message": report.message,
        "waived": None,
    }
    return outcome.model_copy(update=update)


def _outcome(report: TestReport) -> Outcome:
    return Outcome(
        id=f"test.{report.nodeid}", status=report.status, cause=report.cause, message=report.message
    )
