"""A key ring that is read again in the background: the last good one holds for a while, not for ever."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import DecisionOSError, KeysError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_decisionos.trust.keys import KeyRing

INTERVAL_SEC: Final = 60.0
GRACE_SEC: Final = 900.0
GAP_SEC: Final = 1.0
"""The least time between the reads that strangers can cause, by keys that nobody knows."""


class _Good(NamedTuple):
    ring: KeyRing
    at: float
    since: datetime


class RefreshingRing:
    """The ring of a long-running process, such as a judge.

    Threads may share it. A key that was revoked or rotated elsewhere is taken up within
    ``interval_sec``, or, while the source fails, within ``interval_sec + grace_sec`` at the latest:
    then nothing signs and nothing verifies until the source answers again.
    """

    def __init__(
        self,
        source: Callable[[], KeyRing],
        *,
        interval_sec: float = INTERVAL_SEC,
        grace_sec: float = GRACE_SEC,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the ring once, and begin to read it again every ``interval_sec`` seconds.

        Args:
            source: gives the ring, or raises why not.
            interval_sec: seconds between two reads.
            grace_sec: how much longer the last good ring holds when the source fails.
            clock: seconds that never go back.

        Raises:
            DecisionOSError: what ``source`` raises at the first read: nothing starts without keys.
        """
        self._source = source
        self._interval = interval_sec
        self._grace = grace_sec
        self._clock = clock
        self._fault = ""
        self._good = self._read()
        # Unlike an Event, it may be used in a signal handler that interrupted a use of it.
        self._calls: queue.SimpleQueue[bool | Future[bool]] = queue.SimpleQueue()
        self._began = -GAP_SEC
        self._thread = threading.Thread(target=self._run, name="key-refresh", daemon=True)
        self._thread.start()

    def ring(self) -> KeyRing:
        """The last ring that was read.

        Raises:
            KeysError: that is longer ago than it may be. A read that hangs counts like one that fails.
        """
        good = self._good
        if self._clock() - good.at > self._interval + self._grace:
            since = good.since.isoformat(timespec="seconds")
            raise KeysError(
                f"could not be read again since {since}: {self._fault or 'no answer'}",
                file=good.ring.origin,
                expected=f"an answer within {self._interval + self._grace:g} s",
            )
        return good.ring

    def refresh_now(self) -> None:
        """Read the ring soon, in the background; also from a signal handler (SIGHUP)."""
        self._calls.put(True)

    def read_again(self) -> Future[bool]:
        """A read that begins after this call, for a key that the ring does not know: it may be new.

        Many who wait share one read, and there is at most one in ``GAP_SEC``.

        Returns:
            whether it succeeded, once it was made. If that hangs, or nobody reads any more, so
            does this.
        """
        waiting: Future[bool] = Future()
        self._calls.put(waiting)
        return waiting

    def close(self) -> None:
        """Stop reading. ``ring()`` goes on until the last one is too old."""
        self._calls.put(False)
        self._thread.join(timeout=1.0)  # a read that hangs ends with the process

    def _read(self) -> _Good:
        asked = self._clock()  # it was good when it was asked for, not when it came at last
        return _Good(self._source(), asked, datetime.now(UTC))

    def _run(self) -> None:
        while True:
            waiting, ended = self._wait()
            read = not ended and self._take_up()
            for one in waiting:
                one.set_result(read)
            if ended:
                return

    def _wait(self) -> tuple[list[Future[bool]], bool]:
        """Until it is time to read: who waits for it, and whether it is the end instead."""
        waiting: list[Future[bool]] = []
        timeout, hurry = self._interval, False
        while True:
            try:
                call = self._calls.get(timeout=timeout)
            except queue.Empty:
                return waiting, False
            if isinstance(call, Future):
                if call.set_running_or_notify_cancel():  # then nobody can cancel it under our hands
                    waiting.append(call)
            elif call:
                hurry = True
            else:
                return waiting, True
            gap = self._began + GAP_SEC - time.monotonic()
            timeout = 0.0 if hurry else max(0.0, gap)

    def _take_up(self) -> bool:
        self._began = time.monotonic()
        try:
            self._good = self._read()
        except DecisionOSError as fault:
            self._fault = str(fault)
        except Exception as fault:  # noqa: BLE001 - the thread must live, and words may hold a secret
            self._fault = type(fault).__name__
        else:
            self._fault = ""
            return True
        return False
