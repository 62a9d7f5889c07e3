"""One pytest run of a gate: what is expected, what was reported, and the decision of both.

Registered as a pytest plugin only once a run turns out to have gates. On an xdist controller it
sees every report that a worker logs, and takes over those that workers hold back.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import pytest
from _pytest.runner import runtestprotocol

from pytest_decisionos.checks.run import with_checks
from pytest_decisionos.errors import DecisionOSError
from pytest_decisionos.gate_reports import (
    DECISION_ID,
    NO_SUBJECT,
    STATUS,
    Subject,
    as_dissent,
    decision_report,
    final,
    lacking,
    outvoted,
)
from pytest_decisionos.gate_tests import Check, GateFailure, Judge
from pytest_decisionos.judge.decide import GateInputs, decide
from pytest_decisionos.judge.fold import fold
from pytest_decisionos.judge.gather import gather
from pytest_decisionos.judge.rules import expand
from pytest_decisionos.judge.view import View
from pytest_decisionos.model.decision import Verdict
from pytest_decisionos.model.evidence import Evidence
from pytest_decisionos.plugin import OURS, gate_files, request_of, root_of
from pytest_decisionos.report.github import report_github, run_url
from pytest_decisionos.report.publish import publish, tell_reporters, withdraw
from pytest_decisionos.report.terminal import summary_lines

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from _pytest.terminal import TerminalReporter

    from pytest_decisionos.model.decision import Decision
    from pytest_decisionos.model.outcome import Outcome
    from pytest_decisionos.model.policy import Rule, Slo

WIRE: Final = "decisionos"
"""Key of what controller and workers of pytest-xdist send each other, and of a test's subject."""


