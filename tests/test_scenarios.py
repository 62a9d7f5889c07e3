"""The scenarios from logs to decision: the shipped evidence, and the whole way by the commands."""

import csv
import importlib.util
import json
import shutil
from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from pytest_decisionos.evidence.digest import digest
from pytest_decisionos.harvest.blocks import harvest
from pytest_decisionos.harvest.sample import SCENARIOS, write_sample
from pytest_decisionos.judge.decide import decide
from pytest_decisionos.judge.gather import Request, gather
from pytest_decisionos.model.decision import Vote

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location(
    "sample_evidence", CHECKOUT / "scripts/sample_evidence.py"
)
samples = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(samples)

EXPECTED = {
    "healthy": ("GO", "proceed", set()),
    "slow-canary": ("NO-GO", "abort", {"canary.thresholds.p95_rel_increase:over"}),
    "error-burst": ("NO-GO", "abort", {"canary.thresholds.error_abs_delta:over", "anomaly.spike:set"}),
    "thin-traffic": ("NO-GO", "wait", {"canary.sample_count:samples_insufficient"}),
    "evil-evidence": ("NO-GO", "abort", {"latency.p95:tampered", "latency.p95:over", "anomaly.spike:tampered"}),
}  # fmt: skip
ABSTAINING = {("slo-judge-infra", "peer")}


def assert_same(made, shipped, where):
    """Equal, but for the last digits of floats, which differ between versions of DuckDB and scipy."""
    assert type(made) is type(shipped), where
    if isinstance(made, dict):
        assert made.keys() == shipped.keys(), where
        for key, value in made.items():
            assert_same(value, shipped[key], f"{where}/{key}")
    elif isinstance(made, list):
        assert len(made) == len(shipped), where
        for i, value in enumerate(made):
            assert_same(value, shipped[i], f"{where}/{i}")
    elif isinstance(made, float):
        assert made == pytest.approx(shipped, rel=1e-9, abs=1e-12), where
    else:
        assert made == shipped, where


@pytest.fixture(scope="module", params=SCENARIOS)
def made(request, tmp_path_factory):
    """A scenario's root folder: its logs, and its evidence as the code makes it today."""
    root = tmp_path_factory.mktemp(request.param)
    samples.sample_evidence(request.param, root / "log", root / "latest.json")
    return request.param, root


def test_the_shipped_evidence_is_what_the_code_makes_today(made):
    scenario, root = made
    shipped = json.loads((CHECKOUT / f"evidence/{scenario}.json").read_text(encoding="utf-8"))
    today = json.loads((root / "latest.json").read_text(encoding="utf-8"))
    # The digest is of the last digits too.
    stated, fresh = shipped.pop("integrity"), today.pop("integrity")
    assert stated["signature_sha256"] == digest(shipped)
    assert fresh["signature_sha256"] == digest(today)
    assert_same(today, shipped, "")


def test_the_shipped_evidence_is_decided_as_expected(made):
    scenario, root = made
    verdict, action, codes = EXPECTED[scenario]
    decision = decide(
        gather(
            Request(
                root=root, gate=CHECKOUT / "configs/gate.yaml", phase="cutover",
                evidence=CHECKOUT / f"evidence/{scenario}.json", now=samples.END + timedelta(seconds=30),
            )
        )
    )  # fmt: skip
    assert (decision.verdict, decision.action) == (verdict, action)
    assert codes <= {reason.code for reason in decision.reasons}
    for slo in decision.slos:
        for ballot in slo.ballots:
            abstains = (slo.slo, ballot.judge) in ABSTAINING
            assert (ballot.vote is Vote.ABSTAIN) is abstains, ballot
            if scenario == "healthy" and not abstains:
                assert ballot.vote is Vote.PASS
    logs = {
        judge.id: [(Path(log.file).name, log.sha256) for log in judge.logs]
        for judge in decision.judges
    }
    shipped = json.loads((CHECKOUT / f"evidence/{scenario}.json").read_text(encoding="utf-8"))
    named = {s["name"]: s["sha256"] for s in shipped["witness"]["sources"]}
    assert logs["evidence"] == []
    assert logs["witness"] == [(name, named[name]) for name in ("reqlog.csv", "judgelog.csv")]
    assert [name for name, _ in logs["peer"]] == ["lb.csv"]
    if scenario == "thin-traffic":
        assert any("516 more are needed" in reason.message for reason in decision.reasons)
        assert {b.vote for s in decision.slos for b in s.ballots} == {
            Vote.PASS,
            Vote.INCONCLUSIVE,
            Vote.ABSTAIN,
        }


