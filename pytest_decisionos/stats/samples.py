"""How many samples a statement needs. Loads no scipy: judging calls this on every run."""

from __future__ import annotations

import math
from typing import Final

MAX_NEEDED: Final = 10**12
"""A need beyond this is told as "no number of samples": 300 years at 100 requests a second."""


def smallest_n(bound: float, level: float) -> int:
    """The fewest requests, all of them clean, that prove a rate of at most ``bound``.

    The smallest n with (1 − bound)ⁿ ≤ 1 − level, which is where the Clopper–Pearson upper limit of
    0 events in n falls to ``bound`` (Clopper & Pearson 1934; with level 0.95 the "rule of three",
    n ≈ 3/bound, of Hanley & Lippman-Hand, JAMA 249:1743, 1983). The same n is the smallest sample
    whose maximum is an upper limit of the (1 − bound)-quantile: 59 for p95 and 299 for p99 at 0.95.

    Args:
        bound: a rate in (0, 1); no number of requests proves a rate of 0.
        level: one-sided confidence level in [0.5, 1).

    Raises:
        ValueError: an argument is outside its range.
    """
    if not 0 < bound < 1:
        raise ValueError(f"bound must be in (0, 1), not {bound!r}")
    if not 0.5 <= level < 1:
        raise ValueError(f"level must be in [0.5, 1), not {level!r}")
    exact = math.log1p(-level) / math.log1p(-bound)
    # The quotient of two rounded logarithms may stand a few ulp above a whole number.
    return max(1, math.ceil(exact * (1 - 1e-12)))


def samples_needed(
    n: int, estimate: float, limit: float | None, bound: float, floor: int
) -> int | None:
    """About how many more samples bring ``limit`` to ``bound``, if the estimate stays as it is.

    The distance between an estimate and its limit shrinks with 1/√n (central limit theorem), so
    the limit reaches the bound at n·((limit − estimate)/(bound − estimate))². A plan, not a
    promise: the estimate will move too.

    Args:
        n: samples so far.
        estimate: the point estimate, in the unit of ``bound``.
        limit: its one-sided limit on the side of the bound; None where the sample has none.
        bound: what the limit must reach.
        floor: the rule's own least number of samples.

    Returns:
        Never negative, and at least ``floor`` − n. None when no number of samples would settle it:
        the estimate equals the bound, an argument is not finite, the need exceeds ``MAX_NEEDED``,
        or there is no limit to extrapolate from although the floor is reached.

    Raises:
        ValueError: ``n`` or ``floor`` is negative.
    """
    if n < 0 or floor < 0:
        raise ValueError(f"n and floor must not be negative, not {n!r} and {floor!r}")
    short = max(0, floor - n)
    if limit is None:
        return short or None
    if estimate == bound:
        return None
    ratio = (limit - estimate) / (bound - estimate)
    more = n * ratio * ratio - n
    if not more <= MAX_NEEDED:  # also NaN
        return None
    return max(short, math.ceil(more))
