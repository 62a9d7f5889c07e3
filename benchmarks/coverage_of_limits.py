"""How often do the limits of ``stats/`` hold, and how often do healthy windows "burst"?

    python benchmarks/coverage_of_limits.py [--seed 7] [--replications 2000] [--windows 3000]

Prints the Markdown tables of docs/statistics.md. Traffic: latencies are log-normal (median 120 ms,
σ = 0.6) on a Gaussian AR(1) process that steps once a request, with coefficient ρ. A request fails
when the equal mix of that process and of independent noise is in its upper 0.5 %, so that slow
spells are faulty spells too. Both sides have the same distribution: the true ratio of p95 is 1 and
the true difference of error rates 0. ρ = 0.97 is beyond what was asked of the limits and shows
where they end.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import lfilter
from scipy.special import ndtri

from pytest_decisionos.stats.burst import WINDOW_ALPHA, bursts
from pytest_decisionos.stats.dispersion import dispersion
from pytest_decisionos.stats.limits import (
    LEVELS,
    Limits,
    difference_limits,
    quantile_ranks,
    rate_limits,
    ratio_limits,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Latencies = NDArray[np.floating]  # ms
    Flags = NDArray[np.bool_]

MEDIAN_MS, SIGMA = 120.0, 0.6
ERROR_RATE = 0.005
P95_MS = MEDIAN_MS * math.exp(SIGMA * float(ndtri(0.95)))
P99_MS = MEDIAN_MS * math.exp(SIGMA * float(ndtri(0.99)))
BUCKETS = 30  # of 10 s, in a window of 300 s
CANARY, CONTROL = 18 * 300, 42 * 300  # requests in it: 18 and 42 a second
RHOS = (0.0, 0.5, 0.9, 0.97)
SHARES = (0.05, 0.10, 0.20, 0.60)  # of the requests that fail in an injected burst of 20 s
LOOKS = 20
CHUNK = 100  # series in memory at once


def traffic(rng: np.random.Generator, rows: int, n: int, rho: float) -> tuple[Latencies, Flags]:
    """(latencies in ms, errors) of ``rows`` stationary series of ``n`` requests."""
    noise = rng.standard_normal((rows, n), dtype=np.float32)
    noise[:, 1:] *= math.sqrt(1 - rho * rho)
    state = lfilter([1.0], [1.0, -rho], noise, axis=1)
    mixed = (state + rng.standard_normal((rows, n), dtype=np.float32)) * math.sqrt(0.5)
    return MEDIAN_MS * np.exp(SIGMA * state), mixed > ndtri(1 - ERROR_RATE)


def per_bucket(events: Flags) -> tuple[list[int], list[int]]:
    return events.reshape(BUCKETS, -1).sum(axis=1).tolist(), [events.size // BUCKETS] * BUCKETS


def spread(events: Flags) -> float:
    d = dispersion(*per_bucket(events))
    assert d is not None
    return d


class Side:
    """What the harvest would know of one side."""

    def __init__(self, latencies: Latencies, errors: Flags) -> None:
        self.n = latencies.size
        self.ordered = np.sort(latencies)
        self.d = {
            "p95": spread(latencies > np.quantile(self.ordered, 0.95)),
            "p99": spread(latencies > np.quantile(self.ordered, 0.99)),
            "error rate": spread(errors),
        }
        self.rate = (int(errors.sum()), self.n, self.d["error rate"])

    def quantile(self, name: str, level: float) -> Limits:
        lower, upper = quantile_ranks(self.n, int(name[1:]) / 100, level, self.d[name])
        return self._at(lower), self._at(upper)

    def _at(self, fraction: float | None) -> float | None:
        if fraction is None:
            return None
        return float(self.ordered[math.ceil(fraction * self.n) - 1])


def limits_of(control: Side, canary: Side, level: float) -> dict[str, tuple[Limits, float]]:
    """Each number's limits, and the truth that they should hold."""
    p95 = canary.quantile("p95", level)
    return {
        "p95": (p95, P95_MS),
        "p99": (canary.quantile("p99", level), P99_MS),
        "error rate": (rate_limits(canary.rate[0], canary.n, level, canary.rate[2]), ERROR_RATE),
        "p95 ratio": (ratio_limits(control.quantile("p95", level), p95), 0.0),
        "error difference": (difference_limits(*control.rate, *canary.rate, level), 0.0),
    }


