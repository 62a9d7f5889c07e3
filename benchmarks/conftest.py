"""What the benchmarks share: a project with a gate, and processes measured from outside."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

CHECKOUT = Path(__file__).parents[1]
TARGET = {"service": "checkout", "environment": "production", "region": "eu-1", "tenant": "all"}


class Cost(NamedTuple):
    """What a process took, in seconds: processor time of all its threads, and on the clock."""

    cpu: float
    wall: float


class Project:
    """A folder with gates/, configs/ and var/, in which commands run as processes of their own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        ours = ("DECISIONOS_", "GITHUB_", "PYTEST_", "COVERAGE_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self._env = {**kept, "DECISIONOS_ALLOW_SCOPES": "judge:run"}
        self.write("pytest.ini", "[pytest]\n")

    def write(self, name: str, text: str) -> Path:
        """Write a file, and its folder."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def copy(self, *names: str) -> None:
        """Copy folders of the checkout."""
        for name in names:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(CHECKOUT / name, self.path / name, ignore=ignored, dirs_exist_ok=True)

    def gate(self, slos: dict[str, dict[str, object]], judges: list[dict[str, str]]) -> None:
        """Write configs/ for one phase with these SLOs and judges."""
        for name, slo in slos.items():
            self.write(f"configs/slo/{name}.json", json.dumps(slo))
        shutil.copy(CHECKOUT / "configs/labels.json", self.path / "configs")
        phase = {"slos": [f"slo/{name}.json" for name in slos], "require_blocks": ["perf"]}
        spec = {"version": 1, "target": TARGET, "judges": judges, "phases": {"cutover": phase}}
        self.write("configs/gate.yaml", json.dumps(spec))  # JSON is YAML

    def install(self, name: str, text: str) -> None:
        """Put a package of hook implementations, with its entry point, on the project's path."""
        info = f"{name}-0.1.dist-info"
        self.write(f"{name}.py", text)
        self.write(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
        self.write(f"{info}/entry_points.txt", f"[decisionos]\n{name} = {name}\n")

    def cost(self, *args: str, status: int = 0) -> Cost:
        """Run Python with ``args``, to end with ``status``, and say what that took."""
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, *args], cwd=self.path, env=self._env, capture_output=True, check=False
        )
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == status, (done.stdout + done.stderr).decode()[-2000:]
        return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)

    def least(
        self, rounds: int, base: tuple[str, ...], command: tuple[str, ...], status: int = 0
    ) -> list[Cost]:
        """The least that each took; they take turns, so that a busy spell hits both."""
        rows = [(self.cost(*base), self.cost(*command, status=status)) for _ in range(rounds)]
        columns = zip(*rows, strict=True)
        return [Cost(min(c.cpu for c in column), min(c.wall for c in column)) for column in columns]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)
