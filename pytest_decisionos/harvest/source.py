"""One log file, made safe to parse: which bytes of it count, their digest, and where to read them.

The bytes that count end at the last newline: an unterminated last line is a row still being
written (``12`` of ``1250`` would parse). A file that ends there is read in place, under a name of
ours in a private folder, so that no character of its own name can mean anything to DuckDB; any
other is copied up to there first. Digest and parse cover the same bytes even if the log grows.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
import stat
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from pytest_decisionos.errors import LogError, UsageError

MAX_FILES: Final = 10_000
CHUNK: Final = 1 << 20
MAX_HEADER: Final = 1 << 20
"""Longest first line in bytes; DuckDB's own limit for a line is twice that."""
PIECES: Final = 48
"""Pieces of a log that make its sample."""
MIN_PIECE: Final = 1 << 11
MAX_PIECE: Final = 1 << 16
SHARE: Final = 32
"""A sample is at most this fraction of its log."""
MAX_UNPACKED: Final = 16 << 30
"""Most bytes that a compressed log may unpack to."""

_KINDS: Final = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}


class ChangedError(Exception):
    """The file changed while it was read in place; reading a copy of it settles that."""


@dataclass
class Source:
    """One log file, opened.

    Attributes:
        path: as given; named in errors.
        kind: ``csv``, ``json`` (one object a line) or ``parquet``.
        size: how many of its bytes count.
        unterminated: 1 if an unterminated last line follows them, else 0.
        readable: where DuckDB reads them.
        sha256: their digest, once ``digest`` or the copy has made it.
    """

    path: Path
    kind: str
    size: int
    unterminated: int
    readable: Path
    stream: IO[bytes] = field(repr=False)
    state: tuple[int, ...] = field(repr=False)
    sha256: str = ""

    @property
    def in_place(self) -> bool:
        """Whether the file itself is read, not a copy."""
        return self.readable.is_symlink()

    def digest(self) -> str:
        """Hash the bytes that count, and make sure that nobody changed the file meanwhile.

        Raises:
            ChangedError: somebody did.
            LogError: it cannot be read any more.
        """
        if not self.sha256:
            hashed = hashlib.sha256()
            for chunk in _chunks(self.path, self.stream, self.size):
                hashed.update(chunk)
            self.sha256 = hashed.hexdigest()
        return self.sha256

    def check_unchanged(self) -> None:
        """Make sure that the file is what it was when it was opened, unless a copy is read.

        Raises:
            ChangedError: it is not.
        """
        if self.in_place and _state(self.stream) != self.state:
            raise ChangedError

    def first_line(self) -> bytes:
        """The first line of the bytes that count, without its end.

        Raises:
            LogError: it is longer than ``MAX_HEADER``.
        """
        with self.readable.open("rb") as stream:
            line = stream.readline(MAX_HEADER + 1)
        if len(line) > MAX_HEADER:
            raise LogError(
                "the first line is too long",
                file=self.path,
                line=1,
                expected=f"at most {MAX_HEADER:,} bytes",
            )
        return line.rstrip(b"\r\n")

    def close(self) -> None:
        """Close the file."""
        self.stream.close()


def open_source(
    path: Path, folder: Path, number: int, *, stated: int | None = None, copy: bool = False
) -> Source:
    """Open a log file.

    Args:
        path: the file.
        folder: private folder for what DuckDB reads.
        number: of the file in this harvest, for its name there.
        stated: count only this many bytes, which is what an evidence document says of it.
        copy: copy it in any case.

    Raises:
        LogError: missing, unreadable, not a regular file, empty, shorter than ``stated``, a
            truncated or damaged gzip, or nothing in it is a finished line.
    """
    name = path.name.lower()
    packed = name.endswith(".gz")
    kind = _KINDS.get(os.path.splitext(name.removesuffix(".gz"))[1], "csv")  # noqa: PTH122
    if packed and kind == "parquet":
        raise LogError("Parquet compresses itself", file=path, expected="no .gz around it")
    stream = _open(path)
    try:
        state = _state(stream)
        size = _size(path, state[1], stated)
        readable = folder / f"{number}.{kind}"
        source = Source(path, kind, size, 0, readable, stream, state)
        with contextlib.suppress(FileNotFoundError):
            readable.unlink()
        if packed:
            _unpack(source)
        else:
            if kind != "parquet":
                source.size = _last_newline(source, stream, size)
                source.unterminated = int(source.size < size)
            if copy or source.size < state[1]:
                _copy(source)
            else:
                readable.symlink_to(path.absolute())
    except BaseException:
        stream.close()
        raise
    return source


def _open(path: Path) -> IO[bytes]:
    try:
        # Without O_NONBLOCK, a named pipe in place of the log would hang the gate.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise LogError("not a regular file", file=path)
        return os.fdopen(descriptor, "rb")
    except OSError as fault:
        raise LogError(
            f"cannot be read: {fault.strerror}",
            file=path,
            next_step="check the path; `dosctl sample` makes logs to try with",
        ) from None
    except ValueError:  # an embedded null character in the name
        raise LogError("not a file name", file=path) from None


