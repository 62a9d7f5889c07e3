"""The simulation behind docs/statistics.md runs, repeats itself, and finds the limits holding."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "coverage_of_limits.py"


def run(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [SCRIPT.name, "--replications", "60", "--windows", "20"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    rows = [line.strip("| \n").split(" | ") for line in capsys.readouterr().out.splitlines()]
    return [row for row in rows if len(row) > 1 and row[0] != "---"]


@pytest.mark.slow
def test_script(monkeypatch, capsys):
    rows = run(monkeypatch, capsys)
    held = {row[1]: [float(cell) for cell in row[3:]] for row in rows[1:6]}
    assert set(held) == {"p95", "p99", "error rate", "p95 ratio", "error difference"}
    # Independent traffic (ρ = 0), 60 replications: far enough below each level to be no chance.
    for shares in held.values():
        assert min(shares[:2]) > 0.75
        assert min(shares[2:4]) > 0.82
        assert min(shares[4:]) > 0.92
    bursts = {row[0]: row for row in rows if len(row) == 8}
    assert bursts["0"][2:4] == ["0", "0"]
    assert float(bursts["0"][7]) == 1.0
    assert run(monkeypatch, capsys) == rows
