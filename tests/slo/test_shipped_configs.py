"""What configs/ ships: it loads, says what it should, and lints clean."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from pytest_decisionos.judge.gate import load_gate, load_labels
from pytest_decisionos.model.policy_text import read_policy
from pytest_decisionos.slo.compile import load_slo
from pytest_decisionos.slo.lint import lint
from pytest_decisionos.slo.schema import SloFile

CONFIGS = Path(__file__).parents[2] / "configs"
SLOS = sorted((CONFIGS / "slo").iterdir())
RUNBOOK = {"slo-judge-infra", "slo-billing-strict-v2"}


def bounds(name):
    return {
        rule.id: rule.bound if rule.bound is not None else rule.words
        for rule in load_slo(CONFIGS / "slo" / name).rules
    }


@pytest.mark.parametrize("path", SLOS, ids=lambda path: path.name)
def test_lint(path):
    found = lint(path)
    assert not [finding for finding in found if finding.severity == "error"]
    # The runbook gives its two files' numbers; its floors are what it gives.
    assert bool(found) == (path.stem in RUNBOOK)


@pytest.mark.parametrize("path", SLOS, ids=lambda path: path.name)
def test_the_schema_agrees(path):
    document, _ = read_policy(path)
    jsonschema.validate(document, SloFile.model_json_schema())


def test_the_runbooks_infra_slo():
    assert bounds("slo-judge-infra.json") == {
        "judge_infra.availability": 0.995,
        "judge_infra.latency.p95": 1260,
        "judge_infra.latency.p99": 2625,
        "judge_infra.sig.sig_error_rate": 0.001,
        "judge_infra.window": 300,
    }


def test_the_runbooks_billing_slo():
    assert bounds("slo-billing-strict-v2.json") == {
        "anomaly.spike": False,
        "budget.levels": ("ok",),
        "budget.spent": 0.5,
        "error.error_rate": 0.01,
        "integrity.signature": (),
        "latency.p95": 900,
        "latency.p99": 1800,
        "quota.forbid_actions.tokens": ("deny", "throttle"),
        "witness.csv_sha256": (),
        "witness.rows": 1,
        "witness.signature": (),
    }
    quorum = load_slo(CONFIGS / "slo" / "slo-billing-strict-v2.json").quorum
    assert (str(quorum), quorum.fail_closed_on_degrade) == ("2/3", True)


def test_the_canary_slo_judges_by_limits():
    slo = load_slo(CONFIGS / "slo" / "slo-canary-v2.json")
    assert {rule.level for rule in slo.rules if rule.limits} == {0.95}
    assert bounds("slo-canary-v2.json")["canary.thresholds.p95_rel_increase"] == 0.15


def test_the_routes_slo_looks_at_every_route_and_tenant():
    slo = load_slo(CONFIGS / "slo" / "slo-routes.yaml")
    assert {rule.for_each for rule in slo.rules} == {"route", "tenant"}
    assert {rule.id for rule in slo.rules if rule.severity == "warn"} == {"rules.tenant-p95"}
    labels = load_labels(CONFIGS / "labels.json").labels
    assert {rule.label for rule in slo.rules} <= set(labels)


def test_the_gate():
    gate = load_gate(CONFIGS / "gate.yaml")
    assert str(gate.target) == "checkout/production/eu-1/all"
    judges = [(judge.id, judge.source, judge.path) for judge in gate.spec.judges]
    assert judges == [
        ("evidence", "evidence", None),
        ("witness", "log", None),
        ("peer", "log", "log/lb.csv"),
    ]
    assert set(gate.spec.phases) == {"preflight", "cutover", "post", "drill"}
    cutover = gate.phase("cutover")
    assert {slo.file for slo in cutover.slo_files()} == {f"slo/{path.name}" for path in SLOS}
    assert {slo.quorum for slo in cutover.slo_files()} == {"2/3"}
    assert set(cutover.require_blocks) == {
        "meta", "witness", "perf", "perf_judge", "canary", "integrity",
    }  # fmt: skip
    for phase in gate.spec.phases.values():
        assert all((CONFIGS / slo.file).is_file() for slo in phase.slo_files())


@pytest.mark.parametrize(
    ("code", "label"),
    [
        ("judge_infra.latency.p95:over", "reason:infra-latency"),
        ("judge_infra.availability:under", "reason:infra-error"),
        ("judge_infra.sig.sig_error_rate:over", "reason:signature-invalid"),
        ("judge_infra.window:under", "reason:samples-insufficient"),
        ("latency.p95:over", "reason:infra:latency-p95"),
        ("latency.p99:over", "reason:infra:latency-p99"),
        ("error.error_rate:over", "reason:infra:error-rate"),
        ("latency.p95:samples_insufficient", "reason:samples-insufficient"),
        ("canary.thresholds.p95_rel_increase:inconclusive", "reason:samples-insufficient"),
        ("canary.thresholds.p95_rel_increase:over", "reason:canary"),
        ("canary.guardband:under", "reason:canary"),
        ("drift.kl:over", "reason:canary:drift-high"),
        ("quota.forbid_actions.tokens:forbidden", "reason:quota"),
        ("budget.levels:not_allowed", "reason:budget-exceeded"),
        ("anomaly.spike:set", "reason:anomaly"),
        ("saturation.cpu_percent:over", "reason:saturation"),
        ("latency.p95:tampered", "reason:signature-invalid"),
        ("evidence.integrity:tampered", "reason:signature-invalid"),
        ("witness.csv_sha256:different", "reason:evidence-tampered"),
        ("evidence.freshness:stale", "reason:evidence-stale"),
        ("freshness.age:stale", "reason:evidence-stale"),
        ("evidence.blocks:missing", "reason:evidence-missing"),
        ("evidence.target:foreign_target", "reason:foreign-target"),
        ("perf.x:not_a_number", "reason:evidence-invalid"),
        ("error.error_rate:wrong_type", "reason:evidence-invalid"),
        ("error.error_rate:out_of_range", "reason:evidence-invalid"),
        ("error.error_rate:source_missing", "reason:judge-unreachable"),
        ("slo-infra-v2:missing", "reason:judge-unreachable"),
        ("witness.rows:under", "reason:evidence-invalid"),
        ("rules.route-p95[/v1/pay]:over", "reason:policy"),
        ("rules.x[a:tampered]:over", "reason:policy"),
        ("gates/test_mine.py::test_that:failed", "reason:test-failed"),
        ("anything else", "reason:policy"),
    ],
)
def test_the_label_of_a_reason(code, label):
    assert load_labels(CONFIGS / "labels.json").label_of(code) == label


def test_every_label_has_a_group_and_a_colour():
    document = json.loads((CONFIGS / "labels.json").read_text(encoding="utf-8"))
    assert {label["group"] for label in document["labels"].values()} == set(document["groups"])
    for entry in (*document["labels"].values(), *document["groups"].values()):
        assert len(bytes.fromhex(entry["color"])) == 3


DOCS = (CONFIGS.parent / "docs" / "slo.md").read_text(encoding="utf-8")


def fields(schema):
    for part in (schema, *schema.get("$defs", {}).values()):
        yield from part.get("properties", ())


@pytest.mark.parametrize("field", sorted(set(fields(SloFile.model_json_schema()))))
def test_the_reference_names_every_field(field):
    assert re.search(rf"\b{field}\b", DOCS)


def test_the_examples_of_the_reference_compile(tmp_path):
    path = tmp_path / "slo.yaml"
    examples = "".join(re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL))
    path.write_text("latency: {max_p99_ms: 1800}\n" + examples, encoding="utf-8")
    assert [rule.id for rule in load_slo(path).rules] == ["latency.p99", "rules.route-p95"]
