"""What several rooms' tests share: a project with a gate, as somebody would have it."""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings

from pytest_decisionos.testing import healthy, sealed

pytest_plugins = [
    "pytester",
    "services.ceph",
    "services.chrony",
    "services.nginx",
    "services.redis_server",
]
# A shared machine stalls; and CI shall judge the change, not the luck of the draw.
settings.register_profile("developer", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "developer")
CHECKOUT = Path(__file__).parents[1]
# Of the developers' plugins only xdist is used in gates; the others' imports take half of each run.
UNUSED = ("cacheprovider", "schemathesis", "benchmark", "pytest_cov", "anyio", "hypothesispytest")
NOT_LOADED = [word for name in UNUSED for word in ("-p", f"no:{name}")]

SLO = {
    "version": "v1",
    "latency": {"max_p95_ms": 900, "max_p99_ms": 1800, "min_samples": 100},
    "budget": {"allow_levels": ["ok"]},
}


def pytest_collection_modifyitems(items):
    """Whatever runs pytest or dosctl as a process takes long: `make unit` leaves it out."""
    for item in items:
        if "project" in getattr(item, "fixturenames", ()) or item.get_closest_marker("untraced"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _some_are_not_traced(request, monkeypatch):
    """Many thousand rounds, or many processes, take much longer if coverage watches."""
    if request.node.get_closest_marker("untraced") is None:
        yield
        return
    for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        monkeypatch.delenv(name, raising=False)  # nor are the processes that it starts
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("DECISIONOS_", "GITHUB_")) or name == "PYTEST_ADDOPTS":
            monkeypatch.delenv(name)


class Project:
    """A folder with gates/, configs/ and var/, in which pytest and dosctl run as processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        shutil.copytree(
            CHECKOUT / "gates", path / "gates", ignore=shutil.ignore_patterns("__pycache__")
        )
        (path / "configs/slo").mkdir(parents=True)
        shutil.copy(CHECKOUT / "configs/labels.json", path / "configs")
        (path / "pytest.ini").write_text("[pytest]\n")
        self.slo("slo-own", SLO)
        self.gate(judges=[("evidence", "evidence")])
        self.evidence(healthy(datetime.now(UTC)))

    def gate(self, judges, slos=("slo-own",), quorum=None, checks=(), **more):
        """Write gate.yaml; judges as (id, source[, params]), or as gate.yaml has them."""
        listed = [
            j if isinstance(j, dict) else dict(zip(("id", "source", "params"), j, strict=False))
            for j in judges
        ]
        phase = {
            "slos": [f"slo/{name}.json" for name in slos],
            "require_blocks": ["perf"],
            "checks": list(checks),
        }
        target = {
            "service": "checkout",
            "environment": "production",
            "region": "eu-1",
            "tenant": "all",
        }
        spec = {
            "version": 1,
            "target": target,
            "judges": listed,
            "phases": {"cutover": phase},
            **more,
        }
        if quorum:
            spec["quorum"] = quorum
        (self.path / "configs/gate.yaml").write_text(json.dumps(spec))  # JSON is YAML

    def slo(self, name, spec):
        (self.path / f"configs/slo/{name}.json").write_text(json.dumps(spec))

    def evidence(self, blocks, *, seal=True):
        path = self.path / "var/evidence/latest.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(sealed(blocks) if seal else blocks))
        return path

    def write(self, name, text):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def install(self, name, text):
        """Put an installed package of hook implementations on the path, with real entry points."""
        self.write(f"{name}.py", text)
        info = f"{name}-0.1.dist-info"
        self.write(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
        self.write(f"{info}/entry_points.txt", f"[decisionos]\n{name} = {name}\n")

    def run(self, *args, **env):
        return subprocess.run(
            [sys.executable, "-m", *map(str, args)],
            cwd=self.path, env={**os.environ, **{k: str(v) for k, v in env.items()}}, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip

    def pytest(self, *args, **env):
        return self.run("pytest", *NOT_LOADED, *args, **env)

    def dosctl(self, *args, **env):
        return self.run("pytest_decisionos.cli.main", *args, **env)

    @property
    def decision(self):
        path = self.path / "var/gate/decision.json"
        return json.loads(path.read_text()) if path.exists() else None


@pytest.fixture
def project(pytester):
    """A project in pytester's own folder, so that its runners run there too."""
    return Project(pytester.path)


SCRIPTED = '''
"""Judges that vote as their params say: one vote per SLO."""
from pytest_decisionos.hookspecs import hookimpl

RATES = {"p": (0.001, 0.0005, 0.002), "f": (0.1, 0.05, 0.2), "i": (0.005, 0.001, 0.05), "e": ("x", 0, 0)}

def limits(low, high):
    levels = ("0.90", "0.95", "0.99")
    return {"n": 1000, "d": 1.0, "effective": 1000.0, "lower": dict.fromkeys(levels, low), "upper": dict.fromkeys(levels, high)}

def perf(votes):
    said = {name: RATES[vote] for name, vote in votes.items() if vote != "a"}
    return {"count": 1000, **{n: s[0] for n, s in said.items()}, "limits": {n: limits(*s[1:]) for n, s in said.items()}}

def scripted(request):
    votes = request.params["votes"]
    if votes == "absent":
        return None
    if votes == "raise":
        raise RuntimeError("the network is down")
    return {"perf": perf(votes)}

@hookimpl
def decisionos_sources():
    return {"scripted": scripted}
'''


@pytest.fixture
def scripted(project):
    """A function that sets a project up for votes: ``{slo: (votes as letters, quorum …)}``."""

    def vote(slos):
        project.install("scripted_votes", SCRIPTED)
        n = len(next(iter(slos.values()))["votes"])
        judges = []
        for index in range(n):
            votes = {f"{name}_rate": spec["votes"][index] for name, spec in slos.items()}
            judges.append((f"j{index}", "scripted", {"votes": votes}))
        for name, spec in slos.items():
            rule = {"id": "r", "metric": f"/perf/{name}_rate", "op": "<=", "bound": 0.01}
            slo = {
                "rules": [rule],
                "confidence": {"level": 0.95},
                "on_inconclusive": spec.get("mode", "no-go"),
            }
            slo["quorum"] = {
                "k": spec["k"],
                "n": n,
                "fail_closed_on_degrade": spec.get("closed", False),
            }
            project.slo(name, slo)
        project.gate(judges=judges, slos=list(slos))
        namespace = {}
        exec(SCRIPTED, namespace)
        blocks = healthy(datetime.now(UTC))
        blocks["perf"] = namespace["perf"]({f"{name}_rate": "p" for name in slos})
        project.evidence(blocks)
        return project

    return vote
