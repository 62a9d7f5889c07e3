"""Overdispersion of counts: how much less a request tells because its neighbours resemble it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_BUCKETS: Final = 10
"""Fewer sub-buckets cannot estimate a variance: the relative error of D is √(2/(k − 1)), 47 %
for k = 10. Batch means are usually taken from 10 to 30 batches (Schmeiser, Oper. Res. 30:556,
1982)."""


def dispersion(events: Sequence[int], trials: Sequence[int]) -> float | None:
    """D = max(1, Pearson's χ² ÷ degrees of freedom) of counts in consecutive sub-buckets.

    With pooled rate p = Σeᵢ/Σtᵢ over the k non-empty sub-buckets,
    χ² = Σ (eᵢ − tᵢp)² / (tᵢp(1 − p)) and D = χ²/(k − 1): the observed over the binomial variance
    (McCullagh & Nelder, Generalized Linear Models, 2nd ed. 1989, §4.5). Autocorrelated requests
    give sub-bucket counts that vary more than independent ones would; n/D is then the number of
    independent requests that would tell as much (the method of batch means). Below 1 it is
    raised to 1: chance must not make a sample larger than it is.

    Args:
        events: requests of the kind counted (errors; latencies above a quantile) per sub-bucket.
        trials: all requests per sub-bucket.

    Returns:
        D ≥ 1; 1.0 when no request or every request is an event, since then nothing shows how
        events cluster; None with fewer than ``MIN_BUCKETS`` non-empty sub-buckets. With None the
        effective sample size is unknown, and so is every limit.

    Raises:
        ValueError: the lengths differ, or a sub-bucket has less than 0 or more events than trials.
    """
    pairs = [(e, t) for e, t in zip(events, trials, strict=True) if check_counts(e, t)]
    if len(pairs) < MIN_BUCKETS:
        return None
    total_events = sum(e for e, _ in pairs)
    total = sum(t for _, t in pairs)
    if total_events in (0, total):
        return 1.0
    rate = total_events / total
    chi2 = sum((e - t * rate) ** 2 / t for e, t in pairs) / (rate * (1 - rate))
    return max(1.0, chi2 / (len(pairs) - 1))


def check_counts(events: float, trials: float) -> float:
    """``trials``, once 0 ≤ ``events`` ≤ ``trials`` < ∞ holds.

    Raises:
        ValueError: it does not hold.
    """
    if not 0 <= events <= trials < float("inf"):
        raise ValueError(f"events must be in 0..trials, not {events!r} of {trials!r}")
    return trials
