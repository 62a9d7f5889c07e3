"""Blocks of an SLO file → rules: one for each bound that is stated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pytest_decisionos.model import strict_json
from pytest_decisionos.model.outcome import quantity
from pytest_decisionos.model.policy import Operator, Rule
from pytest_decisionos.slo.facts import facts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_decisionos.slo.schema import CustomRule, SloFile

_IN_WORDS: Final = {
    "<=": "at most",
    "<": "below",
    ">=": "at least",
    ">": "above",
    "==": "exactly",
}


def block_rules(spec: SloFile) -> Iterator[Rule]:
    """The rules of every block but ``rules``."""
    yield from _traffic(spec)
    yield from _judge_infra(spec)
    yield from _canary(spec)
    yield from _elsewhere(spec)
    yield from _proof(spec)


def _number(
    rule_id: str,
    metric: str,
    op: Operator,
    bound: float | None,
    *,
    name: str,
    min_samples: int = 0,
    **extra: Any,
) -> Iterator[Rule]:
    """One rule on a number; none where the file states no bound."""
    if bound is None:
        return
    facts = facts_of(metric)
    text = f"{name} must be {_IN_WORDS[op]} {quantity(bound, extra.get('unit', facts.unit))}"
    if min_samples:
        text += f" over at least {min_samples:,} samples"
    values = {**facts._asdict(), "bound": bound, "min_samples": min_samples, "text": text, **extra}
    yield Rule(id=rule_id, kind="number", metric=metric, op=op, **values)


def _traffic(spec: SloFile) -> Iterator[Rule]:
    for q, bound in (("p95", spec.latency.max_p95_ms), ("p99", spec.latency.max_p99_ms)):
        yield from _number(
            f"latency.{q}",
            f"/perf/latency_ms/{q}",
            "<=",
            bound,
            name=f"{q} latency",
            min_samples=spec.latency.min_samples,
        )
    yield from _number(
        "error.error_rate",
        "/perf/error_rate",
        "<=",
        spec.error.max_error_rate,
        name="error rate",
        min_samples=spec.error.min_samples,
    )


def _judge_infra(spec: SloFile) -> Iterator[Rule]:
    infra = spec.judge_infra
    grace = 1 + infra.grace_burst
    for q, bound in (("p95", infra.latency.max_p95_ms), ("p99", infra.latency.max_p99_ms)):
        yield from _number(
            f"judge_infra.latency.{q}",
            f"/perf_judge/latency_ms/{q}",
            "<=",
            # Rounded to a nanosecond: 1200 × 1.05 shall read 1260, not 1260.0000000000002.
            None if bound is None else round(bound * grace, 6),
            name=f"{q} latency of the judges",
            min_samples=infra.latency.min_samples,
        )
    yield from _number(
        "judge_infra.availability",
        "/perf_judge/availability",
        ">=",
        infra.availability.min_availability,
        name="availability of the judges",
    )
    yield from _number(
        "judge_infra.sig.sig_error_rate",
        "/perf_judge/signature_error_rate",
        "<=",
        infra.sig.max_sig_error_rate,
        name="signature error rate of the judges",
        min_samples=infra.sig.min_samples,
    )
    if infra.window_sec is not None:
        yield Rule(
            id="judge_infra.window",
            kind="span",
            metric="/perf_judge/window",
            op=">=",
            bound=infra.window_sec,
            unit="s",
            text=f"the judges must be measured for at least {quantity(infra.window_sec, 's')}",
        )


def _canary(spec: SloFile) -> Iterator[Rule]:
    canary = spec.canary
    if canary is None:
        return
    for name, metric, bound, words in (
        (
            "p95_rel_increase",
            "p95_rel",
            canary.thresholds.max_p95_rel_increase,
            "p95 latency above the control's",
        ),
        (
            "error_abs_delta",
            "error_delta",
            canary.thresholds.max_error_abs_delta,
            "error rate minus the control's",
        ),
        (
            "sig_error_delta",
            "sig_error_delta",
            canary.thresholds.max_sig_error_delta,
            "signature error rate minus the control's",
        ),
    ):
        yield from _number(
            f"canary.thresholds.{name}",
            f"/canary/deltas/{metric}",
            "<=",
            bound,
            name=f"the canary's {words}",
            min_samples=canary.min_sample_count,
        )
    sides = [("canary.sample_count", "canary_perf", "the canary")]
    if canary.baseline == "required":
        sides.append(("canary.baseline", "control_perf", "the control"))
    for rule_id, side, name in sides:
        # A count is its own sample size: below the floor nothing is violated, there is too little.
        yield Rule(
            id=rule_id,
            kind="number",
            metric=f"/canary/{side}/count",
            op=">=",
            bound=max(1, canary.min_sample_count),
            low=0,
            counts=(f"/canary/{side}/count",),
            min_samples=max(1, canary.min_sample_count),
            text=f"{name} must have served at least {max(1, canary.min_sample_count):,} requests",
        )
    yield from _number(
        "canary.guardband",
        "/canary/guardband_minutes",
        ">=",
        canary.guardband_minutes,
        name="warm-up left out of the comparison",
        unit="min",
    )


def _word(
    rule_id: str,
    metric: str,
    op: Operator,
    words: tuple[str, ...],
    *,
    name: str,
    known: tuple[str, ...] = (),
) -> Rule:
    verb = "one of" if op == "in" else "none of"
    return Rule(
        id=rule_id,
        kind="word",
        metric=metric,
        op=op,
        words=words,
        known=known,
        text=f"{name} must be {verb} {', '.join(words)}",
    )


def _elsewhere(spec: SloFile) -> Iterator[Rule]:
    if spec.budget.allow_levels is not None:
        yield _word(
            "budget.levels", "/budget/level", "in", spec.budget.allow_levels, name="budget level"
        )
    yield from _number(
        "budget.spent", "/budget/spent", "<=", spec.budget.max_spent, name="budget spent"
    )
    for metric, actions in spec.quota.forbid_actions.items():
        token = metric.replace("~", "~0").replace("/", "~1")
        yield _word(
            f"quota.forbid_actions.{metric}",
            f"/quota/decisions/{token}/action",
            "not in",
            actions,
            name=f"quota action on {metric}",
            known=("allow", "warn", "throttle", "deny"),
        )
    if not spec.anomaly.allow_spike:
        yield Rule(
            id="anomaly.spike",
            kind="flag",
            metric="/anomaly/is_spike",
            op="is",
            bound=False,
            text="there must be no spike",
        )
    drift = spec.drift
    if drift.source is not None:
        yield _word(
            "drift.source",
            "/drift/source",
            "in",
            (drift.source,),
            name="source of the drift numbers",
        )
    yield from _number(
        "drift.abs_diff", "/drift/abs_diff", "<=", drift.max_abs_diff, name="absolute drift"
    )
    yield from _number("drift.kl", "/drift/kl", "<=", drift.max_kl, name="Kullback–Leibler drift")
    if drift.forbid_severity is not None:
        yield _word(
            "drift.severity",
            "/drift/severity",
            "not in",
            drift.forbid_severity,
            name="drift severity",
            known=("none", "low", "medium", "high", "critical"),
        )
    saturation = spec.saturation
    missing = "error" if saturation.fail_closed else "inconclusive"
    for name, bound, words in (
        ("cpu_percent", saturation.max_cpu_percent, "CPU use"),
        ("mem_percent", saturation.max_mem_percent, "memory use"),
        ("qps", saturation.max_qps, "load"),
    ):
        yield from _number(
            f"saturation.{name}", f"/usage/{name}", "<=", bound, name=words, missing=missing
        )


def _proof(spec: SloFile) -> Iterator[Rule]:
    if spec.witness.require_csv_sha256:
        yield Rule(
            id="witness.csv_sha256",
            kind="digest",
            metric="/witness/csv_sha256",
            op="is",
            waivable=False,
            text="the evidence must name its log by SHA-256",
        )
    for rule_id, wanted in (
        ("witness.signature", spec.witness.require_signature),
        ("integrity.signature", spec.integrity.require_signature),
    ):
        if wanted:
            yield Rule(
                id=rule_id,
                kind="signature",
                metric="/integrity/signature_sha256",
                op="is",
                waivable=False,
                text="the evidence must carry the right digest of its own blocks",
            )
    yield from _number(
        "witness.rows",
        "/witness/rows",
        ">=",
        spec.witness.min_rows,
        name="rows in the log",
        waivable=False,
    )
    if spec.freshness is not None:
        yield Rule(
            id="freshness.age",
            kind="age",
            metric="/meta/window/end",
            op="<=",
            bound=spec.freshness.max_age_sec,
            unit="s",
            waivable=False,
            text=f"the evidence must be at most {quantity(spec.freshness.max_age_sec, 's')} old",
        )


def custom_rule(rule: CustomRule) -> Rule:
    """The rule of one's own; raises ValueError if its metric does not have what it asks for."""
    rule_id = f"rules.{rule.id}"
    if rule.for_each and strict_json.block_of(rule.metric) not in {"perf", "perf_judge"}:
        raise ValueError("for_each needs a metric of perf or perf_judge")
    common: dict[str, Any] = {
        "waivable": strict_json.block_of(rule.metric) not in {"integrity", "witness"},
        "severity": rule.severity,
        "label": rule.label,
        "for_each": rule.for_each,
    }
    each = f" for each {rule.for_each}" if rule.for_each else ""
    if isinstance(rule.bound, bool):
        text = f"{rule.metric} must be {str(rule.bound).lower()}{each}"
        return Rule(
            id=rule_id,
            kind="flag",
            metric=rule.metric,
            op="is",
            bound=rule.bound,
            text=text,
            **common,
        )
    if isinstance(rule.bound, str | tuple):
        words = (rule.bound,) if isinstance(rule.bound, str) else rule.bound
        return _word(rule_id, rule.metric, "in", words, name=rule.metric + each).model_copy(
            update=common
        )
    facts = facts_of(rule.metric)
    if rule.min_samples and not facts.counts:
        raise ValueError("min_samples needs a metric of measured traffic")
    if facts.low == 0 and not facts.counts and rule.bound < 0:
        common["low"] = None  # whoever states a negative bound says that the number may be negative
    found = list(
        _number(
            rule_id,
            rule.metric,
            rule.op,
            rule.bound,
            name=rule.metric + each,
            min_samples=rule.min_samples,
            **common,
        )
    )
    return found[0]
