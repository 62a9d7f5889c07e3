"""How often do healthy windows burst at the thresholds of the shipped canary policy, and faulty ones?

    python benchmarks/burst_alarms.py [--seed 7] [--windows 6000] [--samples 20] [--short]

Prints the Markdown tables of docs/statistics.md, "Bursts at the policy's thresholds". The traffic is
that of coverage_of_limits.py, 60 requests a second in windows of 300 s. Healthy: both sides, and all
windows, have the same distribution. Faulty: 20 s in which a share of the canary's requests fail.
The last table is the real thing: sample logs, harvested. It takes about 4
minutes of one processor.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from coverage_of_limits import BUCKETS, RHOS, per_bucket, show, spread, traffic

from pytest_decisionos.harvest.blocks import harvest
from pytest_decisionos.harvest.options import Options
from pytest_decisionos.harvest.sample import write_sample
from pytest_decisionos.harvest.windows import CANARY, LOOK_BACK
from pytest_decisionos.release.canary_policy import load_policy
from pytest_decisionos.stats.burst import MIN_RELATIVE, WINDOW_ALPHA, bursts
from pytest_decisionos.stats.dispersion import dispersion

if TYPE_CHECKING:
    from coverage_of_limits import Flags, Latencies

    Series = tuple[Latencies, Flags]

POLICY = load_policy(Path(__file__).parents[1] / "configs/canary/policy.json")
REQUESTS = 60 * 300
PCTS = (5, 25, 50)
SHARES = (0.10, 0.20, 0.60)
BURST_SEC = 20
ALPHA = WINDOW_ALPHA / (2 * BUCKETS)
CHUNK = 50
END = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


def found(canary: Series, reference: list[Series], least: float) -> np.ndarray:
    """Whether [errors, slow requests] burst in a window."""
    p95 = float(np.median([np.quantile(latencies, 0.95) for latencies, _ in reference]))
    made = []
    for seen, refs in (
        (canary[1], [errors for _, errors in reference]),
        (canary[0] > p95, [latencies > p95 for latencies, _ in reference]),
    ):
        pairs = [per_bucket(one) for one in refs]
        events = [e for one, _ in pairs for e in one]
        trials = [t for _, one in pairs for t in one]
        d = spread(refs[0]) if len(refs) == 1 else dispersion(events, trials)
        assert d is not None
        hits = bursts(*per_bucket(seen), sum(events), sum(trials), d, alpha=ALPHA, min_relative=least)  # fmt: skip
        made.append(any(hits))
    return np.array(made)


def with_burst(rng: np.random.Generator, canary: Series, share: float) -> Series:
    latencies, errors = canary
    length = BURST_SEC * errors.size // 300
    start = int(rng.integers(errors.size - length))
    faulty = errors.copy()
    faulty[start : start + length] |= rng.random(length) < share
    return latencies, faulty


def table(seed: int, windows: int, cases: dict[str, tuple[int, int, int]], least: float) -> None:
    """One row a case and ρ: case → requests of the window, of a reference window, and how many."""
    show("", "ρ", "windows", f"false at {MIN_RELATIVE:g}: errors, slow", f"at {least:g}",
         *(f"found: {s:.0%} fail" for s in SHARES))  # fmt: skip
    show(*["---"] * (5 + len(SHARES)))
    for case, (name, (n, size, count)) in enumerate(cases.items()):
        for rho in RHOS:
            rng = np.random.default_rng([seed, case, int(rho * 100), int(least * 100)])
            false = {MIN_RELATIVE: np.zeros(2, dtype=int), least: np.zeros(2, dtype=int)}
            hit = dict.fromkeys(SHARES, 0)
            for first in range(0, windows, CHUNK):
                rows = min(CHUNK, windows - first)
                canaries = list(zip(*traffic(rng, rows, n, rho), strict=True))
                sides = [list(zip(*traffic(rng, rows, size, rho), strict=True)) for _ in range(count)]  # fmt: skip
                for i, canary in enumerate(canaries):
                    reference = [side[i] for side in sides]
                    for size_of_burst in false:
                        false[size_of_burst] += found(canary, reference, size_of_burst)
                    # One window in ten is enough to know what is found.
                    if i % 10 == 0:
                        for share in SHARES:
                            hit[share] += found(with_burst(rng, canary, share), reference, least)[0]
            tried = sum(-(-min(CHUNK, windows - f) // 10) for f in range(0, windows, CHUNK))
            show(name, f"{rho:g}", f"{windows:,}",
                 *(" + ".join(map(str, total)) for total in false.values()),
                 *(f"{n_found / tried:.3f}" for n_found in hit.values()))  # fmt: skip


def samples(seed: int, count: int) -> None:
    """Windows of sample logs that show a burst, by scenario and seed."""
    show("scenario", "logs", "canary windows", "with a burst", "where one was put in")
    show(*["---"] * 5)
    options = Options(burst_threshold=POLICY.burst_threshold, ewma_tolerance=POLICY.ewma_tolerance)
    for scenario, put_in in (("healthy", 0), ("error-burst", 2)):
        total = hit = 0
        for number in range(count):
            with tempfile.TemporaryDirectory() as folder:
                write_sample(Path(folder), seed=seed + number, scenario=scenario, end=END)
                log = harvest([Path(folder) / "reqlog.csv"], options=options, limits=False)
            theirs = [window for window in log.windows if window.v == CANARY]
            total += len(theirs)
            hit += sum(window.burst > 0 for window in theirs)
        show(scenario, count, total, hit, put_in * count)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--windows", type=int, default=6000)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--short", action="store_true", help="a hundredth of it, as a test")
    options = parser.parse_args()
    windows, logs = options.windows, options.samples
    if options.short:
        windows, logs = windows // 100, 1
    print("Canary against the control in the same span:\n")
    same = {f"{pct} %": (REQUESTS * pct // 100, REQUESTS * (100 - pct) // 100, 1) for pct in PCTS}
    table(options.seed, windows, same, POLICY.burst_threshold)
    print(f"\nWithout control, against the {LOOK_BACK} windows before:\n")
    before = {f"{rate}/s": (rate * 300, rate * 300, LOOK_BACK) for rate in (15, 60)}
    table(options.seed, windows // 2, before, POLICY.ewma_tolerance)
    print("\nSample logs, harvested:\n")
    samples(options.seed, logs)


if __name__ == "__main__":
    main()
