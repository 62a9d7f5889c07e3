"""How often does the shipped canary policy promote a bad canary, and throw a good one away?

    python benchmarks/false_promotion.py [--seed 7] [--replications 4000] [--short]

Prints the Markdown tables of docs/statistics.md, "What N windows and K looks do". Steps are simulated
window by window (300 s, 60 requests a second) and judged by judge_canary itself, which looks at each
window as it closes, for at most two hours after the guardband. Errors: 0.5 % in the control; the
canary's true excess is a multiple of the bound, 1 %. Latencies, where they count: log-normal, the
same on both sides, as in coverage_of_limits.py. It takes about 7
minutes of one processor.
"""

from __future__ import annotations

import argparse
import json
import math
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from coverage_of_limits import MEDIAN_MS, SIGMA, show
from scipy.signal import lfilter
from scipy.special import ndtri

from pytest_decisionos.release.canary import canary_rules, judge_canary, load_policy
from pytest_decisionos.release.stage_model import Stage
from pytest_decisionos.slo.compile import compile_slo
from pytest_decisionos.stats.dispersion import dispersion
from pytest_decisionos.stats.limits import LEVELS, difference_limits, quantile_ranks, ratio_limits
from pytest_decisionos.testing import NOW, TARGET

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_decisionos.model.policy import Rule
    from pytest_decisionos.release.canary import CanaryPolicy

POLICY = load_policy(Path(__file__).parents[1] / "configs/canary/policy.json")
RATE, WINDOW, BUCKETS = 60, 300, 30
CONTROL_ERRORS, BOUND = 0.005, 0.01
SLOW_BOUND = 0.15
MAX_WINDOWS = 24
GUARDBAND = timedelta(minutes=10)
EXCESSES = (0.0, 0.5, 1.0, 1.5)
PCTS = tuple(step.pct for step in POLICY.step_schedule)
ERROR_SLO = {"max_error_abs_delta": BOUND}


class Side(NamedTuple):
    """One side of a step: errors by window and sub-bucket, and latencies by window if they count."""

    per_bucket: int
    errors: NDArray[np.integer]
    latencies: NDArray[np.floating] | None


def rules_of(**thresholds: float) -> tuple[Rule, ...]:
    spec = {"canary": {"thresholds": thresholds, "min_sample_count": 1000, "guardband_minutes": 10}}
    return canary_rules([compile_slo(spec, json.dumps(spec).encode(), Path("slo.json"))], NOW)


def side(
    rng: np.random.Generator, share: float, errors: float, rho: float | None, windows: int
) -> Side:
    """A side of a step; ρ None is independent errors without latencies, which is much faster."""
    n = round(RATE * WINDOW / BUCKETS * share)
    if rho is None:
        return Side(n, rng.binomial(n, errors, (windows, BUCKETS)), None)
    noise = rng.standard_normal(windows * BUCKETS * n, dtype=np.float32)
    noise[1:] *= math.sqrt(1 - rho * rho)
    state = lfilter([1.0], [1.0, -rho], noise)
    mixed = (state + rng.standard_normal(state.size, dtype=np.float32)) * math.sqrt(0.5)
    failed = (mixed > ndtri(1 - errors)).reshape(windows, BUCKETS, n).sum(axis=2)
    return Side(n, failed, (MEDIAN_MS * np.exp(SIGMA * state)).reshape(windows, -1))


