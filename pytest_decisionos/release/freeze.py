"""configs/freeze.yaml: when no release may go on, as wall clocks of one zone tell it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, StringConstraints, model_validator

from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.policy_text import read_policy
from pytest_decisionos.model.validate import validate

if TYPE_CHECKING:
    from pathlib import Path

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WEEK: Final = timedelta(days=7)
_WALL: Final = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?$"
_DAY_TIME: Final = r"^(Mon|Tue|Wed|Thu|Fri|Sat|Sun) ([01]\d|2[0-3]):[0-5]\d$"
_OF_THE_HOST: Final = ("localtime", "posix", "right/", "Factory")
"""Files beside the zones: another time on another host, with leap seconds, or none."""
Reason = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200)]
Wall = Annotated[str, StringConstraints(strict=True, pattern=_WALL)]
DayTime = Annotated[str, StringConstraints(strict=True, pattern=_DAY_TIME)]


class FreezeSpan(Frozen):
    """A freeze that comes once.

    Attributes:
        from_: its first instant, ``2026-12-24T00:00``, by the zone's clocks.
        to: the first instant after it.
        reason: why.
    """

    from_: Annotated[Wall, Field(alias="from")]
    to: Wall
    reason: Reason

    @model_validator(mode="after")
    def _in_order(self) -> FreezeSpan:
        if not datetime.fromisoformat(self.from_) < datetime.fromisoformat(self.to):
            raise ValueError("from is not before to")
        return self

    def holds(self, now: datetime, zone: ZoneInfo) -> bool:
        """Whether it holds at ``now``."""
        start, end = (datetime.fromisoformat(wall) for wall in (self.from_, self.to))
        return _holds(start, end, now, zone)


class FreezeWeekly(Frozen):
    """A freeze that comes every week.

    Attributes:
        from_: day and time of its first instant, ``Fri 18:00``.
        to: day and time of the first instant after it; may be in the next week.
        reason: why.
    """

    from_: Annotated[DayTime, Field(alias="from")]
    to: DayTime
    reason: Reason

    @model_validator(mode="after")
    def _lasts(self) -> FreezeWeekly:
        if self.from_ == self.to:
            raise ValueError("from and to are the same time")
        return self

    def holds(self, now: datetime, zone: ZoneInfo) -> bool:
        """Whether it holds at ``now``."""
        start, end = _of_week(self.from_), _of_week(self.to)
        here = now.astimezone(zone).replace(tzinfo=None)
        monday = datetime.combine(here.date() - timedelta(days=here.weekday()), time())
        # The last one may reach into this week, and where clocks are changed the next one too.
        begins = (monday + start + weeks * _WEEK for weeks in (-1, 0, 1))
        length = (end - start) % _WEEK
        return any(_holds(begin, begin + length, now, zone) for begin in begins)


class FreezeFile(Frozen):
    """A whole freeze.yaml.

    Attributes:
        version: of this format.
        zone: an IANA time zone.
        spans: freezes that come once.
        weekly: freezes that come every week.
    """

    version: Literal[1] = 1
    zone: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=64)]
    spans: Annotated[tuple[FreezeSpan, ...], Field(max_length=1000)] = ()
    weekly: Annotated[tuple[FreezeWeekly, ...], Field(max_length=100)] = ()

    @model_validator(mode="after")
    def _known_zone(self) -> FreezeFile:
        if not _is_zone(self.zone):
            raise ValueError(f"zone: {self.zone!r} is no IANA time zone that is known here")
        return self

    def reason(self, now: datetime) -> str | None:
        """Why nothing may go on at ``now``; None if it may."""
        zone = ZoneInfo(self.zone)
        freezes: tuple[FreezeSpan | FreezeWeekly, ...] = (*self.spans, *self.weekly)
        for one in freezes:
            if one.holds(now, zone):
                return f"{one.reason}: from {one.from_} to {one.to}, {self.zone}"
        return None


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return False
    return not name.startswith(_OF_THE_HOST)


def _holds(start: datetime, end: datetime, now: datetime, zone: ZoneInfo) -> bool:
    """Whether ``now`` is between two walls; an hour that a clock shows twice, or never, belongs to it."""
    return min(_instants(start, zone)) <= now < max(_instants(end, zone))


def _instants(naive: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """What a clock's time can mean: two instants where clocks are changed."""
    first, second = (naive.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    try:
        # Comparing within one zone compares wall clocks, so both leave it.
        return first.astimezone(UTC), second.astimezone(UTC)
    except OverflowError:  # the first or the last day that there is: nobody asks for its hour
        return naive.replace(tzinfo=UTC), naive.replace(tzinfo=UTC)


def _of_week(text: str) -> timedelta:
    day, hour, minute = re.split("[ :]", text)
    return timedelta(days=DAYS.index(day), hours=int(hour), minutes=int(minute))


def load_freeze(path: Path) -> FreezeFile:
    """Read freeze.yaml.

    Raises:
        PolicyError: it is missing, or not what it should be.
    """
    document, data = read_policy(path, next_step="dosctl init writes one")
    return validate(FreezeFile, document, path, data)
