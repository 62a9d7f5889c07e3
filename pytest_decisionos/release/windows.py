"""The evidence's windows: read strictly, paired by span, each span held against the SLOs' bounds."""

from __future__ import annotations

import itertools
import math
import operator
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pytest_decisionos.errors import shown
from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.model.outcome import quantity
from pytest_decisionos.model.strict_json import block_of
from pytest_decisionos.slo.waivers import waiver_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from pytest_decisionos.model.policy import Rule, Slo

MAX_WINDOWS: Final = 100_000
MIN_EXPECTED: Final = 10
"""Requests below which nothing follows from there being none, or from all of them failing: at ten,
either has a probability below 0.001, of a canary that gets its share, or serves half of it well."""

State = Literal["pass", "fail", "unsure"]


class Window(NamedTuple):
    """The traffic of one variant in one span.

    Attributes:
        requests: how many, at least 1.
        p95: ms.
        p99: ms.
        error_rate: share of them.
        burst: sub-buckets that spiked.
    """

    requests: int
    p95: float
    p99: float
    error_rate: float
    burst: int


class Span(NamedTuple):
    """A span of time with what either side served in it; None where it served nothing."""

    start: datetime
    end: datetime
    control: Window | None
    canary: Window | None

    @property
    def counts(self) -> tuple[int, int]:
        """Requests of control and canary."""
        return (
            self.control.requests if self.control else 0,
            self.canary.requests if self.canary else 0,
        )


class WindowFault(NamedTuple):
    """Why windows say nothing: the cause, and in words where and what."""

    cause: str
    what: str


def read_spans(windows: object, window_sec: int) -> list[Span] | WindowFault:
    """The spans of ``/canary/windows``, in order of time; or the first thing wrong with them.

    One that cannot be read spoils them all: nobody knows what it would have said.

    Args:
        windows: any JSON value.
        window_sec: how long each is, as the evidence says that it was harvested.
    """
    if not isinstance(windows, list):
        return WindowFault("missing" if windows is None else "wrong_type", "is not a list")
    if len(windows) > MAX_WINDOWS:
        return WindowFault("out_of_range", f"has {len(windows):,} windows; {MAX_WINDOWS:,} at most")
    times: dict[str, datetime | None] = {}
    sides: dict[tuple[datetime, datetime], dict[str, Window]] = {}
    for index, stated in enumerate(windows):
        read = _read(stated, times)
        if isinstance(read, WindowFault):
            return WindowFault(read.cause, f"[{index}] {read.what}")
        start, end, variant, window = read
        if (end - start).total_seconds() != window_sec:
            return WindowFault("out_of_range", f"[{index}] does not last {window_sec} s")
        sides_there = sides.setdefault((start, end), {})
        if variant in sides_there:
            return WindowFault("out_of_range", f"[{index}] is a second {variant} of its span")
        sides_there[variant] = window
    spans = [
        Span(start, end, there.get("control"), there.get("canary"))
        for (start, end), there in sorted(sides.items(), key=operator.itemgetter(0))
    ]
    for one, other in itertools.pairwise(spans):
        if other.start < one.end:
            return WindowFault("out_of_range", f"overlap at {other.start.isoformat()}")
    return spans


def _read(
    stated: object, times: dict[str, datetime | None]
) -> tuple[datetime, datetime, str, Window] | WindowFault:
    """One window; ``times`` remembers what was parsed, as each time stands in up to four of them."""
    if not isinstance(stated, dict):
        return WindowFault("wrong_type", f"is {shown(stated, 40)}, not an object")
    found: list[datetime] = []
    for name in ("start", "end"):
        text = stated.get(name)
        if not isinstance(text, str):
            return WindowFault("wrong_type", f"has no {name}")
        if text not in times:
            times[text] = parse_time(text)
        time = times[text]
        if time is None:
            return WindowFault("wrong_type", f"has {name} {shown(text, 40)}, no time with offset")
        found.append(time)
    variant = stated.get("variant")
    if variant not in ("control", "canary"):
        return WindowFault("wrong_type", f"has variant {shown(variant, 40)}")
    numbers: list[Any] = []
    for name, (whole, low, high) in _NUMBERS.items():
        value = stated.get(name)
        if type(value) is not int and (whole or type(value) is not float):
            return WindowFault("wrong_type", f"has {name} {shown(value, 40)}")
        if not low <= value <= high:  # also NaN
            return WindowFault("out_of_range", f"has {name} {quantity(value)}")
        numbers.append(value)
    return found[0], found[1], variant, Window(*numbers)


