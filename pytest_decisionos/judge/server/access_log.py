"""The access log, in the judgelog form: the judge's own traffic as one more thing that is judged.

A request never waits for it: a thread writes whole lines, and what does not fit the queue is
dropped and counted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import queue
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import UsageError, shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEADER: Final = b"ts,status,latency_ms,signature_error,route,reason\n"
QUEUE: Final = 10_000
BATCH: Final = 1000
FLUSH_SEC: Final = 0.2
"""How long rows wait for others: a harvest that begins 5 s after a window's end finds them."""
_FOREIGN: Final = "it begins with another header"


class Row(NamedTuple):
    """One answered request.

    Attributes:
        ended: seconds since 1970.
        status: of the answer; 499 if the client went away.
        latency_ms: from the request's head to the end of its answer.
        signature_error: whether it was not proven to come from somebody with a key.
        route: the path, if it is one of ours.
        reason: reason code of what went wrong; of a signature its cause, which the client is not told.
    """

    ended: float
    status: int
    latency_ms: float
    signature_error: bool
    route: str
    reason: str

    def line(self) -> bytes:
        """It as a line of CSV."""
        time = datetime.fromtimestamp(self.ended, UTC).isoformat(timespec="milliseconds")
        wrong = "true" if self.signature_error else "false"
        text = f"{time},{self.status},{self.latency_ms:.3f},{wrong},{self.route},{self.reason}\n"
        return text.replace("+00:00", "Z").encode()


class AccessLog:
    """The file; several processes may share it.

    Rotated by renaming, it begins a new one; rotated by copying and truncating, it begins the same
    one again, with its header. A file that begins otherwise is somebody else's, and left as it is.
    """

    def __init__(self, path: Path, dropped: Callable[[int], None]) -> None:
        """Begin to write. ``dropped`` is told how many rows could not be.

        Raises:
            UsageError: the file is somebody else's.
        """
        self._path = path
        with contextlib.suppress(OSError):  # readiness says why
            if not self._may_write():
                raise UsageError(
                    f"the access log is to be written there, and {_FOREIGN}",
                    file=path,
                    next_step="move it away, or name another folder with --root",
                )
        self._dropped = dropped
        self._queue: queue.Queue[Row | None] = queue.Queue(QUEUE)
        self._fault: str | None = None
        self._descriptor: int | None = None
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def put(self, row: Row) -> None:
        """Write a row soon; drop it if too many wait."""
        try:
            self._queue.put_nowait(row)
        except queue.Full:
            self._dropped(1)

    def fault(self) -> str | None:
        """Why rows cannot be written; None if they can, as far as one can tell without writing."""
        try:
            ours = self._may_write()
            room = os.statvfs(self._path.parent)
        except OSError as fault:
            return f"{shown(str(self._path))}: {fault.strerror}"
        if not ours:
            return f"{shown(str(self._path))}: {_FOREIGN}"
        if room.f_bavail == 0:
            return f"{shown(str(self._path))}: no space left"
        return self._fault

    def close(self) -> None:
        """Write what waits, and end."""
        with contextlib.suppress(queue.Full):  # then a disk hangs, and nothing helps
            self._queue.put(None, timeout=1.0)
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        ended = False
        while not ended:
            rows, ended = self._batch()
            try:
                self._write(b"".join(row.line() for row in rows))
                self._fault = None
            except OSError as fault:
                self._fault = f"{shown(str(self._path))}: {fault.strerror}"
                self._dropped(len(rows))
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _batch(self) -> tuple[list[Row], bool]:
        """The rows that wait, at least one; and whether it is the end."""
        rows: list[Row] = []
        row = self._queue.get()
        if row is not None and self._queue.empty():
            threading.Event().wait(FLUSH_SEC)
        while row is not None:
            rows.append(row)
            if len(rows) >= BATCH or self._queue.empty():
                return rows, False
            row = self._queue.get()
        return rows, True

    def _may_write(self) -> bool:
        """Whether rows may be written: there is nothing, or nothing in it, or an access log."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = self._opened()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # another worker may be writing the header
            return _is_ours(descriptor)
        finally:
            os.close(descriptor)

    def _opened(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o644)

    def _write(self, lines: bytes) -> None:
        if not lines:
            return
        descriptor = self._current()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            if not _is_ours(descriptor):
                raise OSError(errno.EINVAL, _FOREIGN)
            size = os.fstat(descriptor).st_size
            data = lines if size else HEADER + lines
            written = os.write(descriptor, data)
            if written < len(
                data
            ):  # the disk is full: never half a row, which may read as a whole one
                os.ftruncate(descriptor, size)
                raise OSError(28, "no space left")
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _current(self) -> int:
        """The file that is at the path now, which may be another one than a moment ago."""
        if self._descriptor is not None:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._descriptor), self._path.lstat()):
                    return self._descriptor
            os.close(self._descriptor)
            self._descriptor = None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = self._opened()
        return self._descriptor


def _is_ours(descriptor: int) -> bool:
    return os.pread(descriptor, len(HEADER), 0) in {b"", HEADER}
