"""What a judge's own logs say of an evidence document: computed once, and kept by its digest."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import Future
from datetime import UTC
from typing import TYPE_CHECKING, Final

from pytest_decisionos.errors import DecisionOSError
from pytest_decisionos.judge.decide import JudgeInput
from pytest_decisionos.judge.logs import ask_folder
from pytest_decisionos.judge.verdicts import numbers_of
from pytest_decisionos.trust.files import write_new

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.model.evidence import Evidence

KEPT: Final = 64
SHARED: Final = 256
AT_A_TIME: Final = 2
"""Harvests at a time: each uses all cores by itself."""


class Numbers:
    """The numbers of one judge; threads share it.

    They do not depend on the SLO, so that one question for each SLO gets the same ones. Logs that
    the evidence names by digest always say the same of it; a judge's own log may have grown, so
    what it said is kept for one decision. Only what was computed is kept: a log that is not there
    now may be there the next time.
    """

    def __init__(self, judge: str, folder: Path, own: str | None, shared: Path | None) -> None:
        """Set it up; nothing is read yet.

        Args:
            judge: its name.
            folder: of its logs.
            own: name of a log of its own; None: those that evidence names.
            shared: folder that several processes keep theirs in; the first to write has it for all.
        """
        self._judge = JudgeInput(id=judge, source="remote")
        self._folder, self._own, self._shared = folder, own, shared
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, JudgeInput] = OrderedDict()
        self._pending: dict[str, Future[JudgeInput]] = {}
        self._turns = threading.BoundedSemaphore(AT_A_TIME)

    def of(self, evidence: Evidence, as_of: datetime) -> JudgeInput:
        """What the logs say of ``evidence``, for the decision of the time ``as_of``."""
        key = evidence.sha256
        if self._own is not None:
            time = as_of.astimezone(UTC).isoformat()
            key = hashlib.sha256(f"{key} {time}".encode()).hexdigest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            pending = self._pending.get(key)
            mine: Future[JudgeInput] = Future()
            if pending is None:
                self._pending[key] = mine
        if pending is not None:
            return pending.result()
        try:
            made = self._read(key) or self._compute(key, evidence)
        except BaseException as fault:
            mine.set_exception(fault)
            raise
        else:
            mine.set_result(made)
            return made
        finally:
            self._settle(key, mine)

    def _settle(self, key: str, made: Future[JudgeInput]) -> None:
        with self._lock:
            del self._pending[key]
            if made.exception() is None and made.result().state == "ready":
                self._kept[key] = made.result()
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)

    def _compute(self, key: str, evidence: Evidence) -> JudgeInput:
        with self._turns:
            found = ask_folder(
                self._judge, self._folder, evidence.blocks, own=self._own, tell_folder=False
            )
        text = numbers_of(found)
        if self._shared is not None and found.state == "ready":
            try:
                if write_new(self._shared / f"{key}.json", text, mode=0o600):
                    self._clear(self._shared)
                else:
                    return self._read(key) or found
            except (DecisionOSError, OSError):
                pass  # then this process alone has it
        # As the gate will read it: both must judge the very same.
        return JudgeInput.model_validate_json(text)

    def _read(self, key: str) -> JudgeInput | None:
        """What another process computed; None if none did."""
        if self._shared is None:
            return None
        try:
            return JudgeInput.model_validate_json((self._shared / f"{key}.json").read_bytes())
        except (OSError, ValueError):
            return None

    @staticmethod
    def _clear(folder: Path) -> None:
        listed = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for old in listed[:-SHARED]:
            old.unlink(missing_ok=True)
