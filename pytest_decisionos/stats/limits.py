"""One-sided confidence limits of rates, quantiles, differences and ratios.

Every limit is one-sided: "with confidence ``level`` the true value is at most ``upper``", and
separately "… at least ``lower``". Autocorrelated requests count n/D (``dispersion``). None means
that the sample cannot give this limit: whoever needs it has an inconclusive rule, never a pass.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Final

from scipy.special import betaincc, betaincinv, ndtri

from pytest_decisionos.stats.dispersion import check_counts

LEVELS: Final = (0.90, 0.95, 0.99)
"""The levels that evidence states limits for."""

Limits = tuple[float | None, float | None]
"""(lower, upper), each one-sided."""

NONE: Final[Limits] = (None, None)


def rate_limits(events: int, n: int, level: float, d: float = 1.0) -> Limits:
    """Clopper–Pearson limits of a rate, from ``events`` in ``n`` requests.

    lower = the (1 − level)-quantile of Beta(x, m − x + 1), upper = the level-quantile of
    Beta(x + 1, m − x), with x = events/d and m = n/d (Clopper & Pearson, Biometrika 26:404, 1934;
    x and m need not be whole: Korn & Graubard, Survey Methodology 24:193, 1998). Exact for
    independent requests: the coverage is never below ``level``.

    Args:
        events: requests of the kind counted.
        n: all requests.
        level: one-sided confidence level in [0.5, 1).
        d: dispersion D ≥ 1.

    Returns:
        (lower, upper) as rates in [0, 1]; (None, None) without requests.

    Raises:
        ValueError: an argument is outside its range.
    """
    _check(level, (events, n, d))
    if n == 0:
        return NONE
    x, rest = events / d, (n - events) / d
    lower = float(betaincinv(x, rest + 1, 1 - level)) if events else 0.0
    upper = float(betaincinv(x + 1, rest, level)) if events < n else 1.0
    return lower, upper


def quantile_ranks(n: int, p: float, level: float, d: float = 1.0) -> Limits:
    """Which order statistics of ``n`` values are the limits of their p-quantile.

    A sample of m independent values has at most k − 1 values below the true p-quantile with
    probability P(Bin(m, p) ≤ k − 1), whatever the distribution. So the k-th smallest value is an
    upper limit for the smallest k where this is ≥ level, and a lower limit for the largest k with
    P(Bin(m, p) ≥ k) ≥ level (Conover, Practical Nonparametric Statistics, 3rd ed. 1999, §3.2;
    David & Nagaraja, Order Statistics, 3rd ed. 2003, §7.1). m = ⌊n/d⌋; rank k of m is read at rank
    ⌈k·n/m⌉ of n for the upper and, its mirror image, 1 + ⌊(k − 1)·n/m⌋ for the lower limit.

    Args:
        n: number of values.
        p: the quantile, in (0, 1).
        level: one-sided confidence level in [0.5, 1).
        d: dispersion D ≥ 1.

    Returns:
        (lower, upper) as fractions f in (0, 1]: the limit is the value at rank ⌈f·n⌉, which is
        what DuckDB's ``quantile_disc(x, f)`` reads. f is (rank − ½)/n, half a rank from either
        neighbour, so that rounding cannot move it. None where no rank qualifies: for the upper
        limit at 0.95 when m < 59 (p95) or m < 299 (p99).

    Raises:
        ValueError: an argument is outside its range.
    """
    _check(level, (0, n, d))
    if not 0 < p < 1:
        raise ValueError(f"p must be in (0, 1), not {p!r}")
    m = math.floor(n / d)
    if m == 0:
        return NONE

    def below(k: int) -> float:  # P(Bin(m, p) ≤ k − 1) by the incomplete beta function
        return float(betaincc(k, m - k + 1, p))

    ranks = range(1, m + 1)
    upper = 1 + bisect_left(ranks, x=True, key=lambda k: below(k) >= level)
    # P(Bin ≥ k) falls with k: the ranks that qualify are 1 … lower.
    lower = bisect_left(ranks, x=True, key=lambda k: below(k) > 1 - level)
    return (
        (1 + (lower - 1) * n // m - 0.5) / n if lower else None,
        (-(-upper * n // m) - 0.5) / n if upper <= m else None,
    )


def difference_limits(  # noqa: PLR0917 - two samples and a level
    events1: int, n1: int, d1: float, events2: int, n2: int, d2: float, level: float
) -> Limits:
    """Newcombe's limits of rate 2 − rate 1 (canary − control).

    Method 10 of Newcombe (Statistics in Medicine 17:873, 1998), "hybrid score": with the Wilson
    score limits (lᵢ, uᵢ) of each rate pᵢ on nᵢ/dᵢ requests, Wilson's z being that of ``level``
    one-sided, lower = (p₂ − p₁) − √((p₂ − l₂)² + (u₁ − p₁)²) and
    upper = (p₂ − p₁) + √((u₂ − p₂)² + (p₁ − l₁)²).

    Args:
        events1: events of the control.
        n1: requests of the control.
        d1: dispersion D ≥ 1 of the control.
        events2: events of the canary.
        n2: requests of the canary.
        d2: dispersion D ≥ 1 of the canary.
        level: one-sided confidence level in [0.5, 1).

    Returns:
        (lower, upper) in [−1, 1]; (None, None) when either side has no requests.

    Raises:
        ValueError: an argument is outside its range.
    """
    _check(level, (events1, n1, d1), (events2, n2, d2))
    if n1 == 0 or n2 == 0:
        return NONE
    z = float(ndtri(level))
    p1, l1, u1 = _wilson(events1 / n1, n1 / d1, z)
    p2, l2, u2 = _wilson(events2 / n2, n2 / d2, z)
    return (
        max(-1.0, p2 - p1 - math.hypot(p2 - l2, u1 - p1)),
        min(1.0, p2 - p1 + math.hypot(u2 - p2, p1 - l1)),
    )


def ratio_limits(control: Limits, canary: Limits) -> Limits:
    """Limits of canary/control − 1 from the limits of both sides (both of one level).

    lower = canary.lower/control.upper − 1, upper = canary.upper/control.lower − 1. If both sides'
    limits hold, so does this one. By Bonferroni it fails with probability 2(1 − level) at most;
    for independent sides it covers more than ``level``, because both must err in opposite
    directions, and by far: docs/statistics.md has the measured numbers.

    Args:
        control: (lower, upper) of the control, in any unit, such as ms.
        canary: (lower, upper) of the canary, in the same unit.

    Returns:
        (lower, upper) as relative differences (0.05 = 5 % more than control). None where a side
        that it needs is None, or the control's is not positive.

    Raises:
        ValueError: a limit is not finite.
    """
    return _relative(canary[0], control[1]), _relative(canary[1], control[0])


def _relative(value: float | None, reference: float | None) -> float | None:
    if value is None or reference is None:
        return None
    if not (math.isfinite(value) and math.isfinite(reference)):
        raise ValueError(f"limits must be finite, not {value!r} and {reference!r}")
    if reference <= 0:
        return None
    ratio = value / reference
    return ratio - 1 if math.isfinite(ratio) else None


def _wilson(p: float, n: float, z: float) -> tuple[float, float, float]:
    """``p`` with its score limits (Wilson, J. Amer. Stat. Assoc. 22:209, 1927)."""
    shrink = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink
    return p, max(0.0, centre - half), min(1.0, centre + half)


def _check(level: float, *samples: tuple[int, int, float]) -> None:
    if not 0.5 <= level < 1:
        raise ValueError(f"level must be in [0.5, 1), not {level!r}")
    for events, n, d in samples:
        check_counts(events, n)
        if not 1 <= d < math.inf:
            raise ValueError(f"dispersion must be finite and at least 1, not {d!r}")