def show(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |")


def coverage(seed: int, replications: int) -> None:
    show(
        "ρ",
        "number",
        "median D",
        *(f"{side} {v:.2f}" for v in LEVELS for side in ("lower", "upper")),
    )
    show(*["---"] * (3 + 2 * len(LEVELS)))
    for rho in RHOS:
        rng = np.random.default_rng([seed, 1, int(rho * 100)])
        held: dict[str, list[list[bool | None]]] = {}
        ds: dict[str, list[float]] = {}
        for first in range(0, replications, CHUNK):
            rows = min(CHUNK, replications - first)
            controls = [Side(*row) for row in zip(*traffic(rng, rows, CONTROL, rho), strict=True)]
            canaries = [Side(*row) for row in zip(*traffic(rng, rows, CANARY, rho), strict=True)]
            for control, canary in zip(controls, canaries, strict=True):
                for name, d in canary.d.items():
                    ds.setdefault(name, []).append(d)
                one: dict[str, list[bool | None]] = {}
                for level in LEVELS:
                    for name, ((lower, upper), truth) in limits_of(control, canary, level).items():
                        one.setdefault(name, []).extend(
                            (
                                None if lower is None else lower <= truth,
                                None if upper is None else truth <= upper,
                            )
                        )
                for name, flags in one.items():
                    held.setdefault(name, []).append(flags)
        for name, table in held.items():
            median = f"{np.median(ds[name]):.2f}" if name in ds else ""
            show(f"{rho:g}", name, median, *map(share_held, zip(*table, strict=True)))


def share_held(flags: tuple[bool | None, ...]) -> str:
    given = [flag for flag in flags if flag is not None]
    missing = 1 - len(given) / len(flags)
    text = f"{sum(given) / len(given):.3f}" if given else "–"
    return text + (f" ({missing:.1%} none)" if missing else "")


def window_bursts(canary: tuple[Latencies, Flags], control: tuple[Latencies, Flags]) -> list[int]:
    """The numbers of [error bursts, slow bursts] in one window."""
    p95 = np.quantile(control[0], 0.95)
    pairs = ((canary[1], control[1]), (canary[0] > p95, control[0] > p95))
    alpha = WINDOW_ALPHA / (len(pairs) * BUCKETS)
    return [
        sum(bursts(*per_bucket(seen), int(ref.sum()), ref.size, spread(ref), alpha=alpha))
        for seen, ref in pairs
    ]


def alarms(seed: int, windows: int) -> None:
    show("ρ", "windows", "false: errors", "false: slow", *(f"found: {s:.0%} fail" for s in SHARES))
    show(*["---"] * (4 + len(SHARES)))
    length = 20 * CANARY // 300
    for rho in RHOS:
        rng = np.random.default_rng([seed, 2, int(rho * 100)])
        false = np.zeros(2, dtype=int)
        found = dict.fromkeys(SHARES, 0)
        for first in range(0, windows, CHUNK):
            rows = min(CHUNK, windows - first)
            controls = zip(*traffic(rng, rows, CONTROL, rho), strict=True)
            canaries = zip(*traffic(rng, rows, CANARY, rho), strict=True)
            for control, (latencies, errors) in zip(controls, canaries, strict=True):
                false += np.array(window_bursts((latencies, errors), control)) > 0
                start = int(rng.integers(CANARY - length))
                hit = rng.random(length)
                for share in SHARES:
                    faulty = errors.copy()
                    faulty[start : start + length] |= hit < share
                    found[share] += window_bursts((latencies, faulty), control)[0] > 0
        show(
            f"{rho:g}",
            f"{windows:,}",
            *false,
            *(f"{count / windows:.3f}" for count in found.values()),
        )


def looks(seed: int, replications: int) -> None:
    """Canaries whose true error rate is the bound itself, 1 %, on growing data of 3,000 a look."""
    show("looks", "level of each", "false promotions")
    show("---", "---", "---")
    rng = np.random.default_rng([seed, 3])
    step, bound = 3000, 0.01
    events = rng.binomial(step, bound, (replications, LOOKS)).cumsum(axis=1)
    for count, level in ((1, 0.95), (LOOKS, 0.95), (LOOKS, 1 - 0.05 / LOOKS)):
        passes = np.zeros(replications, dtype=bool)
        for look in range(LOOKS - count, LOOKS):
            n = step * (look + 1)
            # The upper limit rises with the events: find the most events that still pass.
            most = max(
                (e for e in range(int(n * bound) + 1) if _passes(e, n, level, bound)), default=-1
            )
            passes |= events[:, look] <= most
        show(count, f"{level:.4g}", f"{passes.mean():.1%}")


def _passes(events: int, n: int, level: float, bound: float) -> bool:
    upper = rate_limits(events, n, level)[1]
    return upper is not None and upper <= bound


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--replications", type=int, default=2000)
    parser.add_argument("--windows", type=int, default=3000)
    options = parser.parse_args()
    print(f"Share of {options.replications:,} replications whose limit held:\n")
    coverage(options.seed, options.replications)
    print("\nBursts, by window:\n")
    alarms(options.seed, options.windows)
    print("\nLooking often:\n")
    looks(options.seed, 10 * options.replications)


if __name__ == "__main__":
    main()
