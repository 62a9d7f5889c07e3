"""A canary at 10 % in its 40th minute, healthy; cases change one thing."""

import json
from datetime import timedelta
from pathlib import Path

from pytest_decisionos.release.canary import judge_canary
from pytest_decisionos.release.canary_policy import load_policy
from pytest_decisionos.release.stage_model import Stage
from pytest_decisionos.release.windows import canary_rules
from pytest_decisionos.slo.compile import compile_slo
from pytest_decisionos.testing import NOW, TARGET, healthy

POLICY = load_policy(Path(__file__).parents[2] / "configs/canary/policy.json")
SINCE = NOW - timedelta(minutes=40)
SLO = {
    "latency": {"max_p95_ms": 900},
    "error": {"max_error_rate": 0.02},
    "canary": {
        "thresholds": {
            "max_p95_rel_increase": 0.15,
            "max_error_abs_delta": 0.01,
            "max_sig_error_delta": 0.0005,
        },
        "min_sample_count": 1000,
        "guardband_minutes": 10,
    },
}
MINUTES = range(0, 40, 5)


def rules_of(*specs):
    made = [compile_slo(s, json.dumps(s).encode(), Path("slo.json")) for s in specs]
    return canary_rules(made, NOW)


RULES = rules_of(SLO)


def stage(**changes):
    fields = {
        "target": TARGET,
        "stage": "canary",
        "pct": 10.0,
        "release": "2026.01.1",
        "baseline_release": "2026.01.0",
        "since": SINCE,
        "paused": False,
        "looks": 0,
        "seq": 3,
        "prev": "0" * 64,
        "decision_sha256": "1" * 64,
        "key_id": "k-1",
        "mac": "2" * 64,
    }
    return Stage(**fields | changes)


def window(variant, minute, **numbers):
    start = SINCE + timedelta(minutes=minute)
    healthy_numbers = {"p95": 400.0, "p99": 800.0, "error_rate": 0.003, "burst": 0}
    return {
        "start": start.isoformat(),
        "end": (start + timedelta(minutes=5)).isoformat(),
        "variant": variant,
        "count": {"control": 9000, "canary": 1000}[variant],
        **healthy_numbers,
        **numbers,
    }


def evidence(at=None, control_at=None, **everywhere):
    """Evidence of the step.

    Args:
        at: changes of the canary's windows, by minute; None for a window that is not there.
        control_at: the same for the control.
        everywhere: changes of every canary window.
    """
    windows = []
    for variant, changes, every in (
        ("control", control_at or {}, {}),
        ("canary", at or {}, everywhere),
    ):
        for minute in MINUTES:
            change = changes.get(minute, {})
            if change is not None:
                windows.append(window(variant, minute, **{**every, **change}))
    blocks = healthy(NOW)
    blocks["canary"] |= {"windows": windows, "step_start": SINCE.isoformat()}
    harvest = {"burst_threshold": 0.6, "ewma_tolerance": 0.35}
    blocks["witness"] = {**blocks["witness"], "harvest": harvest}
    blocks["integrity"] = {"signature_sha256": "5" * 64}
    return blocks


def judge(blocks, *, policy=POLICY, rules=RULES, **changes):
    """The verdict; ``now``, ``integrity`` and ``last`` or fields of the stage."""
    given = {name: changes.pop(name) for name in ("now", "integrity", "last") if name in changes}  # fmt: skip
    return judge_canary(
        policy, stage(**changes), blocks, rules, **{"now": NOW, "integrity": None, **given}
    )


def codes(verdict):
    """The reason codes of what is not successful."""
    return {o.reason for o in verdict.reasons if o.cause}
