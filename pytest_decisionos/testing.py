"""Helpers and Hypothesis strategies for people's own gate tests, and for ours.

from pytest_decisionos.testing import healthy, gate_inputs, sealed
from pytest_decisionos import decide, load_slo

def test_our_slo_stops_a_slow_release():
    blocks = healthy()
    blocks["perf"]["latency_ms"]["p95"] = 5000.0
    decision = decide(gate_inputs(sealed(blocks), [load_slo(path)]))
    assert decision.verdict == "NO-GO"
"""

from __future__ import annotations

import copy
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from pytest_decisionos.evidence.digest import digest
from pytest_decisionos.judge.decide import GatedSlo, GateInputs, JudgeInput
from pytest_decisionos.judge.gate import LabelFile
from pytest_decisionos.model.decision import InputFile
from pytest_decisionos.model.policy import Quorum
from pytest_decisionos.model.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_decisionos.model.policy import Slo

NOW: Final = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
TARGET: Final = Target(service="checkout", environment="production", region="eu-1", tenant="all")
LABELS: Final = LabelFile(
    version="test",
    groups={"gate": {"weight": 1, "color": "ee0701", "description": "gate"}},
    labels={"reason:gate": {"group": "gate", "color": "ee0701", "description": "gate"}},
    reasons={"*": "reason:gate"},
)


def _limits(value: float, n: int, low: float = 0.0, high: float = math.inf) -> dict[str, Any]:
    spread = {"0.90": 0.01, "0.95": 0.015, "0.99": 0.02}
    return {
        "n": n,
        "d": 1.25,
        "effective": n / 1.25,
        "lower": {level: max(low, value * (1 - s)) for level, s in spread.items()},
        "upper": {level: min(high, value * (1 + s)) for level, s in spread.items()},
    }


def _traffic(scale: float, count: int, start: str, end: str) -> dict[str, Any]:
    latency = {"p50": 120.0 * scale, "p95": 400.0 * scale, "p99": 800.0 * scale}
    errors = count // 400
    rate = errors / count
    return {
        "latency_ms": latency,
        "error_rate": rate,
        "count": count,
        "errors": errors,
        "window": {"start": start, "end": end},
        "limits": {f"latency_ms.{q}": _limits(v, count) for q, v in latency.items()}
        | {"error_rate": _limits(rate, count, high=1.0)},
    }


def healthy(now: datetime = NOW) -> dict[str, Any]:
    """The blocks of a healthy release's evidence as of ``now``, every block there, not sealed."""
    end = now - timedelta(seconds=30)
    start = end - timedelta(minutes=22)
    first, last = (t.isoformat().replace("+00:00", "Z") for t in (start, end))
    perf = _traffic(1.0, 80_000, first, last)
    groups = [
        {
            "by": by,
            "name": name,
            **{k: v for k, v in _traffic(s, 20_000, first, last).items() if k != "window"},
        }
        for by, name, s in (
            ("route", "/v1/cart", 0.8),
            ("route", "/v1/pay", 1.3),
            ("tenant", "acme", 1.0),
            ("tenant", "한빛", 1.1),
        )
    ]
    judges = _traffic(0.7, 80_000, first, last) | {
        "availability": 0.9996,
        "unavailable": 32,
        "signature_error_rate": 0.00001,
        "signature_errors": 1,
    }
    judges["limits"]["availability"] = _limits(0.9996, 80_000) | {
        "lower": {"0.90": 0.9994, "0.95": 0.9993, "0.99": 0.9992},
        "upper": {"0.90": 0.9998, "0.95": 0.9999, "0.99": 0.9999},
    }
    judges["limits"]["signature_error_rate"] = _limits(0.00001, 80_000)
    sides = {
        side: _traffic(s, n, first, last)
        for side, s, n in (("control_perf", 1.0, 30_000), ("canary_perf", 1.02, 13_000))
    }
    deltas = {"p95_rel": 0.02, "error_delta": 0.0001, "sig_error_delta": -0.00001}
    around = {"p95_rel": 0.05, "error_delta": 0.002, "sig_error_delta": 0.0003}
    levels = {"0.90": 0.8, "0.95": 1.0, "0.99": 1.3}
    return {
        "meta": {
            "version": "1",
            "generated_at": last,
            "target": TARGET.model_dump(),
            "release": "2026.01.1",
            "baseline_release": "2026.01.0",
            "window": {"start": first, "end": last},
        },
        "perf": perf | {"groups": groups},
        "perf_judge": judges,
        "canary": sides
        | {
            "deltas": deltas,
            "limits": {
                name: {
                    "lower": {
                        level: deltas[name] - around[name] * s for level, s in levels.items()
                    },
                    "upper": {
                        level: deltas[name] + around[name] * s for level, s in levels.items()
                    },
                }
                for name in deltas
            },
            "windows": [],
            "step_start": first,
            "guardband_minutes": 10,
        },
        "witness": {
            "csv_path": "reqlog.csv",
            "csv_sha256": "a" * 64,
            "rows": 80_000,
            "sources": [
                {
                    "role": "reqlog",
                    "name": "reqlog.csv",
                    "bytes": 1,
                    "sha256": "a" * 64,
                    "rows": 80_000,
                    "filters": [],
                }
            ],
        },
        "budget": {"level": "ok", "spent": 0.2, "limit": 1.0},
        "quota": {"decisions": {"tokens": {"action": "allow"}}},
        "usage": {"cpu_percent": 41.0, "mem_percent": 55.0, "qps": 60.0},
        "anomaly": {"is_spike": False, "ewma": 400.0, "ratio": 1.0},
    }


def sealed(blocks: Mapping[str, Any]) -> dict[str, Any]:
    """``blocks`` with the right digest of themselves: as if they had always said that."""
    made = copy.deepcopy({k: v for k, v in blocks.items() if k != "integrity"})
    return made | {"integrity": {"signature_sha256": digest(made)}}


def gate_inputs(
    blocks: Mapping[str, Any],
    slos: Sequence[Slo],
    *,
    judges: Sequence[JudgeInput] | None = None,
    k: int | None = None,
    now: datetime = NOW,
) -> GateInputs:
    """What ``decide`` takes, for evidence ``blocks`` and compiled ``slos``.

    Args:
        blocks: the evidence's blocks.
        slos: what is judged; a quorum that a file states counts.
        judges: who judges; one judge that believes the evidence where none is given.
        k: how many must pass; all where neither this nor the file says.
        now: the time of the decision.
    """
    judges = judges or [JudgeInput(id="evidence", source="evidence")]
    n = len(judges)
    return GateInputs(
        phase="cutover",
        target=TARGET,
        gate=InputFile(file="gate.yaml", sha256="0" * 64),
        evidence=InputFile(file="latest.json", sha256="0" * 64),
        blocks=dict(blocks),
        max_evidence_age_sec=900.0,
        require_blocks=("meta", "perf"),
        slos=tuple(
            GatedSlo(
                slo=slo,
                quorum=slo.quorum if slo.quorum and slo.quorum.n == n else Quorum(k=k or n, n=n),
            )
            for slo in slos
        ),
        judges=tuple(judges),
        labels=LABELS,
        now=now,
    )


def broken_values() -> st.SearchStrategy[Any]:
    """Values that no number, word or flag of the evidence may have; none of them can be a pass."""
    return st.sampled_from([None, -1, "x", "0", [], {}, [1], {"p95": 1}, 10**30, -(10**30)])
