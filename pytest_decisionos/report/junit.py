"""The decision as JUnit XML, for every CI system that draws test results."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from junit_xml import TestCase, TestSuite

from pytest_decisionos.model.decision import Verdict, Vote
from pytest_decisionos.model.outcome import Status
from pytest_decisionos.report.terminal import outcome_lines
from pytest_decisionos.report.text import more, plain, reason_text

if TYPE_CHECKING:
    from pytest_decisionos.model.decision import Ballot, Decision, SloDecision
    from pytest_decisionos.model.outcome import Outcome

GATE = "release-gate"
MAX_SAID = 100
_COUNTED = ("tests", "failures", "errors")


def junit_xml(decision: Decision) -> bytes:
    """``decision`` as a UTF-8 JUnit document: a suite per SLO, one of checks, and the gate's own.

    A failing vote fails its case only if it decided; one that the quorum outvoted, that is waived
    or that only warns is ``skipped`` and says so. The case ``release-gate::decision`` fails on
    everything but GO. Schema: Jenkins' xunit plugin, ``junit-10.xsd``.
    """
    suites = [_slo_suite(slo) for slo in decision.slos]
    if decision.checks:
        cases = [
            # Nothing waives a check.
            _case("checks", plain(check.id, 1000), check, _warns(check))
            for check in decision.checks
        ]
        suites.append(TestSuite("checks", cases))
    suites.append(_gate_suite(decision))
    root = ET.Element("testsuites", {"name": "DecisionOS release gate"})
    root.extend([_fixed(suite, decision.decided_at) for suite in suites])
    for key in _COUNTED:
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    root.set("time", "0.000")
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _fixed(suite: TestSuite, decided_at: str) -> ET.Element:
    """The suite's element, without what junit-xml writes and the schema refuses."""
    suite.timestamp = plain(decided_at, 60)
    element: ET.Element = suite.build_xml_doc()
    element.attrib.pop("disabled")
    element.set("time", f"{float(element.get('time', '0')):.3f}")
    return element


def _slo_suite(slo: SloDecision) -> TestSuite:
    name = plain(slo.slo, 1000)
    cases = []
    for ballot in slo.ballots:
        judge = plain(ballot.judge, 200)
        if not ballot.outcomes or ballot.vote is Vote.MISSING:
            cases.append(_vote_case(slo, ballot, f"{name}::vote@{judge}"))
        for outcome in ballot.outcomes:
            case = f"{name}::{plain(outcome.id, 1000)}@{judge}"
            cases.append(_case(name, case, outcome, _excuse(slo, outcome), judge))
    return TestSuite(name, cases)


def _vote_case(slo: SloDecision, ballot: Ballot, name: str) -> TestCase:
    """The case of a vote without outcomes."""
    case = TestCase(name, classname=plain(slo.slo, 1000))
    said = f"vote: {ballot.vote}; {plain(ballot.reason or 'no reason given')}"
    if ballot.vote is Vote.ABSTAIN:
        case.add_skipped_info(f"abstains: {plain(ballot.reason or 'no reason given')}")
    elif ballot.vote is not Vote.PASS and slo.verdict is Verdict.GO:
        case.add_skipped_info(f"dissent: outvoted by the quorum {slo.quorum}; {said}")
    elif ballot.vote in {Vote.ERROR, Vote.MISSING}:
        case.add_error_info(said, error_type=str(ballot.vote))
    elif ballot.vote is not Vote.PASS:
        case.add_failure_info(said, failure_type=str(ballot.vote))
    return case


def _excuse(slo: SloDecision, outcome: Outcome) -> str | None:
    """Why an outcome that is not successful decided nothing; None if it did."""
    if outcome.severity == "warn":
        return _warns(outcome)
    if outcome.waived is not None:
        return f"waived: {plain(outcome.waived)}"
    # A changed document decides however the votes went.
    outvoted = slo.verdict is Verdict.GO and outcome.cause != "tampered"
    return f"dissent: outvoted by the quorum {slo.quorum}" if outvoted else None


def _warns(outcome: Outcome) -> str | None:
    return f"warn: {outcome.status}" if outcome.severity == "warn" else None


def _case(
    suite: str, name: str, outcome: Outcome, excuse: str | None, judge: str | None = None
) -> TestCase:
    case = TestCase(name, classname=suite)
    if outcome.status is Status.SUCCESSFUL:
        return case
    said = f"{plain(outcome.reason)}: {plain(outcome.message, 2000)}"
    body = "\n".join(outcome_lines(outcome, judge))
    if excuse:
        case.add_skipped_info(f"{excuse}; {said}", body)
    elif outcome.status is Status.ERROR:
        case.add_error_info(said, body, plain(outcome.cause or outcome.status))
    else:
        case.add_failure_info(said, body, plain(outcome.cause or outcome.status))
    return case


def _gate_suite(decision: Decision) -> TestSuite:
    case = TestCase("decision", classname=GATE)
    if decision.verdict is not Verdict.GO:
        decisive = [reason for reason in decision.reasons if not reason.outvoted]
        codes = [plain(reason.code, 200) for reason in decisive or decision.reasons]
        partial = [plain(why) for why in decision.partial]
        why = "; ".join([*partial[:3], *codes[:10]]) or "see the votes"
        body = [*partial[:MAX_SAID], *map(reason_text, decision.reasons[:MAX_SAID])]
        left = len(partial) + len(decision.reasons) - len(body)
        body += [more(left, "reasons")] if left else []
        message = f"{decision.verdict}, action {decision.action}: {why}"
        case.add_failure_info(message, "\n".join(body), str(decision.verdict))
    properties = {
        "verdict": str(decision.verdict),
        "action": str(decision.action),
        "decision_id": plain(decision.decision_id),
        "target": plain(decision.target),
        "release": plain(decision.release or ""),
        "evidence_sha256": plain(decision.evidence.sha256),
        "evidence_digest": plain(decision.evidence_digest),
    }
    return TestSuite(GATE, [case], properties=properties)
