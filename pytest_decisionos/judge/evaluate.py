"""One rule on one view → one outcome. Anything but a clean measurement within bounds is no pass."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_decisionos.judge.numbers import (
    Fault,
    bound_of,
    number,
    outcome_of,
    place,
    show,
    unusable,
)
from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.model.outcome import Outcome, Status, quantity
from pytest_decisionos.model.strict_json import MISSING, block_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_decisionos.judge.view import View
    from pytest_decisionos.model.policy import Rule

_SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_FUTURE_SEC = 5.0
"""How far ahead of this clock the evidence's end may lie: the design's bound for rows."""


def evaluate(rule: Rule, view: View) -> Outcome:
    """The outcome of ``rule`` on ``view``; depends on nothing else, and raises nothing."""
    if rule.kind in _OF_DOCUMENT:
        return _OF_DOCUMENT[rule.kind](rule, view)
    value = view.at(rule, rule.metric)
    if value is MISSING or value is None:
        return _cannot(rule, view, "missing", "is missing" if value is MISSING else "is null")
    return _OF_VALUE[rule.kind](rule, view, value)


def _cannot(rule: Rule, view: View, cause: str, what: str, value: object = None) -> Outcome:
    """What a rule's own value could not be used for."""
    return unusable(rule, view, Fault(cause, what), value, rule.metric)


def _word(rule: Rule, view: View, value: object) -> Outcome:
    if not isinstance(value, str):
        return _cannot(rule, view, "wrong_type", f"is {show(value)}, not a word", value)
    if rule.known and value not in rule.known:
        known = ", ".join(rule.known)
        return _cannot(rule, view, "out_of_range", f"is {show(value)}, not one of {known}", value)
    listed = value in rule.words
    ok = listed == (rule.op == "in")
    told = f"{quantity(value)} is {'in' if listed else 'not in'} {', '.join(rule.words)}"
    message = f"{told} ({place(rule)}, {view.source})"
    if ok:
        return outcome_of(rule, view, Status.SUCCESSFUL, None, message, observed=quantity(value))
    cause = "not_allowed" if rule.op == "in" else "forbidden"
    return outcome_of(rule, view, Status.FAILED, cause, message, observed=quantity(value))


def _flag(rule: Rule, view: View, value: object) -> Outcome:
    if not isinstance(value, bool):
        return _cannot(rule, view, "wrong_type", f"is {show(value)}, not true or false", value)
    ok = value is rule.bound
    message = f"{place(rule)} is {show(value)} ({view.source})" + ("" if ok else f"; {rule.text}")
    return outcome_of(
        rule,
        view,
        Status.SUCCESSFUL if ok else Status.FAILED,
        None if ok else "set" if value else "unset",
        message,
        observed=value,
    )


def _digest(rule: Rule, view: View, value: object) -> Outcome:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        return _cannot(
            rule, view, "wrong_type", f"is {show(value)}, not 64 hexadecimal digits", value
        )
    sources = view.document["witness"].get("sources")
    if sources is not None:
        logs = [s for s in sources if isinstance(s, dict)] if isinstance(sources, list) else []
        if value not in [log.get("sha256") for log in logs if log.get("role") == "reqlog"]:
            message = f"{rule.metric} is not the digest of a request log in /witness/sources ({view.source})"
            return outcome_of(rule, view, Status.FAILED, "different", message, observed=value[:16])
    return outcome_of(
        rule,
        view,
        Status.SUCCESSFUL,
        None,
        f"log {value[:16]}… ({view.source})",
        observed=value[:16],
    )


def _signature(rule: Rule, view: View) -> Outcome:
    if view.integrity is None:
        return outcome_of(rule, view, Status.SUCCESSFUL, None, f"{view.proof} ({view.source})")
    cause, message = view.integrity
    status = Status.FAILED if cause == "tampered" else Status.ERROR
    return outcome_of(rule, view, status, cause, message)


def _span(rule: Rule, view: View, window: object) -> Outcome:
    start, end = (
        parse_time(window.get(part)) if isinstance(window, dict) else None
        for part in ("start", "end")
    )
    if start is None or end is None:
        return _cannot(
            rule, view, "wrong_type", f"is {show(window)}, not start and end with offsets"
        )
    seconds = (end - start).total_seconds()
    if seconds < 0:
        return _cannot(rule, view, "out_of_range", "ends before it starts", seconds)
    ok = seconds >= bound_of(rule)
    told = f"{quantity(seconds, 's')} is{'' if ok else ' not'} >= {quantity(rule.bound, 's')}"
    message = f"{told} ({rule.metric}, {view.source})"
    # A short window violates nothing: it has not been measured long enough.
    status = Status.SUCCESSFUL if ok else Status.INCONCLUSIVE
    return outcome_of(
        rule,
        view,
        status,
        None if ok else "under",
        message,
        observed=seconds,
        margin=seconds - bound_of(rule),
    )


def _age(rule: Rule, view: View, value: object) -> Outcome:
    end = parse_time(value)
    if end is None:
        return _cannot(
            rule, view, "wrong_type", f"is {show(value)}, not a time with an offset", value
        )
    age = (view.now - end).total_seconds()
    if age < -MAX_FUTURE_SEC:
        return _cannot(
            rule, view, "out_of_range", f"lies {quantity(-age, 's')} in the future", value
        )
    ok = age <= bound_of(rule)
    told = f"{quantity(round(age, 1), 's')} old is{'' if ok else ' not'} <= {quantity(rule.bound, 's')}"
    # Old facts violate no bound: what they say of now could not be measured.
    return outcome_of(
        rule,
        view,
        Status.SUCCESSFUL if ok else Status.ERROR,
        None if ok else "stale",
        f"{told} ({rule.metric}, {view.source})",
        observed=round(age, 1),
        margin=round(bound_of(rule) - age, 1),
    )


def _groups(rule: Rule, view: View) -> Outcome:
    block = block_of(rule.metric)
    fault = view.groups_fault(block)
    groups = [name for by, name in view.groups(block) if by == rule.for_each]
    if fault is not None and groups:
        return _cannot(rule, view, "wrong_type", fault)
    if len(groups) > bound_of(rule):
        return _cannot(rule, view, "out_of_range", f"has {len(groups):,} of {rule.for_each}")
    if not groups:
        return _cannot(rule, view, "missing", f"has no {rule.for_each} to judge")
    return outcome_of(
        rule,
        view,
        Status.SUCCESSFUL,
        None,
        f"{len(groups)} of {rule.for_each} judged ({view.source})",
        observed=len(groups),
    )


_OF_DOCUMENT: dict[str, Callable[[Rule, View], Outcome]] = {
    "number": number,
    "signature": _signature,
    "groups": _groups,
}
_OF_VALUE: dict[str, Callable[[Rule, View, object], Outcome]] = {
    "word": _word,
    "flag": _flag,
    "digest": _digest,
    "span": _span,
    "age": _age,
}
