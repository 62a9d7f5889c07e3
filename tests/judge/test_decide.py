"""decide: healthy is GO; every broken field, every hostile value and every worse number is not."""

import contextlib
import json
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_decisionos.errors import DecisionOSError
from pytest_decisionos.judge.decide import JudgeInput, decide
from pytest_decisionos.judge.rules import expand
from pytest_decisionos.judge.view import View
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.decision import Action, Verdict, Vote
from pytest_decisionos.model.outcome import Status
from pytest_decisionos.slo.compile import load_slo
from pytest_decisionos.testing import NOW, TARGET, broken_values, gate_inputs, healthy, sealed

ROOT = Path(__file__).parents[2]
SLOS = [load_slo(path) for path in sorted((ROOT / "configs/slo").iterdir())]


def judged(blocks, slos=SLOS, **kwargs):
    return decide(gate_inputs(sealed(blocks), slos, **kwargs))


def test_healthy_evidence_is_go():
    decision = judged(healthy(), k=1)
    assert [(r.code, r.message) for r in decision.reasons] == []
    assert (decision.verdict, decision.action) == (Verdict.GO, Action.PROCEED)


def pointers_read():
    """Every place of the evidence that a shipped rule or the admission reads."""
    found = {
        "/meta/window/end",
        "/meta/target",
        "/meta/target/service",
        "/meta/target/region",
        "/integrity/signature_sha256",
        "/integrity",
        "/meta",
    }
    for slo in SLOS:
        for rule in slo.rules:
            if rule.for_each:
                found.add(f"/{strict_json.block_of(rule.metric)}/groups")
                tail = rule.metric.split("/", 2)[2]
                found.add(f"/{strict_json.block_of(rule.metric)}/groups/0/{tail}")
                found.add(f"/{strict_json.block_of(rule.metric)}/groups/0/name")
                found.add(f"/{strict_json.block_of(rule.metric)}/groups/0/by")
                continue
            found.update({rule.metric, *rule.counts})
            if rule.kind == "span":
                found.update({rule.metric + "/start", rule.metric + "/end"})
            if rule.level is not None:
                found.add(rule.limits)
                found.update(
                    f"{rule.limits}/{side}/{rule.level:.2f}" for side in ("lower", "upper")
                )
                if len(rule.counts) == 1:
                    found.update(f"{rule.limits}/{name}" for name in ("n", "d", "effective"))
    return sorted(found)


def set_at(blocks, pointer, value, *, delete=False):
    *way, last = strict_json.tokens(pointer)
    here = blocks
    for token in way:
        here = here[int(token)] if isinstance(here, list) else here[token]
    if delete:
        del here[last]
    else:
        here[last] = value
    return blocks


def test_pointers_read_are_there_when_healthy():
    blocks = sealed(healthy())
    missing = [p for p in pointers_read() if strict_json.at(blocks, p) is strict_json.MISSING]
    assert missing == []
    assert len(pointers_read()) > 40


DELETED = object()
BROKEN = [DELETED, None, -1, "x", "0", True, [], {}]


@pytest.mark.parametrize("pointer", pointers_read())
def test_no_broken_field_is_ever_go(pointer):
    for value in BROKEN:
        if pointer.endswith("/name") and value in ("x", "0"):
            continue  # a name: the log judges tell that it is another one
        blocks = sealed(healthy())
        set_at(blocks, pointer, value, delete=value is DELETED)
        if not pointer.startswith("/integrity"):
            blocks = sealed(blocks)
        log_judge = JudgeInput(id="witness", source="log", blocks={"perf": healthy()["perf"]})
        for judges in (None, [JudgeInput(id="evidence", source="evidence"), log_judge]):
            decision = decide(gate_inputs(blocks, SLOS, judges=judges, k=1))
            assert decision.verdict is not Verdict.GO, (pointer, value)
            assert decision.reasons, (pointer, value)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
