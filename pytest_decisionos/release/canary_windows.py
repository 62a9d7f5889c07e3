"""What a step's windows say of its canary: alive, passing, contiguous, fresh, quiet, with its share."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, Final

from pytest_decisionos.model.outcome import Outcome, Status, quantity, worst
from pytest_decisionos.model.strict_json import block_of
from pytest_decisionos.release.windows import MIN_EXPECTED, bounds, expected, judge_span

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pytest_decisionos.model.policy import Rule
    from pytest_decisionos.release.canary_policy import CanaryPolicy
    from pytest_decisionos.release.windows import Span

RARE: Final = 0.001
"""Probability of so little traffic, at the least share allowed, below which the canary is dead."""

Fault = tuple[Status, str]
"""Status and cause of a condition that does not hold."""


class Findings:
    """The outcomes so far, each with its id ``canary.<condition>``."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.outcomes: list[Outcome] = []

    def say(self, condition: str, fault: Fault | None, why: str, **measured: Any) -> bool:
        """Note an outcome; returns whether it is successful."""
        status, cause = fault or (Status.SUCCESSFUL, None)
        self.outcomes.append(
            Outcome(
                id=f"canary.{condition}",
                status=status,
                cause=cause,
                message=f"{why} ({self.source})",
                source=self.source,
                **measured,
            )
        )
        return fault is None

    def status(self) -> Status:
        """The worst of them."""
        return worst(outcome.status for outcome in self.outcomes if outcome.counts)


def judge_windows(
    found: Findings,
    policy: CanaryPolicy,
    spans: Sequence[Span],
    warm: Sequence[Span],
    rules: Sequence[Rule],
    *,
    pct: float,
    now: datetime,
) -> None:
    """Note what the windows say.

    Args:
        found: where to.
        policy: the policy.
        spans: those of this step, in order.
        warm: those of them after the guardband.
        rules: the SLOs' rules on the canary.
        pct: per cent of the traffic that the canary should have.
        now: the time here.
    """
    _alive(found, spans)
    _burst(found, policy, warm)
    _freshness(found, policy, warm, now)
    _passes(found, policy, pct, warm, rules)
    _gap(found, policy, warm)
    _share(found, policy, pct, warm)


def _alive(found: Findings, spans: Sequence[Span]) -> None:
    """No window, not even of the warm-up, may have failures only."""
    why = "the canary answers"
    dead = False
    for span in spans:
        side = span.canary
        if side and side.error_rate == 1 and side.requests >= MIN_EXPECTED:
            dead = True
            why = f"all {side.requests:,} canary requests from {span.start:%H:%M:%S} failed"
    found.say("alive", (Status.FAILED, "over") if dead else None, why)


def _burst(found: Findings, policy: CanaryPolicy, warm: Sequence[Span]) -> None:
    most, where = 0, ""
    for span in warm:
        if span.canary and span.canary.burst > most:
            most, where = span.canary.burst, f" from {span.start:%H:%M:%S}"
    grace = policy.grace_burst
    found.say(
        "burst",
        (Status.FAILED, "over") if most > grace else None,
        f"{most} bursts in a canary window{where}, at most {grace}",
        observed=most,
        op="<=",
        bound=grace,
    )


def _freshness(found: Findings, policy: CanaryPolicy, warm: Sequence[Span], now: datetime) -> None:
    until = latest(warm)
    if until is None:
        found.say("freshness", (Status.INCONCLUSIVE, "missing"), "no canary window yet")
        return
    age, most = round((now - until).total_seconds(), 1), policy.max_age_sec
    found.say(
        "freshness",
        None if age <= most else (Status.ERROR, "stale"),
        f"the latest canary window ended {quantity(age, 's')} ago, at most {quantity(most, 's')}",
        observed=age,
        op="<=",
        bound=most,
        unit="s",
    )


def latest(spans: Sequence[Span]) -> datetime | None:
    """The end of the latest canary window."""
    return next((span.end for span in reversed(spans) if span.canary), None)


