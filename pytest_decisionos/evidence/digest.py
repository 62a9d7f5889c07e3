"""The bare digest of an evidence document: detects a change, never proves an origin."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

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