@pytest.mark.parametrize("pointer", pointers_read())
def test_no_non_finite_number_is_even_read(tmp_path, pointer, text):
    from pytest_decisionos.model.evidence import read_evidence

    blocks = set_at(sealed(healthy()), pointer, "@@@")
    path = tmp_path / "latest.json"
    path.write_text(json.dumps(blocks).replace('"@@@"', text))
    with pytest.raises(DecisionOSError, match="not finite"):
        read_evidence(path)


def test_no_duplicate_key_is_even_read(tmp_path):
    from pytest_decisionos.model.evidence import read_evidence

    text = json.dumps(sealed(healthy()))
    path = tmp_path / "latest.json"
    for key in ("p95", "error_rate", "level", "csv_sha256", "end", "perf"):
        path.write_text(text.replace(f'"{key}":', f'"{key}": 0, "{key}":', 1))
        with pytest.raises(DecisionOSError, match="duplicate key"):
            read_evidence(path)


@pytest.mark.slow
@given(
    pointer=st.sampled_from(pointers_read()),
    value=broken_values() | st.floats(allow_nan=True) | st.text(max_size=20) | st.integers(),
)
@settings(max_examples=300)
def test_decide_never_raises(pointer, value):
    blocks = set_at(sealed(healthy()), pointer, value)
    decision = (
        decide(gate_inputs(blocks, SLOS, k=1))
        if value == value and value not in (float("inf"), float("-inf"))
        else None
    )
    if (
        decision is not None
        and not pointer.startswith("/integrity")
        and strict_json.at(sealed(healthy()), pointer) != value
    ):
        assert decision.verdict is Verdict.NO_GO  # the digest tells
        assert "evidence.integrity:tampered" in {r.code for r in decision.reasons}


WORSE = [
    ("/perf/latency_ms/p95", 1, 3000), ("/perf/latency_ms/p99", 1, 3000), ("/perf/error_rate", 1, 1), ("/perf/count", -1, 10**5),
    ("/perf_judge/availability", -1, 1), ("/perf_judge/signature_error_rate", 1, 1), ("/perf_judge/latency_ms/p99", 1, 4000),
    ("/canary/deltas/p95_rel", 1, 2), ("/canary/deltas/error_delta", 1, 1), ("/canary/canary_perf/count", -1, 10**5),
    ("/budget/spent", 1, 1), ("/usage/cpu_percent", 1, 100), ("/witness/rows", -1, 100),
]  # fmt: skip


def measured(pointer, value):
    """Healthy evidence that measured ``value`` instead, with limits that move along."""
    blocks = healthy()
    block, *_, name = pointer.strip("/").split("/")
    if pointer.endswith(("count", "rows")):
        value = int(value)
        for entry in blocks[block].get("limits", {}).values():
            if "n" in entry and block != "canary":
                entry.update(n=value, effective=value / 1.25)
    else:
        key = f"latency_ms.{name}" if "latency_ms" in pointer else name
        entry = blocks[block].get("limits", {}).get(key)
        if entry:
            top = 1.0 if name.endswith("rate") or name == "availability" else 1e9
            entry["lower"] = {
                level: max(0.0 if block != "canary" else -0.99, value - 0.1 * abs(value))
                for level in entry["lower"]
            }
            entry["upper"] = {level: min(top, value + 0.1 * abs(value)) for level in entry["upper"]}
    return set_at(blocks, pointer, value)


@pytest.mark.slow
@given(first=st.floats(0, 1), second=st.floats(0, 1), which=st.sampled_from(WORSE))
@settings(max_examples=300)
def test_making_a_metric_worse_never_makes_a_go(first, second, which):
    pointer, direction, top = which
    good, bad = sorted((first * top, second * top), reverse=direction < 0)
    verdicts = [judged(measured(pointer, value), k=1).verdict for value in (good, bad)]
    assert not (verdicts[0] is not Verdict.GO and verdicts[1] is Verdict.GO)


