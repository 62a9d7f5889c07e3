"""Judging a canary, and auto-promotion, by 10,000 windows, against reading the same document as JSON.

    python -m pytest benchmarks/test_canary.py -p no:cacheprovider -s

Nothing here fails for being slow: it states what it measured, and docs/performance.md what it
should be. What is compared takes turns in one process, and the least of all rounds counts.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from pathlib import Path

from pytest_decisionos.release import canary_condition
from pytest_decisionos.release.auto import auto
from pytest_decisionos.release.canary import canary_rules, judge_canary, load_policy
from pytest_decisionos.release.stage_model import Stage
from pytest_decisionos.slo.compile import load_slo
from pytest_decisionos.testing import NOW, TARGET, healthy

CHECKOUT = Path(__file__).parents[1]
CONFIGS = CHECKOUT / "configs"
sys.path.insert(0, str(CHECKOUT / "tests/release"))
WINDOWS = 10_000
LENGTH = timedelta(minutes=5)
ROUNDS = 30


def evidence():
    """A step of 5,000 windows of control and as many of the canary: 17 days at 10 %."""
    since = NOW - WINDOWS // 2 * LENGTH
    windows = [
        {
            "start": (since + i * LENGTH).isoformat(timespec="milliseconds"),
            "end": (since + (i + 1) * LENGTH).isoformat(timespec="milliseconds"),
            "variant": variant,
            "count": count,
            "p95": 400.1 + i % 7,
            "p99": 800.2 + i % 11,
            "error_rate": 0.003,
            "burst": 0,
        }
        for i in range(WINDOWS // 2)
        for variant, count in (("control", 9000), ("canary", 1000))
    ]
    blocks = healthy(NOW)
    blocks["canary"] |= {"windows": windows, "step_start": since.isoformat()}
    blocks["witness"]["harvest"] = {"burst_threshold": 0.6, "ewma_tolerance": 0.35}
    return since, blocks


def test_ten_thousand_windows(benchmark):
    since, blocks = evidence()
    data = json.dumps(blocks).encode()
    policy = load_policy(CONFIGS / "canary/policy.json")
    rules = canary_rules([load_slo(CONFIGS / "slo/slo-canary-v2.json")], NOW)
    fields = {"release": "2026.01.1", "baseline_release": "2026.01.0", "paused": False, "looks": 0}
    fields |= {"seq": 1, "prev": None, "decision_sha256": None, "key_id": "k", "mac": "0" * 64}
    stage = Stage(target=TARGET, stage="canary", pct=10.0, since=since, **fields)
    reading: list[float] = []
    judging: list[float] = []

    def both():
        began = time.perf_counter()
        document = json.loads(data)
        read = time.perf_counter()
        verdict = judge_canary(policy, stage, document, rules, now=NOW, integrity=None)
        judging.append(time.perf_counter() - read)
        reading.append(read - began)
        return verdict

    verdict = benchmark.pedantic(both, rounds=ROUNDS, warmup_rounds=1)
    assert verdict.action == "step"
    base, cost = min(reading), min(judging)
    print(
        f"\njudge_canary over {WINDOWS:,} windows ({len(data) / 1e6:.1f} MB): {cost * 1e3:.1f} ms"
        f" = {cost / base:.1f}× json.loads of it ({base * 1e3:.1f} ms)"
    )
    benchmark.extra_info |= {"judge_ms": cost * 1e3, "loads_ms": base * 1e3, "ratio": cost / base}


def test_auto_over_ten_thousand_windows(benchmark, tmp_path, monkeypatch):
    """All that a run does after start-up: stage, keys, evidence with digest and MAC, judgement."""
    import canary_cases
    import cutover

    since, blocks = evidence()
    monkeypatch.setattr(cutover, "SINCE", since)
    desk = cutover.Desk(tmp_path)
    made = canary_cases.evidence()
    made["canary"] |= {name: blocks["canary"][name] for name in ("windows", "step_start")}
    data = desk.evidence(made).read_bytes()
    desk.stage()
    reading, waiting, going = [], [], []

    def timed(into, work):
        canary_condition._judged.cache_clear()
        began = time.perf_counter()
        result = work()
        into.append(time.perf_counter() - began)
        return result

    def turns():
        timed(reading, lambda: json.loads(data))
        done = timed(waiting, lambda: auto(desk.here()))
        assert [one.reason for one in done.reasons] == ["release.decision:missing"]

    benchmark.pedantic(turns, rounds=ROUNDS, warmup_rounds=1)
    desk.sign(25.0)
    for _ in range(ROUNDS):
        done = timed(going, lambda: auto(desk.here(), dry_run=True))
    assert done.action == "step"
    base, wait, step = min(reading), min(waiting), min(going)
    print(
        f"\nauto over {WINDOWS:,} windows ({len(data) / 1e6:.1f} MB): {wait * 1e3:.0f} ms to wait"
        f" = {wait / base:.1f}× json.loads of it ({base * 1e3:.1f} ms); with a decision to verify and"
        f" judge again, {step * 1e3:.0f} ms = {step / base:.1f}×"
    )
    benchmark.extra_info |= {"wait_ms": wait * 1e3, "step_ms": step * 1e3, "loads_ms": base * 1e3}
