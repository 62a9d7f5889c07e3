"""Every block and field of an SLO file compiles to the rule that the reference says."""

import hashlib
import json
import random

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_decisionos.errors import PolicyError, UsageError
from pytest_decisionos.model.policy import Quorum
from pytest_decisionos.slo.compile import compile_slo, expand_globs, load_slo
from pytest_decisionos.slo.facts import facts_of

BOTH = ("/canary/canary_perf/count", "/canary/control_perf/count")
PERF, JUDGE = ("/perf/count",), ("/perf_judge/count",)


def compiled(document, name="slo.json"):
    from pathlib import Path

    return compile_slo(document, json.dumps(document).encode(), Path(name))


def rules(document):
    return {rule.id: rule for rule in compiled(document).rules}


def custom(**fields):
    return {"rules": [{"id": "mine", "metric": "/perf/error_rate", "op": "<=", **fields}]}


NUMBERS = [
    # document, rule id, metric, op, bound, unit, least samples, counts
    ({"latency": {"max_p95_ms": 900}}, "latency.p95", "/perf/latency_ms/p95", "<=", 900, "ms", 0, PERF),
    ({"latency": {"max_p99_ms": 1800, "min_samples": 7}}, "latency.p99", "/perf/latency_ms/p99", "<=", 1800, "ms", 7, PERF),
    ({"error": {"max_error_rate": 0.01, "min_samples": 9}}, "error.error_rate", "/perf/error_rate", "<=", 0.01, "rate", 9, PERF),
    ({"judge_infra": {"latency": {"max_p95_ms": 1200, "min_samples": 5}, "grace_burst": 0.05}}, "judge_infra.latency.p95", "/perf_judge/latency_ms/p95", "<=", 1260, "ms", 5, JUDGE),
    ({"judge_infra": {"latency": {"max_p99_ms": 2500}}}, "judge_infra.latency.p99", "/perf_judge/latency_ms/p99", "<=", 2500, "ms", 0, JUDGE),
    ({"judge_infra": {"availability": {"min_availability": 0.995}, "grace_burst": 0.5}}, "judge_infra.availability", "/perf_judge/availability", ">=", 0.995, "rate", 0, JUDGE),
    ({"judge_infra": {"sig": {"max_sig_error_rate": 0.001, "min_samples": 3}}}, "judge_infra.sig.sig_error_rate", "/perf_judge/signature_error_rate", "<=", 0.001, "rate", 3, JUDGE),
    ({"canary": {"thresholds": {"max_p95_rel_increase": 0.15}, "min_sample_count": 1000}}, "canary.thresholds.p95_rel_increase", "/canary/deltas/p95_rel", "<=", 0.15, "rel", 1000, BOTH),
    ({"canary": {"thresholds": {"max_error_abs_delta": 0.01}}}, "canary.thresholds.error_abs_delta", "/canary/deltas/error_delta", "<=", 0.01, "rate", 0, BOTH),
    ({"canary": {"thresholds": {"max_sig_error_delta": 0.0005}}}, "canary.thresholds.sig_error_delta", "/canary/deltas/sig_error_delta", "<=", 0.0005, "rate", 0, BOTH),
    ({"canary": {"min_sample_count": 50}}, "canary.sample_count", "/canary/canary_perf/count", ">=", 50, "", 50, BOTH[:1]),
    ({"canary": {}}, "canary.baseline", "/canary/control_perf/count", ">=", 1, "", 1, BOTH[1:]),
    ({"canary": {"guardband_minutes": 10}}, "canary.guardband", "/canary/guardband_minutes", ">=", 10, "min", 0, ()),
    ({"budget": {"max_spent": 0.5}}, "budget.spent", "/budget/spent", "<=", 0.5, "", 0, ()),
    ({"witness": {"min_rows": 1}}, "witness.rows", "/witness/rows", ">=", 1, "", 0, ()),
    ({"drift": {"max_abs_diff": 0.2}}, "drift.abs_diff", "/drift/abs_diff", "<=", 0.2, "", 0, ()),
    ({"drift": {"max_kl": 0.1}}, "drift.kl", "/drift/kl", "<=", 0.1, "", 0, ()),
    ({"saturation": {"max_cpu_percent": 90.0}}, "saturation.cpu_percent", "/usage/cpu_percent", "<=", 90, "%", 0, ()),
    ({"saturation": {"max_mem_percent": 85}}, "saturation.mem_percent", "/usage/mem_percent", "<=", 85, "%", 0, ()),
    ({"saturation": {"max_qps": 10000}}, "saturation.qps", "/usage/qps", "<=", 10000, "/s", 0, ()),
    (custom(bound=0.02, min_samples=4), "rules.mine", "/perf/error_rate", "<=", 0.02, "rate", 4, PERF),
    (custom(metric="/canary/control_perf/latency_ms/p50", op="<", bound=100), "rules.mine", "/canary/control_perf/latency_ms/p50", "<", 100, "ms", 0, BOTH[1:]),
    (custom(metric="/rating/subtotal", op="==", bound=0), "rules.mine", "/rating/subtotal", "==", 0, "", 0, ()),
]  # fmt: skip