@pytest.mark.parametrize("which", WORSE)
def test_the_best_is_go_and_the_worst_is_not(which):
    pointer, direction, top = which
    small, large = measured(pointer, 0), measured(pointer, top)
    best, worst = (small, large) if direction > 0 else (large, small)
    assert judged(best, k=1).verdict is Verdict.GO
    assert judged(worst, k=1).verdict is Verdict.NO_GO


@given(data=st.data())
@settings(max_examples=60)
def test_an_outcome_never_depends_on_another_rule(data):
    blocks = healthy()
    inner = [
        p for p in pointers_read() if p.count("/") > 1 and not p.startswith(("/meta", "/integrity"))
    ]
    for pointer in data.draw(st.lists(st.sampled_from(inner), max_size=4)):
        value = data.draw(broken_values())
        with contextlib.suppress(
            KeyError, TypeError, IndexError, ValueError
        ):  # its parent is broken already
            set_at(blocks, pointer, value)
    slo = data.draw(st.sampled_from(SLOS))
    whole = {o.id: o for o in judged(blocks, [slo]).slos[0].ballots[0].outcomes}
    kept = data.draw(st.sets(st.sampled_from(slo.rules), min_size=1))
    some = slo.model_copy(update={"rules": tuple(rule for rule in slo.rules if rule in kept)})
    for outcome in judged(blocks, [some]).slos[0].ballots[0].outcomes:
        assert outcome == whole[outcome.id]


def test_ids_are_stable_under_reordering():
    blocks = sealed(healthy())
    blocks["perf"]["groups"].reverse()
    view = [View(b, source="", integrity=None, now=NOW) for b in (sealed(healthy()), blocks)]
    for slo in SLOS:
        assert [r.id for r in expand(slo.rules, view[0])] == [
            r.id for r in expand(slo.rules, view[1])
        ]


@pytest.mark.parametrize(
    ("change", "reason", "action"),
    [
        (lambda b: b["perf"]["latency_ms"].update(p95=5000.0), "latency.p95:over", Action.ABORT),
        (lambda b: b["perf_judge"].update(availability=0.9), "judge_infra.availability:under", Action.ABORT),
        (lambda b: b["canary"]["canary_perf"].update(count=3), "canary.sample_count:samples_insufficient", Action.WAIT),
        (lambda b: b["budget"].update(level="exceeded"), "budget.levels:not_allowed", Action.ABORT),
        (lambda b: b["quota"]["decisions"]["tokens"].update(action="deny"), "quota.forbid_actions.tokens:forbidden", Action.ABORT),
        (lambda b: b["quota"]["decisions"]["tokens"].update(action="perhaps"), "quota.forbid_actions.tokens:out_of_range", Action.WAIT),
        (lambda b: b["anomaly"].update(is_spike=True), "anomaly.spike:set", Action.ABORT),
        (lambda b: b["meta"]["target"].update(tenant="someone"), "evidence.target:foreign_target", Action.WAIT),
        (lambda b: b.pop("perf_judge"), "judge_infra.availability:missing", Action.WAIT),
        (lambda b: b["witness"].update(csv_sha256="b" * 64), "witness.csv_sha256:different", Action.ABORT),
    ],
)  # fmt: skip
def test_reason_and_action(change, reason, action):
    blocks = healthy()
    change(blocks)
    decision = judged(blocks, k=1)
    assert decision.verdict is Verdict.NO_GO
    assert reason in {r.code for r in decision.reasons}
    assert decision.action is action


def test_stale_evidence_waits_then_aborts():
    blocks = sealed(healthy(NOW - timedelta(minutes=16)))
    decision = decide(gate_inputs(blocks, SLOS, k=1))
    assert "evidence.freshness:stale" in {r.code for r in decision.reasons}
    assert decision.action is Action.ABORT  # 38 minutes after the step began
    early = gate_inputs(blocks, SLOS, k=1, now=NOW - timedelta(minutes=0, seconds=20))
    assert decide(early).verdict is Verdict.NO_GO


