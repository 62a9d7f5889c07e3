"""The demo for real: a canary that is promoted and one that is taken back, held against every file."""

import io
import json
import stat
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime

import pytest
from services.nginx import require_nginx

from demo import run
from demo.cutover import Books
from demo.lanes import LANES, play_all
from demo.project import CHECKOUT, RELEASE, make_keys
from demo.scenarios import SCENARIOS, Ended
from pytest_decisionos.evidence import seal
from pytest_decisionos.model.evidence import read_evidence
from pytest_decisionos.model.target import Target
from pytest_decisionos.release import audit
from pytest_decisionos.release.stage import read_stage
from pytest_decisionos.report.text import cells
from pytest_decisionos.trust import journal
from pytest_decisionos.trust.sources import read_ring_file

BY_NAME = {one.name: one for one in SCENARIOS}


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The folder, how each ended, and what was told."""
    require_nginx()
    folder, out = tmp_path_factory.mktemp("demo"), io.StringIO()
    ended = run.demo(folder, ["errors", "healthy"], out)
    return folder, {one.scenario.name: one for one in ended}, out.getvalue()


def stage_of(folder, name):
    gate = json.loads((folder / name / "configs/gate.yaml").read_text())
    return read_stage(
        folder / name / "var",
        target=Target(**gate["target"]),
        ring=read_ring_file(folder / "keys/ring.json"),
        state_dir=folder / name / "state",
        now=datetime.now(UTC),
    )


def way_of(folder, name):
    """The changes that the audit journal tells of, whose chain holds: code, stage and percentage."""
    found = journal.read(folder / name / "var" / audit.FILE)
    assert found.fault is None
    assert {entry["actor"] for entry in found.entries} == {"데모"}
    return [(e["code"], e["to"]["stage"], e["to"]["pct"]) for e in found.entries if e["to"]]


@pytest.mark.slow
def test_a_healthy_canary_gets_everybody(played):
    folder, ended, told = played
    assert ended["healthy"].wrong == (), told
    reading = stage_of(folder, "healthy")
    assert (reading.name, reading.pct, reading.release, reading.alarm) == ("promote", 100, "v2", "")
    assert way_of(folder, "healthy") == [
        ("stepped", "canary", 0.0),
        ("stepped", "canary", 5.0),
        ("stepped", "canary", 25.0),
        ("stepped", "canary", 50.0),
        ("promoted", "promote", 100.0),
    ]


@pytest.mark.slow
def test_each_step_was_allowed_by_a_decision_of_its_own(played):
    folder, _, _ = played
    found = journal.read(folder / "healthy/var" / audit.FILE)
    used = [entry["decision_sha256"] for entry in found.entries if entry["to"]]
    assert used[0] is None  # copies of requests take nobody anywhere
    assert len(set(used[1:])) == len(used[1:]) == 4
    assert None not in used[1:]


@pytest.mark.slow
def test_its_evidence_is_locked(played):
    folder, _, _ = played
    path = folder / f"healthy/var/evidence/{RELEASE}.locked.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    blocks = read_evidence(path).blocks
    ring = read_ring_file(folder / "keys/ring.json")
    assert seal.check(blocks, ring, now=datetime.now(UTC)).state == "valid"
    assert (blocks["meta"]["release"], blocks["meta"]["baseline_release"]) == ("v2", "v1")
    assert blocks["witness"]["csv_path"] == "reqlog.jsonl"
    assert 0.4 < blocks["canary"]["canary_perf"]["count"] / blocks["perf"]["count"] < 0.6


@pytest.mark.slow
def test_a_failing_canary_is_taken_back(played):
    folder, ended, told = played
    assert ended["errors"].wrong == (), told
    reading = stage_of(folder, "errors")
    assert (reading.name, reading.release, reading.alarm) == ("stable", "v1", "")
    assert way_of(folder, "errors") == [
        ("stepped", "canary", 0.0),
        ("stepped", "canary", 25.0),
        ("aborted", "stable", 0.0),
    ]
    assert ended["errors"].back_sec > 0
    assert ended["errors"].why == "canary.thresholds.error_abs_delta:over"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["healthy", "errors"])
def test_every_request_is_accounted_for(played, name):
    folder, ended, _ = played
    books = ended[name].books
    assert books.sent == books.answered + books.failed + books.lost > 1000
    assert books.lost == 0
    assert (books.failed > 0) == (name == "errors")
    log = (folder / name / "var/log/reqlog.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, log) if row["variant"] != "shadow"]
    seen = Counter((row["variant"], row["status"]) for row in rows if row["variant"] != "mirror")
    assert seen.total() == books.sent
    assert seen["canary", 500] == books.failed
    assert {status for variant, status in seen if variant == "control"} == {200}


@pytest.mark.slow
def test_it_is_told_as_it_goes(played):
    _, ended, told = played
    lines = told.splitlines()
    assert all(cells(line) <= 80 for line in lines)
    assert "\r" not in told  # nobody looks on
    for words in ("shadow", "step 0 → 5 %", "promote 50 → 100 %", "LOCKED v2.locked.json"):
        assert sum(words in line for line in lines if " healthy " in line) == 1
    assert sum("aborted after" in line for line in lines) == 1
    assert [one.scenario.name for one in ended.values()] == ["healthy", "errors"]


@pytest.mark.slow
def test_what_cannot_be_played_is_told(tmp_path):
    keys = make_keys(tmp_path / "keys")
    (tmp_path / "dead/var").mkdir(parents=True)
    said = []
    [ended] = play_all(tmp_path, ["dead"], keys, lambda who, text: said.append((who, text)))
    assert ended.books is None
    assert "File exists" in ended.wrong[0]
    assert ("dead", f"WRONG: {ended.wrong[0]}") in said


@pytest.mark.slow
def test_an_unknown_cutover_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "demo.run", "healthy", "wörse"],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (4, "")
    assert "no such cutover: wörse" in done.stderr


def test_every_scenario_is_in_one_lane():
    assert sorted(name for _, lane in LANES for name in lane) == sorted(BY_NAME)


def test_the_table():
    good = Ended(
        BY_NAME["slow"], "aborted", Books(12345, 12300, 45, 0, ()), 8.84, "latency.p95:over", ()
    )
    bad = Ended(BY_NAME["dead"], "?", None, None, "", ("되돌리지 못했습니다 " * 12, "둘째"))
    lines = run.table([good, bad])
    assert all(cells(line) <= 80 for line in lines)
    assert lines[1].split() == ["slow", "aborted", "12,345", "12,300", "45", "0", "8.8", "s"]
    assert lines[2].split() == ["latency.p95:over"]
    assert lines[3].split() == ["dead", "WRONG", *"–––––"]
    assert lines[-1].split() == ["둘째"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("kind", "live"), [(Terminal, True), (io.StringIO, False)])
def test_only_a_terminal_is_shown_what_is_under_way(kind, live):
    out = kind()
    timeline = run.Timeline(out)
    timeline.say("healthy", "한 걸음 " * 20)
    timeline.say("", "")
    timeline.say("healthy", "")
    told = out.getvalue()
    assert ("under way: healthy" in told) == ("\r" in told) == live
    assert max(cells(line) for line in told.split("\r")[0].splitlines() or [""]) <= 80
    assert told.count("한") == 20
