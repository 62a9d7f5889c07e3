"""Writing files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

from pytest_decisionos.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, data, mode)
    except OSError as fault:
        raise UsageError(f"cannot be written: {fault.strerror}", file=path) from None
    except ValueError:  # an embedded null character in the name
        raise UsageError("not a file name", file=path) from None


def _write(path: Path, data: bytes, mode: int) -> None:
    # The name does not grow with the target's: a name of 255 bytes can be written too.
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, _FLAGS, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
