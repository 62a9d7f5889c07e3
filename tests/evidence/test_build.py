"""Logs and blocks → evidence; the command line and the jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pytest_decisionos.cli.evidence import evidence as command
from pytest_decisionos.cli.main import run
from pytest_decisionos.errors import EvidenceError, LogError, UsageError
from pytest_decisionos.evidence.build import (
    Inputs,
    build_evidence,
    forge_sample,
    harvest_block,
    read_block,
    write_evidence,
)
from pytest_decisionos.evidence.digest import digest
from pytest_decisionos.harvest.options import Options
from pytest_decisionos.harvest.recompute import recompute
from pytest_decisionos.harvest.sample import write_sample
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.evidence import read_evidence
from pytest_decisionos.model.target import Target

END = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
NOW = END + timedelta(minutes=1)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thin") / "log"
    write_sample(folder, seed=7, scenario="thin-traffic", end=END)
    return folder


@pytest.fixture
def root(logs, tmp_path, monkeypatch):
    """A root folder with sample logs, and the working directory beside it."""
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "log").symlink_to(logs)
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("DECISIONOS_"):
            monkeypatch.delenv(name)
    return Path("var")


def inputs(logs, **changes):
    given = {
        "reqlog": (logs / "reqlog.csv",),
        "judgelog": (logs / "judgelog.csv",),
        "peer": (logs / "lb.csv",),
        "blocks": {"budget": logs / "budget.json"},
        "target": Target(service="checkout", environment="production"),
    }
    return Inputs(**given | changes)


def test_the_document(logs):
    told = []
    document = build_evidence(inputs(logs), now=NOW, progress=lambda *what: told.append(what))
    assert list(document) == [
        "meta",
        "perf",
        "canary",
        "anomaly",
        "perf_judge",
        "witness",
        "budget",
        "integrity",
    ]
    meta = document["meta"]
    assert meta["generated_at"] == "2026-01-05T09:01:00.000Z"
    assert meta["target"] == {
        "service": "checkout",
        "environment": "production",
        "region": "all",
        "tenant": "all",
    }
    assert (meta["release"], meta["baseline_release"]) == ("2026.01.1", "2026.01.0")
    assert meta["window"]["end"] <= "2026-01-05T09:00:00.001Z"
    assert meta["window"] == document["perf"]["window"]
    assert document["integrity"] == {"signature_sha256": digest(document)}
    assert document["canary"]["deltas"]["sig_error_delta"] is not None
    assert {s["role"]: s["name"] for s in document["witness"]["sources"]} == {
        "reqlog": "reqlog.csv",
        "judgelog": "judgelog.csv",
        "peer": "lb.csv",
    }
    assert document["witness"]["csv_path"] == "reqlog.csv"
    assert document["witness"]["rows"] == document["perf"]["count"]
    assert document["budget"] == json.loads((logs / "budget.json").read_text())
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] <= 1


def test_judges_recompute_it_from_the_logs_it_names(logs):
    document = build_evidence(inputs(logs), now=NOW)
    named = [s for s in document["witness"]["sources"] if s["role"] != "peer"]
    again = recompute(named, logs, document, limits=True, exact=True).blocks
    assert set(again) == {"perf", "canary", "anomaly", "perf_judge"}
    for name, block in again.items():
        assert json.dumps(block) == json.dumps(document[name])
    peer = [{"role": "peer", "name": "lb.csv"}]
    own = recompute(peer, logs, document, limits=False, exact=False).blocks
    assert own["perf"]["count"] == pytest.approx(document["perf"]["count"], abs=3)
    assert own["perf"]["latency_ms"]["p95"] >= document["perf"]["latency_ms"]["p95"]


def test_a_judgelog_alone_is_enough(logs):
    document = build_evidence(inputs(logs, reqlog=(), peer=()), now=NOW)
    assert "perf" not in document
    assert document["witness"]["csv_path"] == "judgelog.csv"
    assert document["meta"]["window"] == document["perf_judge"]["window"]


def test_what_contradicts_itself(logs, tmp_path):
    with pytest.raises(UsageError, match="nothing to build from"):
        build_evidence(inputs(logs, reqlog=(), judgelog=(), peer=()), now=NOW)
    with pytest.raises(UsageError, match="--release: is not the release that the log is of"):
        build_evidence(inputs(logs, release="r9"), now=NOW)
    with pytest.raises(UsageError, match="--baseline-release"):
        build_evidence(inputs(logs, baseline_release="r9"), now=NOW)
    twin = tmp_path / "reqlog.csv"
    twin.write_bytes((logs / "reqlog.csv").read_bytes())
    with pytest.raises(UsageError, match="two logs of one name"):
        build_evidence(inputs(logs, peer=(twin,)), now=NOW)
    with pytest.raises(LogError, match="rows from the future"):
        build_evidence(inputs(logs), now=END - timedelta(hours=1))


def test_releases_of_a_log_without_canary(logs, tmp_path):
    def releases(text, **given):
        log = tmp_path / "r.csv"
        log.write_text(text)
        meta = build_evidence(Inputs(reqlog=(log,), **given), now=NOW)["meta"]
        return meta["release"], meta["baseline_release"]

    row = "2026-01-05T08:00:00Z,200,1"
    assert releases(f"ts,status,latency_ms\n{row}\n") == (None, None)
    assert releases(f"ts,status,latency_ms\n{row}\n", release="r1") == ("r1", None)
    assert releases(f"ts,status,latency_ms,release\n{row},r1\n") == ("r1", None)
    both = f"ts,status,latency_ms,release,variant\n{row},r1,control\n"
    assert releases(both) == ("r1", None)
    assert releases(both, release="r2") == ("r2", "r1")


def test_a_given_anomaly_wins(logs, tmp_path):
    (tmp_path / "a.json").write_text('{"anomaly": {"is_spike": true, "ewma": 1, "ratio": 2}}')
    document = build_evidence(inputs(logs, blocks={"anomaly": tmp_path / "a.json"}), now=NOW)
    assert document["anomaly"]["is_spike"] is True
    assert document["integrity"]["signature_sha256"] == digest(document)


@pytest.mark.parametrize("name", ["meta", "perf", "perf_judge", "canary", "witness", "integrity"])
def test_harvested_blocks_cannot_be_given(tmp_path, name):
    with pytest.raises(UsageError, match="made from the logs"):
        read_block(name, tmp_path / "x.json")


@pytest.mark.parametrize("text", ["[]", "5", '{"a": 1, "a": 2}', '{"a": NaN}', "", "{"])
def test_blocks_that_are_none(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(EvidenceError):
        read_block("budget", tmp_path / "x.json")


def test_a_block_may_stand_bare_or_under_its_name(tmp_path):
    (tmp_path / "x.json").write_text('{"budget": {"level": "ok"}}')
    assert read_block("budget", tmp_path / "x.json") == {"level": "ok"}
    assert read_block("other", tmp_path / "x.json") == {"budget": {"level": "ok"}}
    with pytest.raises(UsageError, match="not a block name"):
        read_block("a b", tmp_path / "x.json")


def test_evidence_too_large_to_read_is_not_written(tmp_path):
    with pytest.raises(EvidenceError, match="too large"):
        write_evidence(tmp_path / "x.json", {"meta": "x" * strict_json.MAX_BYTES})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_forgery_is_healthy_and_well_sealed(tmp_path):
    write_sample(
        tmp_path, seed=7, scenario="evil-evidence", end=datetime.now(UTC).replace(microsecond=0)
    )
    document = read_evidence(forge_sample(tmp_path)).blocks
    assert document["integrity"]["signature_sha256"] == digest(document)
    assert document["perf"]["latency_ms"] == {"p50": 100, "p95": 380, "p99": 700}
    assert document["canary"]["deltas"] == {"p95_rel": 0.01, "error_delta": 0, "sig_error_delta": 0}
    assert document["canary"]["limits"]["p95_rel"]["upper"]["0.95"] == 0.01
    assert document["perf"]["limits"]["error_rate"]["upper"]["0.99"] == 0.002
    assert document["perf"]["limits"]["latency_ms.p99"]["upper"]["0.99"] == 700
    assert {w["burst"] for w in document["canary"]["windows"]} == {0}
    assert document["perf"]["errors"] == round(0.002 * document["perf"]["count"])
    truth = recompute(
        [s for s in document["witness"]["sources"]], tmp_path, document, limits=False, exact=True
    ).blocks
    assert truth["perf"]["latency_ms"]["p99"] > 2 * 700
    assert truth["canary"]["deltas"]["p95_rel"] > 1


def test_harvest_block(logs):
    made = harvest_block([logs / "reqlog.csv"], role="reqlog", options=Options(), now=NOW)
    assert list(made) == ["perf", "canary", "anomaly", "witness"]
    made = harvest_block(
        [logs / "judgelog.csv"], role="judgelog", options=Options(), step_start=END, now=NOW
    )
    assert list(made) == ["perf_judge", "witness"]


def dosctl(*args):
    return run(command, list(args))


def test_build_command(root, capsys):
    assert dosctl("build", "--target", "checkout/production") == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "service" in out
    assert "canary − control: p95" in out
    assert "peer      lb.csv" in out
    assert "→ var/evidence/latest.json" in out
    document = read_evidence(root / "evidence/latest.json").blocks
    assert document["integrity"]["signature_sha256"] == digest(document)
    assert "budget" not in document
    assert sorted(os.listdir(root / "evidence")) == [".latest.json.lock", "latest.json"]


def test_build_command_with_everything(root, capsys):
    status = dosctl(
        "build",
        "--root",
        "var",
        "--target",
        "checkout/production/eu-1/acme",
        "--json",
        "--block",
        "budget=var/log/budget.json",
        "--out",
        "made/e.json",
        "--guardband",
        "5",
        "--since",
        "2026-01-05T08:40:00Z",
        "--until",
        "2026-01-05T17:55:00+09:00",
        "--step-start",
        "2026-01-05T08:41:00Z",
        "--lag",
        "1",
        "--window",
        "60",
        "--max-bad-rows",
        "3",
        "--assume-tz",
        "UTC",
        "--filter",
        "route=/v1/users",
        "--release",
        "2026.01.1",
        "--baseline-release",
        "2026.01.0",
    )
    assert status == 0
    said = json.loads(capsys.readouterr().out)
    document = read_evidence(Path("made/e.json")).blocks
    assert said["sha256"] == document["integrity"]["signature_sha256"]
    assert said["counts"] == {n: document[n]["count"] for n in ("perf", "perf_judge")}
    assert "2026-01-05T08:40:00.000Z" <= said["window"]["start"]
    assert said["window"]["end"] <= "2026-01-05T08:55:00.000Z"
    assert document["meta"]["target"]["tenant"] == "acme"
    assert document["canary"]["guardband_minutes"] == 5
    assert document["canary"]["step_start"] == "2026-01-05T08:41:00.000Z"
    assert document["witness"]["harvest"]["filters"][-1] == "route=/v1/users"
    assert "/v1/users" not in {g["name"] for g in document["perf"]["groups"]}
    assert len(document["canary"]["windows"]) == 2 * 13


def test_the_target_comes_from_the_gate(root, tmp_path, capsys):
    gate = tmp_path / "gate.yaml"
    gate.write_text(
        "version: 1\ntarget: {service: pay, environment: staging}\n"
        "phases: {cutover: {slos: [configs/slo/a.json]}}\n"
    )
    assert dosctl("build", "--gate", str(gate)) == 0
    made = read_evidence(root / "evidence/latest.json").blocks["meta"]["target"]
    assert (made["service"], made["environment"]) == ("pay", "staging")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["build"], "no target"),
        (["build", "--target", "a"], "not a target"),
        (["build", "--target", "a/b/c/d/e"], "not a target"),
        (["build", "--target", "a/b", "--since", "09:00"], "--since: not a time"),
        (["build", "--target", "a/b", "--since", "3999-01-01T00:00:00Z"], "--since: not a time"),
        (["build", "--target", "a/b", "--block", "budget"], "not a block"),
        (["build", "--target", "a/b", "--block", "a=b", "--block", "a=c"], "a block twice"),
        (["build", "--target", "a/b", "--block", "perf=x"], "made from the logs"),
        (["build", "--target", "a/b", "--root", "nowhere"], "no log to build from"),
        (["build", "--target", "a/b", "--reqlog", "x-*.csv"], "no file matches"),
        (["build", "--target", "a/b", "--window", "7"], "--window: out of range"),
        (["build", "--wat"], "--wat"),
        (["harvest", "--csv", "nothing.csv"], "nothing.csv: cannot be read"),
    ],
)
def test_bad_usage_is_one_line_and_no_file(root, capsys, args, words):
    assert dosctl(*args) == 4
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not (root / "evidence").exists()


def test_harvest_command(root, capsys):
    assert dosctl("harvest", "--role", "judgelog", "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["perf_judge"] > 0
    made = json.loads((root / "evidence/perf_judge.json").read_text())
    assert list(made) == ["perf_judge", "witness"]


def test_a_harvest_says_what_is_odd_about_a_log(root, tmp_path, capsys):
    log = tmp_path / "odd.csv"
    row = "2026-01-05T08:00:00Z,200,1\n"
    log.write_text("ts,status,latency_ms\n" + row + "x,200,1\n" + row[:-1])
    assert dosctl("harvest", "--csv", str(log), "--max-bad-rows", "1", "--out", "p.json") == 0
    out = capsys.readouterr().out
    assert "1 rows, 0 filtered, 1 unreadable, last line unfinished" in out


@pytest.mark.slow
def test_jobs_work_as_the_runbook_writes_them(root):
    package = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(package)}
    for job, log, out in (
        ("evidence_harvest_reqlog", "reqlog", "perf"),
        ("evidence_harvest_judgelog", "judgelog", "perf_judge"),
    ):
        subprocess.run(
            [
                sys.executable,
                "-m",
                f"jobs.{job}",
                "--csv",
                f"var/log/{log}.csv",
                "--out",
                f"var/evidence/{out}.json",
            ],
            check=True,
            env=environment,
            timeout=60,
        )
        assert out in json.loads((root / f"evidence/{out}.json").read_text())
    subprocess.run(
        [sys.executable, "-m", "jobs.evidence_build", "--target", "a/b"],
        check=True,
        env=environment,
        timeout=60,
    )
    assert read_evidence(root / "evidence/latest.json").blocks["perf"]["count"] > 1000


def test_a_progress_bar_for_people(root, monkeypatch, capsys):
    from pytest_decisionos.cli import progress as module

    monkeypatch.setattr(module, "AFTER_SEC", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert dosctl("harvest", "--csv", "var/log/reqlog.csv") == 0
    assert "100%" in capsys.readouterr().err
