"""The audit journal: who, what, why, and what it was allowed by."""

from __future__ import annotations

import getpass
import json
import os
from datetime import datetime, timedelta, timezone

import pytest

from pytest_decisionos.errors import JournalError
from pytest_decisionos.release import audit
from pytest_decisionos.release.audit import FILE, AuditEntry, StageAt, actor_of, record, used
from pytest_decisionos.release.stage import Reading
from pytest_decisionos.trust import journal

NOW = datetime(2026, 1, 15, 21, 0, tzinfo=timezone(timedelta(hours=9)))
A, B = "a" * 64, "b" * 64


def entry(**more):
    made = {"time": NOW, "actor": "민수", "command": "step", "allowed": True, "code": "go"}
    return AuditEntry(**(made | more))


def test_what_is_written(tmp_path):
    said = record(
        tmp_path,
        entry(
            scope="deploy:promote",
            why="모두 통과",
            from_=StageAt(stage="canary", pct=5, seq=3),
            to=StageAt(stage="canary", pct=25, seq=4),
            release="2",
            decision_sha256=A,
            decision_id="d1",
            override=("op1", "op2"),
        ),
    )
    assert said == ""
    assert record(tmp_path, entry(allowed=False, code="denied")) == ""
    first, second = map(json.loads, (tmp_path / FILE).read_text().splitlines())
    assert first == {
        "time": "2026-01-15T12:00:00.000Z",
        "actor": "민수",
        "scope": "deploy:promote",
        "command": "step",
        "allowed": True,
        "code": "go",
        "why": "모두 통과",
        "from": {"stage": "canary", "pct": 5.0, "seq": 3},
        "to": {"stage": "canary", "pct": 25.0, "seq": 4},
        "release": "2",
        "decision_sha256": A,
        "decision_id": "d1",
        "override": ["op1", "op2"],
        "seq": 1,
        "prev": journal.START,
    }
    assert (second["allowed"], second["from"], second["to"], second["seq"]) == (
        False,
        None,
        None,
        2,
    )
    assert journal.read(tmp_path / FILE).fault is None


def test_no_record_is_too_long_or_too_strange_to_be_written(tmp_path):
    text = "\ud800\x1b[31m\n" + "x" * 100_000
    assert (
        record(tmp_path, entry(actor=text, why=text, command=text, code=text, release=text)) == ""
    )
    (line,) = journal.read(tmp_path / FILE).entries
    assert len(line["why"]) < 2100
    assert "\\ud800" in line["why"]


def test_a_stage_as_the_journal_names_it():
    reading = Reading(None, None, "torn", "x")
    assert audit.at(reading) == StageAt(stage="stable", pct=0, seq=0)


VARIABLES = {"DECISIONOS_ACTOR", *audit.CI_VARIABLES}


@pytest.fixture
def _nobody(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_nobody")
def test_who_it_was(monkeypatch):
    assert actor_of("") == getpass.getuser()
    for name in reversed(audit.CI_VARIABLES):
        monkeypatch.setenv(name, f"by {name}")
        assert actor_of("  ") == f"by {name}"
    assert actor_of("민수") == "민수"
    assert actor_of("a\nb") == "a\\nb"
    assert len(actor_of("x" * 1000)) == 200


@pytest.mark.usefixtures("_nobody")
@pytest.mark.parametrize("error", [KeyError, OSError])  # which it is depends on Python's version
def test_a_user_without_a_name(monkeypatch, error):
    def nameless():
        raise error

    monkeypatch.setattr(audit.getpass, "getuser", nameless)
    assert actor_of("") == f"uid {os.getuid()}"


def in_the_way(root):
    (root / FILE).mkdir(parents=True)


def no_folder(root):
    (root / "rollout").write_bytes(b"")


def tampered(root):
    for number in range(3):
        record(root, entry(code=f"{number}"))
    path = root / FILE
    path.write_bytes(path.read_bytes().replace(b'"code":"1"', b'"code":"7"'))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (in_the_way, "not a regular file"),
        (no_folder, "cannot be written"),
        (tampered, "line 3 does not follow"),
    ],
)
def test_why_it_is_not_written_is_said(tmp_path, spoil, says):
    spoil(tmp_path)
    assert says in record(tmp_path, entry())


def test_a_fault_of_the_system_is_said_too(tmp_path, monkeypatch):
    def broken(_path, **_how):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(audit, "open_journal", broken)
    assert "Input/output error" in record(tmp_path, entry())


def test_whether_a_decision_was_used(tmp_path):
    assert not used(tmp_path, A)  # no journal: nothing was changed
    record(tmp_path, entry())
    record(tmp_path, entry(allowed=False, decision_sha256=A))  # refused: not used up
    assert not used(tmp_path, A)
    record(tmp_path, entry(decision_sha256=A))
    record(tmp_path, entry())
    assert used(tmp_path, A)
    assert not used(tmp_path, B)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes() + b'{"decision_sha256":"' + B.encode())  # a crash
    assert used(tmp_path, A)
    assert not used(tmp_path, B)


@pytest.mark.parametrize("spoil", [in_the_way, tampered])
def test_nobody_can_tell_from_a_broken_journal(tmp_path, spoil):
    spoil(tmp_path)
    with pytest.raises(JournalError):
        used(tmp_path, A)
