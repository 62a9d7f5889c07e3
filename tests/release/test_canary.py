"""May the canary go on? One thing changed a case; and whatever the evidence is, nothing raises."""

import copy
import json
import math
from datetime import timedelta

import pytest
from canary_cases import (
    MINUTES,
    NOW,
    POLICY,
    RULES,
    SINCE,
    SLO,
    codes,
    evidence,
    judge,
    rules_of,
    stage,
    window,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_decisionos.model.outcome import Outcome, Status
from pytest_decisionos.release.canary import CanaryVerdict
from pytest_decisionos.release.windows import MAX_WINDOWS, read_spans
from pytest_decisionos.testing import broken_values

DEAD = dict.fromkeys(MINUTES)
FAST = {minute: {"p95": 200.0} for minute in MINUTES}


def policy(**changes):
    return POLICY.model_copy(update=changes)


def changed(blocks, pointer, value):
    """A copy of ``blocks`` with ``value`` at the dotted ``pointer``."""
    made = copy.deepcopy(blocks)
    *path, last = pointer.split("/")
    inner = made
    for part in path:
        inner = inner[int(part) if isinstance(inner, list) else part]
    inner[int(last) if isinstance(inner, list) else last] = value
    return made


# What goes on


@pytest.mark.parametrize(
    ("pct", "action", "to"),
    [(5.0, "step", 10), (10.0, "step", 25), (25.0, "step", 50), (50.0, "promote", 100)],
)
def test_a_healthy_canary_takes_the_next_step(pct, action, to):
    verdict = judge(evidence(count=round(9000 * pct / (100 - pct))), pct=pct)
    assert (verdict.action, verdict.from_pct, verdict.to_pct) == (action, pct, to)
    assert verdict.look
    assert verdict.seen.until == NOW
    assert codes(verdict) == set()


def test_shadow_needs_copies_and_no_share():
    blocks = evidence(at={minute: {"count": 400} for minute in MINUTES})
    assert judge(blocks, pct=0.0).to_pct == 5
    assert judge(changed(blocks, "witness/harvest/shadow", True), pct=0.0).to_pct == 5
    verdict = judge(evidence(at=DEAD), pct=0.0)
    assert verdict.action == "abort"
    assert "canary.share:under" in codes(verdict)


def test_every_reason_is_said_with_an_id_of_its_own():
    reasons = judge(evidence()).reasons
    ids = [outcome.id for outcome in reasons]
    assert len(set(ids)) == len(ids)
    assert all(one.startswith("canary.") for one in ids)
    assert all(outcome.message and "\n" not in outcome.message for outcome in reasons)


# One thing wrong

LATEST, MIDDLE = 35, 30
SLOW = {"p95": 480.0}
CASES = {
    # the windows
    "slow in the latest": (evidence(at={LATEST: SLOW}), {}, "wait", {"canary.passes:under"}),
    "slow in the first of N": (evidence(at={25: SLOW}), {}, "wait", {"canary.passes:under"}),
    "slow before them": (evidence(at={20: SLOW}), {}, "step", set()),
    "slow in the warm-up": (evidence(at={0: SLOW, 5: SLOW}), {}, "step", set()),
    "slow twice": (evidence(at={30: SLOW, 35: SLOW}), {}, "wait", {"canary.passes:under"}),
    "slow": (evidence(**SLOW), {}, "abort", {"canary.passes:under", "canary.failures:over"}),
    "slow, and then well": (evidence(at=dict.fromkeys((20, 25, 30), SLOW)), {}, "wait", {"canary.passes:under"}),
    "errors": (evidence(error_rate=0.015), {}, "abort", {"canary.passes:under", "canary.failures:over"}),
    "at the bound": (evidence(p95=459.9, error_rate=0.0129), {}, "step", set()),
    "over an absolute bound that control breaks too": (
        evidence(p95=901.0, control_at={m: {"p95": 901.0} for m in MINUTES}), {},
        "abort", {"canary.passes:under", "canary.failures:over"},
    ),
    "over an absolute error rate": (
        evidence(error_rate=0.021, control_at={m: {"error_rate": 0.02} for m in MINUTES}), {},
        "abort", {"canary.passes:under", "canary.failures:over"},
    ),
    "a burst": (evidence(at={LATEST: {"burst": 1}}), {}, "abort", {"canary.burst:over"}),
    "a burst long ago in the step": (evidence(at={15: {"burst": 2}}), {}, "abort", {"canary.burst:over"}),
    "a burst in the warm-up": (evidence(at={5: {"burst": 2}}), {}, "step", set()),
    "a burst of the control": (evidence(control_at={LATEST: {"burst": 3}}), {}, "step", set()),
    "thin in one": (
        evidence(at={MIDDLE: {"count": 333}}), {}, "wait",
        {"canary.passes:samples_insufficient", "canary.samples:samples_insufficient"},
    ),
    "just enough in one": (evidence(at={MIDDLE: {"count": 334}}), {}, "step", set()),
    "control thin in one": (evidence(control_at={MIDDLE: {"count": 333}}), {}, "wait", {"canary.passes:samples_insufficient"}),
    "control not there in one": (evidence(control_at={MIDDLE: None}), {}, "wait", {"canary.passes:samples_insufficient"}),
    "control without any latency": (evidence(control_at={LATEST: {"p95": 0}}), {}, "wait", {"canary.passes:samples_insufficient"}),
    # dead
    "dead in the latest": (evidence(at={35: None}), {}, "wait", {"canary.passes:under", "canary.gap:over", "canary.samples:samples_insufficient"}),
    "dead for three": (
        evidence(at=dict.fromkeys((25, 30, 35))), {}, "abort",
        {"canary.passes:under", "canary.failures:over", "canary.gap:over", "canary.samples:samples_insufficient", "canary.share:under"},
    ),
    "dead from the start": (
        evidence(at=DEAD), {}, "abort",
        {"canary.passes:under", "canary.failures:over", "canary.samples:samples_insufficient", "canary.share:under", "canary.freshness:missing"},
    ),
    "only failures": (
        evidence(error_rate=1.0), {}, "abort",
        {"canary.alive:over", "canary.passes:under", "canary.failures:over"},
    ),
    "only failures in one window of the warm-up": (evidence(at={0: {"error_rate": 1, "count": 10}}), {}, "abort", {"canary.alive:over"}),
    "a few requests, and they failed": (evidence(at={0: {"error_rate": 1.0, "count": 9}}), {}, "step", set()),
    "less than its share": (evidence(count=400), {}, "abort", {"canary.share:under"}),
    "its share, barely": (evidence(count=486), {}, "step", set()),
    "a little less than its share": (
        evidence(count=450), {}, "wait", {"canary.share:under"},
    ),
    # too young
    "no window yet": (
        evidence(), {"since": NOW - timedelta(minutes=9)}, "wait",
        {"canary.passes:samples_insufficient", "canary.samples:samples_insufficient", "canary.share:under",
         "canary.freshness:missing", "canary.step_start:different"},
    ),
    "dead, and too young to tell": (
        evidence(at=DEAD), {"since": NOW - timedelta(minutes=20)}, "wait",
        {"canary.passes:under", "canary.samples:samples_insufficient", "canary.share:under",
         "canary.freshness:missing", "canary.step_start:different"},
    ),
    "before its time": (evidence(), {"pct": 30.0, "now": NOW, "since": NOW - timedelta(seconds=899)}, "wait", None),
    "paused": (evidence(), {"paused": True}, "wait", {"canary.paused:set"}),
    "paused and slow": (evidence(**SLOW), {"paused": True}, "abort", None),
    # old, or not of this step
    "stale": (evidence(), {"now": NOW + timedelta(seconds=901)}, "wait", {"canary.freshness:stale"}),
    "nearly stale": (evidence(), {"now": NOW + timedelta(seconds=899)}, "step", set()),
    "stale and slow": (evidence(**SLOW), {"now": NOW + timedelta(hours=9)}, "abort", None),
    "from the future": (evidence(), {"now": NOW - timedelta(seconds=6)}, "wait", {"canary.windows:out_of_range"}),
    "a gap": (
        evidence(at={MIDDLE: None}, control_at={MIDDLE: None}), {}, "wait", {"canary.gap:over"},
    ),
    "a step that begins in the future": (evidence(), {"since": NOW + timedelta(minutes=5)}, "wait", None),
    "a step that is not a canary's": (evidence(**SLOW), {"stage": "promote", "pct": 100.0}, "wait", {"canary.stage:different"}),
    "numbers of the step before too": (changed(evidence(), "canary/step_start", (SINCE - timedelta(minutes=9)).isoformat()), {}, "wait", {"canary.step_start:different"}),
    "numbers without the first minutes": (changed(evidence(), "canary/step_start", (SINCE + timedelta(seconds=61)).isoformat()), {}, "wait", {"canary.step_start:different"}),
    "numbers of no step": (changed(evidence(), "canary/step_start", None), {}, "wait", {"canary.step_start:missing"}),
    "numbers of a naive time": (changed(evidence(), "canary/step_start", "2026-01-15T11:20:00"), {}, "wait", {"canary.step_start:wrong_type"}),
    "a first request a minute later": (changed(evidence(), "canary/step_start", (SINCE + timedelta(seconds=59)).isoformat()), {}, "step", set()),
    # another release, another target
    "another release": (evidence(), {"release": "2026.01.2"}, "wait", {"canary.release:different"}),
    "another baseline": (evidence(**SLOW), {"baseline_release": "2025.12.9"}, "wait", {"canary.release:different"}),
    "no release": (changed(evidence(), "meta/release", None), {}, "wait", {"canary.release:different"}),
    "a log without canary names the control's release": (
        changed(changed(evidence(at=DEAD), "meta/release", "2026.01.0"), "meta/baseline_release", None), {},
        "abort", None,
    ),
    "and with a canary that is another release": (changed(evidence(), "meta/release", "2026.01.0"), {}, "wait", {"canary.release:different"}),
    "another target": (changed(evidence(**SLOW), "meta/target/tenant", "acme"), {}, "wait", {"canary.target:foreign_target"}),
    "no target": (changed(evidence(), "meta/target", None), {}, "wait", {"canary.target:missing"}),
    "half a target": (changed(evidence(), "meta/target", {"service": "checkout"}), {}, "wait", {"canary.target:wrong_type"}),
    # proof
    "tampered": (evidence(), {"integrity": ("tampered", "latest.json: changed")}, "abort", {"canary.integrity:tampered"}),
    "an unknown key": (evidence(**SLOW), {"integrity": ("unknown_key", "latest.json: who?")}, "wait", {"canary.integrity:unknown_key"}),
    # how it was harvested
    "laxer bursts against control": (changed(evidence(), "witness/harvest/burst_threshold", 0.61), {}, "wait", {"canary.harvest:over"}),
    "laxer bursts against before": (changed(evidence(), "witness/harvest/ewma_tolerance", 0.36), {}, "wait", {"canary.harvest:over"}),
    "stricter bursts": (changed(evidence(), "witness/harvest", {"burst_threshold": 0.1, "ewma_tolerance": 0}), {}, "step", set()),
    "bursts as of old": (changed(evidence(), "witness/harvest", {}), {}, "wait", {"canary.harvest:over"}),
    "copies for users": (changed(evidence(), "witness/harvest/shadow", True), {}, "wait", {"canary.harvest:not_allowed"}),
    "harvested nobody knows how": (changed(evidence(), "witness/harvest", None), {}, "wait", {"canary.harvest:missing"}),
    "harvested strangely": (changed(evidence(), "witness/harvest", {"threads": 1}), {}, "wait", {"canary.harvest:wrong_type"}),
    "harvested with 10**400": (changed(evidence(), "witness/harvest/burst_threshold", 10**400), {}, "wait", {"canary.harvest:wrong_type"}),
    "a longer guardband was left out": (
        changed(evidence(at={25: SLOW}), "witness/harvest/guardband_minutes", 30.0), {}, "wait", None,
    ),
    "a shorter guardband than the SLO's": (changed(evidence(), "canary/guardband_minutes", 5), {}, "wait", {"canary.rule[canary.guardband]:under"}),
    # the numbers of the step
    "too few over the step": (changed(evidence(), "canary/canary_perf/count", 999), {}, "wait", {"canary.rule[canary.sample_count]:samples_insufficient"}),
    "not proven at the level of a look": (
        changed(evidence(), "canary/limits/p95_rel/upper/0.99", 0.151), {}, "wait",
        {"canary.look[canary.thresholds.p95_rel_increase]:inconclusive"},
    ),
    "proven to be bad": (
        changed(changed(changed(evidence(), "canary/deltas/p95_rel", 0.3), "canary/limits/p95_rel/lower/0.99", 0.16), "canary/limits/p95_rel/upper/0.99", 0.4), {}, "abort",
        {"canary.look[canary.thresholds.p95_rel_increase]:over"},
    ),
    "proven to be bad while it waits": (
        changed(changed(changed(evidence(at={LATEST: SLOW}), "canary/deltas/p95_rel", 0.3), "canary/limits/p95_rel/lower/0.99", 0.16), "canary/limits/p95_rel/upper/0.99", 0.4), {}, "abort",
        {"canary.passes:under", "canary.look[canary.thresholds.p95_rel_increase]:over"},
    ),
    "without limits": (changed(evidence(), "canary/limits", None), {}, "wait", None),
    "without signatures": (changed(evidence(), "canary/deltas/sig_error_delta", None), {}, "wait", {"canary.look[canary.thresholds.sig_error_delta]:missing"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_thing_changed(name):
    blocks, changes, action, reasons = CASES[name]
    verdict = judge(blocks, **changes)
    assert verdict.action == action, codes(verdict)
    if reasons is not None:
        assert codes(verdict) == reasons
    assert verdict.to_pct == {"abort": 0, "step": 25}.get(action, verdict.from_pct)


@pytest.mark.parametrize(
    ("pct", "since", "status"),
    [(10.0, 299, "inconclusive"), (10.0, 300, "successful"), (25.0, 599, "inconclusive"), (50.0, 900, "successful"), (10.0, -6, "error"), (10.0, -1, "inconclusive")],
)  # fmt: skip
def test_the_least_time_at_a_step(pct, since, status):
    verdict = judge(evidence(), pct=pct, since=NOW - timedelta(seconds=since))
    (outcome,) = [o for o in verdict.reasons if o.id == "canary.duration"]
    assert outcome.status == status


def test_a_failing_step_aborts_as_early_as_the_policy_says():
    blocks = evidence(at={LATEST: SLOW})
    assert judge(blocks, policy=policy(consecutive_failures=1)).action == "abort"
    assert judge(evidence(at={30: SLOW, 35: SLOW}), policy=policy(consecutive_failures=2)).action == "abort"  # fmt: skip
    thin = evidence(at={25: SLOW, 30: {"count": 20}, 35: SLOW})
    assert judge(thin, policy=policy(consecutive_failures=2)).action == "wait"
    six = evidence(**SLOW)
    assert judge(six, policy=policy(consecutive_failures=6)).action == "abort"
    assert judge(six, policy=policy(consecutive_failures=7)).action == "wait"


def test_grace_burst():
    blocks = evidence(at={LATEST: {"burst": 2}})
    assert judge(blocks, policy=policy(grace_burst=2)).action == "step"
    assert judge(blocks, policy=policy(grace_burst=1)).action == "abort"


def test_more_windows_must_pass():
    assert judge(evidence(), policy=policy(consecutive_passes=6)).action == "step"
    verdict = judge(evidence(), policy=policy(consecutive_passes=7))
    assert verdict.action == "wait"
    assert "canary.passes:samples_insufficient" in codes(verdict)


def test_a_longer_gap_may_be_allowed():
    blocks = evidence(at={MIDDLE: None}, control_at={MIDDLE: None})
    assert judge(blocks, policy=policy(max_window_gap_sec=300)).action == "step"


def test_too_little_traffic_to_be_missed_is_no_dead_canary():
    thin = {minute: {"count": 20} for minute in MINUTES}
    verdict = judge(evidence(at=DEAD, control_at=thin))
    assert verdict.action == "wait"
    assert "canary.share:under" in codes(verdict)


def test_all_waived_but_the_gate_tells_of_it():
    waived = SLO | {
        "waivers": [
            {"rule": "canary.thresholds.p95_rel_increase", "owner": "김", "reason": "known", "expires": (NOW + timedelta(days=3)).isoformat()},
        ]
    }  # fmt: skip
    slow = changed(evidence(**SLOW), "canary/limits/p95_rel/upper/0.99", 0.3)
    assert judge(slow, rules=rules_of(waived)).action == "step"
    waived["waivers"][0]["expires"] = (NOW - timedelta(days=1)).isoformat()
    assert judge(slow, rules=rules_of(waived)).action == "abort"


@pytest.mark.parametrize(
    ("spec", "reasons"),
    [
        ({"budget": {"max_spent": 0.5}}, ["canary.looks:missing", "canary.passes:missing"]),
        ({"error": {"max_error_rate": 0.02}}, ["canary.looks:missing"]),
        ({"canary": {"thresholds": {"max_sig_error_delta": 0.001}}}, ["canary.passes:missing"]),
        ({"canary": {"baseline": "none"}, "latency": {"max_p95_ms": 900}}, ["canary.looks:missing"]),
    ],
    ids=str,
)  # fmt: skip
def test_without_bounds_nothing_goes_on(spec, reasons):
    verdict = judge(evidence(), rules=rules_of(spec))
    assert verdict.action == "wait"
    assert sorted(codes(verdict)) == reasons


def test_rules_of_ones_own():
    def own(metric, op, bound, **more):
        return rules_of(SLO, {"rules": [{"id": "own", "metric": metric, "op": op, "bound": bound, **more}]})  # fmt: skip

    def action(*rule, **more):
        return judge(evidence(), rules=own(*rule, **more)).action

    p99 = "/canary/canary_perf/latency_ms/p99"
    assert action(p99, "<=", 1800) == "step"
    assert action(p99, "<=", 500) == "abort"
    assert action(p99, "<=", 500, severity="warn") == "step"
    assert action("/canary/canary_perf/latency_ms/p95", ">", 10) == "step"
    assert action("/canary/deltas/error_delta", "<", 0.0001) == "wait"
    assert action("/canary/canary_perf/errors", "<=", 10) == "abort"
    assert action("/canary/what", "<=", 10) == "wait"
    assert action("/canary/step_start", "in", ["yesterday"]) == "abort"
    # rules about something else are the gate's
    assert action("/perf_judge/latency_ms/p95", "<=", 1) == "step"
    assert action("/perf/error_rate", "<=", 0.0001, for_each="route") == "step"
    assert action("/perf/error_rate", "==", 0.003) == "step"


# Looks


def test_a_look_is_taken_only_when_all_else_holds():
    assert not judge(evidence(), paused=True).look
    assert not judge(evidence(at={LATEST: SLOW})).look


NOT_PROVEN = changed(evidence(), "canary/limits/p95_rel/upper/0.99", 0.2)


def test_a_look_that_proves_nothing_is_counted():
    verdict = judge(NOT_PROVEN)
    assert (verdict.action, verdict.look) == ("wait", True)


def test_a_look_that_could_not_pass_is_not():
    none = changed(
        changed(evidence(), "canary/limits/p95_rel/upper/0.99", None),
        "canary/limits/p95_rel/lower/0.99",
        None,
    )
    for blocks in (none, changed(evidence(), "canary/deltas/p95_rel", None)):
        verdict = judge(blocks)
        assert (verdict.action, verdict.look) == ("wait", False)


def test_the_same_evidence_again_is_the_same_look():
    first = judge(evidence())
    again = judge(evidence(), looks=1, last=first.seen)
    assert (again.action, again.look) == ("step", False)
    assert judge(NOT_PROVEN, looks=5, last=first.seen).action == "wait"
    # five are used up, and the fifth passed: what follows is not one more
    assert judge(evidence(), looks=5, last=first.seen).action == "step"


def test_other_numbers_of_the_same_windows_are_no_look_again():
    """Built anew each minute, or with another guardband, until one pleases."""
    first = judge(NOT_PROVEN)
    other = changed(evidence(), "integrity/signature_sha256", "9" * 64)
    verdict = judge(other, looks=1, last=first.seen)
    assert (verdict.action, verdict.look) == ("wait", False)
    assert codes(verdict) == {"canary.looks:samples_insufficient"}
    nameless = changed(evidence(), "integrity/signature_sha256", None)
    assert judge(nameless, looks=1, last=first.seen).action == "wait"


def test_looks_that_nobody_remembers_are_used_up():
    assert judge(evidence(), looks=4).look
    verdict = judge(evidence(), looks=5)
    assert verdict.action == "abort"
    assert codes(verdict) == {"canary.looks:over"}


@pytest.mark.parametrize(
    ("minutes", "action", "look"),
    [(0, "step", False), (5, "wait", False), (10, "wait", False), (15, "step", True), (-5, "wait", False)],
)  # fmt: skip
def test_the_next_look_needs_new_windows(minutes, action, look):
    seen = judge(evidence()).seen._replace(until=NOW - timedelta(minutes=minutes))
    verdict = judge(evidence(), looks=1, last=seen)
    assert (verdict.action, verdict.look) == (action, look)
    if action == "wait":
        assert codes(verdict) == {"canary.looks:samples_insufficient"}


def test_the_first_look_of_a_step_forgets_those_of_the_step_before():
    assert judge(evidence(), looks=0, last=judge(evidence()).seen).look


@pytest.mark.parametrize(("k", "level"), [(1, "0.95"), (2, "0.99"), (5, "0.99")])
def test_each_look_is_judged_at_its_level(k, level):
    one = changed(evidence(), f"canary/limits/error_delta/upper/{level}", 0.011)
    assert judge(one, policy=policy(max_looks=k)).action == "wait"
    other = {"0.95": "0.90", "0.99": "0.95"}[level]
    fine = changed(evidence(), f"canary/limits/error_delta/upper/{other}", 0.011)
    assert judge(fine, policy=policy(max_looks=k)).action == "step"


def test_a_stricter_slo_counts():
    strict = rules_of(SLO | {"confidence": {"level": 0.99}})
    one = changed(evidence(), "canary/limits/error_delta/upper/0.99", 0.011)
    assert judge(one, policy=policy(max_looks=1), rules=RULES).action == "step"
    assert judge(one, policy=policy(max_looks=1), rules=strict).action == "wait"


# Hostile evidence


@pytest.mark.parametrize("name", ["start", "end", "variant", "count", "p95", "p99", "error_rate", "burst"])  # fmt: skip
@settings(max_examples=30)
@given(value=broken_values() | st.sampled_from([math.nan, math.inf, -math.inf, True, 1e308, -0.1, "ⅷ", 10**400, "2026-01-15T11:20:00"]))  # fmt: skip
def test_one_broken_value_in_one_window_stops_all(name, value):
    verdict = judge(changed(evidence(), f"canary/windows/3/{name}", value))
    assert verdict.action == "wait"
    (code,) = codes(verdict)
    assert code in {"canary.windows:wrong_type", "canary.windows:out_of_range"}


@pytest.mark.parametrize(
    ("windows", "code"),
    [
        (None, "missing"),
        ({}, "wrong_type"),
        ([None], "wrong_type"),
        ([{}], "wrong_type"),
        ([window("canary", 0)] * 2, "out_of_range"),
        ([window("canary", 0), window("canary", 2)], "out_of_range"),
        ([window("control", 0), window("canary", 2)], "out_of_range"),
        ([window("canary", 0) | {"end": window("canary", 5)["end"]}], "out_of_range"),
        ([window("canary", 5) | {"end": window("canary", 0)["start"]}], "out_of_range"),
        ([{}] * (MAX_WINDOWS + 1), "out_of_range"),
    ],
    ids=["null", "object", "of null", "empty", "twice", "overlap", "shifted", "long", "backwards", "many"],
)  # fmt: skip
def test_windows_that_say_nothing(windows, code):
    verdict = judge(changed(evidence(), "canary/windows", windows))
    assert (verdict.action, codes(verdict)) == ("wait", {f"canary.windows:{code}"})


def test_one_instant_may_be_spelled_in_two_ways():
    there = window("control", 0)
    here = window("canary", 0) | {"start": "2026-01-15T20:20:00+09:00", "end": "2026-01-15T11:25:00Z"}  # fmt: skip
    (span,) = read_spans([there, here], 300)
    assert (span.control.requests, span.canary.requests) == (9000, 1000)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["canary", "control", SINCE.isoformat(), NOW.isoformat()]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["windows", "canary", "meta", "start", "end", "0.99", "deltas", "x"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def paths(value, path=()):
    """Every place of a document."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()  # fmt: skip
    for key, item in inner:
        yield from paths(item, (*path, key))


HEALTHY = evidence()
# What a judgement reads; the rest is for the gate.
READ = ("meta", "canary", "witness")
PLACES = [p for p in paths({name: HEALTHY[name] for name in READ}) if p]


def assert_sound(verdict):
    assert isinstance(verdict, CanaryVerdict)
    assert all(isinstance(o, Outcome) for o in verdict.reasons)
    bad = [o for o in verdict.reasons if o.status is not Status.SUCCESSFUL]
    assert (verdict.action in {"promote", "step"}) is not bool(bad)
    assert all(o.cause for o in bad)
    assert len(json.dumps(verdict.model_dump(mode="json"))) < 100_000


@pytest.mark.slow
@settings(max_examples=300)
@given(JSON)
def test_any_json_is_judged_and_none_promotes(document):
    verdict = judge(document)
    assert_sound(verdict)
    assert verdict.action == "wait"


@settings(max_examples=300)
@given(st.sampled_from(PLACES), JSON)
def test_any_json_at_any_place(place, value):
    assert_sound(judge(changed(HEALTHY, "/".join(map(str, place)), value)))
    assert_sound(judge({**HEALTHY, "canary": value}))


@settings(max_examples=200)
@given(st.sampled_from(PLACES), st.sampled_from([None, "x", [], {}, math.nan, math.inf, -math.inf]))
def test_nothing_broken_makes_a_wait_into_a_step(place, value):
    waits = evidence(at={LATEST: SLOW})
    if place[:2] == ("canary", "windows"):
        return
    assert judge(changed(waits, "/".join(map(str, place)), value)).action != "step"


@settings(max_examples=150)
@given(
    st.dictionaries(
        st.sampled_from(list(MINUTES)),
        st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "count": st.integers(1, 2000),
                "p95": st.floats(100, 1000),
                "error_rate": st.floats(0, 0.05),
                "burst": st.integers(0, 2),
            },
        ),
    )
)
def test_a_worse_window_never_helps(changes):
    order = ["abort", "wait", "step"]
    before = order.index(judge(evidence(at=changes)).action)
    for minute in (15, LATEST):
        worse = {**changes, minute: {"count": 1000, "p95": 950.0, "error_rate": 0.9, "burst": 3}}
        assert order.index(judge(evidence(at=worse)).action) <= before


def test_it_is_pure():
    blocks = evidence()
    before = copy.deepcopy(blocks)
    assert judge(blocks) == judge(blocks)
    assert blocks == before


def test_the_order_of_windows_means_nothing():
    blocks = evidence()
    blocks["canary"]["windows"].reverse()
    assert judge(blocks) == judge(evidence())


def test_a_stage_as_it_is_stored(tmp_path):
    made = stage()
    assert type(made).model_validate_json(made.model_dump_json()) == made
