"""The gate against pytest, pydantic and the clock: ratios, each of one run.

    python -m pytest benchmarks/test_gate.py -p no:cacheprovider -s

Nothing here fails for being slow: it states what it measured, and docs/performance.md what it
should be. Processes take turns with their reference, and the least of all rounds counts.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from pytest_decisionos.judge.decide import JudgeInput, decide
from pytest_decisionos.slo.compile import compile_slo
from pytest_decisionos.testing import NOW, gate_inputs, healthy, sealed

RULES = 2000
JUDGES = 3
# Metric, operator, and a bound that healthy evidence meets.
METRICS = (
    ("/perf/latency_ms/p95", "<=", 900),
    ("/perf/latency_ms/p99", "<=", 1800),
    ("/perf/error_rate", "<=", 0.05),
    ("/perf_judge/latency_ms/p95", "<=", 1260),
    ("/perf_judge/availability", ">=", 0.99),
    ("/canary/deltas/p95_rel", "<=", 0.5),
    ("/usage/cpu_percent", "<=", 90),
    ("/budget/spent", "<=", 0.9),
)
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
QUORUM = (
    *("-m", "pytest_decisionos.cli.main", "judge", "quorum"),
    *("--slo", "configs/slo/slo-judge-infra.json"),
    *("--evidence", "var/evidence/latest.json", "--quorum", "2/3"),
)
PYDANTIC = ("-c", "import pydantic")

BARE = """
import pytest

@pytest.mark.parametrize("n", range(6000))
def test_bare(n):
    assert n >= 0
"""

# Judges with numbers of their own, as logs give them, but without the time that logs take.
SOURCE = """
from pytest_decisionos.hookspecs import hookimpl

def own(request):
    return {name: request.blocks[name] for name in ("perf", "perf_judge", "canary")}

@hookimpl
def decisionos_sources():
    return {"own": own}
"""


def slos():
    """Four SLO files with 500 rules each; every other one judges by confidence limits."""
    each = RULES // 4
    rules = [
        {"id": f"r{i:04}", "metric": metric, "op": op, "bound": bound}
        for i in range(each)
        for metric, op, bound in [METRICS[i % len(METRICS)]]
    ]
    plain = {"rules": rules, "quorum": {"k": 2, "n": JUDGES}}
    return {
        f"slo-{number}": plain | ({"confidence": {"level": 0.95}} if number % 2 else {})
        for number in range(4)
    }


def told(benchmark, text, **numbers):
    benchmark.extra_info |= {name: round(value, 4) for name, value in numbers.items()}
    print(f"\n{text}")


def test_a_gate_run_to_bare_pytest(project, benchmark):
    judges = [{"id": "evidence", "source": "evidence"}]
    judges += [{"id": name, "source": "own"} for name in ("witness", "peer")]
    project.copy("gates")
    project.gate(slos(), judges)
    project.install("judges_own", SOURCE)
    project.write("var/evidence/latest.json", json.dumps(sealed(healthy(datetime.now(UTC)))))
    project.write("bare/test_bare.py", BARE)
    bare, gate = benchmark.pedantic(
        project.least, args=(3, (*PYTEST, "bare"), (*PYTEST, "gates")), rounds=1
    )
    decision = json.loads((project.path / "var/gate/decision.json").read_text())
    outcomes = [o for slo in decision["slos"] for b in slo["ballots"] for o in b["outcomes"]]
    assert len(outcomes) == RULES * JUDGES
    told(
        benchmark,
        f"pytest gates/ with {RULES:,} rules × {JUDGES} judges: {gate.cpu:.2f} s"
        f" = {gate.cpu / bare.cpu:.2f}× bare pytest ({bare.cpu:.2f} s),"
        f" on the clock {gate.wall / bare.wall:.2f}×",
        gate_s=gate.cpu,
        bare_s=bare.cpu,
        to_bare=gate.cpu / bare.cpu,
        to_bare_wall=gate.wall / bare.wall,
    )


def test_a_cold_quorum_to_importing_pydantic(project, benchmark):
    sample = project.path / "var/log"
    project.copy("configs")
    cli = ("-m", "pytest_decisionos.cli.main")
    project.cost(*cli, "sample", "--out", str(sample), "--seed", "7")
    blocks = (f"{name}={sample / name}.json" for name in ("budget", "quota", "usage"))
    project.cost(*cli, "evidence", "build", *(word for b in blocks for word in ("--block", b)))
    pydantic, logs = project.least(5, PYDANTIC, QUORUM)
    for name in ("reqlog.csv", "judgelog.csv", "lb.csv"):
        (sample / name).unlink()
    # Without logs the other two judges abstain, which is NO-GO: the sealed numbers alone.
    pydantic_again, sealed_only = benchmark.pedantic(
        project.least, args=(10, PYDANTIC, QUORUM, 2), rounds=1
    )
    base = min(pydantic.cpu, pydantic_again.cpu)
    told(
        benchmark,
        f"dosctl judge quorum, cold: {sealed_only.cpu * 1e3:.0f} ms"
        f" = {sealed_only.cpu / base:.1f}× import pydantic ({base * 1e3:.0f} ms); with the sample"
        f" logs recomputed {logs.cpu * 1e3:.0f} ms = {logs.cpu / base:.1f}×,"
        f" on the clock {logs.wall * 1e3:.0f} ms",
        sealed_ms=sealed_only.cpu * 1e3,
        logs_ms=logs.cpu * 1e3,
        logs_wall_ms=logs.wall * 1e3,
        pydantic_ms=base * 1e3,
        sealed_to_pydantic=sealed_only.cpu / base,
        logs_to_pydantic=logs.cpu / base,
    )


def test_outcomes_a_second(tmp_path, benchmark):
    blocks = sealed(healthy())
    own = {name: blocks[name] for name in ("perf", "perf_judge", "canary")}
    judges = [
        JudgeInput(id="evidence", source="evidence"),
        JudgeInput(id="witness", source="log", exact=True, blocks=own),
        JudgeInput(id="peer", source="log", blocks=own),
    ]
    compiled = [
        compile_slo(spec, json.dumps(spec).encode(), tmp_path / f"{name}.json")
        for name, spec in slos().items()
    ]
    inputs = gate_inputs(blocks, compiled, judges=judges, now=NOW)
    decision = benchmark.pedantic(decide, args=(inputs,), rounds=10, warmup_rounds=1)
    count = sum(len(ballot.outcomes) for slo in decision.slos for ballot in slo.ballots)
    assert count == RULES * JUDGES
    assert decision.verdict == "GO"
    rate = count / benchmark.stats.stats.min
    told(benchmark, f"decide: {rate:,.0f} rule outcomes a second", outcomes_per_s=rate)


def test_the_plugin_in_a_run_without_gates(project, benchmark):
    project.write("test_one.py", "def test_one(): pass\n")
    without, with_it = benchmark.pedantic(
        project.least, args=(10, (*PYTEST, "-p", "no:decisionos"), PYTEST), rounds=1
    )
    more = (with_it.cpu - without.cpu) * 1e3
    told(
        benchmark,
        f"the plugin in a run without gates: {more:.1f} ms of CPU ({without.cpu * 1e3:.0f} ms"
        " without it)",
        plugin_ms=more,
        pytest_ms=without.cpu * 1e3,
    )
