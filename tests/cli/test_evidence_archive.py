"""dosctl evidence index and gc, and the jobs of these names: exit codes, tables, JSON."""

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from seeded import from_seed

from pytest_decisionos.cli.main import cli, run
from pytest_decisionos.trust import ed25519

KEY = from_seed(b"index key of tests".ljust(32, b"."))
TARGET = {"service": "checkout", "environment": "production", "region": "eu-1", "tenant": "all"}


@pytest.fixture
def at(tmp_path, monkeypatch):
    """A folder with var/evidence and configs/, to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECISIONOS_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "var/evidence").mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    return tmp_path


def put(at, name, *, days=0, target=TARGET):
    path = at / "var/evidence" / name
    path.write_text(json.dumps({"meta": {"target": target, "release": "v1"}, "n": name}))
    moment = time.time() - days * 86400
    os.utime(path, (moment, moment))
    return path


@pytest.fixture
def dosctl(at, capsys):
    def call(*args):
        status = run(cli, ["evidence", *map(str, args)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        if "--json" in args:
            return status, json.loads(out) if out else err
        assert all(len(line) <= 80 for line in out.splitlines() if "evidence/" not in line), out
        return status, out + err

    return call


def trust_file(at, *, role="index", targets="*/*/*/*"):
    ed25519.write_private(at / "keys/index.key", KEY)
    key = {"keyid": KEY.keyid, "role": role, "public_key": KEY.public.pem, "targets": [targets]}
    expires = (datetime.now(UTC) + timedelta(days=9)).isoformat()
    path = at / "trust.json"
    path.write_text(json.dumps({"version": 1, "expires": expires, "keys": [key]}))
    return path


def gate_file(at):
    labels = {"*": "reason:other"}
    (at / "configs/labels.json").write_text(json.dumps(labels))
    (at / "configs/s.json").write_text(json.dumps({"latency": {"max_p95_ms": 9}}))
    gate = {
        "version": 1,
        "target": TARGET,
        "judges": [{"id": "evidence", "source": "evidence"}],
        "phases": {"cutover": {"slos": ["s.json"]}},
    }
    (at / "configs/gate.yaml").write_text(yaml.safe_dump(gate))


def test_index_and_verify_without_a_key(at, dosctl):
    put(at, "latest.json")
    status, said = dosctl("index")
    assert status == 0
    assert "taken up:  1 new, 0 changed, 0 no longer there" in said
    assert "unsigned" in said
    status, said = dosctl("index", "--verify")
    assert (status, "unsigned" in said, "faults: 0" in said) == (0, True, True)
    put(at, "한글 \n.json")
    (at / "var/evidence/latest.json").write_text("{}")
    status, said = dosctl("index", "--verify")
    assert status == 2
    assert "changed      evidence/latest.json:1\n        | was changed since" in said
    assert "added        evidence/한글 \\n.json" in said
    status, told = dosctl("index", "--verify", "--json")
    assert status == 2
    assert [fault["cause"] for fault in told["faults"]] == ["changed", "added"]
    assert (told["verified"], told["entries"], told["documents"]) == (True, 1, 2)
    assert dosctl("index", "--json")[1]["changed"] == 1


def test_signed_and_verified_with_a_trust_file(at, dosctl):
    trust = trust_file(at)
    put(at, "a.locked.json")
    status, said = dosctl("index", "--keys", "keys")
    assert (status, KEY.keyid in said, "unsigned" in said) == (0, True, False)
    assert "not checked: no trust file" in dosctl("index", "--verify")[1]
    status, said = dosctl("index", "--verify", "--trust", trust)
    assert (status, "signed by a key that counts" in said) == (0, True)
    put(at, "b.json")
    status, said = dosctl("index")
    assert status == 2
    assert "the key is not here" in said
    put(at, "a.locked.json", days=1).write_text("{}")
    status, said = dosctl("index", "--keys", "keys")
    assert status == 2
    assert "evidence/a.locked.json" in said


def test_the_target_of_gate_yaml_is_the_one_that_counts(at, dosctl):
    trust = trust_file(at)
    staging = {**TARGET, "environment": "staging"}
    put(at, "a.json", target=staging)
    assert dosctl("index", "--keys", "keys")[0] == 0
    assert dosctl("index", "--verify", "--trust", trust)[0] == 0
    gate_file(at)
    status, said = dosctl("index", "--verify", "--trust", trust)
    assert status == 2
    assert "\nwrong_target evidence/index.head.json\n" in said
    status, said = dosctl("index", "--keys", "keys")
    assert (status, "about another target" in said) == (2, True)
    status, told = dosctl("gc", "--trust", trust, "--json")
    assert (status, told["items"][0]["cause"]) == (2, "index")


def test_a_broken_index_is_named(at, dosctl):
    put(at, "a.json")
    dosctl("index")
    path = at / "var/evidence/index.jsonl"
    path.write_bytes(path.read_bytes().replace(b"v1", b"v2"))
    for args in (("index",), ("index", "--verify")):
        status, said = dosctl(*args)
        assert status == 2
        assert "changed      evidence/index.jsonl:1" in said


def test_many_faults_are_told_in_part(at, dosctl):
    for number in range(120):
        put(at, f"{number}.json")
    status, said = dosctl("index", "--verify")
    assert (status, "… and 21 more, which --json tells" in said) == (2, True)
    assert len(dosctl("index", "--verify", "--json")[1]["faults"]) == 121


def test_entries_made_again_are_noted(at, dosctl):
    put(at, "a.json")
    dosctl("index")
    head = (at / "var/evidence/index.head.json").read_bytes()
    put(at, "b.json")
    dosctl("index")
    (at / "var/evidence/index.head.json").write_bytes(head)
    assert "made again: 1 entries that no head covered" in dosctl("index")[1]


def test_gc_is_a_dry_run_unless_told(at, dosctl):
    (at / "configs/evidence.yaml").write_text("retention: {wip_days: 10, keep_per_tenant: 1}")
    for days in (5, 20, 30):
        put(at, f"d{days}.json", days=days)
    size = (at / "var/evidence/d20.json").stat().st_size
    status, said = dosctl("gc")
    assert status == 0
    assert "delete   wip        expired     evidence/d20.json" in said
    assert "keep     wip        young       evidence/d5.json" in said
    assert f"kept: 1, to delete: 2, would free: {2 * size} bytes, faults: 0" in said
    assert "dry-run: nothing was deleted" in said
    assert "unsigned" in said
    assert len(list((at / "var/evidence").glob("d*.json"))) == 3
    status, told = dosctl("gc", "--apply", "--json")
    assert (status, told["deleted"], told["freed"], told["kept"]) == (0, 2, 2 * size, 1)
    assert told["items"][0] | {"sha256": ""} == {
        "path": "evidence/d20.json",
        "action": "delete",
        "cause": "expired",
        "reason": "not changed for 10 days",
        "tier": "wip",
        "tenant": "all",
        "release": "v1",
        "sha256": "",
        "freed": size,
    }
    assert [p.name for p in (at / "var/evidence").glob("d*.json")] == ["d5.json"]
    status, said = dosctl("gc", "--apply")
    assert (status, "deleted: 0, freed: 0 bytes" in said, "dry-run" in said) == (0, True, False)


@pytest.mark.parametrize("trusted", [True, False])
def test_an_index_that_gc_begins_says_what_it_is_about(at, dosctl, monkeypatch, trusted):
    trust = trust_file(at)
    monkeypatch.setenv("DECISIONOS_KEYS_DIR", "keys")
    if trusted:
        monkeypatch.setenv("DECISIONOS_TRUST", str(trust))
    gate_file(at)
    (at / "configs/evidence.yaml").write_text("retention: {wip_days: 10, keep_per_tenant: 0}")
    put(at, "old.json", days=20)
    put(at, "new.json")
    status, said = dosctl("gc", "--apply")
    assert (status, "deleted: 1" in said) == (0, True)
    monkeypatch.setenv("DECISIONOS_TRUST", str(trust))
    status, said = dosctl("index")
    assert (status, "taken up:  1 new" in said) == (0, True)
    status, said = dosctl("index", "--verify")
    assert (status, "signed by a key that counts" in said) == (0, True)
    status, said = dosctl("gc", "--apply")
    assert (status, "faults: 0" in said) == (0, True)


def test_gc_begins_no_signed_index_about_nothing(at, dosctl):
    trust = trust_file(at)
    (at / "configs/evidence.yaml").write_text("retention: {wip_days: 10, keep_per_tenant: 0}")
    old = put(at, "old.json", days=20)
    status, said = dosctl("gc", "--apply", "--keys", "keys", "--trust", trust)
    assert (status, len(said.splitlines())) == (2, 1)
    assert "dosctl evidence index" in said
    assert old.exists()
    assert not (at / "var/evidence/index.jsonl").exists()
    assert dosctl("index", "--keys", "keys", "--trust", trust)[0] == 0
    assert dosctl("gc", "--apply", "--keys", "keys", "--trust", trust)[0] == 0
    assert not old.exists()


def test_gc_of_an_empty_folder_and_of_a_changed_locked_document(at, dosctl):
    assert "kept: 0, to delete: 0" in dosctl("gc")[1]
    path = put(at, "a.locked.json")
    dosctl("index")
    path.write_text("{}")
    status, said = dosctl("gc")
    assert status == 2
    assert "changed      evidence/a.locked.json" in said


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("index", "--root", "none"), "no such folder"),
        (("index", "--verify", "--root", "none"), "no such folder"),
        (("gc", "--root", "none"), "no such folder"),
        (("index", "--verify", "--trust", "none.json"), "none.json"),
        (("index", "--keys", "loose"), "others may use this secret"),
        (("gc",), "unknown field"),
        (("index",), "unknown field"),
        (("gc", "--nonsense"), "No such option"),
    ],
)
def test_unusable_is_one_line_and_exit_4(at, dosctl, args, says):
    if says == "unknown field":
        (at / "configs/evidence.yaml").write_text("retention: {wip_day: 1}")
    ed25519.write_private(at / "loose/index.key", KEY)
    (at / "loose/index.key").chmod(0o644)
    status, said = dosctl(*args)
    assert (status, len(said.splitlines())) == (4, 1)
    assert says in said


@pytest.mark.slow
def test_the_jobs(project):
    for job, *args in (
        ["jobs.evidence_index"],
        ["jobs.evidence_index", "--verify"],
        ["jobs.evidence_gc"],
        ["jobs.evidence_gc", "--apply"],
    ):
        result = project.run(job, *args, PYTHONPATH=os.getcwd())
        assert result.returncode == 0, result.stderr
        assert "unsigned" in result.stdout
    for command in ("index", "gc"):
        result = project.dosctl("evidence", command, "--help")
        assert "Example" in result.stdout
        assert max(map(len, result.stdout.splitlines())) <= 90
