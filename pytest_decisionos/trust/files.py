"""Files that are whole or not there, that only their owner reads, and that one writer has at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import time
from typing import TYPE_CHECKING, Final

from pytest_decisionos.errors import KeysError, RefusedError, UnusableInputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
LOCK_TIMEOUT_SEC: Final = 30.0
"""How long a writer waits for another: many times what the longest write takes."""


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a part.

    Temporary file in the same folder (``O_EXCL``) → fsync → rename → fsync of the folder. Missing
    folders are made. A symbolic link at ``path`` is replaced, not followed.

    Args:
        path: the file to write.
        data: its whole content.
        mode: permission bits of the new file; the umask is not applied.

    Raises:
        UsageError: the file cannot be written; what stood there before is untouched.
    """
    with _in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(path, data, mode) as temporary:
            temporary.replace(path)
        sync_folder(path.parent)


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> bool:
    """Write ``data`` to ``path`` only if nothing is there: whole, or not at all.

    Returns:
        Whether it was written; False if something stood there already, even a dangling link.

    Raises:
        UsageError: the file cannot be written.
    """
    with _in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(path, data, mode) as temporary:
            try:
                path.hardlink_to(temporary)  # unlike a rename, this never replaces
            except FileExistsError:
                return False
        sync_folder(path.parent)
        return True


def sync_folder(folder: Path) -> None:
    """Make what was renamed, linked or removed in ``folder`` survive a crash.

    Raises:
        OSError: the folder cannot be opened or synced.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_there(path: Path) -> bool:
    """Whether something is at ``path``: also a link to nothing, and what may not be looked at.

    So only what is surely missing counts as missing; whoever reads the rest is told why not.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):  # no right to look; a name that cannot be one
        return True
    return True


@contextlib.contextmanager
def locked(path: Path, *, timeout_sec: float = LOCK_TIMEOUT_SEC) -> Iterator[None]:
    """Be the only writer of ``path`` meanwhile.

    The lock (``flock``) is on a separate file beside it, ``.<name>.lock``, because ``path`` itself
    is replaced by writing; the kernel releases it when the process ends, however it ends.

    Args:
        path: what is to be written; need not be there.
        timeout_sec: how long to wait for another writer.

    Raises:
        RefusedError: another writer has it for too long.
        UsageError: the lock cannot be made.
    """
    with _in_words(path):
        beside = path.with_name(f".{path.name}.lock")
    while True:
        with _in_words(beside):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            _wait(descriptor, path, timeout_sec)
            if _is_at(descriptor, beside):
                yield
                return
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether it is still what ``path`` names: who deletes a file deletes its lock with it."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


def _wait(descriptor: int, path: Path, timeout_sec: float) -> None:
    until = time.monotonic() + timeout_sec
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise RefusedError(
                    f"another writer has it since more than {timeout_sec:g} s",
                    file=path,
                    next_step="try again when it has ended",
                ) from None
            # Some waiters, not all in step.
            time.sleep(0.002 + secrets.randbelow(1000) / 100_000)
        else:
            return


def read_private(path: Path, *, max_bytes: int = 65_536) -> bytes:
    """The bytes of a file that holds a secret: a regular one that only its owner may read.

    Raises:
        KeysError: it is missing, a link, too large, or others may read or write it.
    """
    data, found = _read(path, KeysError, max_bytes)
    if found.st_mode & 0o077 or found.st_uid not in {os.geteuid(), 0}:
        raise KeysError(
            "others may use this secret",
            file=path,
            found=f"mode {stat.S_IMODE(found.st_mode):04o}, user {found.st_uid}",
            expected="mode 0600, and yours",
            next_step=f"chmod 600 {path}; if it lay open for long, make a new key",
        )
    return data


def read_guarded(path: Path, *, error: type[UnusableInputError], max_bytes: int) -> bytes:
    """The bytes of a file that others may read, and only its owner may write: you, or root.

    Raises:
        UnusableInputError: (as ``error``) it is missing, a link, too large, or others may write it.
    """
    data, found = _read(path, error, max_bytes)
    if others_may_write(found):
        raise error(
            "others may write this file",
            file=path,
            found=f"mode {stat.S_IMODE(found.st_mode):04o}, user {found.st_uid}",
            expected="writable by its owner only: you, or root",
            next_step=f"see that nobody changed it, then chmod go-w {path}",
        )
    return data


def others_may_write(found: os.stat_result) -> bool:
    """Whether somebody else than root and the user of this process may write what is ``found``."""
    return bool(found.st_mode & 0o022) or found.st_uid not in {os.geteuid(), 0}


def _read(
    path: Path, error: type[UnusableInputError], max_bytes: int
) -> tuple[bytes, os.stat_result]:
    """The bytes of a regular file, and what it is: of one open file, so nobody can swap it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise error("not a regular file", file=path)
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                data = stream.read(max_bytes + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else "not a file name"
        raise error(f"cannot be read: {why}", file=path) from None
    if len(data) > max_bytes:
        raise error("too large", file=path, expected=f"at most {max_bytes:,} bytes")
    return data, found


@contextlib.contextmanager
def _temporary(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """A finished, synced temporary file beside ``path``; gone afterwards unless it was renamed."""
    # The name does not grow with the target's: a name of 255 bytes can be written too.
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, _FLAGS, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        yield temporary
    finally:
        with contextlib.suppress(OSError):  # after a rename it is not there
            temporary.unlink()


@contextlib.contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise UsageError(f"cannot be written: {fault.strerror}", file=path) from None
    except ValueError:  # no name at all, or a null character in it
        raise UsageError("not a file name", file=path) from None
