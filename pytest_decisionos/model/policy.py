"""Policy as compiled: rules, quorum and waivers of one SLO file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.outcome import Severity

Kind = Literal[
    "number",  # a finite number against a bound
    "word",  # a string of a closed vocabulary, allowed or forbidden
    "flag",  # a boolean that must have this value
    "digest",  # 64 hexadecimal digits, and the log's own digest where the judge has the log
    "signature",  # the evidence's own integrity
    "span",  # seconds between start and end
    "age",  # seconds since a time
    "groups",  # that there are groups to judge one by one
]
Operator = Literal["<=", "<", ">=", ">", "==", "in", "not in", "is"]
OnInconclusive = Literal["no-go", "hold"]
GroupBy = Literal["route", "tenant"]


class Group(Frozen):
    """One group of a block: such as route ``/v1/pay`` of ``perf``."""

    by: GroupBy
    name: str


class Rule(Frozen):
    """One condition on the evidence.

    Attributes:
        id: dotted path of the bound in the SLO file, such as ``judge_infra.latency.p95``.
        kind: how it is evaluated.
        metric: JSON Pointer (RFC 6901) into the evidence.
        op: how the value is held against the bound.
        bound: number, word or boolean; for ``in`` and ``not in`` see ``words``.
        words: the words allowed (``in``) or forbidden (``not in``).
        known: for ``not in``: every word there is; another one is an error, not a pass.
        unit: unit of the value and the bound: ``ms``, ``rate``, ``s``, ``%``, ``/s`` or nothing.
        low: smallest possible value; below it the value is nonsense.
        low_open: whether ``low`` itself is impossible too.
        high: largest possible value.
        counts: pointers to the sample counts behind the value; the smallest one speaks.
        min_samples: fewer samples than this say nothing.
        limits: pointer to the confidence limits of the value.
        level: confidence level of the limits; None compares the value itself.
        missing: status cause of a value that is not there.
        for_each: dimension whose groups are judged one by one, each as a rule of its own.
        group: the group that this rule reads, once it is known.
        severity: ``warn`` is shown and never decides.
        waivable: whether a waiver may stand for it.
        label: label of the reason, where the file states one.
        text: the rule in words.
    """

    id: str
    kind: Kind
    metric: str
    op: Operator
    bound: float | str | bool | None = None
    words: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    unit: str = ""
    low: float | None = None
    low_open: bool = False
    high: float | None = None
    counts: tuple[str, ...] = ()
    min_samples: int = 0
    limits: str | None = None
    level: float | None = None
    missing: Literal["error", "inconclusive"] = "error"
    for_each: GroupBy | None = None
    group: Group | None = None
    severity: Severity = "block"
    waivable: bool = True
    label: str | None = None
    text: str = ""


class Quorum(Frozen):
    """At least ``k`` of the ``n`` configured judges must vote pass."""

    k: Annotated[int, Field(strict=True, ge=1, le=99)]
    n: Annotated[int, Field(strict=True, ge=1, le=99)]
    fail_closed_on_degrade: Annotated[bool, Field(strict=True)] = False

    def __str__(self) -> str:
        return f"{self.k}/{self.n}"


Word = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200)]


class Waiver(Frozen):
    """Somebody's signed-for exception to one rule, for at most 14 days."""

    rule: Word
    owner: Word
    reason: Word
    expires: Word


class Slo(Frozen):
    """One SLO file, compiled.

    Attributes:
        stem: file name without its ending; the SLO's name everywhere.
        file: where it was read from.
        sha256: of the file's bytes.
        version: what the file says of itself.
        rules: sorted by id; never empty.
        quorum: what the file asks for, if anything.
        on_inconclusive: what too little evidence makes of a missing quorum.
        max_wait_sec: how long a step may wait for enough evidence, seconds.
        waivers: as stated; whether one counts is decided when the gate is judged.
    """

    stem: str
    file: str
    sha256: str
    version: str
    rules: tuple[Rule, ...]
    quorum: Quorum | None = None
    on_inconclusive: OnInconclusive = "no-go"
    max_wait_sec: float = 1800.0
    waivers: tuple[Waiver, ...] = ()
