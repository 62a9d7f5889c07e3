"""Times as options give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_decisionos.errors import UsageError
from pytest_decisionos.model.evidence import parse_time

if TYPE_CHECKING:
    from datetime import datetime


def time_of(option: str, text: str | None) -> datetime | None:
    """The time that ``option`` names; None if it was not given.

    Raises:
        UsageError: it is no ISO-8601 time with an offset, or not of 1970 to 2999.
    """
    if text is None:
        return None
    found = parse_time(text)
    if found is None or not 1970 <= found.year < 3000:
        raise UsageError(
            "not a time with an offset",
            field=option,
            found=text,
            expected="ISO-8601 such as 2026-01-05T09:00:00+09:00",
        )
    return found
