"""The trust file that a command goes by: the one that its option names, else DECISIONOS_TRUST."""

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
    if path is None:
        return None
    from pytest_decisionos.trust.trust_load import load_trust  # noqa: PLC0415 - loads cryptography

    return load_trust(path, now=now, sha256_pin=settings.trust_sha256, state_dir=settings.state_dir)


def must_trust(given: Path | None, settings: Settings, now: datetime) -> TrustFile:
    """The trust file, for a command that can do nothing without.

    Raises:
        UsageError: none is named.
        TrustError: it may not be believed.
    """
    found = trusted(given, settings, now)
    if found is None:
        raise UsageError(
            "no trust file is known",
            field="--trust",
            next_step="name it, or export DECISIONOS_TRUST",
        )
    return found
