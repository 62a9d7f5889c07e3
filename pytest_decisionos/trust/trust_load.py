"""Reads a trust file as a verifier must: the pinned one, or no older than what was seen."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import DecisionOSError, TrustError
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.validate import validate
from pytest_decisionos.trust.files import read_guarded
from pytest_decisionos.trust.keys import fingerprint
from pytest_decisionos.trust.seen import OlderError, default_folder, remember
from pytest_decisionos.trust.trustfile import TrustFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

MAX_BYTES: Final = 1024 * 1024
MAX_LINKS: Final = 40
"""As many as Linux follows in one name (path_resolution(7))."""
_MISSING: Final = "make one with `dosctl trust init`, or name it in DECISIONOS_TRUST"


class Loaded(NamedTuple):
    """A trust file, and the SHA-256 of its bytes."""

    trust: TrustFile
    sha256: str


def load_trust(
    path: Path,
    *,
    now: datetime,
    sha256_pin: str = "",
    state_dir: Path | None = None,
    checkout: Path | None = None,
) -> TrustFile:
    """The trust file at ``path``, if it may be believed; see ``verify_trust``."""
    # Spelled out: what decides whom to believe is not handed on unchecked.
    return verify_trust(
        path, now=now, sha256_pin=sha256_pin, state_dir=state_dir, checkout=checkout
    ).trust


def verify_trust(
    path: Path,
    *,
    now: datetime,
    sha256_pin: str = "",
    state_dir: Path | None = None,
    checkout: Path | None = None,
) -> Loaded:
    """The trust file at ``path`` and its digest, if it may be believed.

    With a pin it is the bytes that are believed, wherever they lie. Without one, it must be a file
    that only its owner writes, outside the checkout, not older than what this host has seen.

    Args:
        path: the file; links are followed, none that lies in the checkout.
        now: the time here.
        sha256_pin: the only digest that it may have; empty is none.
        state_dir: where this host remembers versions; None is ``seen.default_folder``.
        checkout: the folder whose code could change the file; None is the nearest folder above the
            current one that holds ``.git``.

    Raises:
        TrustError: it cannot be used: not the pinned one, writable by others, broken, inside the
            checkout, expired, rolled back, changed without a new version, or what was seen before
            cannot be remembered.
    """
    if sha256_pin:
        data = strict_json.read_bytes(
            path, error=TrustError, max_bytes=MAX_BYTES, next_step=_MISSING
        )
        _check_pin(path, fingerprint(data), sha256_pin)
        loaded = parse_trust(data, path)
        _check_expiry(path, loaded.trust, now)
        return loaded
    way = _way(path)
    data = read_guarded(way[0], error=TrustError, max_bytes=MAX_BYTES)
    loaded = parse_trust(data, path)
    _check_place(path, way, checkout, loaded.sha256)
    _check_expiry(path, loaded.trust, now)
    _check_rollback(path, way[0], loaded, state_dir)
    return loaded


def read_trust(path: Path) -> Loaded:
    """The trust file at ``path`` as it is written: to be shown or changed, not to be believed.

    Raises:
        TrustError: it is missing, or no trust file.
    """
    data = strict_json.read_bytes(path, error=TrustError, max_bytes=MAX_BYTES, next_step=_MISSING)
    return parse_trust(data, path)


def parse_trust(data: bytes, path: Path) -> Loaded:
    """The trust file in ``data``; ``path`` is named in errors.

    Raises:
        TrustError: it is none.
    """
    document = strict_json.loads(data, file=path, error=TrustError, max_bytes=MAX_BYTES)
    return Loaded(validate(TrustFile, document, path, data, TrustError), fingerprint(data))


def _check_pin(path: Path, found: str, pin: str) -> None:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", pin):
        raise TrustError(
            "not a SHA-256", file="DECISIONOS_TRUST_SHA256", found=pin, expected="64 digits"
        )
    if found != pin.lower():
        raise TrustError(
            "not the trust file that is pinned",
            file=path,
            found=found,
            expected=pin.lower(),
            next_step="pin the new digest in DECISIONOS_TRUST_SHA256, if the change is meant",
        )


def _check_place(path: Path, way: Sequence[Path], checkout: Path | None, sha256: str) -> None:
    try:
        checkout = _checkout() if checkout is None else checkout
        inside = checkout is not None and any(
            parent.samefile(checkout) for place in way for parent in place.parents
        )
    except OSError as fault:
        raise TrustError(f"no telling where it lies: {fault.strerror}", file=path) from None
    if inside:
        raise TrustError(
            "lies inside the checkout, whose code could change it",
            file=path,
            found=str(checkout),
            expected="a file elsewhere, or a pinned one",
            next_step=f"move it, or export DECISIONOS_TRUST_SHA256={sha256}",
        )


def _check_expiry(path: Path, trust: TrustFile, now: datetime) -> None:
    if now > trust.expires:
        raise TrustError(
            "expired",
            file=path,
            field="expires",
            found=trust.expires.isoformat(),
            expected=f"a time after {now.isoformat()}",
            next_step="let its owner look it through, and run `dosctl trust renew`",
        )


def _check_rollback(path: Path, real: Path, loaded: Loaded, state_dir: Path | None) -> None:
    version = loaded.trust.version
    try:
        folder = state_dir or default_folder()
        # Under both names: a link that is turned to an older file is an old file put back.
        for name in dict.fromkeys((os.path.abspath(path), str(real))):  # noqa: PTH100 - keeps links
            remember(folder, f"trust:{name}", version, loaded.sha256)
    except OlderError as fault:
        old = version < fault.last
        raise TrustError(
            "rolled back: this host has seen a later version"
            if old
            else "changed without a new version: this host has seen another one of this number",
            file=path,
            found=f"version {version}",
            expected=f"version {fault.last + (not old)} or later",
            next_step=f"put the newest back; only if this one is right, remove {fault.file}",
        ) from None
    except DecisionOSError as fault:
        raise TrustError(
            f"no telling whether it was rolled back: {fault}",
            file=path,
            next_step="mend that, or pin the file with DECISIONOS_TRUST_SHA256",
        ) from None


def _checkout() -> Path | None:
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), None)


def _way(path: Path) -> list[Path]:
    """``path`` without links, and then where each link that leads there lies."""
    try:
        here, links = Path("/"), list[Path]()
        rest = list(reversed(path.absolute().parts[1:]))
        while rest:
            part = rest.pop()
            if part == "..":
                here = here.parent
            elif not (here / part).is_symlink():
                here /= part
            else:
                links.append(here / part)
                if len(links) > MAX_LINKS:
                    raise TrustError("too many links", file=path)
                target = links[-1].readlink()
                here = Path("/") if target.is_absolute() else here
                rest += [name for name in reversed(target.parts) if name != target.anchor]
    except OSError as fault:
        raise TrustError(f"cannot be read: {fault.strerror}", file=path) from None
    return [here, *links]
