"""What the audit journal says of earlier releases: which were thrown out, and who knows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pytest_decisionos.errors import RefusedError
from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.release.audit import entries_of

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.release.stage_model import Reading

FINISHED: Final = "finished"
ACKNOWLEDGED: Final = "acknowledged"


class Past(NamedTuple):
    """The journal, read for what it says of releases.

    Attributes:
        aborted: when each release was last taken back, and did not come back to stay.
        acknowledged: when somebody last said that they know of that.
        seq: number of the last stage that it tells of; None if it tells of none, and 0 of one that
            could not be believed.
        over: whether that stage took everybody off the canary, other than by its end.
        untold: when a change was told last that does not follow the one before it: entries are gone,
            and of which release they told nobody knows.
    """

    aborted: dict[str, datetime]
    acknowledged: dict[str, datetime]
    seq: int | None
    over: bool = False
    untold: datetime | None = None

    def taken_back(self, release: str, stable: tuple[int, datetime] | None) -> datetime | None:
        """When ``release`` was last taken back; None if it never was.

        Args:
            release: which one.
            stable: number and time of the stable stage that is there. If the journal does not tell
                of it, an abort may have gone untold, and of which release nobody knows.
        """
        since = [self.aborted.get(release), self.untold]
        if stable is not None and stable[0] > 1 and stable[0] != self.seq:
            since.append(stable[1])
        return max((when for when in since if when is not None), default=None)

    def must_not_be_over(self, reading: Reading) -> None:
        """Refuse a canary that was taken back: somebody put the stage's old file there again.

        Raises:
            RefusedError: the journal tells of its end, in a later stage or in none.
        """
        on_canary = reading.name in {"canary", "promote"}
        if on_canary and self.over and (not self.seq or self.seq > reading.seq):
            raise RefusedError(
                "an old stage was put back: the audit journal says that this canary was taken back",
                field="release.stage:rolled_back",
                found=f"number {reading.seq}",
                next_step="dosctl release abort",
            )

    def known(self, release: str, since: datetime) -> bool:
        """Whether somebody acknowledged what happened to ``release`` at ``since``."""
        when = self.acknowledged.get(release)
        return when is not None and when > since


def past_of(root: Path) -> Past:
    """The past as the audit journal tells it.

    Whatever takes a canary off the traffic but its end (``finish``) counts as taking it back: an
    abort, also one that could not be recorded, if a repair was after it.

    Raises:
        JournalError: as ``audit.entries_of``.
    """
    past = Past({}, {}, None)
    flying: str | None = None
    for entry in entries_of(root):
        when, release, to = parse_time(entry.get("time")), entry.get("release"), entry.get("to")
        if when is None or entry.get("allowed") is not True:
            continue
        if entry.get("code") == ACKNOWLEDGED and isinstance(release, str):
            past.acknowledged[release] = when
        if not isinstance(to, dict):
            continue
        if flying is None and _skips(entry.get("from"), to, past.seq):
            past = past._replace(untold=when)
        is_end = to.get("stage") in {"stable", "abort"} and entry.get("code") != FINISHED
        past = past._replace(seq=to.get("seq", 0), over=is_end)
        if to.get("stage") in {"canary", "promote"}:
            was_stable = (entry.get("from") or {}).get("stage") == "stable"
            if flying not in {None, release} and was_stable:  # nobody told how that one ended
                past.aborted[flying] = when
            flying = release
        elif flying is not None:
            if entry.get("code") != FINISHED:
                past.aborted[flying] = when
            else:  # it came back, and everybody runs it
                past.aborted.pop(flying, None)
            flying = None
    return past


def _skips(before: Any, to: dict[str, Any], told: int | None) -> bool:
    """Whether a change out of stable does not follow the stage that was ``told`` of last.

    The least number of a stable stage after an abort is 4, so a journal that begins later does not
    begin at the beginning. A repair and an abort count up from what the host remembers.
    """
    if not isinstance(before, dict) or before.get("stage") != "stable":
        return False
    begun, ended = before.get("seq", 0), to.get("seq", 0)
    if told is None:
        return bool(max(begun, ended) > 3)
    if begun:
        return bool(begun != told)
    return bool(0 < told < ended - 2)
