"""pytest's reports, read and made: the final word on a test, dissent, and the decision's own case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from pytest_decisionos.errors import shown
from pytest_decisionos.judge.fold import TestReport
from pytest_decisionos.model.decision import Decision, Verdict
from pytest_decisionos.model.outcome import Status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from pytest_decisionos.model.decision import SloDecision

STATUS: Final = "decisionos-status"
"""Name of the user property that says what a failed vote's outcome was."""
DECISION_ID: Final = "release-gate::decision"
Subject = list[str | None]
"""SLO, rule, judge and check that a test is about: plain JSON, so that it crosses to the controller."""
NO_SUBJECT: Final[Subject] = [None, None, None, None]


def final(
    nodeid: str, phases: dict[str, pytest.TestReport], subject: Subject | None
) -> TestReport | None:
    """The final word of a test's phases; None while it has none (it did not end)."""
    slo, rule, judge, check = subject or NO_SUBJECT
    base = TestReport(nodeid, Status.SUCCESSFUL, slo=slo, rule=rule, judge=judge, check=check)
    for when in ("setup", "call", "teardown", "???"):
        report = phases.get(when)
        if report is None:
            continue
        if report.failed:
            stated = [str(value) for name, value in report.user_properties if name == STATUS]
            status = (
                Status(stated[-1]) if stated else Status.FAILED if when == "call" else Status.ERROR
            )
            cause = "failed" if when == "call" else "crashed" if when == "???" else f"{when}_failed"
            return base._replace(
                status=status,
                cause=cause,
                message=f"{shown(nodeid, 300)}: {shown(_first_line(report), 300)}",
            )
        if report.skipped or hasattr(report, "wasxfail"):
            cause = "xfailed" if hasattr(report, "wasxfail") else "skipped"
            return base._replace(
                status=Status.ERROR, cause=cause, message=f"{shown(nodeid, 300)} was {cause}"
            )
        if not report.passed:
            return base._replace(
                status=Status.ERROR,
                cause="unknown_report",
                message=f"{shown(nodeid, 300)}: {report.outcome}",
            )
    return base if "call" in phases and "teardown" in phases else None


def _first_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr).strip().partition("\n")[0]


def lacking(
    expected: set[str], reports: Sequence[TestReport], found: Decision, files: Iterable[str]
) -> list[str]:
    """Why a run is partial, in words.

    Args:
        expected: node ids that were collected.
        reports: of the tests that came to their end.
        found: what the judges found; each of its outcomes needs a test that reported it.
        files: the gate test files that are there; each needs a test that was collected.
    """
    told = {(r.slo, r.rule, r.judge) for r in reports if r.rule and r.judge}
    checked = {r.check for r in reports if r.check}
    untested = [
        f"{slo.slo}::{outcome.id}@{ballot.judge}"
        for slo in found.slos
        for ballot in slo.ballots
        for outcome in ballot.outcomes
        if (slo.slo, outcome.id, ballot.judge) not in told
    ] + [check.id for check in found.checks if check.id not in checked]
    silent = expected - {report.nodeid for report in reports}
    collected = {nodeid.partition("::")[0] for nodeid in expected}
    return [
        f"{len(names)} {what}: {_some(names)}"
        for names, what in (
            (silent, f"of {len(expected)} collected tests have no final report"),
            (untested, "outcomes were reported by no test"),
            (set(files) - collected, "gate files gave no test"),
        )
        if names
    ]


def _some(names: Collection[str]) -> str:
    return ", ".join(shown(name, 100) for name in sorted(names)[:3]) + (
        " …" if len(names) > 3 else ""
    )


def outvoted(subject: Subject, slos: dict[str, SloDecision]) -> bool:
    """Whether every SLO that a vote is about came to GO all the same."""
    about = [slos[subject[0]]] if subject[0] in slos else list(slos.values())
    return all(slo.verdict is Verdict.GO for slo in about) and any(subject)


def as_dissent(report: pytest.TestReport, subject: Subject) -> None:
    """Turn a held failure into what pytest shows as an expected one: the quorum outvoted it."""
    report.outcome = "skipped"
    report.wasxfail = f"dissent: judge {subject[2]} was outvoted"


def decision_report(decision: Decision) -> pytest.TestReport:
    """The case ``release-gate::decision``, which every JUnit file has."""
    go = decision.verdict is Verdict.GO
    first = next((reason for reason in decision.reasons if not reason.outvoted), None)
    why = (
        decision.partial[0]
        if decision.partial
        else f"{first.code}: {first.message}"
        if first
        else ""
    )
    text = f"{decision.verdict}, {decision.action}: {shown(why, 400)}"
    return pytest.TestReport(
        nodeid=DECISION_ID,
        location=("release-gate", None, "decision"),
        keywords={},
        outcome="passed" if go else "failed",
        longrepr=None if go else text,
        when="call",
    )
