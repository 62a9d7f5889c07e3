"""A number of the evidence against its bound: by the value itself, or by its confidence limits."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_decisionos.model.outcome import Outcome, Scalar, Status, quantity
from pytest_decisionos.model.strict_json import MISSING
from pytest_decisionos.stats.samples import samples_needed, smallest_n

if TYPE_CHECKING:
    from pytest_decisionos.judge.view import View
    from pytest_decisionos.model.policy import Rule


MAX_NUMBER = 10**18
"""A larger integer is no measurement, and arithmetic with floats may raise on it."""


def outcome_of(
    rule: Rule, view: View, status: Status, cause: str | None, message: str, **extra: Any
) -> Outcome:
    """An outcome of ``rule`` on ``view``, with what is the same for all of them filled in."""
    return Outcome(
        id=rule.id,
        status=status,
        cause=cause,
        message=message,
        unit=rule.unit,
        op=rule.op,
        bound=", ".join(rule.words) if rule.words else rule.bound,
        source=view.source,
        label=rule.label,
        severity=rule.severity,
        **extra,
    )


class Fault(NamedTuple):
    """Why a value says nothing."""

    cause: str
    what: str


def show(value: object) -> str:
    """A JSON value as people read it; an object or a list only as a sign."""
    if isinstance(value, dict | list):
        return "{…}" if isinstance(value, dict) else "[…]" if value else "[]"
    return (
        "null"
        if value is None
        else quantity(value)
        if isinstance(value, str | int | float)
        else repr(value)
    )


def unusable(rule: Rule, view: View, fault: Fault, value: object, pointer: str) -> Outcome:
    """The outcome of a value that could not be used: always an error, unless the rule says else."""
    status = (
        Status.INCONCLUSIVE
        if rule.missing == "inconclusive" and fault.cause == "missing"
        else Status.ERROR
    )
    group = f" of {rule.group.by} {quantity(rule.group.name)}" if rule.group else ""
    message = f"{pointer}{group} {fault.what} in {view.source}; {rule.text}"
    observed: Scalar = value if isinstance(value, str | int | float | bool) else None
    if isinstance(observed, str):
        observed = quantity(observed)
    elif isinstance(observed, int) and abs(observed) > MAX_NUMBER:
        observed = None  # no float holds it, and the message tells it
    return outcome_of(rule, view, status, fault.cause, message, observed=observed)


def _number_fault(value: object, rule: Rule) -> Fault | None:
    """What keeps ``value`` from being a usable number for ``rule``."""
    if value is MISSING:
        return Fault("missing", "is missing")
    if value is None:
        return Fault("missing", "is null")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Fault("wrong_type", f"is {show(value)}, not a number")
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        return Fault("out_of_range", "is beyond 1e18")
    if not math.isfinite(value):
        return Fault("not_a_number", f"is {value}")
    low = rule.low
    if low is not None and (value < low or (rule.low_open and value == low)):
        return Fault("out_of_range", f"is {show(value)}, which is impossible")
    if rule.high is not None and value > rule.high:
        return Fault("out_of_range", f"is {show(value)}, which is impossible")
    return None


def _within(value: float, op: str, bound: float) -> bool:
    match op:
        case "<=":
            return value <= bound
        case "<":
            return value < bound
        case ">=":
            return value >= bound
        case ">":
            return value > bound
    return value == bound


def number(rule: Rule, view: View) -> Outcome:
    """The outcome of a rule on a finite number."""
    value = view.at(rule, rule.metric)
    fault = _number_fault(value, rule)
    if fault is not None:
        return unusable(rule, view, fault, value, rule.metric)
    samples: int | None = None
    for pointer in rule.counts:
        count = view.at(rule, pointer)
        fault = _count_fault(count)
        if fault is not None:
            return unusable(rule, view, fault, count, pointer)
        samples = count if samples is None else min(samples, count)
    seen = {"observed": value, "margin": _margin(value, rule), "samples": samples}
    if rule.level is not None:
        return _with_limits(rule, view, value, samples or 0, seen)
    floor = max(rule.min_samples, 1)
    if samples is not None and samples < floor:
        return _too_few(rule, view, samples, floor, seen)
    ok = _within(value, rule.op, bound_of(rule))
    told = f"{quantity(value, rule.unit)} is{'' if ok else ' not'} {rule.op} {quantity(rule.bound, rule.unit)}"
    message = f"{told} ({place(rule)}, {view.source})"
    return outcome_of(
        rule,
        view,
        Status.SUCCESSFUL if ok else Status.FAILED,
        None if ok else _cause(rule),
        message,
        **seen,
    )


def bound_of(rule: Rule) -> float:
    """The number that the rule holds a value against."""
    assert isinstance(rule.bound, int | float)  # noqa: S101 - the compiler gives number rules a number
    return rule.bound


def _margin(value: float, rule: Rule) -> float | None:
    if rule.op == "==":
        return None
    return value - bound_of(rule) if rule.op in {">=", ">"} else bound_of(rule) - value


def _cause(rule: Rule) -> str:
    return "different" if rule.op == "==" else "under" if rule.op in {">=", ">"} else "over"


def place(rule: Rule) -> str:
    """Where a rule reads: its metric, and its group if it has one."""
    return (
        f"{rule.metric} of {rule.group.by} {quantity(rule.group.name)}"
        if rule.group
        else rule.metric
    )


def _count_fault(count: object) -> Fault | None:
    if count is MISSING or count is None:
        return Fault("missing", "is missing")
    if isinstance(count, bool) or not isinstance(count, int):
        return Fault("wrong_type", f"is {show(count)}, not a count")
    return None if 0 <= count <= 10**15 else Fault("out_of_range", f"is {show(count)}, not a count")


def _too_few(rule: Rule, view: View, samples: int, floor: int, seen: dict[str, Any]) -> Outcome:
    needed = floor - samples
    message = f"{samples:,} samples say too little, {needed:,} more are needed ({place(rule)}, {view.source})"
    return outcome_of(
        rule, view, Status.INCONCLUSIVE, "samples_insufficient", message, needed=needed, **seen
    )


def _with_limits(
    rule: Rule, view: View, value: float, samples: int, seen: dict[str, Any]
) -> Outcome:
    """Judge by the limits on both sides of the value (the design's "With ``confidence``").

    Successful if the limit on the bad side is within the bound, failed if even the one on the good
    side is beyond it, else inconclusive.

    """
    read = _read_limits(rule, view, value, samples)
    if isinstance(read, Outcome):
        return read
    lower, upper, d = read
    upward = rule.op in {">=", ">"}
    bad, good = (lower, upper) if upward else (upper, lower)
    bound = bound_of(rule)
    seen |= {"limit": bad, "effective": samples / d if d else None}
    told = f"{quantity(value, rule.unit)}, {rule.level:.0%} limit"
    where = f"({place(rule)}, {view.source})"
    if (
        good is not None
        and not _within(good, rule.op, bound)
        and not _within(value, rule.op, bound)
    ):
        message = f"{told} {quantity(good, rule.unit)} is not {rule.op} {quantity(bound, rule.unit)} {where}"
        return outcome_of(
            rule, view, Status.FAILED, _cause(rule), message, **seen | {"limit": good}
        )
    floor = max(rule.min_samples, _least_samples(rule, d or 1.0))
    if samples < max(rule.min_samples, 1):
        return _too_few(rule, view, samples, floor, seen)
    if bad is not None and _within(bad, rule.op, bound) and _within(value, rule.op, bound):
        message = (
            f"{told} {quantity(bad, rule.unit)} is {rule.op} {quantity(bound, rule.unit)} {where}"
        )
        return outcome_of(rule, view, Status.SUCCESSFUL, None, message, **seen)
    needed = samples_needed(samples, value, bad, bound, floor)
    more = (
        f"about {needed:,} more samples are needed"
        if needed
        else "no number of samples may settle it"
    )
    settle = f"does not settle {rule.op} {quantity(bound, rule.unit)}"
    message = f"{told} {quantity(bad, rule.unit)} {settle}: {more} {where}"
    cause = "samples_insufficient" if samples < floor else "inconclusive"
    return outcome_of(
        rule, view, Status.INCONCLUSIVE, cause, message, needed=needed or None, **seen
    )


def _read_limits(
    rule: Rule, view: View, value: float, samples: int
) -> tuple[float | None, float | None, float | None] | Outcome:
    """Lower and upper limit at the rule's level, and D; or the outcome of limits that lie."""
    assert rule.limits is not None  # noqa: S101 - the compiler sets level only where limits are
    entry = view.at(rule, rule.limits)
    if not isinstance(entry, dict):
        cause = "missing" if entry is MISSING or entry is None else "wrong_type"
        return unusable(
            rule, view, Fault(cause, f"is {show(entry)}: no confidence limits"), None, rule.limits
        )
    d = entry.get("d", MISSING)
    if len(rule.counts) == 1:
        fault = _spread_fault(entry, samples)
        if fault is not None:
            return unusable(rule, view, fault, None, rule.limits)
    found: list[float | None] = []
    for side in ("lower", "upper"):
        levels = entry.get(side)
        limit: Any = (
            levels.get(f"{rule.level:.2f}", MISSING) if isinstance(levels, dict) else MISSING
        )
        fault = None if limit is None else _number_fault(limit, rule)
        # A limit on the wrong side of its own estimate was not computed from it.
        slack = 1e-9 * abs(value)
        if (
            fault is None
            and limit is not None
            and (limit > value + slack if side == "lower" else limit < value - slack)
        ):
            fault = Fault("out_of_range", f"is {show(limit)}, on the wrong side of {show(value)}")
        if fault is not None:
            return unusable(rule, view, fault, limit, f"{rule.limits}/{side}/{rule.level:.2f}")
        found.append(limit)
    # The limit towards the bound is the one that is hard to have; it never comes alone.
    bad, good = found if rule.op in {">=", ">"} else reversed(found)
    if bad is not None and good is None:
        fault = Fault("missing", "has one limit and not the other")
        return unusable(rule, view, fault, None, rule.limits)
    return found[0], found[1], d if isinstance(d, int | float) else None


def _spread_fault(entry: dict[str, Any], samples: int) -> Fault | None:
    """What is wrong with n, D and n/D of a limits entry; D unknown (null) is no fault."""
    n, d, effective = (
        entry.get("n", MISSING),
        entry.get("d", MISSING),
        entry.get("effective", MISSING),
    )
    if d is None and effective is None:
        return (
            None
            if n == samples and not isinstance(n, bool)
            else Fault("out_of_range", f"has n {show(n)}, not {samples:,}")
        )
    for name, part, low in (("n", n, 0.0), ("d", d, 1.0), ("effective", effective, 0.0)):
        if part is MISSING or part is None:
            return Fault("missing", f"has no {name}")
        if isinstance(part, bool) or not isinstance(part, int | float) or not low <= part <= 1e15:
            return Fault("out_of_range", f"has {name} {show(part)}")
    if n != samples or abs(effective * d - n) > 0.01 * n + 1:
        return Fault(
            "out_of_range",
            f"has n {show(n)} and n/D {show(effective)} that do not fit {samples:,} samples",
        )
    return None


def _least_samples(rule: Rule, d: float) -> int:
    """The fewest samples that can prove the bound at all, times D; 1 where that is not known."""
    assert rule.level is not None  # noqa: S101 - called only with one
    quantile = re.search(r"/p(50|95|99)$", rule.metric)
    bound = bound_of(rule)
    rate = (
        1 - int(quantile[1]) / 100 if quantile else 1 - bound if rule.op in {">=", ">"} else bound
    )
    if not 0 < rate < 1 or (not quantile and rule.unit != "rate"):
        return max(rule.min_samples, 1)
    return math.ceil(smallest_n(rate, rule.level) * d)
