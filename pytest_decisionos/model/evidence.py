"""The evidence document as it was read: its value, and the digest of its very bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pytest_decisionos.errors import EvidenceError
from pytest_decisionos.model import strict_json

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Evidence:
    """One evidence document.

    Attributes:
        file: where it was read from, as given.
        sha256: of the file's bytes, hexadecimal.
        blocks: the document: block name → value. Not to be changed.
    """

    file: str
    sha256: str
    blocks: dict[str, Any]


def read_evidence(path: Path) -> Evidence:
    """Read and strictly parse an evidence file.

    Raises:
        EvidenceError: it is missing, too large, not strict JSON, or not an object.
    """
    data = strict_json.read_bytes(
        path, error=EvidenceError, next_step="build it with `dosctl evidence build`"
    )
    return parse_evidence(data, path)


def parse_evidence(data: bytes, path: Path) -> Evidence:
    """The evidence document in ``data``, read from ``path``.

    Raises:
        EvidenceError: it is too large, not strict JSON, or not an object.
    """
    document = strict_json.loads(data, file=path, error=EvidenceError)
    if not isinstance(document, dict):
        raise EvidenceError(
            "not an evidence document", file=path, found=document, expected="an object of blocks"
        )
    return Evidence(str(path), hashlib.sha256(data).hexdigest(), document)


def parse_time(value: object) -> datetime | None:
    """An ISO-8601 time with an offset; None for anything else (also for naive times)."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return time if time.tzinfo is not None else None
