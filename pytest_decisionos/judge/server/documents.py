"""Evidence as it was sent: read once, and its seal checked once, for the questions on each SLO."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_decisionos.evidence.seal import check
from pytest_decisionos.model.evidence import Evidence, parse_evidence
from pytest_decisionos.model.seal import Seal

if TYPE_CHECKING:
    from datetime import datetime

    from pytest_decisionos.trust.keys import KeyRing

NAME: Final = Path("evidence.json")
"""The name that errors and outcomes call the evidence by: the file's own is not told."""
KEPT: Final = 32
KEPT_CHARS: Final = 256 * 1024
"""Longer documents are read each time, so that the kept ones stay small."""


def read(text: str) -> Evidence:
    """The evidence document in ``text``. Not to be changed: others have it too.

    Raises:
        EvidenceError: it is none.
    """
    return _read_once(text) if len(text) <= KEPT_CHARS else _read(text)


def _read(text: str) -> Evidence:
    return parse_evidence(text.encode(), NAME)


_read_once = lru_cache(maxsize=KEPT)(_read)


class Seals:
    """What the seals of the last documents prove; threads share it.

    Only a seal that holds is kept: one that is refused may be from the future, which passes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, KeyRing], Seal] = OrderedDict()

    def of(self, evidence: Evidence, ring: KeyRing, now: datetime) -> Seal:
        """What the seal of ``evidence`` proves to who has ``ring``; nothing if no key is for seals."""
        if not ring.of("evidence"):
            return Seal()
        key = (evidence.sha256, ring)
        with self._lock:
            found = self._kept.get(key)
        if found is None:
            found = check(evidence.blocks, ring, now=now)
            if found.state == "valid":
                with self._lock:
                    self._kept[key] = found
                    if len(self._kept) > KEPT:
                        self._kept.popitem(last=False)
        return found
