"""One rule on one view: by the value, by the limits, and how many more samples."""

import copy
from datetime import timedelta

import pytest

from pytest_decisionos.judge.evaluate import evaluate
from pytest_decisionos.judge.view import View
from pytest_decisionos.model.outcome import Status, quantity
from pytest_decisionos.model.policy import Group, Rule
from pytest_decisionos.slo.facts import facts_of
from pytest_decisionos.testing import NOW, healthy, sealed


def view(change=lambda blocks: None, **kwargs):
    blocks = copy.deepcopy(sealed(healthy()))
    change(blocks)
    return View(blocks, source="latest.json", integrity=None, now=NOW, **kwargs)


def rule(metric, op, bound, **more):
    return Rule(
        **{
            "id": "r",
            "kind": "number",
            "metric": metric,
            "op": op,
            "bound": bound,
            **facts_of(metric)._asdict(),
            **more,
        }
    )


P95 = "/perf/latency_ms/p95"  # 400 ms, limits at 0.95: 394 … 406, 80,000 samples, D 1.25


@pytest.mark.parametrize(
    ("op", "bound", "level", "status", "cause"),
    [
        ("<=", 400.0, None, Status.SUCCESSFUL, None),
        ("<", 400.0, None, Status.FAILED, "over"),
        ("<=", 399.9, None, Status.FAILED, "over"),
        (">=", 400.0, None, Status.SUCCESSFUL, None),
        (">", 400.0, None, Status.FAILED, "under"),
        ("==", 400.0, None, Status.SUCCESSFUL, None),
        ("==", 401.0, None, Status.FAILED, "different"),
        ("<=", 406.0, 0.95, Status.SUCCESSFUL, None),
        ("<=", 405.0, 0.95, Status.INCONCLUSIVE, "inconclusive"),
        ("<=", 405.0, 0.90, Status.SUCCESSFUL, None),
        ("<=", 407.0, 0.99, Status.INCONCLUSIVE, "inconclusive"),
        ("<=", 395.0, 0.95, Status.INCONCLUSIVE, "inconclusive"),
        ("<=", 393.0, 0.95, Status.FAILED, "over"),
        (">=", 394.0, 0.95, Status.SUCCESSFUL, None),
        (">=", 395.0, 0.95, Status.INCONCLUSIVE, "inconclusive"),
        (">=", 407.0, 0.95, Status.FAILED, "under"),
    ],
)
def test_numbers(op, bound, level, status, cause):
    outcome = evaluate(rule(P95, op, bound, level=level), view())
    assert (outcome.status, outcome.cause) == (status, cause)
    assert outcome.observed == 400.0
    assert outcome.samples == 80_000
    assert "latest.json" in outcome.message
    if level:
        assert outcome.effective == 64_000
        assert outcome.limit is not None


def test_how_many_more_samples():
    few = evaluate(rule(P95, "<=", 900.0, min_samples=100_000), view())
    assert (few.status, few.needed) == (Status.INCONCLUSIVE, 20_000)
    assert "20,000 more are needed" in few.message
    # The limit is 6 ms above, the bound 3: four times the samples, so three times as many more.
    close = evaluate(rule(P95, "<=", 403.0, level=0.95), view())
    assert close.needed == pytest.approx(3 * 80_000, rel=0.01)
    never = evaluate(rule(P95, "<=", 400.0, level=0.95), view())
    assert never.needed is None
    assert "no number of samples" in never.message

    def thin(blocks):
        entry = blocks["perf"]["limits"]["latency_ms.p95"]
        entry.update(
            n=40,
            effective=32.0,
            lower=dict.fromkeys(entry["lower"], 300.0),
            upper=dict.fromkeys(entry["upper"]),
        )
        blocks["perf"]["count"] = 40

    none = evaluate(rule(P95, "<=", 900.0, level=0.95), view(thin))
    assert (none.cause, none.needed) == ("samples_insufficient", 74 - 40)  # 59 × D

    def unknown(blocks):
        entry = blocks["perf"]["limits"]["latency_ms.p95"]
        entry.update(
            d=None,
            effective=None,
            lower=dict.fromkeys(entry["lower"]),
            upper=dict.fromkeys(entry["upper"]),
        )

    blind = evaluate(rule(P95, "<=", 900.0, level=0.95), view(unknown))
    assert (blind.status, blind.cause) == (Status.INCONCLUSIVE, "inconclusive")


def test_a_certain_violation_needs_no_more_samples():
    outcome = evaluate(rule(P95, "<=", 300.0, level=0.95, min_samples=10**6), view())
    assert outcome.status is Status.FAILED


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.update(n=1),
        lambda e: e.update(d=0.5),
        lambda e: e.update(effective=1.0),
        lambda e: e.update(d=True),
        lambda e: e.pop("d"),
        lambda e: e.update(d=None),
        lambda e: e["lower"].update({"0.95": None}),
        lambda e: e["upper"].update({"0.95": 399.0}),
        lambda e: e["lower"].update({"0.95": 401.0}),
        lambda e: e["upper"].update({"0.95": "406"}),
        lambda e: e.update(upper=[]),
        lambda e: e["upper"].pop("0.95"),
        lambda e: e.update(n=True),
    ],
)
def test_limits_that_lie_are_errors(change):
    lying = view(lambda blocks: change(blocks["perf"]["limits"]["latency_ms.p95"]))
    assert evaluate(rule(P95, "<=", 900.0, level=0.95), lying).status is Status.ERROR


