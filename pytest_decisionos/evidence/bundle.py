"""The folder of one decision: evidence, policy, judges' numbers, verdicts, decision; whole or not there."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from typing import TYPE_CHECKING, Final

from pytest_decisionos.errors import EvidenceError, RefusedError, UsageError
from pytest_decisionos.model import strict_json
from pytest_decisionos.trust.files import is_there, sync_folder, write_new

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

EVIDENCE: Final = "evidence.json"
INPUTS: Final = "inputs.json"
DECISION: Final = "decision.json"
GATE: Final = "policy/gate.yaml"
LABELS: Final = "policy/labels.json"
MAX_FILES: Final = 5000
MAX_TOTAL_BYTES: Final = 128 * 1024 * 1024
MAX_DEPTH: Final = 8


def numbers_name(judge: str) -> str:
    """The file of what ``judge`` computed itself."""
    return f"judges/{judge}.json"


def verdict_name(slo: str, judge: str) -> str:
    """The file of the verdict of ``judge`` on ``slo``."""
    return f"verdicts/{slo}@{judge}.json"


def read_bundle(folder: Path) -> dict[str, bytes]:
    """The files of a bundle, each read once: path within the bundle → bytes.

    Raises:
        EvidenceError: it is no folder, holds anything but regular files and folders, or too much.
    """
    if not stat.S_ISDIR(_kind(folder)):
        raise EvidenceError("not a folder", file=folder, expected="the folder of one decision")
    files: dict[str, bytes] = {}
    total = 0
    for path in _walk(folder, 0):
        if len(files) >= MAX_FILES:
            raise EvidenceError("too many files", file=folder, expected=f"at most {MAX_FILES:,}")
        data = strict_json.read_bytes(path, error=EvidenceError)
        total += len(data)
        if total > MAX_TOTAL_BYTES:
            raise EvidenceError(
                "too large", file=folder, expected=f"at most {MAX_TOTAL_BYTES:,} bytes"
            )
        files[path.relative_to(folder).as_posix()] = data
    return files


def _kind(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError as fault:
        raise EvidenceError(f"cannot be read: {fault.strerror}", file=path) from None
    except ValueError:  # an embedded null character in the name
        raise EvidenceError("not a file name", file=path) from None


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    if depth > MAX_DEPTH:
        raise EvidenceError("nested too deep", file=folder, expected=f"at most {MAX_DEPTH} folders")
    try:
        entries = sorted(folder.iterdir())
    except OSError as fault:
        raise EvidenceError(f"cannot be read: {fault.strerror}", file=folder) from None
    for path in entries:
        kind = _kind(path)
        if stat.S_ISLNK(kind):
            raise EvidenceError("a link, which a bundle does not have", file=path)
        if stat.S_ISDIR(kind):
            yield from _walk(path, depth + 1)
        else:
            yield path


def write_bundle(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a bundle: into a temporary folder beside it, synced, then renamed.

    Raises:
        RefusedError: a bundle of that name is there; none is ever overwritten.
        UsageError: it cannot be written.
    """
    if is_there(folder):
        raise RefusedError("a bundle of this name is there", file=folder)
    temporary = folder.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        for name, data in files.items():
            write_new(temporary / name, data, mode=0o444)
        temporary.rename(folder)
        sync_folder(folder.parent)
    except OSError as fault:
        raise UsageError(f"cannot be written: {fault.strerror}", file=folder) from None
    finally:
        if os.path.lexists(temporary):
            shutil.rmtree(temporary, ignore_errors=True)
