"""Trust file and keys that a command goes by: what its option names, else the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_decisionos.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.settings import Settings
    from pytest_decisionos.trust.trustfile import TrustFile


def trusted(given: Path | None, settings: Settings, now: datetime) -> TrustFile | None:
    """The trust file; None if none is named.

    Raises:
        TrustError: it may not be believed.
    """
    path = given or settings.trust
    return None if path is None else _loaded(path, settings, now)


def must_trust(given: Path | None, settings: Settings, now: datetime) -> TrustFile:
    """The trust file, for a command that can do nothing without.

    Raises:
        UsageError: none is named.
        TrustError: it may not be believed.
    """
    return _loaded(must_trust_path(given, settings), settings, now)


def _loaded(path: Path, settings: Settings, now: datetime) -> TrustFile:
    from pytest_decisionos.trust.trust_load import load_trust  # noqa: PLC0415 - loads cryptography

    return load_trust(path, now=now, sha256_pin=settings.trust_sha256, state_dir=settings.state_dir)


def must_trust_path(given: Path | None, settings: Settings, field: str = "--trust") -> Path:
    """Where the trust file is; ``field`` is how the command lets one name it.

    Raises:
        UsageError: none is named.
    """
    path = given or settings.trust
    if path is None:
        raise UsageError(
            "no trust file is known", field=field, next_step="name it, or export DECISIONOS_TRUST"
        )
    return path


def must_keys(given: Path | None, settings: Settings) -> Path:
    """The folder of private keys, for a command that signs.

    Raises:
        UsageError: none is named.
    """
    folder = given or settings.keys_dir
    if folder is None:
        raise UsageError(
            "no keys are known", field="--keys", next_step="name it, or export DECISIONOS_KEYS_DIR"
        )
    return folder
