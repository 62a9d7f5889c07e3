"""Where the HMAC ring lies: SSM, then ``DECISIONOS_JUDGE_KEYS``, then one key alone.

The first source that is configured is the only one asked: if it fails, that is an error, never the
next one and never an empty ring.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from pytest_decisionos.errors import KeysError, UsageError
from pytest_decisionos.trust.files import locked, read_private, write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_decisionos.settings import Settings
    from pytest_decisionos.trust.keys import KeyRing
    from pytest_decisionos.trust.rotate import Step

ALONE: Final = "default"
"""Key id of ``DECISIONOS_JUDGE_HMAC_KEY``, which has none of its own."""
MAX_RING_BYTES: Final = 1024 * 1024


class Place(NamedTuple):
    """Where a ring lies.

    Attributes:
        kind: ``variable`` cannot be written, and every child process sees it.
        name: the path in SSM, the file, or the variable.
    """

    kind: Literal["ssm", "file", "variable"]
    name: str

    def __str__(self) -> str:
        return f"SSM {self.name}" if self.kind == "ssm" else self.name


def place_of(settings: Settings) -> Place | None:
    """Where the environment says that the ring lies; None if it says nothing."""
    if settings.kms_param_path is not None:
        return Place("ssm", settings.kms_param_path)
    if settings.judge_keys is not None:
        text = settings.judge_keys.get_secret_value()
        if text.startswith("@"):
            return Place("file", text[1:])
        return Place("variable", "DECISIONOS_JUDGE_KEYS")
    if settings.judge_hmac_key is not None:
        return Place("variable", "DECISIONOS_JUDGE_HMAC_KEY")
    return None


def ring_of(settings: Settings) -> KeyRing | None:
    """The ring that the environment configures; None if it configures none.

    Raises:
        KeysError: the configured source is empty or cannot be used.
        RemoteError: SSM cannot be reached.
    """
    place = place_of(settings)
    return None if place is None else ring_at(place, settings)


def ring_at(place: Place, settings: Settings) -> KeyRing:
    """The ring at ``place``.

    Raises:
        KeysError: nothing is there, or it cannot be used.
        RemoteError: SSM cannot be reached.
    """
    if place.kind == "ssm":
        from pytest_decisionos.trust.ssm import read_ring  # noqa: PLC0415 - loads boto3

        return read_ring(place.name, region=settings.aws_region)
    if place.kind == "file":
        return read_ring_file(Path(place.name))
    from pytest_decisionos.trust.keys import make_ring, parse_ring  # noqa: PLC0415 - costs start-up

    if settings.judge_keys is not None:
        return parse_ring(
            settings.judge_keys.get_secret_value().encode(errors="surrogateescape"), place.name
        )
    secret = settings.judge_hmac_key.get_secret_value() if settings.judge_hmac_key else ""
    if not secret:
        raise KeysError("is set and empty", file=place.name)
    return make_ring([{"key_id": ALONE, "secret": secret, "state": "active"}], place.name)


def update_ring(
    place: Place, change: Callable[[KeyRing | None], Step], *, region: str | None
) -> Step:
    """Change the ring at ``place`` while no other run of this does.

    Args:
        place: where it lies.
        change: takes the ring (None if nothing is there) and says what becomes of it.
        region: of SSM; None means what boto3's own configuration says.

    Raises:
        UsageError: it lies in a variable, or cannot be written.
        RefusedError: another run changes it; or on SSM it is not in one parameter.
        KeysError: what is there cannot be used.
        RemoteError: SSM cannot be reached.
    """
    if place.kind == "variable":
        raise UsageError(
            "a ring in a variable cannot be changed from here",
            file=place.name,
            next_step="put it into a file of mode 0600, and set DECISIONOS_JUDGE_KEYS=@FILE",
        )
    if place.kind == "ssm":
        from pytest_decisionos.trust import ssm  # noqa: PLC0415 - loads boto3

        return ssm.update_ring(place.name, change, region=region)
    from pytest_decisionos.trust.keys import ring_json  # noqa: PLC0415 - costs start-up

    path = Path(place.name)
    with locked(path):
        step = change(read_ring_file(path) if os.path.lexists(path) else None)
        if step.changed:
            write_atomic(path, ring_json(step.ring), mode=0o600)
        return step


def read_ring_file(path: Path) -> KeyRing:
    """The ring in a 0600 file.

    Raises:
        KeysError: it is missing, others may read it, or it is no ring.
    """
    from pytest_decisionos.trust.keys import parse_ring  # noqa: PLC0415 - costs start-up

    return parse_ring(read_private(path, max_bytes=MAX_RING_BYTES), str(path))
