"""The outcome of one rule or check: what was found, what was expected, and why."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from pytest_decisionos.errors import shown
from pytest_decisionos.model.base import Frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

Scalar = str | int | float | bool | None
Severity = Literal["block", "warn"]


class Status(StrEnum):
    """What a rule or check gave. The words are those of Argo Rollouts' analysis runs."""

    SUCCESSFUL = "successful"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"
    FAILED = "failed"

    @property
    def badness(self) -> int:
        """0 for successful up to 3 for failed: the order in which the worst wins."""
        return _BADNESS[self]


_BADNESS = {status: rank for rank, status in enumerate(Status)}


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of ``statuses``; of none at all ``error``, because nothing was measured."""
    return max(statuses, key=_BADNESS.__getitem__, default=Status.ERROR)


def quantity(value: Scalar, unit: str = "") -> str:
    """``value`` with its unit as people read it: ``1,260 ms``, ``0.31 %``, ``+12.4 %``."""
    if value is None:
        return "nothing"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return shown(value if isinstance(value, str) else str(value).lower(), 60)
    if not abs(value) < 1e300:  # NaN, infinities, and integers that no float can hold
        return f"{shown(str(value), 40)} {unit}".rstrip()
    if unit == "rate":
        return f"{value * 100:.4g} %"
    if unit == "rel":
        return f"{value * 100:+.4g} %"
    text = f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"
    return f"{text} {unit}".rstrip() if abs(value) < 1e15 else f"{value:.4g} {unit}".rstrip()


class Outcome(Frozen):
    """What one rule (for one judge) or one check gave.

    Attributes:
        id: rule id or check id.
        status: successful, inconclusive, error or failed.
        cause: why it is not successful (``over``, ``missing`` …); None when it is.
        message: one line in words, with the file, the field, what was found and expected.
        observed: the value found; None where nothing usable was.
        unit: unit of observed, limit, bound and margin: ``ms``, ``rate``, ``s``, ``%``, …
        op: ``<=``, ``>=``, ``in``, ``not in``, ``is`` …
        bound: what observed is held against.
        limit: the one-sided confidence limit that decided, on the bad side of observed.
        margin: room left to the bound in ``unit``; negative is beyond it.
        samples: sample count behind observed.
        effective: effective sample count n/D.
        needed: about how many more samples would settle it.
        source: the file or log that the number came from.
        label: label of the reason (``reason:infra-latency``).
        severity: ``warn`` outcomes are shown and never decide.
        waived: who waived it and until when; None if nobody did.
    """

    id: str
    status: Status
    cause: str | None = None
    message: str = ""
    observed: Scalar = None
    unit: str = ""
    op: str = ""
    bound: Scalar = None
    limit: float | None = None
    margin: float | None = None
    samples: int | None = None
    effective: float | None = None
    needed: int | None = None
    source: str = ""
    label: str | None = None
    severity: Severity = "block"
    waived: str | None = None

    @property
    def reason(self) -> str:
        """The reason code: ``<id>:<cause>``."""
        return f"{self.id}:{self.cause}" if self.cause else self.id

    @property
    def counts(self) -> bool:
        """Whether this outcome can stop a vote: it blocks, and nobody waived it."""
        return self.severity == "block" and self.waived is None