@pytest.mark.parametrize("case", NUMBERS, ids=lambda case: case[1])
def test_number(case):
    document, rule_id, metric, op, bound, unit, floor, counts = case
    rule = rules(document)[rule_id]
    assert rule.kind == "number"
    found = (rule.metric, rule.op, rule.bound, rule.unit, rule.min_samples, rule.counts)
    assert found == (metric, op, bound, unit, floor, counts)
    assert rule.text
    assert rule.severity == "block"
    assert rule.level is None
    assert rule.missing == "error"


OTHERS = [
    # document, rule id, and what the rule must say
    ({"judge_infra": {"window_sec": 300}}, "judge_infra.window", {"kind": "span", "metric": "/perf_judge/window", "op": ">=", "bound": 300}),
    ({"budget": {"allow_levels": ["ok", "warn"]}}, "budget.levels", {"kind": "word", "metric": "/budget/level", "op": "in", "words": ("ok", "warn")}),
    ({"quota": {"forbid_actions": {"a/b~c": ["deny"]}}}, "quota.forbid_actions.a/b~c", {"kind": "word", "metric": "/quota/decisions/a~1b~0c/action", "op": "not in", "words": ("deny",), "known": ("allow", "warn", "throttle", "deny")}),
    ({"anomaly": {"allow_spike": False}}, "anomaly.spike", {"kind": "flag", "metric": "/anomaly/is_spike", "op": "is", "bound": False}),
    ({"witness": {"require_csv_sha256": True}}, "witness.csv_sha256", {"kind": "digest", "metric": "/witness/csv_sha256", "waivable": False}),
    ({"witness": {"require_signature": True}}, "witness.signature", {"kind": "signature", "waivable": False}),
    ({"integrity": {"require_signature": True}}, "integrity.signature", {"kind": "signature", "waivable": False}),
    ({"witness": {"min_rows": 1}}, "witness.rows", {"waivable": False}),
    ({"freshness": {}}, "freshness.age", {"kind": "age", "metric": "/meta/window/end", "op": "<=", "bound": 900, "waivable": False}),
    ({"freshness": {"max_age_sec": 60}}, "freshness.age", {"bound": 60}),
    ({"drift": {"source": "shadow"}}, "drift.source", {"kind": "word", "op": "in", "words": ("shadow",)}),
    ({"drift": {"forbid_severity": ["high"]}}, "drift.severity", {"op": "not in", "words": ("high",), "known": ("none", "low", "medium", "high", "critical")}),
    ({"saturation": {"max_qps": 5, "fail_closed": False}}, "saturation.qps", {"missing": "inconclusive"}),
    (custom(metric="/anomaly/is_spike", op="==", bound=False), "rules.mine", {"kind": "flag", "op": "is", "bound": False}),
    (custom(metric="/budget/level", op="==", bound="ok"), "rules.mine", {"kind": "word", "op": "in", "words": ("ok",)}),
    (custom(metric="/budget/level", op="in", bound=["ok", "경고"]), "rules.mine", {"kind": "word", "op": "in", "words": ("ok", "경고")}),
    (custom(bound=0.1, for_each="route", severity="warn", label="reason:perf"), "rules.mine", {"for_each": "route", "severity": "warn", "label": "reason:perf"}),
    (custom(metric="/budget/level", op="in", bound=["ok"], severity="warn"), "rules.mine", {"severity": "warn"}),
    (custom(metric="/witness/rows", op=">", bound=5), "rules.mine", {"waivable": False}),
    (custom(metric="/integrity/mac/alg", op="==", bound="x"), "rules.mine", {"waivable": False}),
    (custom(metric="/rating/subtotal", op=">=", bound=-5), "rules.mine", {"low": None}),
    (custom(metric="/rating/subtotal", op=">=", bound=5), "rules.mine", {"low": 0}),
    (custom(bound=0.1), "rules.mine", {"waivable": True, "low": 0, "high": 1}),
]  # fmt: skip


