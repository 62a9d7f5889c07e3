"""Bursts: sub-buckets of a window with more events than their reference makes plausible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_decisionos.stats.dispersion import check_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

WINDOW_ALPHA: Final = 0.001
"""Probability of any false burst in one healthy window; divide it by the window's tests."""

MIN_EXCESS: Final = 5.0
"""Events above expectation below which a burst is not worth an alarm (a few stray errors)."""

MIN_RELATIVE: Final = 1.0
"""Relative excess of a burst: 1.0 = at least twice the expected events."""

D_MARGIN: Final = 1.64
"""Upper 95 % limit of the true dispersion ÷ its estimate from 30 sub-buckets, the usual number in
a window: 29/χ²₀.₀₅(29), as (k − 1)·D̂/D is about χ² with k − 1 degrees of freedom. Without it, one
healthy window in a hundred with strongly autocorrelated errors raises an alarm
(docs/statistics.md): the far tail used here feels every underestimate of D."""


def bursts(
    events: Sequence[int],
    trials: Sequence[int],
    reference_events: int,
    reference_trials: int,
    reference_d: float,
    *,
    alpha: float,
    min_excess: float = MIN_EXCESS,
    min_relative: float = MIN_RELATIVE,
) -> list[bool]:
    """Which sub-buckets burst: more events than the reference's rate explains.

    The reference is the control in the same span, or the windows before: never the series' own
    moving average, which swings with every autocorrelated window and forgives a constant fault.
    Expected in a sub-bucket of t requests: μ = t·(X + D/2)/T, with X events in T requests of the
    reference; D/2 is half an effective event (Jeffreys), so that a clean reference still has an
    expectation. Under "same rate" the count has at most about the variance φμ, φ = D·(1 + t/T),
    with D = ``D_MARGIN`` × the reference's dispersion; 1 + t/T is the uncertainty of its rate. The
    negative binomial of this mean and variance gives P(count ≥ e) = I_q(e, r), r = μ/(φ − 1),
    q = 1 − 1/φ. For D = 1 it is the gamma–Poisson predictive distribution (Gelman et al.,
    Bayesian Data Analysis, 3rd ed. 2013, §2.6); for D > 1 the usual model of overdispersed counts
    (McCullagh & Nelder, 2nd ed. 1989, §6.2.3). A burst has P < alpha and at least both excesses.

    Args:
        events: events of each sub-bucket (errors; or latencies above the reference's p95).
        trials: requests of each sub-bucket.
        reference_events: events of the same kind in the reference.
        reference_trials: requests in the reference, at least 1.
        reference_d: D of those events over sub-buckets of the same length.
        alpha: level of one test, that is ``WINDOW_ALPHA`` ÷ number of tests of the window.
        min_excess: events above μ that a burst has at least.
        min_relative: events above μ, relative to μ, that a burst has at least.

    Returns:
        One bool a sub-bucket; an empty sub-bucket never bursts.

    Raises:
        ValueError: an argument is outside its range, or there is no reference. What has no
            reference cannot be tested: the caller decides what that means.
    """
    check_counts(reference_events, reference_trials)
    if reference_trials == 0:
        raise ValueError("a burst test needs a reference")
    if not 1 <= reference_d < float("inf"):
        raise ValueError(f"dispersion must be finite and at least 1, not {reference_d!r}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), not {alpha!r}")
    if not (min_excess >= 0 and min_relative >= 0):
        raise ValueError(f"excesses must not be negative, not {min_excess!r}, {min_relative!r}")
    spread = D_MARGIN * reference_d
    rate = (reference_events + spread / 2) / reference_trials

    def burst(count: int, requests: int) -> bool:
        check_counts(count, requests)
        expected = requests * rate
        if count == 0 or count - expected < max(min_excess, min_relative * expected):
            return False
        # Loaded here: a healthy log never needs it, and judging must start fast.
        from scipy.special import betainc  # noqa: PLC0415 - as said

        inflation = spread * (1 + requests / reference_trials)
        shape = expected / (inflation - 1)
        return float(betainc(count, shape, 1 - 1 / inflation)) < alpha

    return [burst(count, requests) for count, requests in zip(events, trials, strict=True)]