def _size(path: Path, there: int, stated: int | None) -> int:
    """How many bytes of a file of ``there`` bytes count."""
    if stated is not None and there < stated:
        raise LogError(
            "was changed: it is shorter than the evidence says",
            file=path,
            found=f"{there:,} bytes",
            expected=f"{stated:,} bytes",
        )
    if not (there if stated is None else stated):
        raise LogError("empty file", file=path, expected="a log with at least one row")
    return there if stated is None else stated


def _state(stream: IO[bytes]) -> tuple[int, ...]:
    now = os.fstat(stream.fileno())
    return now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns


def _chunks(path: Path, stream: IO[bytes], size: int) -> Any:
    stream.seek(0)
    left = size
    while left:
        chunk = stream.read(min(CHUNK, left))
        if not chunk:
            raise LogError("was cut while it was read", file=path, next_step="harvest again")
        left -= len(chunk)
        yield chunk


def _last_newline(source: Source, stream: IO[bytes], size: int) -> int:
    """The length up to and with the last newline within the first ``size`` bytes."""
    end = size
    while end:
        start = max(0, end - CHUNK)
        stream.seek(start)
        found = stream.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    raise LogError(
        "holds no finished line", file=source.path, expected="a header and rows, each line ended"
    )


def _copy(source: Source) -> None:
    hashed = hashlib.sha256()
    with _writable(source, source.readable) as out:
        for chunk in _chunks(source.path, source.stream, source.size):
            hashed.update(chunk)
            out.write(chunk)
    source.sha256 = hashed.hexdigest()


class _Hashing:
    """The first bytes of a stream, hashed as they are read."""

    def __init__(self, source: Source) -> None:
        self.left = source.size
        self.stream = source.stream
        self.hashed = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(data)
        self.hashed.update(data)
        return data


def _unpack(source: Source) -> None:
    packed = _Hashing(source)
    source.stream.seek(0)
    length = 0
    try:
        with (
            _writable(source, source.readable) as out,
            gzip.GzipFile(fileobj=packed, mode="rb") as unpacked,  # type: ignore[call-overload]
        ):
            while chunk := unpacked.read(CHUNK):
                length += len(chunk)
                if length > MAX_UNPACKED:
                    raise LogError(
                        "unpacks to too much",
                        file=source.path,
                        expected=f"at most {MAX_UNPACKED:,} bytes",
                    )
                out.write(chunk)
    except EOFError:
        raise LogError("truncated gzip", file=source.path, next_step="copy it again") from None
    except (gzip.BadGzipFile, zlib.error) as fault:
        raise LogError(f"damaged gzip: {fault}", file=source.path) from None
    source.sha256 = packed.hashed.hexdigest()
    if not length:
        raise LogError("empty file", file=source.path, expected="a log with at least one row")
    with source.readable.open("r+b") as stream:
        end = _last_newline(source, stream, length)
        source.unterminated = int(end < length)
        stream.truncate(end)


@contextlib.contextmanager
def _writable(source: Source, copy: Path) -> Any:
    try:
        with copy.open("xb") as out:
            yield out
    except (EOFError, gzip.BadGzipFile):  # the latter is an OSError too
        raise
    except OSError as fault:
        raise LogError(
            f"no copy of it can be made in {copy.parent}: {fault.strerror}",
            file=source.path,
            next_step="make room there, or set TMPDIR",
        ) from None


def find(pattern: str | Path) -> list[Path]:
    """The log files that a path or a glob of rotated files names, sorted by name.

    Raises:
        LogError: a glob that matches no file, or more than ``MAX_FILES``.
        UsageError: not a glob.
    """
    path = Path(pattern)
    if not re.search(r"[*?\[]", str(pattern)) or os.path.lexists(path):
        return [path]
    base = Path(path.anchor)
    try:
        found = sorted(p for p in base.glob(str(path.relative_to(base))) if p.is_file())
    except (ValueError, IndexError) as fault:
        raise UsageError(f"not a glob: {fault}", found=str(pattern)) from None
    if not found:
        raise LogError("no file matches", file=pattern)
    if len(found) > MAX_FILES:
        raise LogError("too many files match", file=pattern, expected=f"at most {MAX_FILES:,}")
    return found


def sample(source: Source, folder: Path) -> Path | None:
    """Finished lines from all over a large text log, as a small file; None of a small log.

    They only tell which names occur, so that these need not be kept for every row.
    """
    size = source.readable.stat().st_size
    piece = min(MAX_PIECE, size // (SHARE * PIECES))
    if source.kind == "parquet" or piece < MIN_PIECE:
        return None
    small = folder / f"sample.{source.kind}"
    small.unlink(missing_ok=True)
    with source.readable.open("rb") as stream, _writable(source, small) as out:
        out.write(stream.readline())
        for i in range(PIECES):
            stream.seek(size * i // PIECES)
            lines = stream.read(piece).split(b"\n")[1:-1]
            out.writelines(line + b"\n" for line in lines)
    return small
