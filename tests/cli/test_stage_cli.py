"""dosctl stage: show, verify, init, reconcile and watch; words, JSON, exit status, audit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from pytest_decisionos.cli.main import cli, run
from pytest_decisionos.harvest.sample import write_sample
from pytest_decisionos.model.target import Target
from pytest_decisionos.release import audit
from pytest_decisionos.release.stage import FILE, change_stage
from pytest_decisionos.trust import journal
from pytest_decisionos.trust.keys import make_ring, ring_json

SECRET = "correct horse battery staple, and more"
TARGET = {"service": "결제", "environment": "production", "region": "eu-1", "tenant": "all"}
KEY = {"key_id": "k1", "secret": SECRET, "state": "active", "use": ["stage"]}
RELEASE = "registry/checkout@sha256:" + "0123456789abcdef" * 4


class Here:
    def __init__(self, path, capsys):
        self.path = path
        self.root = path / "var"
        self.ring = path / "ring.json"
        self.keys(KEY)
        (path / "configs").mkdir()
        gate = {"version": 1, "target": TARGET, "phases": {"cutover": {"slos": ["slo/x.json"]}}}
        (path / "configs/gate.yaml").write_text(json.dumps(gate))
        self._capsys = capsys

    def keys(self, *entries):
        self.ring.write_bytes(ring_json(make_ring(list(entries), "x")))
        self.ring.chmod(0o600)

    def dosctl(self, *args):
        status = run(cli, ["stage", *map(str, args)])
        out, err = self._capsys.readouterr()
        assert SECRET not in out + err
        assert "Traceback" not in err
        assert max(map(len, [*out.splitlines(), ""])) <= 80 or "--json" in args
        return status, out, err

    def json(self, *args):
        status, out, _ = self.dosctl(*args, "--json")
        return status, json.loads(out)

    def change(self, **changes):
        how = {"ring": make_ring([KEY], "x"), "state_dir": self.path / "state"}
        target = Target(**TARGET)
        with change_stage(self.root, target=target, **how, now=datetime.now(UTC)) as changer:
            return changer.write(**changes)

    def audited(self):
        found = journal.read(self.root / audit.FILE)
        assert found.fault is None
        return [(e["command"], e["allowed"], e["code"]) for e in found.entries]


@pytest.fixture
def here(tmp_path, capsys, monkeypatch):
    made = Here(tmp_path, capsys)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECISIONOS_JUDGE_KEYS", f"@{made.ring}")
    monkeypatch.setenv("DECISIONOS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("DECISIONOS_ALLOW_SCOPES", "deploy:*")
    monkeypatch.setenv("DECISIONOS_ACTOR", "민수")
    return made


def test_from_the_first_to_the_last(here):
    status, out, _ = here.dosctl("show")
    assert status == 0
    assert "stable: everybody runs an unknown release" in out
    assert "ALARM     missing: var/rollout/stage.json: no such file" in out
    assert "next      dosctl stage init" in out
    assert here.dosctl("verify")[0] == 2
    status, out, err = here.dosctl("init", "--release", "1.4.1")
    assert (status, err) == (0, "")
    assert "stable: everybody runs 1.4.1" in out
    assert "done      initialised" in out
    assert here.dosctl("verify")[0] == 0
    here.change(stage="canary", release=RELEASE, decision_sha256="d" * 64)
    status, out, _ = here.dosctl("verify")
    assert status == 0
    assert "gets copies of" in out
    assert "d" * 64 in out
    here.change(pct=2.5, paused=True)
    assert "canary: 2.5 % runs" in here.dosctl("show")[1]
    assert "; paused" in here.dosctl("show")[1]
    here.change(stage="promote")
    assert "is kept warm" in here.dosctl("show")[1].replace("\n           ", " ")
    here.change(stage="abort")
    assert "abort: back to 1.4.1" in here.dosctl("show")[1]
    (here.root / FILE).write_bytes(b"echo canary > stage.json\n")
    status, out, _ = here.dosctl("verify")
    assert status == 2
    assert "ALARM     torn: var/rollout/stage.json: not JSON" in out
    assert "next      dosctl stage reconcile" in out
    status, out, _ = here.dosctl("reconcile")
    assert status == 0
    assert "done      repaired:torn" in out
    assert here.dosctl("verify")[0] == 0
    assert "unchanged" in here.dosctl("reconcile")[1]
    assert here.audited() == [
        ("dosctl stage init", True, "initialised"),
        ("dosctl stage reconcile", True, "repaired:torn"),
    ]


def test_as_json(here):
    status, told = here.json("show")
    assert (status, told["stage"], told["pct"], told["alarm"]) == (0, "stable", 0, "missing")
    assert told["sha256"] is None
    assert told["file"] == "var/rollout/stage.json"
    assert "seq" not in told
    status, told = here.json("init", "--release", "1")
    assert (status, told["done"], told["seq"]) == (0, "initialised", 1)
    made = here.change(stage="canary", release="2", pct=5)
    status, told = here.json("verify")
    assert status == 0
    assert told["target"] == TARGET
    assert (told["stage"], told["pct"], told["release"]) == ("canary", 5, "2")
    assert (told["baseline_release"], told["seq"], told["key_id"]) == ("1", 2, "k1")
    assert (told["prev"], told["paused"], told["looks"]) == (made.prev, False, 0)
    assert "mac" not in told
    assert here.json("reconcile")[1]["done"] == "unchanged"
    (here.root / FILE).unlink()
    status, told = here.json("verify")
    assert (status, told["alarm"], told["release"]) == (2, "missing", None)


def test_another_root_and_gate(here, tmp_path):
    (tmp_path / "configs/gate.yaml").rename(tmp_path / "other.yaml")
    status, _, err = here.dosctl("show")
    assert status == 4
    assert "gate.yaml" in err
    where = ("--gate", "other.yaml", "--root", "elsewhere")
    assert here.dosctl("init", *where)[0] == 0
    assert here.dosctl("verify", *where)[0] == 0
    assert (tmp_path / "elsewhere" / FILE).exists()


def test_another_target(here, tmp_path):
    here.dosctl("init")
    path = tmp_path / "configs/gate.yaml"
    path.write_text(path.read_text().replace("eu-1", "us-1"))
    assert here.json("verify")[1]["alarm"] == "foreign_target"


def test_without_keys(here, monkeypatch):
    here.dosctl("init")
    monkeypatch.delenv("DECISIONOS_JUDGE_KEYS")
    assert here.json("show") == (0, here.json("verify")[1])
    status, told = here.json("verify")
    assert (status, told["alarm"]) == (2, "unverified")
    assert "next" not in here.dosctl("show")[1]  # nothing is to be repaired
    status, _, err = here.dosctl("reconcile")
    assert status == 4
    assert "no key signs stages here" in err
    monkeypatch.setenv("DECISIONOS_JUDGE_KEYS", "@nowhere.json")
    status, told = here.json("verify")
    assert (status, told["alarm"]) == (2, "unverified")
    assert "nowhere.json: cannot be read" in told["message"]
    assert here.audited()[1:] == [("dosctl stage reconcile", False, "unusable")]


def test_a_key_that_signs_no_more(here):
    here.dosctl("init")
    old = KEY | {"state": "grace", "not_after": datetime.now(UTC) + timedelta(days=1)}
    here.keys(old, KEY | {"key_id": "k2"})
    status, out, _ = here.dosctl("verify")
    assert status == 0
    assert "note      k1 signs no more" in out
    assert "signed_anew" in here.dosctl("reconcile")[1]
    assert "note" not in here.dosctl("verify")[1]


@pytest.mark.parametrize(
    ("command", "scope"), [("init", "deploy:promote"), ("reconcile", "deploy:abort")]
)
def test_scopes(here, monkeypatch, command, scope):
    for granted in ("", "ops:read judge:run", "deploy"):
        monkeypatch.setenv("DECISIONOS_ALLOW_SCOPES", granted)
        status, out, err = here.dosctl(command)
        assert (status, out) == (3, "")
        assert f"scope {scope} is not granted" in err
    assert here.audited() == [(f"dosctl stage {command}", False, "denied")] * 3
    monkeypatch.setenv("DECISIONOS_ALLOW_SCOPES", scope)
    assert here.dosctl(command)[0] == 0
    for reading in ("show", "verify"):
        monkeypatch.setenv("DECISIONOS_ALLOW_SCOPES", "")
        assert here.dosctl(reading)[0] == 0


def test_refusals(here):
    here.dosctl("init", "--release", "1")
    assert here.dosctl("init", "--release", "2")[0] == 2
    assert here.dosctl("init", "--release", "a b")[0] == 2
    (here.root / FILE).write_bytes(b"")
    status, _, err = here.dosctl("init")
    assert status == 2
    assert "dosctl stage reconcile" in err
    for path in (here.path / "state").glob("*.json"):
        path.write_bytes(b"")
    status, _, err = here.dosctl("reconcile")
    assert status == 4
    assert "what this host remembers is broken" in err


def test_an_audit_that_cannot_be_written_is_said(here):
    (here.root / audit.FILE).mkdir(parents=True)
    status, out, err = here.dosctl("init")
    assert status == 0
    assert "initialised" in out
    assert err.startswith("note: not in the audit journal: ")


# watch


def test_watching_once(here, tmp_path):
    out = tmp_path / "out"
    command = f"sh -c 'echo $DECISIONOS_STAGE $DECISIONOS_ALARM >> {out}'"
    status, told, _ = here.dosctl("watch", "--once", "--exec", command)
    assert status == 0
    assert "stable: everybody runs an unknown release" in told
    assert "  ALARM   missing" in told
    assert out.read_text() == "stable missing\n"
    here.dosctl("init")
    status, told = here.json("watch", "--once")
    assert (status, told["stage"], told["command"], told["fault"]) == (0, "stable", None, "")
    assert here.json("watch", "--once", "--exec", "true")[1]["command"] == "done"
    status, told = here.json("watch", "--once", "--exec", "false")
    assert (status, told["command"]) == (4, "failed")
    assert "failed with status 1" in told["fault"]
    status, told, _ = here.dosctl("watch", "--once", "--exec", "/nowhere")
    assert status == 4
    assert "FAILED  /nowhere: cannot be started" in told


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--exec", "'x"), "not a command: No closing quotation"),
        (("--exec", " "), "nothing to run"),
        (("--interval", "0"), "--interval"),
        (("--interval", "nan"), "--interval"),
        (("--timeout", "-1"), "--timeout"),
        (("--timeout", "nan"), "--timeout"),
    ],
)
def test_what_cannot_be_watched(here, more, says):
    status, out, err = here.dosctl("watch", "--once", *more)
    assert (status, out) == (4, "")
    assert says in err


def test_keys_must_be_there_when_watching_begins(here, monkeypatch):
    monkeypatch.setenv("DECISIONOS_JUDGE_KEYS", "@nowhere.json")
    status, _, err = here.dosctl("watch", "--once")
    assert status == 4
    assert "nowhere.json" in err
    monkeypatch.delenv("DECISIONOS_JUDGE_KEYS")
    assert here.json("watch", "--once")[1]["alarm"] == "missing"


def watching(here, *more, stdout=subprocess.PIPE):
    return subprocess.Popen(
        [sys.executable, "-m", "pytest_decisionos.cli.main", "stage", "watch", "--json",
         "--interval", "0.05", *more],
        stdout=stdout, stderr=subprocess.PIPE, text=True, env=os.environ.copy(),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_controller_follows_until_it_is_ended(here, number, tmp_path):
    here.dosctl("init", "--release", "1")
    marks = tmp_path / "marks"
    command = f"sh -c 'echo $DECISIONOS_STAGE $DECISIONOS_PCT >> {marks}'"
    with watching(here, "--exec", command) as process:
        seen = [json.loads(process.stdout.readline())]
        for changes in ({"stage": "canary", "release": "2"}, {"pct": 5}, {"stage": "abort"}):
            here.change(**changes)
            seen.append(json.loads(process.stdout.readline()))
        process.send_signal(number)
        rest, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    assert (rest, errors) == ("", "")
    assert [(one["stage"], one["pct"]) for one in seen] == [
        ("stable", 0), ("canary", 0), ("canary", 5), ("abort", 0),
    ]  # fmt: skip
    assert marks.read_text() == "stable 0\ncanary 0\ncanary 5\nabort 0\n"


@pytest.mark.slow
@pytest.mark.parametrize("command", [True, False])
def test_a_controller_follows_also_if_nobody_reads_what_it_says(here, tmp_path, command):
    here.dosctl("init", "--release", "1")
    here.change(stage="canary", release="2")
    marks = tmp_path / "marks"
    more = ("--exec", f"sh -c 'echo $DECISIONOS_STAGE >> {marks}'") if command else ()

    def until(stage):
        end = time.monotonic() + 30
        while not (marks.exists() and marks.read_text().endswith(f"{stage}\n")):
            assert time.monotonic() < end, process.poll()
            time.sleep(0.02)

    with open("/dev/full", "w") as full, watching(here, *more, stdout=full) as process:
        if command:
            until("canary")
            here.change(stage="abort")
            until("abort")
            process.terminate()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == (0 if command else 4)
    note = "note: what was done cannot be printed: No space left on device\n"
    error = "error: No space left on device → see where standard output goes\n"
    assert errors == (note * 2 if command else error)


@pytest.mark.slow
def test_a_command_that_runs_ends_with_it(here, tmp_path):
    here.dosctl("init")
    marks = tmp_path / "marks"
    command = f"sh -c 'while :; do (echo x; sleep 0.02) >> {marks}; done'"
    with watching(here, "--exec", command) as process:
        until = time.monotonic() + 60
        while not (marks.exists() and marks.read_text()) and time.monotonic() < until:
            time.sleep(0.02)
        process.terminate()
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
    before = marks.read_text()
    assert before
    time.sleep(0.3)
    assert marks.read_text() == before


@pytest.mark.parametrize("command", ["", "show", "verify", "init", "reconcile", "watch"])
def test_help_has_an_example(here, command):
    status, out, _ = here.dosctl(*command.split(), "--help")
    assert status == 0
    assert "Example" in out
    if command:
        assert "--json" in out


@pytest.mark.slow
def test_evidence_is_built_for_the_step_that_the_stage_says(here):
    """A canary's warm-up counts from its step, which is not where its first row stands."""
    end = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=10)
    write_sample(here.root / "log", seed=7, scenario="healthy", end=end)
    latest = here.root / "evidence/latest.json"
    here.keys(KEY, {**KEY, "key_id": "e1", "use": ["evidence"]})

    def built(*args):
        assert run(cli, ["evidence", "build", *args]) == 0
        return datetime.fromisoformat(json.loads(latest.read_text())["canary"]["step_start"])

    assert here.dosctl("init", "--release", "1.4.1")[0] == 0
    first = built()
    assert first < end - timedelta(minutes=20)
    since = end - timedelta(minutes=15)
    here.change(stage="canary", release=RELEASE)
    here.change(pct=5, since=since)
    assert built() == since
    other = end - timedelta(minutes=12)
    assert built("--step-start", other.isoformat()) == other
    here.change(stage="abort")
    assert built() == first


