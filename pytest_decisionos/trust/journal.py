"""A journal that tells if it was changed: JSON lines, each with the hash of the one before.

A change, a removal, a swap or an insertion breaks the chain at that place. The end of the chain
proves nothing by itself, so whoever needs that keeps the ``Head`` elsewhere, signed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pytest_decisionos.errors import JournalError, UsageError, shown
from pytest_decisionos.model import strict_json
from pytest_decisionos.trust.files import LOCK_TIMEOUT_SEC, is_there, locked, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

START: Final = "0" * 64
"""``prev`` of the first entry."""
MAX_LINE_BYTES: Final = 64 * 1024
MAX_BYTES: Final = 1024 * 1024 * 1024
_encode: Final = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
).encode


class Head(NamedTuple):
    """How far a journal went: the number of its entries, and the hash of the last one's line."""

    entries: int
    sha256: str


EMPTY: Final = Head(0, START)


class Fault(NamedTuple):
    """What is wrong with a journal, and where.

    Attributes:
        line: counted from 1.
        cause: ``changed``, ``truncated``, ``unreadable``.
        message: in words.
    """

    line: int
    cause: str
    message: str


class Read(NamedTuple):
    """A journal as read.

    Attributes:
        entries: up to the first fault.
        heads: the head after each entry, for each of ``entries``.
        fault: the first fault, None if there is none.
        good_bytes: how many bytes of the file the entries take.
    """

    entries: list[dict[str, Any]]
    heads: list[Head]
    fault: Fault | None
    good_bytes: int

    @property
    def head(self) -> Head:
        """How far it goes."""
        return self.heads[-1] if self.heads else EMPTY


def read(path: Path) -> Read:
    """Read a journal and check its chain; a missing file is an empty journal.

    A last line without its newline was not acknowledged to anybody: it is a ``truncated`` fault.

    Raises:
        JournalError: the file cannot be read.
    """
    if not is_there(path):
        return Read([], [], None, 0)
    data = strict_json.read_bytes(path, error=JournalError, max_bytes=MAX_BYTES)
    return parse(data)


def parse(data: bytes) -> Read:
    """The journal in ``data``."""
    entries: list[dict[str, Any]] = []
    heads: list[Head] = []
    good, prev = 0, START
    *lines, rest = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        entry = _entry(line, number, prev)
        if isinstance(entry, Fault):
            return Read(entries, heads, entry, good)
        prev = hashlib.sha256(line).hexdigest()
        good += len(line) + 1
        entries.append(entry)
        heads.append(Head(number, prev))
    if rest:
        fault = Fault(len(lines) + 1, "truncated", f"line {len(lines) + 1} has no end")
        return Read(entries, heads, fault, good)
    return Read(entries, heads, None, good)


def _entry(line: bytes, number: int, prev: str) -> dict[str, Any] | Fault:
    if len(line) > MAX_LINE_BYTES:
        return Fault(number, "unreadable", f"line {number} is too long")
    try:
        entry: object = json.loads(line, parse_constant=_refuse)
        # The one spelling that we write: two spellings of one entry would be two hashes.
        ours = entry if isinstance(entry, dict) and _line(entry) == line else None
    except (ValueError, RecursionError):
        ours = None
    if ours is None:
        message = f"line {number} is no entry as this journal writes them"
        return Fault(number, "unreadable", message)
    if repr(ours.get("seq")) != str(number):  # 1.0 and true are equal to 1
        message = f"line {number} says that it is entry {shown(ours.get('seq'), 30)}"
        return Fault(number, "changed", message)
    if ours.get("prev") != prev:
        return Fault(number, "changed", f"line {number} does not follow the line before it")
    return ours


def _refuse(text: str) -> None:
    raise ValueError(text)


def _line(entry: Mapping[str, Any]) -> bytes:
    return _encode(entry).encode()


