"""GitHub Actions: commands that stay one command, and files that no value can break out of."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_cases import DECISIONS, WANTED, hostile_text, large, outputs, poisoned, runner_command

from pytest_decisionos.errors import UsageError
from pytest_decisionos.report.comment import MARKER
from pytest_decisionos.report.github import (
    MAX_SUMMARY_BYTES,
    annotations,
    command,
    report_github,
    write_output,
    write_step_summary,
)

KINDS = {"GO": "notice", "HOLD": "warning", "NO-GO": "error"}


@pytest.mark.parametrize("name", DECISIONS)
def test_the_verdict_comes_first(name):
    kind, props, data = runner_command(annotations(DECISIONS[name])[0])
    verdict, action = WANTED[name].split()
    assert (kind, props["title"]) == (KINDS[verdict], f"Release gate: {verdict}")
    assert data.startswith(f"{verdict}, action {action}: checkout/production/eu-1/all, release ")


def test_details_are_the_reasons():
    kind, props, data = runner_command(annotations(DECISIONS["slow"])[1])
    assert (kind, props["title"]) == ("error", "judge_infra.latency.p95:over")
    assert "evidence, 증인: 1,260 ms is not <= 1,200 ms" in data
    kind, props, data = runner_command(annotations(DECISIONS["go-dissent"])[1])
    assert (kind, props["title"]) == ("warning", "judge_infra.latency.p95:over")
    assert "partial: 3 tests were deselected" in annotations(DECISIONS["partial"])[0]


def test_at_most_ten():
    lines = annotations(large(DECISIONS["error"], 50))
    assert len(lines) == 10
    total = len(DECISIONS["error"].reasons) * 50
    assert runner_command(lines[-1]) == (
        "notice",
        {"title": "Release gate"},
        f"... and {total - 8} more reasons",
    )
    nine = DECISIONS["error"].model_copy(update={"reasons": (DECISIONS["error"].reasons * 9)[:9]})
    assert len(annotations(nine)) == 10
    assert "more reasons" not in annotations(nine)[-1]


@given(title=st.text(), message=st.text())
def test_a_command_is_read_back_as_it_was_meant(title, message):
    line = command("error", title, message)
    assert "\n" not in line
    assert "\r" not in line
    assert runner_command(line) == ("error", {"title": title}, message)


@given(name=st.sampled_from(sorted(DECISIONS)), text=hostile_text())
@settings(max_examples=60, deadline=None)
def test_hostile_text_stays_data(name, text):
    lines = annotations(poisoned(DECISIONS[name], text))
    assert 1 <= len(lines) <= 10
    for line in lines:
        assert line.isprintable()
        assert line.encode()
        assert "##[" not in line
        assert runner_command(line)[0] in {"error", "warning", "notice"}
    assert runner_command(lines[0])[1]["title"] == f"Release gate: {WANTED[name].split()[0]}"


@given(name=st.sampled_from(sorted(DECISIONS)), text=hostile_text())
@settings(max_examples=40, deadline=None)
def test_no_value_injects_an_output(name, text, tmp_path_factory):
    path = tmp_path_factory.mktemp("out") / "output"
    path.write_bytes(b"earlier=1\n")
    write_output(poisoned(DECISIONS[name], text), path)
    data = path.read_bytes().decode().removeprefix("earlier=1\n")
    found = outputs(data)
    verdict, action = WANTED[name].split()
    assert (found["verdict"], found["action"]) == (verdict, action)
    assert found["exit_code"] == {"GO": "0", "NO-GO": "1", "HOLD": "10"}[verdict]
    assert set(found) == {
        "verdict",
        "action",
        "decision_id",
        "target",
        "phase",
        "release",
        "evidence_sha256",
        "evidence_digest",
        "exit_code",
        "partial",
    }
    assert len(data.split("\n")) == 3 * len(found) + 1


def test_outputs_tell_the_decision(tmp_path):
    write_output(DECISIONS["partial"], tmp_path / "out")
    found = outputs((tmp_path / "out").read_text())
    assert found["partial"] == "true"
    assert found["decision_id"] == DECISIONS["partial"].decision_id
    assert found["target"] == "checkout/production/eu-1/all"
    write_output(DECISIONS["foreign"], tmp_path / "other")
    assert outputs((tmp_path / "other").read_text())["release"] == ""


def test_summary_is_appended_and_never_over_a_mebibyte(tmp_path):
    path = tmp_path / "summary.md"
    path.write_text("# earlier")
    write_step_summary(DECISIONS["slow"], path)
    text = path.read_text()
    assert text.startswith(f"# earlier\n{MARKER}\n## ")
    path.write_bytes(b"x" * (MAX_SUMMARY_BYTES - 100))
    with pytest.raises(UsageError, match="no room for the decision"):
        write_step_summary(DECISIONS["slow"], path)
    assert path.stat().st_size == MAX_SUMMARY_BYTES - 100


def test_nothing_outside_github(tmp_path):
    environ = {"GITHUB_STEP_SUMMARY": str(tmp_path / "s"), "GITHUB_OUTPUT": str(tmp_path / "o")}
    assert report_github(DECISIONS["slow"], environ) == []
    assert report_github(DECISIONS["slow"], environ | {"GITHUB_ACTIONS": "false"}) == []
    assert list(tmp_path.iterdir()) == []


def test_everything_under_github(tmp_path):
    environ = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "s"),
        "GITHUB_OUTPUT": str(tmp_path / "o"),
    }
    assert report_github(DECISIONS["slow"], environ) == annotations(DECISIONS["slow"])
    assert MARKER in (tmp_path / "s").read_text()
    assert outputs((tmp_path / "o").read_text())["verdict"] == "NO-GO"
    assert report_github(DECISIONS["slow"], {"GITHUB_ACTIONS": "true"}) == annotations(
        DECISIONS["slow"]
    )


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for summary, output in [
        (tmp_path, tmp_path / "no/such"),
        (tmp_path / "pipe", "a\x00b"),
        ("/dev/null", "/dev/full"),
    ]:
        environ = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_STEP_SUMMARY": str(summary),
            "GITHUB_OUTPUT": str(output),
        }
        lines = report_github(large(DECISIONS["slow"], 50), environ)
        assert len(lines) == 10
        assert runner_command(lines[0])[1]["title"] == "Release gate: NO-GO"
        assert [runner_command(line)[1]["title"] for line in lines[-2:]] == [
            "Release gate: GITHUB_STEP_SUMMARY",
            "Release gate: GITHUB_OUTPUT",
        ]
        assert all(line.isprintable() for line in lines)