def _passes(
    found: Findings,
    policy: CanaryPolicy,
    pct: float,
    warm: Sequence[Span],
    rules: Sequence[Rule],
) -> None:
    """The latest N must pass and be large enough; too many failing ones at the end abort.

    ``min_sample_count`` is what N windows must have together: each has its part of it at least.
    """
    n, most = policy.consecutive_passes, policy.consecutive_failures
    held = bounds(rules)
    if not held:
        why = "no SLO of this phase has a bound that a window answers: state canary.thresholds"
        found.say("passes", (Status.ERROR, "missing"), why)
        return
    needed = max((r.min_samples for r in rules if block_of(r.metric) == "canary"), default=0)
    floor = max(1, -(-needed // n))
    judged = [judge_span(s, held, pct=pct, floor=floor) for s in warm[-max(n, most) :]]
    states = [state for state, _ in judged[-n:]]
    passing = states.count("pass")
    cause = "under" if "fail" in states else "samples_insufficient"
    odd = [why for state, why in judged[-n:] if state != "pass"]
    found.say(
        "passes",
        None if passing == n else (Status.INCONCLUSIVE, cause),
        f"{passing} of the latest {n} windows pass" + (f": {odd[-1]}" if odd else ""),
        observed=passing,
        op=">=",
        bound=n,
    )
    failing = 0
    while failing < len(judged) and judged[-1 - failing][0] == "fail":
        failing += 1
    found.say(
        "failures",
        (Status.FAILED, "over") if failing >= most else None,
        f"{failing} failing windows at the end" + (f": {judged[-1][1]}" if failing else ""),
        observed=failing,
        op="<",
        bound=most,
    )
    least = min((span.counts[1] for span in warm[-n:]), default=0)
    found.say(
        "samples",
        None if least >= floor else (Status.INCONCLUSIVE, "samples_insufficient"),
        f"{least:,} canary requests in a window, at least {floor:,}",
        observed=least,
        op=">=",
        bound=floor,
        samples=least,
        needed=floor - least if least < floor else None,
    )


def _gap(found: Findings, policy: CanaryPolicy, warm: Sequence[Span]) -> None:
    """The latest N canary windows follow each other, and no traffic without canary follows them."""
    theirs = [span for span in warm if span.canary][-policy.consecutive_passes :]
    widest, most = 0.0, policy.max_window_gap_sec
    for before, after in itertools.pairwise(theirs):
        widest = max(widest, (after.start - before.end).total_seconds())
    if theirs:
        widest = max(widest, (warm[-1].end - theirs[-1].end).total_seconds())
    found.say(
        "gap",
        None if widest <= most else (Status.INCONCLUSIVE, "over"),
        f"{quantity(widest, 's')} without canary windows, at most {quantity(most, 's')}",
        observed=widest,
        op="<=",
        bound=most,
        unit="s",
    )


def _share(found: Findings, policy: CanaryPolicy, pct: float, warm: Sequence[Span]) -> None:
    """The canary must get its share; a dead one is told from one that is too young."""
    now = warm[-policy.consecutive_passes :]
    due = sum(expected(span, pct) for span in now)
    got = sum(span.counts[1] for span in now)
    least = max(1.0, due * policy.min_share) if pct else 1.0
    fault = None
    if got < least:
        old = len(now) == policy.consecutive_passes
        proven = old and _improbable(got, due * policy.min_share)
        fault = (Status.FAILED if proven else Status.INCONCLUSIVE), "under"
    found.say(
        "share",
        fault,
        f"{got:,} canary requests in {len(now)} windows,"
        f" about {due:,.0f} expected at {pct:g} %, at least {math.ceil(least):,}",
        observed=got,
        op=">=",
        bound=math.ceil(least),
    )


def _improbable(count: int, mean: float) -> bool:
    """Whether ``count``, below ``mean``, has a probability below ``RARE`` where ``mean`` are expected.

    By the Chernoff bound of a Poisson count, P(X ≤ k) ≤ e^−μ·(eμ/k)^k for k < μ (Mitzenmacher &
    Upfal, Probability and Computing, 2nd ed. 2017, theorem 5.4): never more often than it says.
    """
    exponent = mean - count + (count * math.log(count / mean) if count else 0.0)
    return exponent > -math.log(RARE)