def test_the_logs_may_grow_or_go(tmp_path):
    """A growing log verifies by its first bytes; a changed one is an error; without logs it is no GO."""
    root = tmp_path
    samples.sample_evidence("healthy", root / "log", root / "latest.json")
    request = Request(
        root=root, gate=CHECKOUT / "configs/gate.yaml", phase="cutover",
        evidence=CHECKOUT / "evidence/healthy.json", now=samples.END + timedelta(seconds=30),
    )  # fmt: skip
    log = root / "log/reqlog.csv"
    before = log.read_bytes()
    with log.open("a") as stream:
        stream.write(
            "2026-01-15T12:00:01.000Z,500,9999.0,/v1/pay,acme,canary,2026.01.1\n2026-01-15T12:0"
        )
    assert decide(gather(request)).verdict == "GO"
    log.write_bytes(before.replace(b",200,", b",201,", 1))
    decision = decide(gather(request))
    votes = {(s.slo, b.judge): b for s in decision.slos for b in s.ballots}
    assert votes["slo-canary-v2", "witness"].vote is Vote.ERROR
    assert "changed" in votes["slo-canary-v2", "witness"].reason
    assert decision.verdict == "NO-GO"  # slo-canary-v2 fails closed on a degraded judge
    log.write_bytes(before)
    shutil.move(root / "log", root / "gone")
    decision = decide(gather(request))
    shutil.move(root / "gone", root / "log")
    assert decision.verdict == "NO-GO"
    assert {b.vote for s in decision.slos for b in s.ballots if b.judge != "evidence"} == {
        Vote.ABSTAIN
    }


@pytest.mark.untraced
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_from_sample_to_exit_status(project, scenario):
    """What `make gate` does, by the commands that the README names."""
    shutil.rmtree(project.path / "configs")
    shutil.copytree(CHECKOUT / "configs", project.path / "configs")
    shutil.rmtree(project.path / "var")
    assert (
        project.dosctl(
            "sample", "--out", "var/log", "--seed", "7", "--scenario", scenario
        ).returncode
        == 0
    )
    blocks = [f"--block={name}=var/log/{name}.json" for name in ("budget", "quota", "usage")]
    built = project.dosctl("evidence", "build", *blocks)
    assert built.returncode == 0, built.stderr
    args = (
        ["--decisionos-evidence=var/log/forged-evidence.json"]
        if scenario == "evil-evidence"
        else []
    )
    result = project.pytest("gates/", *args)
    verdict, action, codes = EXPECTED[scenario]
    assert result.returncode == (0 if verdict == "GO" else 1), result.stdout + result.stderr
    assert (project.decision["verdict"], project.decision["action"]) == (verdict, action)
    assert codes <= {reason["code"] for reason in project.decision["reasons"]}
    evidence = "var/log/forged-evidence.json" if args else "var/evidence/latest.json"
    for slo, always in (
        ("slo-judge-infra", scenario != "evil-evidence"),
        ("slo-canary-v2", scenario == "healthy"),
    ):
        quorum = project.dosctl(
            "judge", "quorum", "--slo", f"configs/slo/{slo}.json", "--evidence", evidence, "--quorum", "2/3",
            DECISIONOS_ALLOW_SCOPES="judge:run",
        )  # fmt: skip
        assert quorum.returncode == (0 if always else 2), quorum.stdout + quorum.stderr


def test_the_runbooks_harvest_commands(project):
    """The runbook's two harvest lines, as written, from the project's root."""
    shutil.copytree(
        CHECKOUT / "jobs", project.path / "jobs", ignore=shutil.ignore_patterns("__pycache__")
    )
    project.dosctl("sample", "--out", "var/log", "--seed", "7", "--scenario", "thin-traffic")
    for job, log, out, block in (
        ("jobs.evidence_harvest_reqlog", "var/log/reqlog.csv", "var/evidence/perf.json", "perf"),
        (
            "jobs.evidence_harvest_judgelog",
            "var/log/judgelog.csv",
            "var/evidence/perf_judge.json",
            "perf_judge",
        ),
    ):
        result = project.run(job, "--csv", log, "--out", out)
        assert result.returncode == 0, result.stderr
        assert json.loads((project.path / out).read_text())[block]["count"] > 1000
    result = project.run("jobs.evidence_build")
    assert result.returncode == 0, result.stderr
    assert (project.path / "var/evidence/latest.json").is_file()


def test_rotated_logs_are_counted_as_a_plain_reader_counts(tmp_path):
    """At real size, where each file is sampled: the harvest against csv and numpy."""
    write_sample(tmp_path, seed=3, scenario="error-burst", end=samples.END)
    text = (tmp_path / "reqlog.csv").read_text(encoding="utf-8")
    head, *lines = text.splitlines(keepends=True)
    rows = [row for row in csv.DictReader(text.splitlines()) if row["route"] != "/healthz"]
    latencies = np.array([float(row["latency_ms"]) for row in rows])
    errors = sum(int(row["status"]) >= 500 or row["status"] == "429" for row in rows)
    for pieces in (1, 2, 3):
        size = -(-len(lines) // pieces)
        parts = [tmp_path / f"{pieces}-{i}.csv" for i in range(pieces)]
        for i, part in enumerate(parts):
            part.write_text(head + "".join(lines[i * size : (i + 1) * size]), encoding="utf-8")
        perf = harvest(parts, limits=False).perf
        assert (perf["count"], perf["errors"]) == (len(rows), errors)
        expected = np.quantile(latencies, [0.5, 0.95, 0.99])
        assert list(perf["latency_ms"].values()) == pytest.approx(list(expected), rel=1e-12)
        for by in ("route", "tenant"):
            counted = Counter(row[by] for row in rows if row[by])
            assert {g["name"]: g["count"] for g in perf["groups"] if g["by"] == by} == counted
