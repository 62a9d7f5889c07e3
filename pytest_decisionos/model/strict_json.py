"""JSON as DecisionOS reads and writes it: no duplicate key, no non-finite number, bounded.

``json.loads`` keeps the last of two equal keys, accepts ``NaN`` and turns ``1e400`` into infinity;
each of these lets two readers of one document see different facts, so all are refused (RFC 8259 §4
and §6 leave them undefined; RFC 7493, I-JSON, forbids them).
"""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Never

from pytest_decisionos.errors import UnusableInputError, shown

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_BYTES: Final = 8 * 1024 * 1024
MAX_DEPTH: Final = 64


class _Missing:
    """The type of ``MISSING``: nothing stands at this pointer (``null`` is something)."""

    def __repr__(self) -> str:
        return "nothing"


MISSING: Final = _Missing()


class _FaultError(ValueError):
    """A fault inside the document; becomes the caller's error type with the file named."""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _FaultError(f"duplicate key {shown(key)!r}")
            seen.add(key)
    return made


def _no_constant(text: str) -> Never:
    raise _FaultError(f"number {text} is not finite")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _FaultError(f"number {shown(text, 40)} is not finite")
    return value


_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
"""The only spelling of one in a text that was UTF-8."""


def _check(document: object, text: str) -> None:
    """Refuse nesting beyond ``MAX_DEPTH`` and strings that are not Unicode text."""
    level = [document] if isinstance(document, dict | list) else []
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _FaultError(f"nested deeper than {MAX_DEPTH}")
        level = [item for value in level for item in _items(value) if type(item) in {dict, list}]
    if _SURROGATE.search(text):
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _FaultError("a string holds half of a surrogate pair") from None


def _items(container: Any) -> Iterable[Any]:
    return container.values() if type(container) is dict else container


def loads(
    data: bytes,
    *,
    file: object = None,
    error: type[UnusableInputError] = UnusableInputError,
    max_bytes: int = MAX_BYTES,
) -> Any:
    """Parse ``data`` (UTF-8, a byte-order mark is allowed) strictly.

    Args:
        data: the document's bytes.
        file: named in errors.
        error: the class of error to raise.
        max_bytes: longer documents are refused.

    Raises:
        UnusableInputError: (as ``error``) too large, not UTF-8, not JSON, a duplicate key, a
            non-finite number, nested deeper than ``MAX_DEPTH``, or half a surrogate pair.
    """
    if len(data) > max_bytes:
        raise error(
            "too large", file=file, found=f"{len(data):,} bytes", expected=f"at most {max_bytes:,}"
        )
    if not data.strip():
        raise error("empty file", file=file, expected="a JSON document")
    try:
        text = data.decode("utf-8-sig")
        document = json.loads(
            text,
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
        _check(document, text)
    except UnicodeDecodeError as fault:
        raise error(
            "not UTF-8", file=file, found=f"byte 0x{data[fault.start]:02x} at {fault.start}"
        ) from None
    except json.JSONDecodeError as fault:
        raise error(
            f"not JSON: {fault.msg} at column {fault.colno}", file=file, line=fault.lineno
        ) from None
    except RecursionError:
        raise error(f"nested deeper than {MAX_DEPTH}", file=file) from None
    except ValueError as fault:  # our own faults, and integers beyond Python's digit limit
        raise error(str(fault), file=file) from None
    return document


def read(
    path: Path,
    *,
    error: type[UnusableInputError] = UnusableInputError,
    max_bytes: int = MAX_BYTES,
    next_step: str | None = None,
) -> tuple[Any, bytes]:
    """Read one JSON file: its value, and the very bytes it was parsed from (for the digest).

    Raises:
        UnusableInputError: (as ``error``) missing, not a regular file, unreadable, or as ``loads``.
    """
    data = read_bytes(path, error=error, max_bytes=max_bytes, next_step=next_step)
    return loads(data, file=path, error=error, max_bytes=max_bytes), data


def read_bytes(
    path: Path,
    *,
    error: type[UnusableInputError] = UnusableInputError,
    max_bytes: int = MAX_BYTES,
    next_step: str | None = None,
) -> bytes:
    """The bytes of a regular file of at most ``max_bytes``.

    Raises:
        UnusableInputError: (as ``error``) missing, not a regular file, unreadable, too large.
    """
    try:
        if not path.is_file():
            what = "not a regular file" if path.exists() else "no such file"
            raise error(what, file=path, next_step=next_step)
        with path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except OSError as fault:
        raise error(f"cannot be read: {fault.strerror}", file=path, next_step=next_step) from None
    if len(data) > max_bytes:
        raise error("too large", file=path, expected=f"at most {max_bytes:,} bytes")
    return data


def dumps(document: object) -> str:
    """``document`` as indented JSON text in insertion order, with a final newline.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def at(document: object, pointer: str) -> Any:
    """What ``pointer`` (RFC 6901) names in ``document``, or ``MISSING``."""
    value = document
    for token in tokens(pointer):
        if isinstance(value, dict):
            value = value.get(token, MISSING)
        elif isinstance(value, list) and token.isascii() and token.isdigit() and len(token) < 10:
            index = int(token)
            value = value[index] if index < len(value) and token == str(index) else MISSING
        else:
            return MISSING
        if value is MISSING:
            return MISSING
    return value


@lru_cache(maxsize=4096)  # every rule of every judge asks for the same few
def tokens(pointer: str) -> tuple[str, ...]:
    """The unescaped reference tokens of a JSON Pointer (RFC 6901 §4)."""
    return tuple(t.replace("~1", "/").replace("~0", "~") for t in pointer.split("/")[1:])


def block_of(pointer: str) -> str:
    """The evidence block that ``pointer`` reads: its first token."""
    return tokens(pointer)[0]


def decimals(value: float) -> int:
    """How many decimal places the shortest spelling of ``value`` has; negative for 1e+20."""
    mantissa, _, exponent = repr(float(value)).partition("e")
    places = len(mantissa.partition(".")[2].rstrip("0"))
    return places - int(exponent or 0)
