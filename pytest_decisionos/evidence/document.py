"""How an evidence document is written: blocks from elsewhere, whole files, never a LOCKED one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pytest_decisionos.errors import EvidenceError, RefusedError, UsageError
from pytest_decisionos.model import strict_json
from pytest_decisionos.trust.files import locked, write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HARVESTED: Final = ("meta", "perf", "perf_judge", "canary", "witness", "integrity")
"""Blocks that only the logs, or the builder, can give."""
LOCKED_SUFFIX: Final = ".locked.json"
"""How the name of a LOCKED document ends: such a file is never written again."""


def read_block(name: str, path: Path) -> Any:
    """A block that does not come from the logs: the file holds the block, or ``{name: block}``.

    Raises:
        EvidenceError: the file is not strict JSON, or not an object.
        UsageError: the name is one that only the logs can give.
    """
    check_name(name)
    block, _ = strict_json.read(path, error=EvidenceError)
    if isinstance(block, dict) and set(block) == {name}:
        block = block[name]
    if not isinstance(block, dict):
        raise EvidenceError("not a block", file=path, found=block, expected="an object")
    return block


def check_name(name: str) -> None:
    """Refuse a block's name that is none, or that only the logs can give.

    Raises:
        UsageError: it is one of those.
    """
    if name in HARVESTED:
        raise UsageError(
            f"--block cannot give {name}: it is made from the logs",
            field="--block",
            found=name,
            next_step="leave it out",
        )
    if not name.isidentifier() or len(name) > 64:
        raise UsageError("not a block name", field="--block", found=name, expected="NAME=FILE")


def write_evidence(path: Path, document: Mapping[str, Any]) -> bytes:
    """Write an evidence document atomically; returns its bytes.

    Raises:
        EvidenceError: it would be larger or deeper than a reader takes.
        RefusedError: ``path`` is that of a LOCKED document.
        UsageError: the file cannot be written.
    """
    refuse_locked(path)
    data = strict_json.dumps(document).encode()
    if len(data) > strict_json.MAX_BYTES:
        raise EvidenceError(
            "the evidence would be too large",
            file=path,
            found=f"{len(data):,} bytes",
            expected=f"at most {strict_json.MAX_BYTES:,}",
            next_step="harvest a shorter time with --since",
        )
    strict_json.loads(data, file=path, error=EvidenceError)  # what nobody could read is not written
    write_atomic(path, data)
    return data


def publish(path: Path, document: Mapping[str, Any]) -> bytes:
    """``write_evidence``, but not while somebody merges into what stands there.

    Raises:
        EvidenceError: as ``write_evidence``.
        RefusedError: ``path`` is that of a LOCKED document, or another writer has it for too long.
        UsageError: the file cannot be written.
    """
    refuse_locked(path)
    with locked(path):
        return write_evidence(path, document)


def refuse_locked(path: Path) -> None:
    """Refuse the name of a LOCKED document where one in work is meant.

    Raises:
        RefusedError: it is such a name.
    """
    if path.name.endswith(LOCKED_SUFFIX):
        raise RefusedError(
            "is LOCKED already, and is never written again",
            file=path,
            next_step="name the document in work, such as latest.json",
        )
