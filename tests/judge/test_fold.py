"""Reports can take a GO away and never make one, whatever they say."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_decisionos.judge.decide import JudgeInput, decide
from pytest_decisionos.judge.fold import TestReport, fold
from pytest_decisionos.model.decision import Verdict, Vote
from pytest_decisionos.model.outcome import Status
from pytest_decisionos.slo.compile import load_slo
from pytest_decisionos.testing import gate_inputs, healthy, sealed

JUDGES = [
    JudgeInput(id="evidence", source="evidence"),
    JudgeInput(id="witness", source="log", blocks={"perf": healthy()["perf"]}),
    JudgeInput(id="peer", source="log", state="absent", reason="not there"),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    path = tmp_path_factory.mktemp("slo") / "slo-own.json"
    rule = {
        "id": "slow",
        "metric": "/perf/latency_ms/p50",
        "op": "<=",
        "bound": 1,
        "severity": "warn",
    }
    path.write_text(json.dumps({"latency": {"max_p95_ms": 900}, "rules": [rule]}))
    return gate_inputs(sealed(healthy()), [load_slo(path)], judges=JUDGES, k=2)


def report(status=Status.SUCCESSFUL, **kwargs):
    return TestReport("gates/test_x.py::test_it", status, **kwargs)


def test_nothing_reported_changes_nothing(inputs):
    found = decide(inputs)
    assert found.verdict is Verdict.GO
    assert fold(found, inputs, []) == found


def test_a_partial_run_is_no_go(inputs):
    decision = fold(decide(inputs), inputs, [], ["1 test has no report"])
    assert decision.verdict is Verdict.NO_GO
    assert decision.partial == ("1 test has no report",)


@pytest.mark.parametrize(
    ("more", "verdict", "code"),
    [
        ({"status": Status.FAILED, "cause": "failed"}, Verdict.NO_GO, "test.gates/test_x.py::test_it:failed"),
        ({"status": Status.ERROR, "cause": "skipped"}, Verdict.NO_GO, "test.gates/test_x.py::test_it:skipped"),
        ({"status": Status.ERROR, "cause": "xfailed", "check": "evidence.target"}, Verdict.NO_GO, "evidence.target:xfailed"),
        ({"status": Status.FAILED, "cause": "failed", "judge": "evidence"}, Verdict.NO_GO, "test.gates/test_x.py::test_it:failed"),
        ({"status": Status.FAILED, "cause": "failed", "judge": "peer"}, Verdict.GO, "test.gates/test_x.py::test_it:failed"),
        ({"status": Status.ERROR, "cause": "skipped", "judge": "evidence", "slo": "slo-own", "rule": "latency.p95"}, Verdict.NO_GO, "latency.p95:skipped"),
        ({"status": Status.FAILED, "cause": "failed", "judge": "evidence", "slo": "another"}, Verdict.GO, None),
        ({"status": Status.ERROR, "cause": "skipped", "judge": "evidence", "slo": "slo-own", "rule": "rules.slow"}, Verdict.GO, None),
    ],
)  # fmt: skip
def test_one_report(inputs, more, verdict, code):
    decision = fold(decide(inputs), inputs, [report(**more)])
    assert decision.verdict is verdict
    assert (code in {r.code for r in decision.reasons}) if code else decision.reasons == ()


def test_a_passing_test_makes_no_vote_of_an_abstention(inputs):
    decision = fold(
        decide(inputs),
        inputs,
        [report(judge="peer"), report(judge="peer", status=Status.ERROR, cause="skipped")],
    )
    assert {b.judge: b.vote for b in decision.slos[0].ballots}["peer"] is Vote.ABSTAIN


def test_an_inconclusive_finding_stays_inconclusive(inputs):
    blocks = healthy()
    blocks["perf"]["count"] = 0
    few = inputs.model_copy(
        update={"blocks": sealed(blocks), "judges": tuple(JUDGES[:1] * 1) + inputs.judges[1:]}
    )
    found = decide(few)
    said = report(
        status=Status.INCONCLUSIVE,
        cause="failed",
        judge="evidence",
        slo="slo-own",
        rule="latency.p95",
    )
    assert fold(found, few, [said]) == found
    worse = said._replace(status=Status.FAILED)
    ballot = fold(found, few, [worse]).slos[0].ballots[0]
    assert ballot.vote is Vote.FAIL


RANK = {Verdict.GO: 0, Verdict.HOLD: 1, Verdict.NO_GO: 2}
REPORTS = st.builds(
    report,
    status=st.sampled_from(list(Status)),
    cause=st.sampled_from(["failed", "skipped", "xfailed", "crashed"]),
    judge=st.sampled_from([None, "evidence", "witness", "peer", "nobody"]),
    slo=st.sampled_from([None, "slo-own", "other"]),
    rule=st.sampled_from([None, "latency.p95", "rules.slow", "x"]),
    check=st.sampled_from([None, "evidence.target", "check.none"]),
)


@given(reports=st.lists(REPORTS, max_size=6), bad=st.booleans())
@settings(max_examples=200)
def test_reports_never_make_it_better(inputs, reports, bad):
    if bad:
        blocks = healthy()
        blocks["perf"]["latency_ms"]["p95"] = 5000.0
        inputs = inputs.model_copy(update={"blocks": sealed(blocks)})
    found = decide(inputs)
    folded = fold(found, inputs, reports)
    assert RANK[folded.verdict] >= RANK[found.verdict]
    for some in itertools.islice(itertools.combinations(reports, max(0, len(reports) - 1)), 3):
        assert RANK[fold(found, inputs, some).verdict] <= RANK[folded.verdict]
