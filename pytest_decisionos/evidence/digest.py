"""The bare digest of an evidence document: detects a change, never proves an origin."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from pytest_decisionos.errors import shown

if TYPE_CHECKING:
    from collections.abc import Mapping


def digest(blocks: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) over every block but ``integrity`` that is not null.

    The bytes are those of ``json.dumps(blocks, ensure_ascii=False, sort_keys=True)`` in UTF-8, what
    existing documents of this format carry. Anyone can recompute it.

    Raises:
        ValueError: a number is not finite, or a string is not Unicode text.
    """
    covered = {k: v for k, v in blocks.items() if k != "integrity" and v is not None}
    text = json.dumps(covered, ensure_ascii=False, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_fault(blocks: Mapping[str, Any], actual: str | None = None) -> tuple[str, str] | None:
    """Cause and message of what is wrong with the document's own digest; None if it is right.

    Args:
        blocks: the document.
        actual: its ``digest``, from who has it already.
    """
    integrity = blocks.get("integrity")
    if not isinstance(integrity, dict):
        return "missing", "/integrity is missing: the evidence does not say what it was"
    stated = integrity.get("signature_sha256")
    if stated is None:
        return "missing", "/integrity/signature_sha256 is missing"
    if not isinstance(stated, str) or not re.fullmatch(r"[0-9a-f]{64}", stated):
        what = f"/integrity/signature_sha256 is {shown(stated, 70)}"
        return "wrong_type", f"{what}, not 64 hexadecimal digits"
    actual = actual or digest(blocks)
    if stated != actual:
        what = f"the blocks have digest {actual[:16]}…, and it says {stated[:16]}…"
        return "tampered", f"{what}: it was changed"
    return None
