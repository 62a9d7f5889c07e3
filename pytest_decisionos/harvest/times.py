"""Instants as epoch milliseconds, and as the text that evidence carries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def time_text(ms: int) -> str:
    """Epoch milliseconds as ISO-8601 UTC with milliseconds and ``Z``."""
    time = _EPOCH + timedelta(milliseconds=ms)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_ms(time: datetime) -> int:
    """An instant as epoch milliseconds, exactly: a float second would be a millisecond off."""
    return (time - _EPOCH) // timedelta(milliseconds=1)
