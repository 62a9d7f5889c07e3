"""The files: whole or not there, all of one story, and none left of a story that is over."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_cases import (
    DECISIONS,
    WANTED,
    hostile_text,
    poisoned,
    runner_command,
    verdict_in_comment,
    verdict_in_junit,
    verdict_in_terminal,
)

from pytest_decisionos.errors import UsageError
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.decision import Decision
from pytest_decisionos.report.github import annotations
from pytest_decisionos.report.publish import decision_json, publish, withdraw
from pytest_decisionos.report.terminal import summary_lines


@pytest.mark.parametrize("name", DECISIONS)
def test_every_format_tells_the_same_verdict(name, tmp_path):
    decision = DECISIONS[name]
    folder = tmp_path / "var/gate"
    assert publish(decision, folder, write_decision=True) == [
        folder / n for n in ("junit.xml", "comment.md", "decision.json")
    ]
    stored = Decision.model_validate_json((folder / "decision.json").read_bytes())
    assert stored == decision
    assert (folder / "decision.json").read_text().startswith('{\n  "version": "1"')
    title = runner_command(annotations(decision)[0])[2].partition(":")[0].replace(", action", "")
    assert {
        f"{stored.verdict} {stored.action}",
        verdict_in_junit((folder / "junit.xml").read_bytes()),
        verdict_in_comment((folder / "comment.md").read_text()),
        verdict_in_terminal(summary_lines(decision, artifacts=[])),
        title,
    } == {WANTED[name]}
    assert sorted(path.name for path in folder.iterdir()) == [
        "comment.md",
        "decision.json",
        "junit.xml",
    ]


def test_a_partial_run_writes_no_decision_and_takes_the_earlier_one_away(tmp_path):
    publish(DECISIONS["go"], tmp_path, write_decision=True)
    assert publish(DECISIONS["partial"], tmp_path, write_decision=False) == [
        tmp_path / "junit.xml",
        tmp_path / "comment.md",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comment.md", "junit.xml"]
    assert verdict_in_junit((tmp_path / "junit.xml").read_bytes()) == "NO-GO wait"


def test_a_write_that_fails_leaves_no_decision(tmp_path):
    publish(DECISIONS["go"], tmp_path, write_decision=True)
    (tmp_path / "comment.md").unlink()
    (tmp_path / "comment.md").mkdir()
    with pytest.raises(UsageError, match=r"comment\.md: cannot be written"):
        publish(DECISIONS["slow"], tmp_path, write_decision=True)
    assert not (tmp_path / "decision.json").exists()


def test_withdraw_removes_what_there_is(tmp_path):
    withdraw(tmp_path / "no such folder")
    publish(DECISIONS["go"], tmp_path, write_decision=True)
    (tmp_path / "history.jsonl").write_text("kept")
    withdraw(tmp_path)
    withdraw(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]


def test_withdraw_removes_a_link_and_not_what_it_points_to(tmp_path):
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "decision.json").symlink_to(tmp_path / "elsewhere")
    withdraw(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_what_cannot_be_removed_is_one_line(tmp_path):
    (tmp_path / "decision.json").mkdir()
    with pytest.raises(UsageError, match=r"decision\.json: cannot be removed"):
        withdraw(tmp_path)
    with pytest.raises(UsageError, match="not a file name"):
        withdraw(tmp_path / "a\x00b")


@given(name=st.sampled_from(sorted(DECISIONS)), text=hostile_text())
@settings(max_examples=40, deadline=None)
def test_hostile_text_gives_json_that_can_be_read_back(name, text):
    data = decision_json(poisoned(DECISIONS[name], text))
    document = strict_json.loads(data, max_bytes=10**9)
    assert f"{document['verdict']} {document['action']}" == WANTED[name]
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert document["decision_id"] == text


def test_a_file_name_that_is_not_utf8(tmp_path):
    name = os.fsdecode(b"evidence-\xff.json")
    file = DECISIONS["go"].evidence.model_copy(update={"file": name})
    publish(DECISIONS["go"].model_copy(update={"evidence": file}), tmp_path, write_decision=True)
    stored = json.loads((tmp_path / "decision.json").read_bytes())
    assert stored["evidence"]["file"] == r"evidence-\udcff.json"
    assert r"evidence-\udcff.json" in (tmp_path / "comment.md").read_text().replace("&#92;", "\\")