def test_evidence_of_tomorrow_is_refused():
    decision = judged(healthy(NOW + timedelta(days=1)), k=1)
    assert "evidence.freshness:out_of_range" in {r.code for r in decision.reasons}


def test_changed_evidence_is_tampered_and_aborts():
    blocks = sealed(healthy())
    blocks["perf"]["latency_ms"]["p50"] += 1
    decision = decide(gate_inputs(blocks, SLOS, k=1))
    assert (decision.verdict, decision.action) == (Verdict.NO_GO, Action.ABORT)
    assert decision.reasons[0].code in {
        "evidence.integrity:tampered",
        "integrity.signature:tampered",
        "witness.signature:tampered",
    }


def test_real_evidence_of_existing_producers_is_called_tampered():
    path = ROOT.parent / "shared/examples/evidence/sample_release_gate.json"
    if not path.is_file():
        pytest.skip("the published examples are not beside this checkout")
    from pytest_decisionos.model.evidence import read_evidence

    decision = decide(gate_inputs(read_evidence(path).blocks, SLOS, k=1))
    assert "evidence.integrity:tampered" in {r.code for r in decision.reasons}


def test_a_log_judge_that_saw_other_numbers_outvotes_a_lie():
    blocks = healthy()
    truth = healthy()["perf"]
    truth["latency_ms"]["p95"] = 2000.0
    judges = [
        JudgeInput(id="evidence", source="evidence"),
        JudgeInput(id="witness", source="log", exact=True, blocks={"perf": truth}),
        JudgeInput(id="peer", source="log", blocks={"perf": truth}),
    ]
    decision = judged(blocks, judges=judges, k=2)
    assert (decision.verdict, decision.action) == (Verdict.NO_GO, Action.ABORT)
    codes = {r.code: r for r in decision.reasons}
    assert codes["latency.p95:over"].judges == ("peer",)
    assert codes["latency.p95:tampered"].judges == ("witness",)


def test_rounding_is_no_contradiction():
    blocks = healthy()
    blocks["perf"]["latency_ms"]["p95"] = 400
    truth = healthy()["perf"]
    truth["latency_ms"]["p95"] = 400.31
    judges = [JudgeInput(id="witness", source="log", exact=True, blocks={"perf": truth})]
    slo = next(s for s in SLOS if s.stem == "slo-billing-strict-v2")
    assert judged(blocks, [slo], judges=judges).verdict is Verdict.GO
    truth["latency_ms"]["p95"] = 400.51
    judges = [JudgeInput(id="witness", source="log", exact=True, blocks={"perf": truth})]
    assert judged(blocks, [slo], judges=judges).verdict is Verdict.NO_GO


@pytest.mark.parametrize(("said", "found"), [(0, 0.4), (0.0, 0.4), (0, 0.002)])
def test_no_rate_is_rounded_to_nothing(said, found):
    blocks = healthy()
    blocks["perf"]["error_rate"] = said
    truth = healthy()["perf"]
    truth["error_rate"] = found
    judges = [JudgeInput(id="witness", source="log", exact=True, blocks={"perf": truth})]
    slo = next(s for s in SLOS if s.stem == "slo-billing-strict-v2")
    codes = {reason.code for reason in judged(blocks, [slo], judges=judges).reasons}
    assert any(code.startswith("error.") and code.endswith(":tampered") for code in codes)


def test_a_hidden_group_is_seen_by_the_log():
    blocks = healthy()
    truth = healthy()["perf"]
    blocks["perf"]["groups"] = blocks["perf"]["groups"][1:]
    judges = [JudgeInput(id="witness", source="log", exact=True, blocks={"perf": truth})]
    codes = {r.code for r in judged(blocks, judges=judges, k=1).reasons}
    assert any(code.startswith("rules.") and code.endswith(":tampered") for code in codes)


