"""Whether the judge may be asked: looked at in the background, so that a probe never waits."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import DecisionOSError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_decisionos.trust.refresh import RefreshingRing

READY: Final = b'{"status":"ready"}'


class Probe(NamedTuple):
    """What is looked at together, in one thread.

    Attributes:
        looks: reason code → why not; None if it is well.
        every_sec: seconds between two looks.
        stale_sec: an answer that is older says nothing: whoever looks may hang.
    """

    looks: Mapping[str, Callable[[], str | None]]
    every_sec: float = 1.0
    stale_sec: float = 10.0


class _Seen(NamedTuple):
    fault: str | None
    at: float


class Readiness:
    """The last answers of all probes; nothing that was not looked at yet is well."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        """Begin to look, each probe in a thread of its own: one that hangs hides no other."""
        self._probes = probes
        self._seen: dict[str, _Seen] = {}
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(probe,), name="readiness", daemon=True)
            for probe in probes
        ]
        for thread in self._threads:
            thread.start()

    def faults(self) -> dict[str, str]:
        """Reason code → why it is not ready, in words; empty if it is."""
        now, found = time.monotonic(), dict[str, str]()
        for probe in self._probes:
            for code in probe.looks:
                seen = self._seen.get(code)
                if seen is None:
                    found[code] = "not looked at yet"
                elif now - seen.at > probe.every_sec + probe.stale_sec:
                    found[code] = f"no answer for {now - seen.at:.0f} s"
                elif seen.fault is not None:
                    found[code] = seen.fault
        return found

    def close(self) -> None:
        """Stop looking."""
        self._end.set()
        for thread in self._threads:
            thread.join(timeout=1.0)

    def _run(self, probe: Probe) -> None:
        while not self._end.is_set():
            for code, look in probe.looks.items():
                asked = time.monotonic()  # it was so when it was asked, not when the answer came
                try:
                    fault = look()
                except DecisionOSError as refused:
                    fault = str(refused)
                except Exception as bug:  # noqa: BLE001 - whatever it is, the answer is no
                    fault = type(bug).__name__
                self._seen[code] = _Seen(fault, asked)
            self._end.wait(probe.every_sec)


def document(faults: Mapping[str, str], *, explain: bool) -> bytes:
    """The body of an answer."""
    if explain:
        told = {"reasons": list(faults), "details": dict(faults)} if faults else {"details": {}}
        status = {"status": "not_ready" if faults else "ready"}
        return json.dumps(status | told, ensure_ascii=False, separators=(",", ":")).encode()
    if not faults:
        return READY
    return json.dumps(
        {"status": "not_ready", "reasons": list(faults)}, separators=(",", ":")
    ).encode()


def keys_fault(keys: RefreshingRing) -> str | None:
    """Why no keys are loaded; None if they are. Raises what says it."""
    keys.ring()
    return None


def active_fault(keys: RefreshingRing) -> str | None:
    """Why no key is active for requests; None if one is. Raises what says it."""
    keys.ring().signing("request", datetime.now(UTC))
    return None


def folder_fault(folder: Path) -> str | None:
    """Why logs cannot be read in ``folder``; None if they can."""
    try:
        os.scandir(folder).close()
    except OSError as fault:
        return f"cannot be read: {fault.strerror}"
    return None if os.access(folder, os.X_OK) else "its files may not be opened"