@pytest.mark.parametrize("case", OTHERS, ids=lambda case: case[1])
def test_other_kinds_and_flags(case):
    document, rule_id, stated = case
    rule = rules(document)[rule_id]
    assert {name: getattr(rule, name) for name in stated} == stated
    assert rule.text


@pytest.mark.parametrize(
    ("document", "ids"),
    [
        ({"latency": {"max_p95_ms": 9}, "quota": {"forbid_actions": {}}}, {"latency.p95"}),
        ({"error": {"max_error_rate": 0}, "anomaly": {"allow_spike": True}}, {"error.error_rate"}),
        ({"canary": {"baseline": "none"}}, {"canary.sample_count"}),
        ({"canary": {}}, {"canary.sample_count", "canary.baseline"}),
        ({"budget": {"max_spent": 0}, "witness": {"require_signature": False}}, {"budget.spent"}),
    ],
)
def test_a_rule_exists_only_for_what_is_stated(document, ids):
    assert set(rules(document)) == ids


@pytest.mark.parametrize("level", [0.90, 0.95, 0.99])
def test_confidence_reaches_every_rule_with_limits_and_no_other(level):
    document = {
        "confidence": {"level": level},
        "latency": {"max_p95_ms": 9},
        "judge_infra": {"availability": {"min_availability": 0.9}, "window_sec": 300},
        "canary": {"thresholds": {"max_error_abs_delta": 0.1}},
        "saturation": {"max_qps": 5},
        "rules": [
            {"id": "leveled", "metric": "/perf_judge/latency_ms/p99", "op": "<=", "bound": 9},
            {"id": "equal", "metric": "/perf/error_rate", "op": "==", "bound": 0},
            {"id": "count", "metric": "/perf/count", "op": ">", "bound": 5},
        ],
    }
    found = {rule.id for rule in rules(document).values() if rule.level == level}
    assert found == {
        "latency.p95",
        "judge_infra.availability",
        "canary.thresholds.error_abs_delta",
        "rules.leveled",
    }
    assert f"{level:.0%} confidence" in rules(document)["latency.p95"].text


@pytest.mark.parametrize(
    ("pointer", "limits"),
    [
        ("/perf/latency_ms/p95", "/perf/limits/latency_ms.p95"),
        ("/perf_judge/signature_error_rate", "/perf_judge/limits/signature_error_rate"),
        ("/canary/canary_perf/error_rate", "/canary/canary_perf/limits/error_rate"),
        ("/canary/deltas/p95_rel", "/canary/limits/p95_rel"),
        ("/perf/count", None),
        ("/usage/qps", None),
        ("/perfect/error_rate", None),
    ],
)
def test_where_the_limits_of_a_number_stand(pointer, limits):
    assert facts_of(pointer).limits == limits


def test_what_the_file_says_besides_rules(tmp_path):
    document = {
        "version": "v7",
        "description": "설명",
        "latency": {"max_p95_ms": 900},
        "quorum": {"k": 2, "n": 3, "fail_closed_on_degrade": True},
        "on_inconclusive": "hold",
        "max_wait_sec": 600,
        "waivers": [
            {"rule": "latency.p95", "owner": "김", "reason": "이전", "expires": "2026-01-05"}
        ],
    }
    path = tmp_path / "결제.v2.json"
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    slo = load_slo(path)
    assert (slo.stem, slo.version, slo.file) == ("결제.v2", "v7", str(path))
    assert slo.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert slo.quorum == Quorum(k=2, n=3, fail_closed_on_degrade=True)
    assert (slo.on_inconclusive, slo.max_wait_sec) == ("hold", 600)
    assert slo.waivers[0].owner == "김"


def test_defaults():
    slo = compiled({"latency": {"max_p95_ms": 900}})
    found = (slo.version, slo.quorum, slo.on_inconclusive, slo.max_wait_sec, slo.waivers)
    assert found == ("v1", None, "no-go", 1800.0, ())


@pytest.mark.parametrize("rule", ["rules.mine", "rules.mine[/v1/pay]", "quota.forbid_actions.a[b]"])
def test_what_may_be_waived(rule):
    document = custom(bound=0.1, for_each="route") | {
        "quota": {"forbid_actions": {"a[b]": ["deny"]}},
        "waivers": [{"rule": rule, "owner": "kim", "reason": "x", "expires": "2026-01-05"}],
    }
    assert compiled(document).waivers[0].rule == rule