def test_judges_abstain_err_and_vote():
    judges = [
        JudgeInput(id="evidence", source="evidence"),
        JudgeInput(id="witness", source="log", state="absent", reason="no log"),
        JudgeInput(id="peer", source="log", state="error", reason="cannot be read"),
        JudgeInput(id="other", source="log", blocks={"perf_judge": healthy()["perf_judge"]}),
    ]
    slo = next(s for s in SLOS if s.stem == "slo-infra-v2")
    votes = {b.judge: b for b in judged(healthy(), [slo], judges=judges, k=1).slos[0].ballots}
    assert {j: b.vote for j, b in votes.items()} == {
        "evidence": Vote.PASS,
        "witness": Vote.ABSTAIN,
        "peer": Vote.ERROR,
        "other": Vote.ABSTAIN,
    }
    assert votes["witness"].reason == "no log"
    assert "feeds none" in votes["other"].reason
    assert {o.cause for o in votes["peer"].outcomes} == {"source_missing"}


def test_nothing_to_judge_is_refused():
    with pytest.raises(ValueError, match="nothing to judge"):
        decide(gate_inputs(sealed(healthy()), []))


def slo_of(tmp_path, **spec):
    path = tmp_path / "slo-own.json"
    path.write_text(json.dumps(spec))
    return load_slo(path)


WAIVER = {"rule": "latency.p95", "owner": "김민수", "reason": "known", "expires": "2026-01-20"}


@pytest.mark.parametrize(
    ("waiver", "p95", "go"),
    [
        ({}, 5000.0, True),
        ({"expires": "2026-01-15T11:59:00Z"}, 5000.0, False),
        ({"expires": "2026-02-15"}, 5000.0, False),
        ({"expires": "soon"}, 5000.0, False),
        ({"expires": "2026-01-20T00:00:00"}, 5000.0, False),
        ({}, "x", False),
        ({}, None, False),
    ],
)
def test_waivers(tmp_path, waiver, p95, go):
    slo = slo_of(tmp_path, latency={"max_p95_ms": 900}, waivers=[WAIVER | waiver])
    blocks = healthy()
    blocks["perf"]["latency_ms"]["p95"] = p95
    decision = judged(blocks, [slo])
    assert (decision.verdict is Verdict.GO) is go
    note = " ".join(decision.notes)
    assert "김민수" in note
    assert ("ignored" in note) is (bool(waiver))
    if go:
        assert "김민수" in decision.slos[0].ballots[0].outcomes[0].waived


def test_warnings_never_decide_and_are_shown(tmp_path):
    rule = {
        "id": "tight",
        "metric": "/perf/latency_ms/p50",
        "op": "<=",
        "bound": 1,
        "severity": "warn",
    }
    slo = slo_of(tmp_path, latency={"max_p95_ms": 900}, rules=[rule])
    decision = judged(healthy(), [slo])
    assert decision.verdict is Verdict.GO
    assert {o.id: o.status for o in decision.slos[0].ballots[0].outcomes}[
        "rules.tight"
    ] is Status.FAILED


@pytest.mark.parametrize(("mode", "verdict"), [("hold", Verdict.HOLD), ("no-go", Verdict.NO_GO)])
def test_hold_when_too_little_is_known(tmp_path, mode, verdict):
    slo = slo_of(tmp_path, latency={"max_p95_ms": 900, "min_samples": 10**6}, on_inconclusive=mode)
    decision = judged(healthy(), [slo])
    assert (decision.verdict, decision.action) == (verdict, Action.WAIT)
    assert "920,000 more" in decision.reasons[0].message
    late = slo_of(
        tmp_path,
        latency={"max_p95_ms": 900, "min_samples": 10**6},
        on_inconclusive=mode,
        max_wait_sec=60,
    )
    assert judged(healthy(), [late]).action is Action.ABORT


def test_step_start_unknown_means_no_more_waiting(tmp_path):
    slo = slo_of(tmp_path, latency={"max_p95_ms": 900, "min_samples": 10**6})
    blocks = healthy()
    del blocks["canary"]
    blocks["meta"]["window"] = {"end": blocks["meta"]["window"]["end"]}
    assert judged(blocks, [slo]).action is Action.ABORT