def spread(counts: NDArray[np.integer], trials: int) -> float:
    """D of the whole step so far, from 30 sub-buckets, as the harvest makes it."""
    merged = counts.reshape(BUCKETS, -1).sum(axis=1)
    d = dispersion(merged.tolist(), [trials // BUCKETS] * BUCKETS)
    assert d is not None
    return d


def levels_of(make: Any) -> dict[str, dict[str, float | None]]:
    pairs = {f"{level:.2f}": make(level) for level in LEVELS}
    return {
        "lower": {name: pair[0] for name, pair in pairs.items()},
        "upper": {name: pair[1] for name, pair in pairs.items()},
    }


def numbers(control: Side, canary: Side, windows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Deltas and limits over the first ``windows``, as the harvest makes them."""
    sides = (control, canary)
    counts = [s.per_bucket * BUCKETS * windows for s in sides]
    errors = [s.errors[:windows] for s in sides]
    totals = [int(e.sum()) for e in errors]
    ds = [spread(e, n) for e, n in zip(errors, counts, strict=True)]
    rates = [total / n for total, n in zip(totals, counts, strict=True)]
    args = (totals[0], counts[0], ds[0], totals[1], counts[1], ds[1])
    deltas = {"error_delta": rates[1] - rates[0]}
    limits = {"error_delta": levels_of(lambda level: difference_limits(*args, level))}
    if control.latencies is not None:
        ordered, dispersions = [], []
        for s, n in zip(sides, counts, strict=True):
            assert s.latencies is not None
            seen = s.latencies[:windows].ravel()
            ordered.append(np.sort(seen))
            slow = (seen > np.quantile(ordered[-1], 0.95)).reshape(BUCKETS, -1).sum(axis=1)
            dispersions.append(spread(slow, n))

        def limit(which: int, level: float) -> tuple[float | None, float | None]:
            ranks = quantile_ranks(counts[which], 0.95, level, dispersions[which])
            low, high = (
                None if f is None else float(ordered[which][math.ceil(f * counts[which]) - 1])
                for f in ranks
            )
            return low, high

        p95s = [float(np.quantile(o, 0.95)) for o in ordered]
        deltas["p95_rel"] = p95s[1] / p95s[0] - 1
        limits["p95_rel"] = levels_of(lambda v: ratio_limits(limit(0, v), limit(1, v)))
    return deltas, limits


def window_list(control: Side, canary: Side) -> list[dict[str, Any]]:
    made = []
    for variant, s in (("control", control), ("canary", canary)):
        p95s = (
            np.full(len(s.errors), 400.0)
            if s.latencies is None
            else np.quantile(s.latencies, 0.95, axis=1)
        )
        for i, (failed, p95) in enumerate(zip(s.errors.sum(axis=1), p95s, strict=True)):
            start = NOW + GUARDBAND + i * timedelta(seconds=WINDOW)
            made.append(
                {
                    "start": start.isoformat(),
                    "end": (start + timedelta(seconds=WINDOW)).isoformat(),
                    "variant": variant,
                    "count": s.per_bucket * BUCKETS,
                    "p95": float(p95),
                    "p99": float(p95),
                    "error_rate": int(failed) / (s.per_bucket * BUCKETS),
                    "burst": 0,
                }
            )
    return made


def stage(pct: float, looks: int) -> Stage:
    names = {"release": "b", "baseline_release": "a", "key_id": "k", "mac": "0" * 64}
    fields = {"since": NOW, "paused": False, "seq": 1, "prev": None, "decision_sha256": None}
    return Stage(target=TARGET, stage="canary", pct=pct, looks=looks, **names, **fields)


def step(
    policy: CanaryPolicy, rules: tuple[Rule, ...], pct: float, control: Side, canary: Side
) -> tuple[str, int]:
    """What becomes of one step, and after how many windows."""
    looks, last = 0, None
    listed = window_list(control, canary)
    meta = {"target": TARGET.model_dump(), "release": "b", "baseline_release": "a"}
    harvest = {"burst_threshold": 0.6, "ewma_tolerance": 0.35}
    total = len(control.errors)
    for windows in range(1, total + 1):
        deltas, limits = numbers(control, canary, windows)
        sides = {
            f"{name}_perf": {"count": s.per_bucket * BUCKETS * windows}
            for name, s in (("control", control), ("canary", canary))
        }
        shown = [*listed[:windows], *listed[total : total + windows]]
        block = {"deltas": deltas, "limits": limits, "windows": shown, "guardband_minutes": 10}
        blocks = {
            "meta": meta,
            "witness": {"harvest": harvest},
            "integrity": {"signature_sha256": f"{windows:064x}"},
            "canary": {**block, **sides, "step_start": NOW.isoformat()},
        }
        verdict = judge_canary(
            policy,
            stage(pct, looks),
            blocks,
            rules,
            now=NOW + GUARDBAND + windows * timedelta(seconds=WINDOW),
            integrity=None,
            last=last,
        )
        if verdict.action != "wait":
            return verdict.action, windows
        if verdict.look:
            looks, last = looks + 1, verdict.seen
    return "wait", total


class Fates(NamedTuple):
    """Shares of the steps that go on and that are aborted; median windows of those that go on."""

    on: float
    abort: float
    windows: str


def fates(
    rng: np.random.Generator,
    replications: int,
    pct: float,
    excess: float,
    *,
    policy: CanaryPolicy = POLICY,
    rho: float | None = None,
) -> Fates:
    """What becomes of simulated steps; ``rho`` None leaves out latencies."""
    ends: list[tuple[str, int]] = []
    thresholds = ERROR_SLO if rho is None else ERROR_SLO | {"max_p95_rel_increase": SLOW_BOUND}
    rules = rules_of(**thresholds)
    for _ in range(replications):
        control = side(rng, 1 - pct / 100, CONTROL_ERRORS, rho, MAX_WINDOWS)
        canary = side(rng, pct / 100, CONTROL_ERRORS + excess * BOUND, rho, MAX_WINDOWS)
        ends.append(step(policy, rules, pct, control, canary))
    on = [windows for action, windows in ends if action in {"step", "promote"}]
    gone = sum(action == "abort" for action, _ in ends)
    median = f"{np.median(on):.0f}" if on else "–"
    return Fates(len(on) / len(ends), gone / len(ends), median)


def schedule(seed: int, replications: int) -> None:
    """Each step of the schedule, and all of them."""
    show("true excess", *(f"on at {pct:g} %" for pct in PCTS), "all steps", "aborted in a step",
         "windows of a step that goes on")  # fmt: skip
    show(*["---"] * (len(PCTS) + 4))
    for excess in EXCESSES:
        rng = np.random.default_rng([seed, 1, int(excess * 10)])
        made = [fates(rng, replications, pct, excess) for pct in PCTS]
        share = math.prod(fate.on for fate in made)
        aborted = ", ".join(f"{fate.abort:.0%}" for fate in made)
        windows = ", ".join(fate.windows for fate in made)
        show(f"{excess:g} × bound", *(f"{f.on:.2%}" for f in made), f"{share:.2g}", aborted, windows)  # fmt: skip


def rules_of_looking(seed: int, replications: int) -> None:
    """What each part of the rule is worth, for a canary whose excess is the bound itself, at 10 %."""
    show("N windows", "K looks", "level of each", "goes on", "aborted")
    show(*["---"] * 5)
    for number, (n, k) in enumerate(((1, 1), (1, 5), (3, 1), (3, 2), (3, 5), (6, 5))):
        policy = POLICY.model_copy(update={"consecutive_passes": n, "max_looks": k})
        fate = fates(np.random.default_rng([seed, 2, number]), replications, 10, 1.0, policy=policy)
        show(n, k, policy.level, f"{fate.on:.2%}", f"{fate.abort:.0%}")
    windows = 0
    rng = np.random.default_rng([seed, 3])
    for _ in range(replications):
        control = side(rng, 0.9, CONTROL_ERRORS, None, MAX_WINDOWS)
        canary = side(rng, 0.1, CONTROL_ERRORS + BOUND, None, MAX_WINDOWS)
        rates = [s.errors.mean(axis=1) / s.per_bucket for s in (control, canary)]
        good = rates[1] - rates[0] <= BOUND
        windows += bool((good[2:] & good[1:-1] & good[:-2]).any())
    show(3, "none: windows alone", "–", f"{windows / replications:.2%}", "–")


def healthy(seed: int, replications: int) -> None:
    """Good canaries, with latencies as well, whose requests resemble their neighbours."""
    show("ρ", "pct", "goes on", "aborted", "windows of a step that goes on")
    show(*["---"] * 5)
    for rho in (0.0, 0.5, 0.9):
        for pct in (5, 10, 50):
            rng = np.random.default_rng([seed, 4, int(rho * 10), pct])
            fate = fates(rng, replications, pct, 0.0, rho=rho)
            show(f"{rho:g}", f"{pct} %", f"{fate.on:.1%}", f"{fate.abort:.1%}", fate.windows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--replications", type=int, default=4000)
    parser.add_argument("--short", action="store_true", help="a hundredth of it, as a test")
    options = parser.parse_args()
    replications = options.replications // (100 if options.short else 1)
    print(f"Steps of the schedule, {replications:,} of each:\n")
    schedule(options.seed, replications)
    print("\nA canary whose excess is the bound, at 10 %:\n")
    rules_of_looking(options.seed, replications)
    few = max(2, replications // 10)
    print(f"\nHealthy canaries with latencies, {few:,} of each:\n")
    healthy(options.seed, few)


if __name__ == "__main__":
    main()