FULL = {
    "version": "v2",
    "latency": {"max_p95_ms": 900, "max_p99_ms": 1.8e3, "min_samples": 1000},
    "error": {"max_error_rate": 0.01},
    "judge_infra": {
        "latency": {"max_p95_ms": 1200, "max_p99_ms": 2500, "min_samples": 100},
        "availability": {"min_availability": 0.995},
        "sig": {"max_sig_error_rate": 1e-3, "min_samples": 100},
        "window_sec": 300,
        "grace_burst": 0.05,
    },
    "canary": {"thresholds": {"max_p95_rel_increase": 0.15}, "min_sample_count": 10},
    "budget": {"allow_levels": ["ok"], "max_spent": 0.5},
    "quota": {"forbid_actions": {"tokens": ["deny"], "토큰": ["throttle"]}},
    "anomaly": {"allow_spike": False},
    "witness": {"require_csv_sha256": True, "require_signature": True, "min_rows": 1},
    "integrity": {"require_signature": True},
    "quorum": {"k": 2, "n": 3},
    "rules": [
        {"id": "b", "metric": "/perf/error_rate", "op": "<=", "bound": 0.1, "for_each": "tenant"},
        {"id": "a", "metric": "/budget/level", "op": "in", "bound": ["ok", "yes", "null"]},
    ],
    "freshness": {"max_age_sec": 60},
    "confidence": {"level": 0.95},
    "waivers": [
        {"rule": "latency.p95", "owner": "kim", "reason": "x", "expires": "2026-01-05T00:00:00Z"}
    ],
}


def without_origin(slo):
    return slo.model_dump(exclude={"file", "sha256"})


@pytest.mark.parametrize("flow", [False, True])
def test_yaml_means_what_json_means(tmp_path, flow):
    (tmp_path / "slo.json").write_text(json.dumps(FULL), encoding="utf-8")
    text = yaml.safe_dump(FULL, allow_unicode=True, default_flow_style=flow)
    (tmp_path / "slo.yaml").write_text(text, encoding="utf-8")
    as_json, as_yaml = load_slo(tmp_path / "slo.json"), load_slo(tmp_path / "slo.yaml")
    assert without_origin(as_json) == without_origin(as_yaml)
    assert len(as_json.rules) == 23


def test_json_text_in_a_yaml_file_means_the_same(tmp_path):
    (tmp_path / "slo.json").write_text(json.dumps(FULL, indent=1), encoding="utf-8")
    (tmp_path / "slo.yml").write_text(json.dumps(FULL, indent=1), encoding="utf-8")
    found = [without_origin(load_slo(tmp_path / name)) for name in ("slo.json", "slo.yml")]
    assert found[0] == found[1]


def shuffled(value, rng):
    if isinstance(value, dict):
        items = [(key, shuffled(item, rng)) for key, item in value.items()]
        rng.shuffle(items)
        return dict(items)
    return value


@settings(max_examples=50, deadline=None)
@given(st.integers())
def test_rules_do_not_depend_on_the_order_of_the_file(seed):
    rng = random.Random(seed)
    document = shuffled(FULL, rng)
    rng.shuffle(document["rules"])
    assert without_origin(compiled(document)) == without_origin(compiled(FULL))


def test_rules_are_sorted_and_their_ids_are_unique():
    ids = [rule.id for rule in compiled(FULL).rules]
    assert ids == sorted(set(ids))


class TestGlobs:
    def test_sorted_and_each_once(self, tmp_path):
        for name in ("b.json", "a.json", "c.yaml"):
            (tmp_path / name).touch()
        found = expand_globs(
            [str(tmp_path / "c.yaml"), str(tmp_path / "*.json"), str(tmp_path / "*")]
        )
        assert [path.name for path in found] == ["c.yaml", "a.json", "b.json"]

    def test_a_name_that_looks_like_a_pattern(self, tmp_path):
        (tmp_path / "slo[1].json").touch()
        assert expand_globs([str(tmp_path / "slo[1].json")]) == [tmp_path / "slo[1].json"]

    def test_a_missing_file_is_left_to_the_reader(self, tmp_path):
        (missing,) = expand_globs([str(tmp_path / "none.json")])
        with pytest.raises(PolicyError, match=r"none\.json: no such file"):
            load_slo(missing)

    def test_a_pattern_without_match(self, tmp_path):
        with pytest.raises(UsageError, match=r"no SLO file matches; found .*\*\.json"):
            expand_globs([str(tmp_path / "*.json")])

    def test_too_many(self, tmp_path):
        for i in range(1001):
            (tmp_path / f"{i}.json").touch()
        with pytest.raises(UsageError, match="too many SLO files; found 1001; expected at most"):
            expand_globs([str(tmp_path / "*")])
