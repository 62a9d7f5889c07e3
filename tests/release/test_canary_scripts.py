"""The simulations behind docs/statistics.md run, and find what the policy promises."""

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def rows_of(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--short"])
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.slow
def test_burst_alarms(monkeypatch, capsys):
    rows = rows_of("burst_alarms.py", monkeypatch, capsys)
    calm = [row for row in rows if row[1] in {"0", "0.5"}]
    assert len(calm) == 10
    assert {row[4] for row in calm} == {"0 + 0"}
    assert all(float(row[7]) > 0.6 for row in calm)
    assert [row[1:] for row in rows if row[0] == "error-burst"] == [["1", "4", "2", "2"]]
    assert [row[1:] for row in rows if row[0] == "healthy"] == [["1", "4", "0", "0"]]


@pytest.mark.slow
def test_false_promotion(monkeypatch, capsys):
    rows = rows_of("false_promotion.py", monkeypatch, capsys)
    steps = {row[0]: row for row in rows if row[0].endswith("× bound")}
    assert set(steps) == {"0 × bound", "0.5 × bound", "1 × bound", "1.5 × bound"}
    assert steps["0 × bound"][1:5] == ["100.00%"] * 4
    assert steps["1.5 × bound"][1:5] == ["0.00%"] * 4
    # Of 40 steps that go on with 5 % each, more than 8 do once in ten thousand times.
    assert all(float(cell.rstrip("%")) <= 20 for cell in steps["1 × bound"][1:5])
    assert sum(row[1].startswith("none") for row in rows) == 1
