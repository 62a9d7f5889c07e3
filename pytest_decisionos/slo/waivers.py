"""When a waiver counts: its end must be readable, ahead, and near."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from pytest_decisionos.model.evidence import parse_time

if TYPE_CHECKING:
    from pytest_decisionos.model.policy import Waiver

MAX_WAIVER_DAYS: Final = 14
"""The longest that a waiver may run, counted from now: the design's limit."""


def expiry(waiver: Waiver) -> datetime | None:
    """When ``waiver`` ends; a date alone means the end of that day, UTC. None if unreadable."""
    text = waiver.expires
    return parse_time(f"{text}T23:59:59Z" if len(text) == len("YYYY-MM-DD") else text)


def waiver_fault(waiver: Waiver, now: datetime) -> str | None:
    """Why ``waiver`` does not count at ``now`` (a time with a zone); None if it does."""
    ends = expiry(waiver)
    if ends is None:
        return "its date cannot be read (ISO-8601 with an offset, or YYYY-MM-DD)"
    if ends <= now:
        return "it has expired"
    if ends - now > timedelta(days=MAX_WAIVER_DAYS):
        return f"it runs for more than {MAX_WAIVER_DAYS} days"
    return None
