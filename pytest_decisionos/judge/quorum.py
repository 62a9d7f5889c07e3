"""Votes → verdict and action of one SLO: the k-of-n quorum, as arithmetic and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_decisionos.model.decision import Verdict, Vote
from pytest_decisionos.model.outcome import Outcome, Status, worst

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_decisionos.model.policy import OnInconclusive, Quorum

_VOTE = {
    Status.SUCCESSFUL: Vote.PASS,
    Status.INCONCLUSIVE: Vote.INCONCLUSIVE,
    Status.ERROR: Vote.ERROR,
    Status.FAILED: Vote.FAIL,
}


def vote_of(outcomes: Iterable[Outcome]) -> Vote:
    """One judge's vote: pass only if every blocking outcome is successful; of none at all, error."""
    outcomes = list(outcomes)
    if not outcomes:
        return Vote.ERROR
    counting = [outcome.status for outcome in outcomes if outcome.counts]
    # Only warnings and waived rules: each was measured, and none may decide.
    return _VOTE[worst(counting)] if counting else Vote.PASS


def tally(votes: Sequence[Vote], quorum: Quorum, on_inconclusive: OnInconclusive) -> Verdict:
    """What the quorum makes of ``votes``, one per configured judge.

    GO needs at least k passes. With ``fail_closed_on_degrade`` a judge in error, or whose vote is
    missing, makes it NO-GO however many pass. HOLD needs ``on_inconclusive: hold``, and k judges
    that pass or would have passed had they seen enough.

    Raises:
        ValueError: the number of votes is not n, or k is not within 1 … n.
    """
    if len(votes) != quorum.n or not 1 <= quorum.k <= quorum.n:
        raise ValueError(f"{len(votes)} votes for a quorum of {quorum}")
    if quorum.fail_closed_on_degrade and (Vote.ERROR in votes or Vote.MISSING in votes):
        return Verdict.NO_GO
    passed = votes.count(Vote.PASS)
    if passed >= quorum.k:
        return Verdict.GO
    if on_inconclusive == "hold" and passed + votes.count(Vote.INCONCLUSIVE) >= quorum.k:
        return Verdict.HOLD
    return Verdict.NO_GO


def must_abort(votes: Sequence[Vote], quorum: Quorum) -> bool:
    """Whether so many judges saw a violation that no quorum is left: more than n − k."""
    return votes.count(Vote.FAIL) > quorum.n - quorum.k
