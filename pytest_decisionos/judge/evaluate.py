"""One rule on one view → one outcome. Anything but a clean measurement within bounds is no pass."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.model.outcome import Outcome, Scalar, Status, quantity
from pytest_decisionos.model.strict_json import MISSING, block_of
from pytest_decisionos.stats.samples import samples_needed, smallest_n

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_decisionos.judge.view import View
    from pytest_decisionos.model.policy import Rule

_SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_FUTURE_SEC = 5.0
"""How far ahead of this clock the evidence's end may lie: the design's bound for rows."""


def evaluate(rule: Rule, view: View) -> Outcome:
    """The outcome of ``rule`` on ``view``; depends on nothing else, and raises nothing."""
    return _KINDS[rule.kind](rule, view)


def _outcome(rule: Rule, view: View, status: Status, cause: str | None, message: str, **extra: Any) -> Outcome:  # noqa: ANN401 - Outcome's own fields
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


class _Fault(NamedTuple):
    """Why a value says nothing."""

    cause: str
    what: str


def _show(value: object) -> str:
    if isinstance(value, dict | list):
        return "{…}" if isinstance(value, dict) else "[…]" if value else "[]"
    return "null" if value is None else quantity(value) if isinstance(value, str | int | float) else repr(value)


def _wrong(rule: Rule, view: View, fault: _Fault, value: object, pointer: str) -> Outcome:
    """The outcome of a value that could not be used: always an error, unless the rule says else."""
    status = Status.INCONCLUSIVE if rule.missing == "inconclusive" and fault.cause == "missing" else Status.ERROR
    group = f" of {rule.group.by} {quantity(rule.group.name)}" if rule.group else ""
    message = f"{pointer}{group} {fault.what} in {view.source}; {rule.text}"
    observed: Scalar = value if isinstance(value, str | int | float | bool) else None
    if isinstance(observed, str):
        observed = quantity(observed)
    return _outcome(rule, view, status, fault.cause, message, observed=observed)


def _number_fault(value: object, rule: Rule) -> _Fault | None:
    """What keeps ``value`` from being a usable number for ``rule``."""
    if value is MISSING:
        return _Fault("missing", "is missing")
    if value is None:
        return _Fault("missing", "is null")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _Fault("wrong_type", f"is {_show(value)}, not a number")
    if isinstance(value, int) and abs(value) > 10**18:
        return _Fault("out_of_range", "is beyond 1e18")
    if not math.isfinite(value):
        return _Fault("not_a_number", f"is {value}")
    low = rule.low
    if low is not None and (value < low or (rule.low_open and value == low)):
        return _Fault("out_of_range", f"is {_show(value)}, which is impossible")
    if rule.high is not None and value > rule.high:
        return _Fault("out_of_range", f"is {_show(value)}, which is impossible")
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


def _number(rule: Rule, view: View) -> Outcome:
    value = view.at(rule, rule.metric)
    fault = _number_fault(value, rule)
    if fault is not None:
        return _wrong(rule, view, fault, value, rule.metric)
    samples: int | None = None
    for pointer in rule.counts:
        count = view.at(rule, pointer)
        fault = _count_fault(count)
        if fault is not None:
            return _wrong(rule, view, fault, count, pointer)
        samples = count if samples is None else min(samples, count)
    seen = {"observed": value, "margin": _margin(value, rule), "samples": samples}
    if rule.level is not None:
        return _with_limits(rule, view, value, samples or 0, seen)
    floor = max(rule.min_samples, 1)
    if samples is not None and samples < floor:
        return _too_few(rule, view, samples, floor, seen)
    ok = _within(value, rule.op, _bound(rule))
    told = f"{quantity(value, rule.unit)} is{'' if ok else ' not'} {rule.op} {quantity(rule.bound, rule.unit)}"
    message = f"{told} ({_place(rule)}, {view.source})"
    return _outcome(rule, view, Status.SUCCESSFUL if ok else Status.FAILED, None if ok else _cause(rule), message, **seen)


def _bound(rule: Rule) -> float:
    assert isinstance(rule.bound, int | float)  # noqa: S101 - the compiler gives number rules a number
    return rule.bound


def _margin(value: float, rule: Rule) -> float | None:
    if rule.op == "==":
        return None
    return value - _bound(rule) if rule.op in {">=", ">"} else _bound(rule) - value


def _cause(rule: Rule) -> str:
    return "different" if rule.op == "==" else "under" if rule.op in {">=", ">"} else "over"


def _place(rule: Rule) -> str:
    return f"{rule.metric} of {rule.group.by} {quantity(rule.group.name)}" if rule.group else rule.metric


def _count_fault(count: object) -> _Fault | None:
    if count is MISSING or count is None:
        return _Fault("missing", "is missing")
    if isinstance(count, bool) or not isinstance(count, int):
        return _Fault("wrong_type", f"is {_show(count)}, not a count")
    return None if 0 <= count <= 10**15 else _Fault("out_of_range", f"is {_show(count)}, not a count")


def _too_few(rule: Rule, view: View, samples: int, floor: int, seen: dict[str, Any]) -> Outcome:
    needed = floor - samples
    message = f"{samples:,} samples say too little, {needed:,} more are needed ({_place(rule)}, {view.source})"
    return _outcome(rule, view, Status.INCONCLUSIVE, "samples_insufficient", message, needed=needed, **seen)


def _with_limits(rule: Rule, view: View, value: float, samples: int, seen: dict[str, Any]) -> Outcome:
    """Judge by the limits: successful if the bad side is within the bound, failed if even the good
    side is beyond it, else inconclusive (the design's "With ``confidence``")."""
    read = _read_limits(rule, view, value, samples)
    if isinstance(read, Outcome):
        return read
    lower, upper, d = read
    upward = rule.op in {">=", ">"}
    bad, good = (lower, upper) if upward else (upper, lower)
    bound = _bound(rule)
    seen |= {"limit": bad, "effective": samples / d if d else None}
    told = f"{quantity(value, rule.unit)}, {rule.level:.0%} limit"
    place = f"({_place(rule)}, {view.source})"
    if good is not None and not _within(good, rule.op, bound) and not _within(value, rule.op, bound):
        message = f"{told} {quantity(good, rule.unit)} is not {rule.op} {quantity(bound, rule.unit)} {place}"
        return _outcome(rule, view, Status.FAILED, _cause(rule), message, **seen | {"limit": good})
    floor = max(rule.min_samples, _least_samples(rule, d or 1.0))
    if samples < max(rule.min_samples, 1):
        return _too_few(rule, view, samples, floor, seen)
    if bad is not None and _within(bad, rule.op, bound) and _within(value, rule.op, bound):
        message = f"{told} {quantity(bad, rule.unit)} is {rule.op} {quantity(bound, rule.unit)} {place}"
        return _outcome(rule, view, Status.SUCCESSFUL, None, message, **seen)
    needed = samples_needed(samples, value, bad, bound, floor)
    more = f"about {needed:,} more samples are needed" if needed else "no number of samples may settle it"
    message = f"{told} {quantity(bad, rule.unit)} does not settle {rule.op} {quantity(bound, rule.unit)}: {more} {place}"
    cause = "samples_insufficient" if samples < floor else "inconclusive"
    return _outcome(rule, view, Status.INCONCLUSIVE, cause, message, needed=needed or None, **seen)


def _read_limits(
    rule: Rule, view: View, value: float, samples: int
) -> tuple[float | None, float | None, float | None] | Outcome:
    """Lower and upper limit at the rule's level, and D; or the outcome of limits that lie."""
    assert rule.limits is not None  # noqa: S101 - the compiler sets level only where limits are
    entry = view.at(rule, rule.limits)
    if not isinstance(entry, dict):
        cause = "missing" if entry is MISSING or entry is None else "wrong_type"
        return _wrong(rule, view, _Fault(cause, f"is {_show(entry)}: no confidence limits"), None, rule.limits)
    d = entry.get("d", MISSING)
    if len(rule.counts) == 1:
        fault = _spread_fault(entry, samples)
        if fault is not None:
            return _wrong(rule, view, fault, None, rule.limits)
    found: list[float | None] = []
    for side in ("lower", "upper"):
        levels = entry.get(side)
        limit: Any = levels.get(f"{rule.level:.2f}", MISSING) if isinstance(levels, dict) else MISSING
        fault = None if limit is None else _number_fault(limit, rule)
        # A limit on the wrong side of its own estimate was not computed from it.
        slack = 1e-9 * abs(value)
        if fault is None and limit is not None and (limit > value + slack if side == "lower" else limit < value - slack):
            fault = _Fault("out_of_range", f"is {_show(limit)}, on the wrong side of {_show(value)}")
        if fault is not None:
            return _wrong(rule, view, fault, limit, f"{rule.limits}/{side}/{rule.level:.2f}")
        found.append(limit)
    # The limit towards the bound is the one that is hard to have; it never comes alone.
    bad, good = found if rule.op in {">=", ">"} else reversed(found)
    if bad is not None and good is None:
        fault = _Fault("missing", "has one limit and not the other")
        return _wrong(rule, view, fault, None, rule.limits)
    return found[0], found[1], d if isinstance(d, int | float) else None


def _spread_fault(entry: dict[str, Any], samples: int) -> _Fault | None:
    """What is wrong with n, D and n/D of a limits entry; D unknown (null) is no fault."""
    n, d, effective = entry.get("n", MISSING), entry.get("d", MISSING), entry.get("effective", MISSING)
    if d is None and effective is None:
        return None if n == samples and not isinstance(n, bool) else _Fault("out_of_range", f"has n {_show(n)}, not {samples:,}")
    for name, part, low in (("n", n, 0.0), ("d", d, 1.0), ("effective", effective, 0.0)):
        if part is MISSING or part is None:
            return _Fault("missing", f"has no {name}")
        if isinstance(part, bool) or not isinstance(part, int | float) or not low <= part <= 1e15:
            return _Fault("out_of_range", f"has {name} {_show(part)}")
    if n != samples or abs(effective * d - n) > 0.01 * n + 1:
        return _Fault("out_of_range", f"has n {_show(n)} and n/D {_show(effective)} that do not fit {samples:,} samples")
    return None


def _least_samples(rule: Rule, d: float) -> int:
    """The fewest samples that can prove the bound at all, times D; 1 where that is not known."""
    assert rule.level is not None  # noqa: S101 - called only with one
    quantile = re.search(r"/p(50|95|99)$", rule.metric)
    bound = _bound(rule)
    rate = 1 - int(quantile[1]) / 100 if quantile else 1 - bound if rule.op in {">=", ">"} else bound
    if not 0 < rate < 1 or (not quantile and rule.unit != "rate"):
        return max(rule.min_samples, 1)
    return math.ceil(smallest_n(rate, rule.level) * d)


def _word(rule: Rule, view: View) -> Outcome:
    value = view.at(rule, rule.metric)
    if value is MISSING or value is None:
        return _wrong(rule, view, _Fault("missing", "is missing" if value is MISSING else "is null"), None, rule.metric)
    if not isinstance(value, str):
        return _wrong(rule, view, _Fault("wrong_type", f"is {_show(value)}, not a word"), value, rule.metric)
    if rule.known and value not in rule.known:
        known = ", ".join(rule.known)
        return _wrong(rule, view, _Fault("out_of_range", f"is {_show(value)}, not one of {known}"), value, rule.metric)
    ok = (value in rule.words) == (rule.op == "in")
    told = f"{quantity(value)} is{'' if ok else ' not'} {rule.op} {', '.join(rule.words)}"
    message = f"{told} ({_place(rule)}, {view.source})"
    if ok:
        return _outcome(rule, view, Status.SUCCESSFUL, None, message, observed=quantity(value))
    cause = "not_allowed" if rule.op == "in" else "forbidden"
    return _outcome(rule, view, Status.FAILED, cause, message, observed=quantity(value))


def _flag(rule: Rule, view: View) -> Outcome:
    value = view.at(rule, rule.metric)
    if value is MISSING or value is None:
        return _wrong(rule, view, _Fault("missing", "is missing" if value is MISSING else "is null"), None, rule.metric)
    if not isinstance(value, bool):
        return _wrong(rule, view, _Fault("wrong_type", f"is {_show(value)}, not true or false"), value, rule.metric)
    ok = value is rule.bound
    message = f"{_place(rule)} is {_show(value)} ({view.source})" + ("" if ok else f"; {rule.text}")
    return _outcome(rule, view, Status.SUCCESSFUL if ok else Status.FAILED, None if ok else "set" if value else "unset", message, observed=value)


def _digest(rule: Rule, view: View) -> Outcome:
    value = view.at(rule, rule.metric)
    if value is MISSING or value is None:
        return _wrong(rule, view, _Fault("missing", "is missing" if value is MISSING else "is null"), None, rule.metric)
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        return _wrong(rule, view, _Fault("wrong_type", f"is {_show(value)}, not 64 hexadecimal digits"), value, rule.metric)
    witness = view.document["witness"]
    sources = witness.get("sources")
    if sources is not None:
        named = {s.get("sha256") for s in sources if isinstance(s, dict) and s.get("role") == "reqlog"} if isinstance(sources, list) else set()
        if value not in named:
            message = f"{rule.metric} is not the digest of a request log in /witness/sources ({view.source})"
            return _outcome(rule, view, Status.FAILED, "different", message, observed=value[:16])
    return _outcome(rule, view, Status.SUCCESSFUL, None, f"log {value[:16]}… ({view.source})", observed=value[:16])


def _signature(rule: Rule, view: View) -> Outcome:
    if view.integrity is None:
        return _outcome(rule, view, Status.SUCCESSFUL, None, f"right digest, no key: unsigned ({view.source})")
    cause, message = view.integrity
    status = Status.FAILED if cause == "tampered" else Status.ERROR
    return _outcome(rule, view, status, cause, message)


def _span(rule: Rule, view: View) -> Outcome:
    window = view.at(rule, rule.metric)
    if window is MISSING or window is None:
        return _wrong(rule, view, _Fault("missing", "is missing"), None, rule.metric)
    start, end = (parse_time(window.get(part)) if isinstance(window, dict) else None for part in ("start", "end"))
    if start is None or end is None:
        return _wrong(rule, view, _Fault("wrong_type", f"is {_show(window)}, not start and end with offsets"), None, rule.metric)
    seconds = (end - start).total_seconds()
    if seconds < 0:
        return _wrong(rule, view, _Fault("out_of_range", "ends before it starts"), seconds, rule.metric)
    ok = seconds >= _bound(rule)
    message = f"{quantity(seconds, 's')} is{'' if ok else ' not'} >= {quantity(rule.bound, 's')} ({rule.metric}, {view.source})"
    # A short window violates nothing: it has not been measured long enough.
    status = Status.SUCCESSFUL if ok else Status.INCONCLUSIVE
    return _outcome(rule, view, status, None if ok else "under", message, observed=seconds, margin=seconds - _bound(rule))


def _age(rule: Rule, view: View) -> Outcome:
    value = view.at(rule, rule.metric)
    if value is MISSING or value is None:
        return _wrong(rule, view, _Fault("missing", "is missing" if value is MISSING else "is null"), None, rule.metric)
    end = parse_time(value)
    if end is None:
        return _wrong(rule, view, _Fault("wrong_type", f"is {_show(value)}, not a time with an offset"), value, rule.metric)
    age = (view.now - end).total_seconds()
    if age < -MAX_FUTURE_SEC:
        return _wrong(rule, view, _Fault("out_of_range", f"lies {quantity(-age, 's')} in the future"), value, rule.metric)
    ok = age <= _bound(rule)
    told = f"{quantity(round(age, 1), 's')} old is{'' if ok else ' not'} <= {quantity(rule.bound, 's')}"
    # Old facts violate no bound: what they say of now could not be measured.
    return _outcome(
        rule, view, Status.SUCCESSFUL if ok else Status.ERROR, None if ok else "stale",
        f"{told} ({rule.metric}, {view.source})", observed=round(age, 1), margin=round(_bound(rule) - age, 1),
    )


def _groups(rule: Rule, view: View) -> Outcome:
    block = block_of(rule.metric)
    fault = view.groups_fault(block)
    groups = [name for by, name in view.groups(block) if by == rule.for_each]
    if fault is not None and groups:
        return _wrong(rule, view, _Fault("wrong_type", fault), None, rule.metric)
    if len(groups) > _bound(rule):
        return _wrong(rule, view, _Fault("out_of_range", f"has {len(groups):,} of {rule.for_each}"), None, rule.metric)
    if not groups:
        return _wrong(rule, view, _Fault("missing", f"has no {rule.for_each} to judge"), None, rule.metric)
    return _outcome(rule, view, Status.SUCCESSFUL, None, f"{len(groups)} of {rule.for_each} judged ({view.source})", observed=len(groups))


_KINDS: dict[str, Callable[[Rule, View], Outcome]] = {
    "number": _number,
    "word": _word,
    "flag": _flag,
    "digest": _digest,
    "signature": _signature,
    "span": _span,
    "age": _age,
    "groups": _groups,
}
