"""What this host has seen of a stage: so an old one that is put back is noticed, valid as it is."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Final

from pytest_decisionos.errors import DecisionOSError
from pytest_decisionos.trust.seen import OlderError, default_folder, last_seen, remember

if TYPE_CHECKING:
    from pathlib import Path


_REMOVED: Final = hashlib.sha256(b"").hexdigest()
"""Digest of no file."""


class BadStageError(Exception):
    """Why the file reads as stable: reason code, and words."""

    def __init__(self, alarm: str, message: str) -> None:
        super().__init__(message)
        self.alarm = alarm


class Memory:
    """What this host has seen of a stage file: under its name, and where links lead."""

    def __init__(self, root: Path, state_dir: Path | None) -> None:
        self.last: tuple[int, str] | None = None
        self._fault = ""
        try:
            self._folder = state_dir or default_folder()
            named = os.path.abspath(root), os.path.realpath(root)  # noqa: PTH100 - keeps links
            self._names = [f"stage:{name}" for name in dict.fromkeys(named)]
            self._seen = [last_seen(self._folder, name) for name in self._names]
            self.last = max((seen for seen in self._seen if seen), default=None)
        except (DecisionOSError, ValueError) as fault:
            self._fault = str(fault)

    def must_work(self) -> None:
        """Raises: BadStageError if it does not."""
        if self._fault:
            why = f"no telling whether an old one was put back: {self._fault}"
            raise BadStageError("memory", why)

    def check(self, seq: int, sha256: str) -> str:
        """Hold a valid file against the memory, and remember it; a note for who reads it.

        Raises:
            BadStageError: it is older than what was seen, or nobody can tell.
        """
        self.must_work()
        if self.last and seq < self.last[0]:
            said = (
                f"an old one was put back: it has number {seq}, this host has seen {self.last[0]}"
            )
            raise BadStageError("rolled_back", said)
        if self.last and seq == self.last[0] and sha256 != self.last[1]:
            raise BadStageError("replaced", f"this host has seen another one of number {seq}")
        known = self.last
        if any(seen is None or seen[0] < seq for seen in self._seen):
            try:
                self.remember(seq, sha256)
            except OlderError as fault:
                if fault.last == seq:
                    why = f"this host has seen another one of number {seq}"
                    raise BadStageError("replaced", why) from None
                # A later one was written meanwhile; this was the stage when it was read.
            except DecisionOSError as fault:
                why = f"it cannot be remembered here, nor told from an old one later: {fault}"
                raise BadStageError("memory", why) from None
        if known is None and seq > 1:
            return "this host sees it for the first time: an older one would not have been noticed"
        return ""

    def remember_removal(self) -> None:
        """Let the file that was there be an old one, if it is put back: also by a writer who hung."""
        with contextlib.suppress(DecisionOSError):
            if self.last is not None:
                self.remember(self.last[0] + 1, _REMOVED)

    def remember(self, seq: int, sha256: str) -> None:
        """Raises: DecisionOSError if it cannot."""
        for name in self._names:
            remember(self._folder, name, seq, sha256)
        self.last = (seq, sha256)