class Writer:
    """A journal that is locked for writing; ``open_journal`` gives one."""

    def __init__(self, path: Path, found: Read) -> None:
        self._path = path
        self.entries: list[dict[str, Any]] = found.entries
        self.head = found.head

    def append(self, payloads: Sequence[Mapping[str, Any]]) -> Head:
        """Append entries, durably: they are on disk when this returns.

        Args:
            payloads: JSON objects; ``seq`` and ``prev`` are added.

        Returns:
            The new head.

        Raises:
            JournalError: an entry is too large, or nothing that JSON can say.
            UsageError: the journal cannot be written; what stood there before is untouched.
        """
        lines: list[bytes] = []
        made: list[dict[str, Any]] = []
        head = self.head
        for payload in payloads:
            try:
                line = _line({**payload, "seq": head.entries + 1, "prev": head.sha256})
            except (ValueError, TypeError, RecursionError):
                what = "an entry is nothing that JSON can say"
                raise JournalError(what, file=self._path) from None
            if len(line) > MAX_LINE_BYTES:
                raise JournalError("an entry is too large", file=self._path)
            # What no reader would take may never get in: it would be the journal's end.
            entry = _entry(line, head.entries + 1, head.sha256)
            if isinstance(entry, Fault):
                raise JournalError(
                    f"an entry cannot be read back: {entry.message}", file=self._path
                )
            lines.append(line + b"\n")
            made.append(entry)
            head = Head(head.entries + 1, hashlib.sha256(line).hexdigest())
        if not lines:
            return head
        _append(self._path, b"".join(lines))
        self.entries += made
        self.head = head
        return head

    def cut(self, entries: int) -> None:
        """Take back all entries after the first ``entries``, of which nobody was told yet.

        Raises:
            UsageError: the journal cannot be written.
        """
        lines = [_line(entry) for entry in self.entries[:entries]]
        _cut(self._path, sum(len(line) + 1 for line in lines))
        del self.entries[entries:]
        self.head = Head(entries, hashlib.sha256(lines[-1]).hexdigest()) if lines else EMPTY


@contextlib.contextmanager
def open_journal(path: Path, *, wait_sec: float = LOCK_TIMEOUT_SEC) -> Iterator[Writer]:
    """Open a journal for appending, as its only writer.

    The rest of an append that a crash cut off is removed: nobody was told that it was there.

    Args:
        path: the file.
        wait_sec: how long to wait for another writer.

    Raises:
        JournalError: the chain is broken: nothing may be appended to what was changed.
        RefusedError: another writer has it for too long.
        UsageError: it cannot be written.
    """
    with locked(path, timeout_sec=wait_sec):
        found = read(path)
        if found.fault is not None:
            if found.fault.cause != "truncated":
                raise JournalError(
                    found.fault.message,
                    file=path,
                    line=found.fault.line,
                    next_step="find out who changed it; put the last good copy back",
                )
            _cut(path, found.good_bytes)
        yield Writer(path, found)


def _append(path: Path, data: bytes) -> None:
    is_new = not path.exists()
    before = 0 if is_new else path.stat().st_size
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o644)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as stream:
                view = memoryview(data)
                while view:
                    view = view[stream.write(view) :]
                os.fsync(stream.fileno())
        except OSError:  # such as a full disk: no part of it may stay
            with contextlib.suppress(OSError):
                os.truncate(path, before)
            raise
        if is_new:
            sync_folder(path.parent)
    except OSError as fault:
        raise UsageError(f"cannot be written: {fault.strerror}", file=path) from None


def _cut(path: Path, length: int) -> None:
    try:
        # Through a link this would cut what another writer, under another lock, is appending to.
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.ftruncate(descriptor, length)
        finally:
            os.close(descriptor)
    except OSError as fault:
        raise UsageError(f"cannot be written: {fault.strerror}", file=path) from None


def follows(found: Read, head: Head) -> bool:
    """Whether ``found`` is the journal that had ``head`` once: the same, or with more after it."""
    return head == EMPTY or (
        0 < head.entries <= len(found.heads) and found.heads[head.entries - 1] == head
    )
