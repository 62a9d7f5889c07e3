"""The store: documents in work are written whole by one writer at a time, LOCKED ones never again.

What a crash leaves, at whatever point: the document as it was before or as it is after, whole, and
a LOCKED one whole with mode 0444 or not there. Locks end with their process, so nothing is blocked.
A hidden ``.….tmp`` file may stay; nobody reads it, and it may be removed.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pytest_decisionos.errors import EvidenceError, RefusedError, SignatureError, UsageError
from pytest_decisionos.evidence.digest import digest, digest_fault
from pytest_decisionos.evidence.document import (
    LOCKED_SUFFIX,
    check_name,
    refuse_locked,
    write_evidence,
)
from pytest_decisionos.evidence.privacy import masked, refuse_secrets
from pytest_decisionos.evidence.seal import sealed, target_of, verify
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.evidence import parse_evidence, read_evidence
from pytest_decisionos.trust.files import is_there, locked, write_new

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.evidence.config import Privacy
    from pytest_decisionos.model.evidence import Evidence
    from pytest_decisionos.model.seal import Seal
    from pytest_decisionos.model.target import Target
    from pytest_decisionos.trust.keys import KeyRing

MAX_NAME_BYTES: Final = 200
"""With the suffix, and a lock's name beside it, still a file name (255 bytes) everywhere."""
_BUILD: Final = "build it with `dosctl evidence build`"


class Locked(NamedTuple):
    """A LOCKED document.

    Attributes:
        path: its file.
        sha256: of the file's bytes.
        digest: of its blocks.
        size: of the file, bytes.
        release: the release that it is about; None if it names none.
        target: the target that it is about; None if it names none.
        seal: what its seal proves.
        created: whether it was made now; False if it was LOCKED already.
        writable: whether it was LOCKED already and could be written to; it cannot any longer.
    """

    path: Path
    sha256: str
    digest: str
    size: int
    release: str | None
    target: Target | None
    seal: Seal
    created: bool
    writable: bool = False


def merge(
    path: Path,
    blocks: Mapping[str, Mapping[str, Any]],
    *,
    ring: KeyRing | None,
    privacy: Privacy,
    now: datetime,
) -> dict[str, Any]:
    """Put blocks into a document, in the place of those of the same names, and seal it again.

    Args:
        path: the document; must be there.
        blocks: block name → block.
        ring: the keys; with them the document must have a valid MAC already, and gets a new one.
        privacy: what is masked, and what is refused.
        now: the time here.

    Returns:
        The document as written.

    Raises:
        EvidenceError: the document or a block cannot be used, or a block holds a secret.
        KeysError: no key is active for evidence.
        RefusedError: the document is LOCKED, or was changed, or carries a MAC that nobody here can
            renew; or another writer has it for too long.
        UsageError: a block is one that only logs can give, or the file cannot be written.
    """
    for name in blocks:
        check_name(name)
    refuse_locked(path)
    _refuse_missing(path)
    with locked(path):
        found = read_evidence(path)
        require_seal(found, ring, now=now)
        if ring is None and "mac" in found.blocks["integrity"]:
            raise RefusedError(
                "it has a MAC, which no key here could renew",
                file=path,
                next_step="configure the keys that sealed it",
            )
        document = _sealed({**found.blocks, **blocks}, ring, privacy, now=now, file=path)
        write_evidence(path, document)
    return document


def seal(
    path: Path, *, ring: KeyRing, privacy: Privacy, now: datetime, new: bool = False
) -> dict[str, Any]:
    """Put a MAC of the active key on a document that is whole.

    Args:
        path: the document.
        ring: the keys.
        privacy: what is masked, and what is refused.
        now: the time here.
        new: take a document that has no digest at all at its word.

    Returns:
        The document as written.

    Raises:
        EvidenceError: the document cannot be used, or holds a secret.
        KeysError: no key is active for evidence.
        RefusedError: the document is LOCKED, or was changed: its digest or its MAC is not right.
        UsageError: the file cannot be written.
    """
    refuse_locked(path)
    _refuse_missing(path)
    with locked(path):
        found = read_evidence(path)
        integrity = found.blocks.get("integrity")
        if integrity is None and not new:
            raise RefusedError(
                "it has no digest, so nothing says that it is what was built",
                file=path,
                field="/integrity",
                next_step="if you have looked at it, and mean it as it is: --new",
            )
        if integrity is not None:
            has_mac = isinstance(integrity, dict) and integrity.get("mac") is not None
            require_seal(found, ring if has_mac else None, now=now)
        document = _sealed(found.blocks, ring, privacy, now=now, file=path)
        write_evidence(path, document)
    return document