def test_inputs_survive_the_wire():
    from pytest_decisionos.judge.decide import GateInputs

    inputs = gate_inputs(sealed(healthy()), SLOS, k=1)
    again = GateInputs.model_validate_json(inputs.model_dump_json())
    assert decide(again) == decide(inputs)
    assert TARGET == again.target


def test_huge_integers_are_no_measurement():
    slo = next(s for s in SLOS if s.stem == "slo-billing-strict-v2")
    truth = healthy()["perf"]
    truth["latency_ms"]["p95"] = 10**400
    for exact in (True, False):
        judges = [JudgeInput(id="w", source="log", exact=exact, blocks={"perf": truth})]
        assert judged(healthy(), [slo], judges=judges).verdict is Verdict.NO_GO
    blocks = healthy()
    blocks["budget"]["spent"] = 10**400
    assert "budget.spent:out_of_range" in {r.code for r in judged(blocks, [slo]).reasons}


def test_tampering_is_never_outvoted():
    slo = next(s for s in SLOS if s.stem == "slo-billing-strict-v2")
    truth = healthy()["perf"]
    truth["latency_ms"]["p95"] = 401.0  # within the bound, and not what the evidence says
    judges = [
        JudgeInput(id="evidence", source="evidence"),
        JudgeInput(id="witness", source="log", exact=True, blocks={"perf": truth}),
        JudgeInput(id="peer", source="log", blocks={"perf": truth}),
    ]
    decision = judged(healthy(), [slo], judges=judges)
    assert decision.slos[0].verdict is Verdict.GO  # two of three pass
    assert (decision.verdict, decision.action) == (Verdict.NO_GO, Action.ABORT)
    assert decision.slos[0].dissent == ()
    assert [(r.code, r.outvoted) for r in decision.reasons] == [("latency.p95:tampered", False)]


@pytest.mark.parametrize(
    ("witness", "cause"),
    [
        ({"harvest": {"filters": ["route=/healthz", "variant=mirror"]}}, None),
        ({"harvest": {"filters": ["route=/v1/*"]}}, "not_allowed"),
        ({"harvest": {"filters": ["route=/internal/*"]}}, None),
        ({"harvest": {"filters": "route=/healthz"}}, "wrong_type"),
        ({"harvest": []}, "wrong_type"),
        (
            {
                "sources": [
                    {"role": "reqlog", "name": "a", "filters": [{"text": "tenant=*", "rows": 0}]}
                ]
            },
            "not_allowed",
        ),
        ({"sources": [{"role": "reqlog", "name": "a", "filters": [3]}]}, "not_allowed"),
        ({"sources": [{"role": "reqlog", "name": "a", "filters": {}}]}, "wrong_type"),
        ({"sources": [{"role": "reqlog", "name": "a", "bad_rows": 2}]}, None),
        ({"sources": [{"role": "reqlog", "name": "a", "bad_rows": 3}]}, "over"),
        ({"sources": [{"role": "reqlog", "name": "a", "bad_rows": -1}]}, "over"),
        ({"sources": [{"role": "reqlog", "name": "a", "bad_rows": "0"}]}, "over"),
        ({"sources": ["a"]}, "wrong_type"),
        ({"sources": {}}, "wrong_type"),
    ],
)
def test_evidence_leaves_out_only_what_the_gate_allows(witness, cause):
    from pytest_decisionos.judge.gate import HarvestLimits

    blocks = healthy()
    blocks["witness"] |= witness
    limits = HarvestLimits(filters=("route=/internal/*",), max_bad_rows=2)
    inputs = gate_inputs(sealed(blocks), SLOS, k=1).model_copy(update={"harvest": limits})
    found = {check.id: check.cause for check in decide(inputs).checks}
    assert found["evidence.harvest"] == cause
