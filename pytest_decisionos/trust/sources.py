"""Where the HMAC ring comes from: SSM, then ``DECISIONOS_JUDGE_KEYS``, then one key alone.

The first source that is configured is the only one asked: if it fails, that is an error, never the
next one and never an empty ring.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_decisionos.errors import KeysError
from pytest_decisionos.trust.files import read_private
from pytest_decisionos.trust.keys import KeyRing, make_ring, parse_ring

if TYPE_CHECKING:
    from pytest_decisionos.settings import Settings

ALONE: Final = "default"
"""Key id of ``DECISIONOS_JUDGE_HMAC_KEY``, which has none of its own."""
MAX_RING_BYTES: Final = 1024 * 1024


def ring_of(settings: Settings) -> KeyRing | None:
    """The ring that the environment configures; None if it configures none.

    Raises:
        KeysError: the configured source is empty or cannot be used.
        RemoteError: SSM cannot be reached.
    """
    if settings.kms_param_path is not None:
        from pytest_decisionos.trust.ssm import read_ring  # noqa: PLC0415 - loads boto3

        return read_ring(settings.kms_param_path, region=settings.aws_region)
    if settings.judge_keys is not None:
        text = settings.judge_keys.get_secret_value()
        if text.startswith("@"):
            return read_ring_file(Path(text[1:]))
        return parse_ring(text.encode(), "DECISIONOS_JUDGE_KEYS")
    if settings.judge_hmac_key is not None:
        secret = settings.judge_hmac_key.get_secret_value()
        if not secret:
            raise KeysError("is set and empty", file="DECISIONOS_JUDGE_HMAC_KEY")
        entry = {"key_id": ALONE, "secret": secret, "state": "active"}
        return make_ring([entry], "DECISIONOS_JUDGE_HMAC_KEY")
    return None


def read_ring_file(path: Path) -> KeyRing:
    """The ring in a 0600 file.

    Raises:
        KeysError: it is missing, others may read it, or it is no ring.
    """
    return parse_ring(read_private(path, max_bytes=MAX_RING_BYTES), str(path))