def lock(
    path: Path,
    name: str | None = None,
    *,
    ring: KeyRing | None,
    privacy: Privacy,
    now: datetime,
) -> Locked:
    """Make a document LOCKED: its very bytes in ``NAME.locked.json`` beside it, mode 0444.

    Args:
        path: the document.
        name: NAME. By default the file's own; for ``latest``, which every release shares, that of
            the release.
        ring: the keys; with them the document must have a valid MAC.
        privacy: what should have been masked, and what is refused.
        now: the time here.

    Returns:
        What is LOCKED now; with ``created`` False if these values were LOCKED already. It is made
        read-only again if it is not.

    Raises:
        EvidenceError: the document cannot be used, or holds a secret.
        RefusedError: the document was changed, or is not sealed; or NAME is LOCKED with other
            values.
        UsageError: NAME is no file name, or the file cannot be written, or not made read-only.
    """
    refuse_locked(path)
    data = strict_json.read_bytes(path, error=EvidenceError, next_step=_BUILD)
    found = parse_evidence(data, path)
    seal = require_seal(found, ring, now=now)
    refuse_secrets(found.blocks, privacy, path)
    if digest(masked(found.blocks, privacy)) != digest(found.blocks):
        raise RefusedError(
            "a value that evidence.yaml masks is not masked",
            file=path,
            next_step="seal it again with `dosctl evidence seal`, or build it again",
        )
    target = path.with_name(_name(name, found, path) + LOCKED_SUFFIX)
    if write_new(target, data, mode=0o444):
        return _as_locked(target, found, len(data), seal, created=True)
    return _locked_already(target, found, ring, now)


def _locked_already(path: Path, new: Evidence, ring: KeyRing | None, now: datetime) -> Locked:
    """What is LOCKED at ``path``, if it is whole and says what ``new`` says."""
    if path.is_symlink():
        raise RefusedError("a symbolic link is in the way of a LOCKED document", file=path)
    data = strict_json.read_bytes(path, error=EvidenceError)
    old = parse_evidence(data, path)
    fault = digest_fault(old.blocks)
    if fault is not None:
        raise SignatureError(
            f"a LOCKED document was changed: {fault[1]}", cause=fault[0], file=path
        )
    ours, theirs = digest(new.blocks), digest(old.blocks)
    if ours != theirs:
        raise RefusedError(
            "is LOCKED with other values, and stays so",
            file=path,
            found=f"digest {ours} in {new.file}",
            expected=f"digest {theirs}, that is LOCKED",
            next_step="lock it under another name with --name",
        )
    writable = _was_writable(path)
    # A key may have retired since, which makes what it sealed no other document.
    seal = verify(old.blocks, ring, now=now)
    return _as_locked(path, old, len(data), seal, created=False)._replace(writable=writable)


def _was_writable(path: Path) -> bool:
    """Whether the mode of a LOCKED document let somebody write; it does no more."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            writable = bool(os.fstat(descriptor).st_mode & 0o222)
            if writable:
                os.fchmod(descriptor, 0o444)
        finally:
            os.close(descriptor)
    except OSError as fault:
        raise UsageError(
            f"is LOCKED, and cannot be made read-only again: {fault.strerror}", file=path
        ) from None
    return writable


def _as_locked(path: Path, found: Evidence, size: int, seal: Seal, *, created: bool) -> Locked:
    return Locked(
        path=path,
        sha256=found.sha256,
        digest=digest(found.blocks),
        size=size,
        release=_release(found),
        target=target_of(found.blocks),
        seal=seal,
        created=created,
    )


def require_seal(found: Evidence, ring: KeyRing | None, *, now: datetime) -> Seal:
    """The seal of a document that nobody changed; without keys that is its digest alone.

    Raises:
        SignatureError: digest or MAC are not right, or with keys there is no MAC.
    """
    seal = verify(found.blocks, ring, now=now)
    if seal.state == "refused":
        steps = {
            "missing": "if you have looked at it, and mean it: `dosctl evidence seal`",
            "tampered": "find out who changed it; build it again",
        }
        raise SignatureError(
            seal.message, cause=seal.cause, file=found.file, next_step=steps.get(seal.cause)
        )
    return seal


def _sealed(
    blocks: Mapping[str, Any],
    ring: KeyRing | None,
    privacy: Privacy,
    *,
    now: datetime,
    file: Path,
) -> dict[str, Any]:
    hidden = masked(blocks, privacy)
    refuse_secrets(hidden, privacy, file)
    return sealed(hidden, ring, now=now)


def _refuse_missing(path: Path) -> None:
    if not is_there(path):
        raise EvidenceError("no such file", file=path, next_step=_BUILD)


def _name(given: str | None, found: Evidence, path: Path) -> str:
    """NAME of ``NAME.locked.json``: letters, digits, ``._-``, and no dot or dash in front."""
    if given is not None:
        name = _safe(given)
        if name != given or not name:
            raise UsageError(
                "not a name for a file",
                field="--name",
                found=given,
                expected="letters, digits, and ._- after the first",
            )
    else:
        shared = path.stem == "latest"
        name = _safe((_release(found) or "") if shared else path.stem)
        if not name:
            raise UsageError(
                "every release has a latest.json, and this one names no release"
                if shared
                else "its name gives no other name",
                file=path,
                field="/meta/release" if shared else None,
                next_step="say how to call it with --name",
            )
    if len(name.encode()) > MAX_NAME_BYTES:
        raise UsageError(
            "too long for the name of a file",
            file=path,
            field="--name",
            found=name,
            expected=f"at most {MAX_NAME_BYTES} bytes",
            next_step="say how to call it with --name",
        )
    return name


def _safe(text: str) -> str:
    return re.sub(r"[^\w.-]", "-", text).lstrip(".-")


def _release(found: Evidence) -> str | None:
    meta = found.blocks.get("meta")
    release = meta.get("release") if isinstance(meta, dict) else None
    return release if isinstance(release, str) and release else None