def test_mirrored_requests_are_the_canary_while_the_stage_is_in_shadow(here, capsys):
    now = datetime.now(UTC).replace(microsecond=0)
    rows = [
        {
            "ts": (now - timedelta(seconds=1900 - i)).isoformat(),
            "status": 200,
            "latency_ms": 100 + i % 40,
        }
        for i in range(1800)
    ]
    log = here.root / "log/reqlog.jsonl"  # what the nginx adapter writes
    log.parent.mkdir(parents=True, exist_ok=True)
    sides = [{"variant": "control", "release": "1.4.1"}, {"variant": "shadow", "release": RELEASE}]
    log.write_text("".join(f"{json.dumps(row | side)}\n" for row in rows for side in sides))
    here.keys(KEY, {**KEY, "key_id": "e1", "use": ["evidence"]})

    def built(*args):
        assert run(cli, ["evidence", "build", "--guardband", "0", *args]) == 0
        found = json.loads((here.root / "evidence/latest.json").read_text())
        assert found["perf"]["count"] == 1800
        return found["witness"]["harvest"]["shadow"], found["canary"]["canary_perf"]["count"]

    assert here.dosctl("init", "--release", "1.4.1")[0] == 0
    assert built() == (False, 0)
    assert built("--shadow") == (True, 1800)
    here.change(stage="canary", release=RELEASE, since=now - timedelta(seconds=1000))
    shadow, count = built()
    assert shadow
    assert 800 <= count <= 900
    assert built("--no-shadow") == (False, 0)
    here.change(pct=5, since=now - timedelta(seconds=900))
    assert built() == (False, 0)
    assert run(cli, ["evidence", "build", "--shadow"]) == 4
    said = "error: --shadow: a canary with users is not measured by copies; found 5 %; expected a stage at 0 %\n"
    assert capsys.readouterr().err == said
