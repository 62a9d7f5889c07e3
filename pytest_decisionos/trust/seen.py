"""What this host has seen last, so that something old and valid that is put back is noticed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from pytest_decisionos.errors import RefusedError, UnusableInputError, UsageError, shown
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.validate import validate
from pytest_decisionos.trust.files import (
    is_there,
    locked,
    others_may_write,
    read_guarded,
    write_atomic,
)

MAX_BYTES = 4096


class OlderError(RefusedError):
    """Older than what was seen, or another thing under the same number.

    Attributes:
        last: the number that was seen last; ``file`` is where that stands.
    """

    def __init__(self, what: str, *, last: int, **where: Any) -> None:
        super().__init__(what, **where)
        self.last = last


class _Seen(Frozen):
    """What was seen last under one name: the memory's file."""

    name: Annotated[str, StringConstraints(strict=True, max_length=4096)]
    value: Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]
    sha256: Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{64}$")]


def default_folder() -> Path:
    """``$XDG_STATE_HOME/decisionos``, else ``~/.local/state/decisionos`` (XDG base directories 0.8).

    Raises:
        UsageError: there is no home either.
    """
    stated = Path(os.environ.get("XDG_STATE_HOME", ""))
    if stated.is_absolute():  # the specification says to ignore it otherwise
        return stated / "decisionos"
    try:
        return Path.home() / ".local/state/decisionos"
    except RuntimeError:
        raise UsageError(
            "nowhere to remember what was seen: this user has no home",
            next_step="name a folder in DECISIONOS_STATE_DIR",
        ) from None


def remember(folder: Path, name: str, value: int, sha256: str) -> None:
    """Remember that ``name`` is at ``value``, whose bytes have the digest ``sha256``.

    Args:
        folder: where this host remembers; made with mode 0700 if it is not there.
        name: what it is about, such as ``trust:/etc/decisionos/trust.json``.
        value: a number that never falls, from 0.
        sha256: 64 hexadecimal digits.

    Raises:
        OlderError: a higher value was seen, or this value with another digest.
        UnusableInputError: the memory is broken, or others may write it: never forgotten silently.
        RefusedError: another process has it for too long.
        UsageError: it cannot be written.
    """
    _prepare(folder)
    path = _place(folder, name)
    now = _Seen(name=shown(name, 400), value=value, sha256=sha256)
    with locked(path):
        last = _last(path, now.name)
        if last is None or value > last.value:
            write_atomic(path, strict_json.dumps(now.model_dump()).encode(), mode=0o600)
        elif value < last.value:
            raise OlderError(
                f"{now.name} is older than what this host has seen",
                last=last.value,
                file=path,
                found=value,
                expected=f"{last.value} or more",
            )
        elif sha256 != last.sha256:
            raise OlderError(
                f"{now.name} is not what this host has seen under the same number",
                last=last.value,
                file=path,
                found=sha256,
                expected=last.sha256,
            )


def last_seen(folder: Path, name: str) -> tuple[int, str] | None:
    """What ``remember`` was told last about ``name``, value and digest; None if nothing.

    Takes no lock: who looks here before it reads something meets what is at least as new.

    Raises:
        UnusableInputError: the memory is broken, or others may write it.
        UsageError: it cannot be made.
    """
    _prepare(folder)
    seen = _last(_place(folder, name), shown(name, 400))
    return None if seen is None else (seen.value, seen.sha256)


def _place(folder: Path, name: str) -> Path:
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    return folder / f"{digest[:32]}.json"


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except (OSError, ValueError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else "not a file name"
        raise UsageError(
            f"cannot be made: {why}",
            file=folder,
            next_step="name another folder in DECISIONOS_STATE_DIR",
        ) from None
    if others_may_write(found):
        raise UnusableInputError(
            "others may write what this host remembers",
            file=folder,
            next_step=f"chmod 700 {folder}; it must be yours",
        )


def _last(path: Path, name: str) -> _Seen | None:
    if not is_there(path):
        return None
    try:
        data = read_guarded(path, error=UnusableInputError, max_bytes=MAX_BYTES)
        document = strict_json.loads(data, file=path)
        seen = validate(_Seen, document, path, data, UnusableInputError)
    except UnusableInputError as fault:
        raise _broken(path, fault.what) from None
    if seen.name != name:
        raise _broken(path, f"it is about {seen.name}, not {name}")
    return seen


def _broken(path: Path, why: str) -> UnusableInputError:
    return UnusableInputError(
        f"what this host remembers is broken: {why}",
        file=path,
        next_step=f"see by hand that nothing old was put back, then remove {path}",
    )