def test_availability_is_judged_by_its_lower_limit():
    metric = "/perf_judge/availability"  # 0.9996, limits at 0.95: 0.9993 … 0.9999
    assert evaluate(rule(metric, ">=", 0.9993, level=0.95), view()).status is Status.SUCCESSFUL
    assert evaluate(rule(metric, ">=", 0.9995, level=0.95), view()).status is Status.INCONCLUSIVE
    assert evaluate(rule(metric, ">=", 0.99995, level=0.95), view()).status is Status.FAILED


def test_missing_may_be_inconclusive():
    metric = rule("/usage/qps", "<=", 100.0, missing="inconclusive")
    assert evaluate(metric, view(lambda b: b.pop("usage"))).status is Status.INCONCLUSIVE
    assert evaluate(metric, view(lambda b: b["usage"].update(qps="x"))).status is Status.ERROR


def test_groups_are_read_by_name():
    pay = rule("/perf/latency_ms/p95", "<=", 519.0, group=Group(by="route", name="/v1/pay"))
    outcome = evaluate(pay, view())
    assert (outcome.status, outcome.observed, outcome.samples) == (Status.FAILED, 520.0, 20_000)
    assert "of route /v1/pay" in outcome.message
    twice = view(lambda b: b["perf"]["groups"].append(dict(b["perf"]["groups"][1])))
    assert evaluate(pay, twice).cause == "missing"
    umbrella = Rule(
        id="g", kind="groups", metric="/perf/groups", op="<=", bound=1.0, for_each="route"
    )
    assert evaluate(umbrella, view()).cause == "out_of_range"
    assert evaluate(umbrella, twice).cause == "wrong_type"
    assert evaluate(umbrella, view(lambda b: b["perf"].update(groups="x"))).cause == "missing"
    assert evaluate(umbrella, view(lambda b: b["perf"]["groups"].append("x"))).cause == "wrong_type"


@pytest.mark.parametrize(
    ("window", "status"),
    [
        ({"start": "2026-01-15T11:00:00Z", "end": "2026-01-15T11:05:00Z"}, Status.SUCCESSFUL),
        ({"start": "2026-01-15T11:00:00Z", "end": "2026-01-15T11:04:59Z"}, Status.INCONCLUSIVE),
        ({"start": "2026-01-15T11:00:00Z", "end": "2026-01-15T10:00:00Z"}, Status.ERROR),
        ({"start": "2026-01-15T11:00:00", "end": "2026-01-15T12:00:00Z"}, Status.ERROR),
        ({"start": "x", "end": 3}, Status.ERROR),
        (None, Status.ERROR),
        ([], Status.ERROR),
    ],
)
def test_spans(window, status):
    span = Rule(id="w", kind="span", metric="/perf_judge/window", op=">=", bound=300.0, unit="s")
    assert evaluate(span, view(lambda b: b["perf_judge"].update(window=window))).status is status


@pytest.mark.parametrize(
    ("seconds", "cause"), [(0, None), (900, None), (901, "stale"), (-5, None), (-6, "out_of_range")]
)
def test_ages(seconds, cause):
    age = Rule(id="a", kind="age", metric="/meta/window/end", op="<=", bound=900.0, unit="s")
    end = (NOW - timedelta(seconds=seconds)).isoformat()
    assert evaluate(age, view(lambda b: b["meta"]["window"].update(end=end))).cause == cause


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1260.0, "ms", "1,260 ms"), (0.0031, "rate", "0.31 %"), (0.124, "rel", "+12.4 %"), (True, "", "true"), (None, "", "nothing"),
        ("한빛", "", "한빛"), (1e20, "ms", "1e+20 ms"), (float("nan"), "", "nan"), (10**400, "", None), (12.3456, "", "12.35"),
    ],
)  # fmt: skip
def test_quantities(value, unit, text):
    assert quantity(value, unit) == text or (text is None and len(quantity(value, unit)) <= 40)


@pytest.mark.parametrize(
    ("sources", "cause"),
    [
        ([{"role": "reqlog", "sha256": "a" * 64}], None),
        ([{"role": "reqlog", "sha256": ["a"]}, {"role": [], "sha256": {}}, 3, None], "different"),
        ("x", "different"),
        ({}, "different"),
        (None, None),
    ],
)
def test_the_digest_is_one_of_the_logs(sources, cause):
    digest = Rule(id="d", kind="digest", metric="/witness/csv_sha256", op="is")
    assert evaluate(digest, view(lambda b: b["witness"].update(sources=sources))).cause == cause


@pytest.mark.parametrize(
    ("op", "word", "message"),
    [
        ("in", "ok", "ok is in ok, warn"),
        ("in", "bad", "bad is not in ok, warn"),
        ("not in", "ok", "ok is in ok, warn"),
        ("not in", "bad", "bad is not in ok, warn"),
    ],
)
def test_words_are_told_as_they_are(op, word, message):
    words = Rule(id="w", kind="word", metric="/budget/level", op=op, words=("ok", "warn"))
    outcome = evaluate(words, view(lambda b: b["budget"].update(level=word)))
    assert outcome.message.startswith(message)
    assert (outcome.status is Status.SUCCESSFUL) is ((word == "ok") == (op == "in"))
