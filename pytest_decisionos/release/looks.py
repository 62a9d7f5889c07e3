"""rollout/look.json: what the last counted look at a step's numbers has seen, so that it counts once."""

from __future__ import annotations

import contextlib
import hmac
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from pydantic import AwareDatetime, ValidationError

from pytest_decisionos.errors import DecisionOSError
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.release.stage_model import Digest
from pytest_decisionos.trust.files import write_atomic
from pytest_decisionos.trust.keys import KeyId, canonical

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.release.stage_model import Stage
    from pytest_decisionos.trust.keys import KeyEntry, KeyRing

FILE: Final = "rollout/look.json"


class _Look(Frozen):
    """What the file says.

    Attributes:
        until: end of the latest canary window that the look has seen.
        key_id: the key of the MAC.
        mac: over {use: "look", target, since and looks of the stage, until, key_id}.
    """

    until: AwareDatetime
    key_id: KeyId
    mac: Digest


def seen_until(root: Path, stage: Stage, ring: KeyRing, now: datetime) -> datetime | None:
    """What the last look that ``stage`` counts has seen; None where nobody can tell.

    That makes the next look a new one, which costs one and lets nothing more pass.
    """
    with contextlib.suppress(DecisionOSError, ValidationError):
        document, _ = strict_json.read(root / FILE, max_bytes=4096)
        look = _Look.model_validate(document)
        key = ring.verifying("stage", look.key_id, made_at=now)
        if hmac.compare_digest(_mac(key, stage, look.until), look.mac):
            return look.until
    return None


def remember(root: Path, stage: Stage, until: datetime, key: KeyEntry) -> None:
    """Write down what the look that ``stage`` counts has seen.

    Raises:
        UsageError: it cannot be written.
    """
    look = _Look(until=until, key_id=key.key_id, mac=_mac(key, stage, until))
    write_atomic(root / FILE, strict_json.dumps(look.model_dump(mode="json")).encode())


def _mac(key: KeyEntry, stage: Stage, until: datetime) -> str:
    # Bound to the step and the count, not to the file: a pause in between changes nothing here.
    said: dict[str, Any] = {
        "use": "look",
        "target": stage.target.model_dump(),
        "since": stage.since.astimezone(UTC).isoformat(),
        "looks": stage.looks,
        "until": until.astimezone(UTC).isoformat(),
        "key_id": key.key_id,
    }
    return key.mac("stage", canonical(said))
