"""What the audit journal says of earlier releases: which were thrown out, and who knows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import JournalError
from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.release.audit import FILE
from pytest_decisionos.trust.journal import read

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

FINISHED: Final = "finished"
ACKNOWLEDGED: Final = "acknowledged"


class Past(NamedTuple):
    """The journal, read for what it says of releases.

    Attributes:
        aborted: when each release was last taken back.
        acknowledged: when somebody last said that they know of that.
        seq: number of the last stage that it tells of; None if it tells of none, and 0 of one that
            could not be believed.
    """

    aborted: dict[str, datetime]
    acknowledged: dict[str, datetime]
    seq: int | None

    def taken_back(self, release: str, stable: tuple[int, datetime] | None) -> datetime | None:
        """When ``release`` was last taken back; None if it never was.

        Args:
            release: which one.
            stable: number and time of the stable stage that is there. If the journal does not tell
                of it, an abort may have gone untold, and of which release nobody knows.
        """
        told = self.aborted.get(release)
        if stable is not None and stable[0] > 1 and stable[0] != self.seq:
            return max(told, stable[1]) if told else stable[1]
        return told

    def known(self, release: str, since: datetime) -> bool:
        """Whether somebody acknowledged what happened to ``release`` at ``since``."""
        when = self.acknowledged.get(release)
        return when is not None and when > since


def past_of(root: Path) -> Past:
    """The past as the audit journal tells it.

    Whatever takes a canary off the traffic but its end (``finish``) counts as taking it back: an
    abort, also one that could not be recorded, if a repair was after it.

    Raises:
        JournalError: the journal cannot be read, or was changed: then nobody can tell.
    """
    path = root / FILE
    found = read(path)
    if found.fault is not None and found.fault.cause != "truncated":
        raise JournalError(
            found.fault.message,
            file=path,
            line=found.fault.line,
            next_step="find out who changed it; put the last good copy back",
        )
    past = Past({}, {}, None)
    flying: str | None = None
    for entry in found.entries:
        when, release, to = parse_time(entry.get("time")), entry.get("release"), entry.get("to")
        if when is None or entry.get("allowed") is not True:
            continue
        if entry.get("code") == ACKNOWLEDGED and isinstance(release, str):
            past.acknowledged[release] = when
        if not isinstance(to, dict):
            continue
        past = past._replace(seq=to.get("seq", 0))
        if to.get("stage") in {"canary", "promote"}:
            flying = release
        elif flying is not None:
            if entry.get("code") != FINISHED:
                past.aborted[flying] = when
            flying = None
    return past
