"""JUnit: valid, whole, and telling the decision's own story."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_cases import DECISIONS, WANTED, hostile_text, large, poisoned, verdict_in_junit

from pytest_decisionos.model.decision import Ballot, Verdict, Vote
from pytest_decisionos.report.junit import junit_xml

SCHEMA = Path(__file__).parents[3] / "shared/vectors/junit-10.xsd"


@pytest.fixture(scope="module")
def schema():
    if not SCHEMA.is_file():
        pytest.skip(f"no {SCHEMA.name} in the folder beside this checkout")
    etree = pytest.importorskip("lxml.etree", reason="lxml is not installed")
    return etree.XMLSchema(etree.parse(str(SCHEMA)))


def sound(data):
    """Well-formed, with totals that are those of the cases, and a message wherever one is due."""
    root = ET.fromstring(data)
    totals = dict.fromkeys(("tests", "failures", "errors"), 0)
    for suite in root:
        counts = {
            "tests": len(suite.findall("testcase")),
            "failures": len(suite.findall("testcase/failure")),
            "errors": len(suite.findall("testcase/error")),
            "skipped": len(suite.findall("testcase/skipped")),
        }
        assert counts == {key: int(suite.get(key)) for key in counts}
        assert "disabled" not in suite.attrib
        assert suite.get("time") == "0.000"
        totals = {key: totals[key] + counts[key] for key in totals}
    assert totals == {key: int(root.get(key)) for key in totals}
    for tag in ("failure", "error", "skipped"):
        for element in root.iter(tag):
            assert element.get("message").strip()
            assert element.get("type").strip()
    assert len(
        root.findall(".//failure") + root.findall(".//error") + root.findall(".//skipped")
    ) == sum(len(case) for case in root.iter("testcase"))
    return root


def results(decision):
    """Case name → (``failure``, ``error``, ``skipped`` or ``passed``, message)."""
    root = sound(junit_xml(decision))
    return {
        case.get("name"): (case[0].tag, case[0].get("message")) if len(case) else ("passed", "")
        for case in root.iter("testcase")
    }


@pytest.mark.parametrize("name", DECISIONS)
def test_valid_and_the_same_verdict(name, schema):
    data = junit_xml(DECISIONS[name])
    sound(data)
    assert verdict_in_junit(data) == WANTED[name]
    from lxml import etree

    schema.assertValid(etree.fromstring(data))


def test_names_are_those_of_the_tests():
    root = sound(junit_xml(DECISIONS["slow"]))
    assert [suite.get("name") for suite in root] == ["결제-judge", "둘째", "checks", "release-gate"]
    case = root.find(".//testcase[@name='둘째::judge_infra.latency.p95@증인']")
    assert case.get("classname") == "둘째"
    assert "observed:    1,260 ms\n" in case[0].text
    properties = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert properties["verdict"] == "NO-GO"
    assert properties["evidence_digest"] == DECISIONS["slow"].evidence_digest


def test_outvoted_votes_are_dissent():
    found = results(DECISIONS["go-dissent"])
    kind, message = found["결제-judge::judge_infra.latency.p95@peer"]
    assert kind == "skipped"
    assert message.startswith(
        "dissent: outvoted by the quorum 2/3; judge_infra.latency.p95:over: 1,260 ms"
    )
    assert found["decision"] == ("passed", "")


def test_abstentions_waivers_and_warnings_are_skipped():
    assert results(DECISIONS["go"])["결제-judge::vote@peer"] == (
        "skipped",
        "abstains: no second log is configured",
    )
    kind, message = results(DECISIONS["go-waived"])["결제-judge::judge_infra.latency.p95@evidence"]
    assert (kind, message.partition(";")[0]) == (
        "skipped",
        "waived: by sre@example.com until 2026-01-20: INC-7 | known",
    )
    assert results(DECISIONS["go-warned"])["clock.skew"] == (
        "skipped",
        "warn: failed; clock.skew:over: 2 s",
    )
    warned = [
        found
        for name, found in results(DECISIONS["slow"]).items()
        if name.startswith("결제-judge::rules.")
    ]
    assert [found[0] for found in warned] == ["skipped", "skipped"]
    assert all(found[1].startswith("warn: failed; rules.") for found in warned)


def test_what_decided_fails():
    assert (
        results(DECISIONS["slow"])["결제-judge::judge_infra.latency.p95@evidence"][0] == "failure"
    )
    assert results(DECISIONS["hold"])["결제-judge::rules.many@evidence"][0] == "failure"
    assert results(DECISIONS["error"])["결제-judge::judge_infra.error@peer"][0] == "error"
    assert results(DECISIONS["foreign"])["evidence.target"][0] == "error"


def test_evidence_that_was_changed_fails_although_the_quorum_passed():
    decision = DECISIONS["tampered"]
    assert decision.slos[0].verdict is Verdict.GO
    found = results(decision)
    assert found["결제-judge::judge_infra.latency.p95@증인"][0] == "failure"
    assert "judge_infra.latency.p95:tampered" in found["decision"][1]


def test_a_partial_run_says_what_is_missing():
    kind, message = results(DECISIONS["partial"])["decision"]
    assert (kind, message) == ("failure", "NO-GO, action wait: 3 tests were deselected")


def test_the_gate_quotes_a_hundred_reasons_and_counts_the_rest():
    root = sound(junit_xml(large(DECISIONS["slow"], 300)))
    (failure,) = root.findall("testsuite[@name='release-gate']/testcase/failure")
    assert len(failure.text.split("\n")) == 101
    assert failure.text.endswith("\n... and 200 more reasons")


def test_a_gate_that_failed_without_any_reason_still_fails():
    decision = DECISIONS["go"].model_copy(update={"verdict": Verdict.HOLD, "checks": ()})
    assert results(decision)["decision"] == ("failure", "HOLD, action proceed: see the votes")


@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("vote", Vote)
def test_votes_without_outcomes(vote, verdict):
    slo = (
        DECISIONS["go"]
        .slos[0]
        .model_copy(update={"verdict": verdict, "ballots": (Ballot(judge="peer", vote=vote),)})
    )
    kind, message = results(
        DECISIONS["go"].model_copy(update={"slos": (slo,), "verdict": verdict})
    )["결제-judge::vote@peer"]
    decided = {
        Vote.FAIL: "failure",
        Vote.INCONCLUSIVE: "failure",
        Vote.ERROR: "error",
        Vote.MISSING: "error",
    }
    if vote is Vote.PASS:
        assert (kind, message) == ("passed", "")
    elif vote is Vote.ABSTAIN:
        assert (kind, message) == ("skipped", "abstains: no reason given")
    elif verdict is Verdict.GO:
        assert (kind, message) == (
            "skipped",
            f"dissent: outvoted by the quorum 2/3; vote: {vote}; no reason given",
        )
    else:
        assert (kind, message) == (decided[vote], f"vote: {vote}; no reason given")


@given(name=st.sampled_from(sorted(DECISIONS)), text=hostile_text())
@settings(max_examples=60, deadline=None)
def test_hostile_text_stays_text(name, text, schema):
    data = junit_xml(poisoned(DECISIONS[name], text))
    sound(data)
    assert verdict_in_junit(data) == WANTED[name]
    assert len(data) < 100_000 * data.count(b"<testcase ")
    from lxml import etree

    schema.assertValid(etree.fromstring(data))