_NUMBERS: Final[dict[str, tuple[bool, float, float]]] = {
    "count": (True, 1, 10**15),
    "p95": (False, 0, 1e9),
    "p99": (False, 0, 1e9),
    "error_rate": (False, 0, 1),
    "burst": (True, 0, 86_400),
}
"""A window's numbers, in its order: whether whole, the least and the largest possible value."""


# Bounds

_ALONE: Final[dict[str, Callable[[Window], float]]] = {
    "latency_ms/p95": lambda window: window.p95,
    "latency_ms/p99": lambda window: window.p99,
    "error_rate": lambda window: window.error_rate,
}
_OF_CANARY: Final = {
    f"/{block}/{name}": read for block in ("canary/canary_perf", "perf") for name, read in _ALONE.items()
}  # fmt: skip
"""Numbers that a window carries. A bound on the whole service is one on its canary too."""

_COMPARED: Final[dict[str, Callable[[Window, Window], float | None]]] = {
    "/canary/deltas/p95_rel": lambda control, canary: (
        canary.p95 / control.p95 - 1 if control.p95 else None
    ),
    "/canary/deltas/error_delta": lambda control, canary: canary.error_rate - control.error_rate,
}
_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
}


def canary_rules(slos: Iterable[Slo], now: datetime) -> tuple[Rule, ...]:
    """The rules of a phase's SLOs that a canary's windows, or its numbers of the step, answer.

    Left out are those that only warn, that look at groups, or that somebody waived until later
    than ``now``: the gate tells those.
    """
    return tuple(
        rule
        for slo in slos
        for rule in slo.rules
        if rule.severity == "block"
        and rule.for_each is None
        and (block_of(rule.metric) == "canary" or rule.metric in _OF_CANARY)
        and not any(w.rule == rule.id and waiver_fault(w, now) is None for w in slo.waivers)
    )


def bounds(rules: Iterable[Rule]) -> list[Rule]:
    """Those of ``rules`` that single windows answer."""
    return [
        rule
        for rule in rules
        if rule.kind == "number" and (rule.metric in _OF_CANARY or rule.metric in _COMPARED)
    ]


def expected(span: Span, pct: float) -> float:
    """How many of a span's requests the canary should have had at ``pct``.

    At 0 % it gets copies of what the control gets.
    """
    return span.counts[0] if pct == 0 else sum(span.counts) * pct / 100


def judge_span(span: Span, rules: Iterable[Rule], *, pct: float, floor: int) -> tuple[State, str]:
    """Whether a span's canary passes, fails, or shows neither; and why.

    Args:
        span: what either side served.
        rules: what ``bounds`` gave.
        pct: per cent of the traffic that the canary should have.
        floor: requests of either side below which a comparison says nothing.
    """
    at, canary, control = f"{span.start:%H:%M:%S}", span.canary, span.control
    if canary is None:
        missed = expected(span, pct)
        dead = missed >= MIN_EXPECTED
        return "fail" if dead else "unsure", f"{at} no canary among {span.counts[0]:,} requests"
    if canary.requests < floor:
        return "unsure", f"{at} {canary.requests:,} of {floor:,} canary requests"
    for rule in rules:
        value: float | None
        if rule.metric in _OF_CANARY:
            value = _OF_CANARY[rule.metric](canary)
        elif control is None or control.requests < floor:
            return "unsure", f"{at} {span.counts[0]:,} of {floor:,} control requests"
        else:
            value = _COMPARED[rule.metric](control, canary)
        if value is None or not math.isfinite(value):
            return "unsure", f"{at} nothing to compare with ({rule.id})"
        if not _OPERATORS[rule.op](value, rule.bound):
            told = (
                f"{quantity(value, rule.unit)} is not {rule.op} {quantity(rule.bound, rule.unit)}"
            )
            return "fail", f"{at} {rule.id}: {told}"
    return "pass", f"{at} passes"
