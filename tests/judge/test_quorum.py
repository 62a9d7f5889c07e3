"""The quorum's truth table, exhaustively for n ≤ 5, against a second statement of the rules."""

import itertools

import pytest

from pytest_decisionos.errors import UsageError
from pytest_decisionos.judge.gate import parse_quorum, strictest
from pytest_decisionos.judge.quorum import must_abort, tally, vote_of
from pytest_decisionos.model.decision import Verdict, Vote
from pytest_decisionos.model.outcome import Outcome, Status
from pytest_decisionos.model.policy import Quorum


def told(votes, k, closed, mode):
    """The design's sentence, written down again from the other end."""
    letters = "".join(vote.value[0] if vote is not Vote.ABSTAIN else "a" for vote in votes)
    if closed and ("e" in letters or "m" in letters):
        return Verdict.NO_GO
    if sum(c == "p" for c in letters) >= k:
        return Verdict.GO
    if mode == "hold" and sum(c in "pi" for c in letters) >= k:
        return Verdict.HOLD
    return Verdict.NO_GO


@pytest.mark.parametrize("n", range(1, 6))
def test_truth_table(n):
    seen = set()
    for votes in itertools.combinations_with_replacement(list(Vote), n):
        for order in {votes, votes[::-1], votes[1:] + votes[:1]}:
            for k in range(1, n + 1):
                for closed, mode in itertools.product((True, False), ("hold", "no-go")):
                    quorum = Quorum(k=k, n=n, fail_closed_on_degrade=closed)
                    verdict = tally(order, quorum, mode)
                    seen.add(verdict)
                    assert verdict is told(order, k, closed, mode)
                    assert must_abort(order, quorum) is (order.count(Vote.FAIL) > n - k)
                    if verdict is Verdict.GO:
                        assert order.count(Vote.PASS) >= k
                        assert not must_abort(order, quorum)
    assert seen == set(Verdict)


@pytest.mark.parametrize(
    ("votes", "k", "n"), [([Vote.PASS], 1, 2), ([Vote.PASS] * 2, 3, 2), ([], 1, 1)]
)
def test_a_quorum_of_others_is_refused(votes, k, n):
    with pytest.raises(ValueError, match="votes for a quorum"):
        tally(votes, Quorum(k=k, n=n), "no-go")


def outcome(status, **kwargs):
    return Outcome(id="x", status=status, **kwargs)


def test_vote_is_the_worst_that_counts():
    good, bad = outcome(Status.SUCCESSFUL), outcome(Status.FAILED)
    assert vote_of([]) is Vote.ERROR
    assert vote_of([good]) is Vote.PASS
    assert vote_of([good, outcome(Status.INCONCLUSIVE)]) is Vote.INCONCLUSIVE
    assert vote_of([outcome(Status.INCONCLUSIVE), outcome(Status.ERROR)]) is Vote.ERROR
    assert vote_of([outcome(Status.ERROR), bad, good]) is Vote.FAIL
    assert vote_of([good, outcome(Status.FAILED, severity="warn")]) is Vote.PASS
    assert vote_of([good, outcome(Status.FAILED, waived="by me")]) is Vote.PASS


@pytest.mark.parametrize(
    "text", ["", "2", "2/", "/3", "3/2", "0/3", "2/3/4", "-1/3", "２/3", "2 / 3", "1/100", "a/b"]
)
def test_not_a_quorum(text):
    with pytest.raises(UsageError, match="not a quorum"):
        parse_quorum(text)


def test_strictest_takes_the_highest_k_and_any_closing():
    stated = [("a", Quorum(k=1, n=3)), ("b", Quorum(k=2, n=3, fail_closed_on_degrade=True))]
    assert strictest(stated, 3) == Quorum(k=2, n=3, fail_closed_on_degrade=True)
    assert [strictest([], n).k for n in range(1, 7)] == [1, 2, 2, 3, 4, 4]
    with pytest.raises(UsageError, match="3 judges are configured"):
        strictest([("c", Quorum(k=1, n=2))], 3)