class GateRun:
    """The state of one gate run, in one process."""

    def __init__(self, config: pytest.Config, worker: bool) -> None:
        self._config = config
        self._worker = worker
        self._folder = root_of(config) / "gate"
        self._has_gates = False
        self._expected: set[str] = set()
        self._phases: dict[str, dict[str, pytest.TestReport]] = {}
        self._subjects: dict[str, Subject] = {}
        self._held: list[list[pytest.TestReport]] = []
        self._decision: Decision | None = None

    def _is_a_gate(self) -> None:
        """This run has gates: an earlier decision ends here, whatever becomes of this one."""
        if not self._has_gates:
            self._has_gates = True
            withdraw(self._folder)

    # What is judged

    def begin(self) -> None:
        """Gather before anything is collected, so that unusable input is one line and exit 4."""
        try:
            self._is_a_gate()
            self.found  # noqa: B018 - gathers, and decides
        except DecisionOSError as fault:
            raise pytest.UsageError(str(fault)) from None

    @cached_property
    def inputs(self) -> GateInputs:
        """What the decision is made from; a worker has it from the controller."""
        handed = getattr(self._config, "workerinput", {}).get(WIRE)
        if handed:
            return GateInputs.model_validate_json(handed)
        request = request_of(self._config)
        inputs = gather(request)
        checks = request.loaded_gate.phase(request.phase).check_list()
        return with_checks(inputs, checks, request.root)

    @cached_property
    def found(self) -> Decision:
        """What the judges find, before any test has said a word."""
        return decide(self.inputs)

    @cached_property
    def outcomes(self) -> dict[tuple[str, str, str], Outcome]:
        """SLO, rule id and judge → outcome; nothing where the judge abstains."""
        return {
            (slo.slo, outcome.id, ballot.judge): outcome
            for slo in self.found.slos
            for ballot in slo.ballots
            for outcome in ballot.outcomes
        }

    @cached_property
    def rules(self) -> list[tuple[Slo, Rule]]:
        """Every rule of every SLO, groups spelled out; sorted by SLO and id."""
        sealed = View(self.inputs.blocks, source="", integrity=None, now=self.inputs.now)
        return [
            (gated.slo, rule)
            for gated in self.inputs.slos
            for rule in sorted(expand(gated.slo.rules, sealed), key=lambda rule: rule.id)
        ]

    @cached_property
    def _slo_names(self) -> dict[int, str]:
        return {id(rule): slo.stem for slo, rule in self.rules}

    def slo_of(self, rule: Rule) -> str:
        """The SLO of a rule that a test was given."""
        return self._slo_names[id(rule)]

    def abstention(self, rule: Rule, judge: str) -> str:
        """Why ``judge`` has no vote on the SLO of ``rule``."""
        name = self.slo_of(rule)
        return next(
            ballot.reason
            for slo in self.found.slos
            if slo.slo == name
            for ballot in slo.ballots
            if ballot.judge == judge
        )

    @cached_property
    def evidence(self) -> Evidence:
        """The evidence that is judged."""
        return Evidence(self.inputs.evidence.file, self.inputs.evidence.sha256, self.inputs.blocks)

    @cached_property
    def _judges(self) -> list[Judge]:
        return [Judge(self, judge.id) for judge in self.inputs.judges]

    # What is expected

    def parameters(self, taken: Sequence[str]) -> tuple[list[list[Any]], list[str]]:
        """The rows and ids for a test that takes the fixtures ``taken``, in their order.

        The product of what is taken: ``<slo>::<rule>@<judge>`` where all three are.
        """
        try:
            self._is_a_gate()
            return self._parameters(taken)
        except DecisionOSError as fault:
            raise pytest.Collector.CollectError(str(fault)) from None

    def _parameters(self, taken: Sequence[str]) -> tuple[list[list[Any]], list[str]]:
        if "rule" in taken:
            subjects = [
                ({"slo": slo, "rule": rule}, f"{slo.stem}::{rule.id}") for slo, rule in self.rules
            ]
        elif "slo" in taken:
            subjects = [({"slo": gated.slo}, gated.slo.stem) for gated in self.inputs.slos]
        else:
            subjects = [({}, "")]
        rows: list[tuple[dict[str, Any], str]] = subjects
        if "judge" in taken:
            rows = [
                ({**row, "judge": judge}, f"{name}@{judge.id}" if name else judge.id)
                for row, name in rows
                for judge in self._judges
            ]
        if "check" in taken:
            checks = [Check(outcome) for outcome in self.found.checks]
            rows = [
                ({**row, "check": check}, f"{name}:{check.id}" if name else check.id)
                for row, name in rows
                for check in checks
            ]
        return [[row[name] for name in taken] for row, _ in rows], [name for _, name in rows]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """Remember every test that was collected, before anybody removes one."""
        self._expected.update(item.nodeid for item in items)
        for item in items:
            subject = self._subject(item)
            if any(subject):
                item.user_properties.append((WIRE, subject))
        return (yield)

    def _subject(self, item: pytest.Item) -> Subject:
        """SLO, rule, judge and check that a test is about, as plain JSON."""
        spec = getattr(item, "callspec", None)
        given = {name: spec.params[name] for name in OURS if name in spec.params} if spec else {}
        judge, check = given.get("judge"), given.get("check")
        judge_id = judge.id if isinstance(judge, Judge) else None
        check_id = check.id if isinstance(check, Check) else None
        rule = given.get("rule")
        slo_name = self._slo_names.get(id(rule)) if rule is not None else None
        if slo_name is None and given.get("slo") is not None:
            slo_name = getattr(given["slo"], "stem", None)
        return [slo_name, rule.id if rule is not None and slo_name else None, judge_id, check_id]

    # What is reported

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        """Run a vote: a pass is logged at once, a failure is held until the quorum is known."""
        subject = next((value for name, value in item.user_properties if name == WIRE), None)
        if not isinstance(subject, list) or subject[OURS.index("judge")] is None:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if any(report.failed for report in reports):
            self._held.append(reports)
            for report in reports:
                self._note(report)
        else:
            for report in reports:
                item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Say with the report what the judged outcome was: a failed test may mean inconclusive."""
        report = yield
        if call.excinfo is not None and isinstance(call.excinfo.value, GateFailure):
            report.user_properties.append((STATUS, call.excinfo.value.status.value))
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of every report of the run; under xdist they all come to the controller."""
        self._note(report)

    def _note(self, report: pytest.TestReport) -> None:
        if report.nodeid == DECISION_ID:
            return
        phases = self._phases.setdefault(report.nodeid, {})
        # A test that reports a phase twice (a rerun) is believed only when it says no.
        before = phases.get(report.when)
        if before is None or before.passed:
            phases[report.when] = report
        for name, subject in report.user_properties:
            if name == WIRE and isinstance(subject, list) and len(subject) == len(OURS):
                self._subjects[report.nodeid] = subject

    # Controller and workers of pytest-xdist

    def hand_over(self, node: Any) -> None:
        """Give a worker what was gathered, if this run is known to have gates."""
        if self._has_gates:
            node.workerinput[WIRE] = self.inputs.model_dump_json()

    def _send(self) -> None:
        to_data = self._config.hook.pytest_report_to_serializable
        self._config.workeroutput[WIRE] = json.dumps(  # type: ignore[attr-defined] # xdist's
            {
                "expected": sorted(self._expected),
                "held": [
                    [to_data(config=self._config, report=r) for r in reports]
                    for reports in self._held
                ],
            }
        )

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker expected and held back; of a crashed one there is nothing."""
        handed = getattr(node, "workeroutput", {}).get(WIRE)
        if not handed:
            return
        self._is_a_gate()
        sent = json.loads(handed)
        self._expected.update(sent["expected"])
        from_data = self._config.hook.pytest_report_from_serializable
        for group in sent["held"]:
            reports = [from_data(config=self._config, data=data) for data in group]
            for report in reports:
                report.node = node
                self._note(report)
            self._held.append(reports)

    # The decision

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Once every test has run: the quorum across the reports, then the held ones go out."""
        try:
            return (yield)
        finally:
            if self._has_gates and self._worker:
                self._send()
            elif self._has_gates:
                self._conclude(session)

    def _conclude(self, session: pytest.Session) -> None:
        decision = self._decided([])
        if decision is None:
            return
        by_name = {slo.slo: slo for slo in decision.slos}
        for reports in self._held:
            subject = self._subjects.get(reports[0].nodeid, NO_SUBJECT)
            over = not decision.partial and outvoted(subject, by_name)
            for report in reports:
                if over and report.failed:
                    as_dissent(report, subject)
                session.config.hook.pytest_runtest_logreport(report=report)
        if not session.config.option.collectonly:
            session.config.hook.pytest_runtest_logreport(report=decision_report(decision))

    def _decided(self, also: Sequence[str]) -> Decision | None:
        """The run's decision; None if the input never became usable."""
        try:
            found, inputs = self.found, self.inputs
        except DecisionOSError:
            return None
        reports = {
            nodeid: final(nodeid, phases, self._subjects.get(nodeid))
            for nodeid, phases in self._phases.items()
        }
        complete = [report for report in reports.values() if report is not None]
        partial = [*also, *lacking(self._expected, complete, found, gate_files(self._config))]
        self._decision = fold(found, inputs, complete, partial)
        return self._decision

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Decision, action, quorum per SLO, dissent, top reasons, artifact paths."""
        if self._decision is None or self._worker:
            return
        verdict = self._decision.verdict
        colour = {Verdict.GO: "green", Verdict.HOLD: "yellow"}.get(verdict, "red")
        terminalreporter.section(f"release gate: {verdict}", sep="=", bold=True, **{colour: True})
        for line in summary_lines(self._decision, artifacts=self._artifacts()):
            terminalreporter.write_line(line)

    def _artifacts(self) -> list[Path]:
        names = ["junit.xml", "comment.md"]
        if self._decision is not None and not self._decision.partial:
            names.insert(0, "decision.json")
        return [self._folder / name for name in names]

    def finish(self, status: int) -> int:
        """The exit status, after everything that could change it; publishes what was decided."""
        if not self._has_gates:
            return status
        decision = self._decision
        if decision is None:
            decision = self._decided(
                [f"pytest ended with exit status {status} before the tests ran"]
            )
        elif decision.verdict is Verdict.GO and status != 0:
            decision = self._decided([f"pytest ended with exit status {status}"])
        if decision is None:
            return status or int(pytest.ExitCode.TESTS_FAILED)
        try:
            publish(
                decision,
                self._folder,
                write_decision=not decision.partial,
                evidence_url=run_url(os.environ),
            )
        except DecisionOSError as fault:
            sys.stderr.write(f"ERROR: {fault}\n")
            return status or int(pytest.ExitCode.USAGE_ERROR)
        for line in report_github(decision, os.environ):
            sys.stdout.write(f"{line}\n")
        for line in tell_reporters(decision, self._folder):
            sys.stderr.write(f"{line}\n")
        if decision.verdict is Verdict.GO:
            return 0
        if status > 1:
            return status
        return 10 if decision.verdict is Verdict.HOLD else 1
