"""rollout/look.json: what the last counted look at a step's numbers has seen, so that it counts once."""

from __future__ import annotations

import contextlib
import hmac
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import AwareDatetime, ValidationError

from pytest_decisionos.errors import DecisionOSError
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.release.stage_model import Digest
from pytest_decisionos.trust.files import write_atomic
from pytest_decisionos.trust.keys import KeyId, canonical

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_decisionos.release.stage_model import Stage
    from pytest_decisionos.trust.keys import KeyEntry, KeyRing

FILE: Final = "rollout/look.json"


class Look(NamedTuple):
    """What a look has seen.

    Attributes:
        until: end of its latest canary window.
        evidence: digest of the document (``integrity.signature_sha256``). Another one of the same
            windows has other numbers of the step, and looking until one pleases is many looks.
    """

    until: datetime
    evidence: str


class _LookFile(Frozen):
    """What the file says.

    Attributes:
        until: as of ``Look``.
        evidence: the same.
        key_id: the key of the MAC.
        mac: over {use: "look", target, since and looks of the stage, until, evidence, key_id}.
    """

    until: AwareDatetime
    evidence: Digest
    key_id: KeyId
    mac: Digest


def last_look(root: Path, stage: Stage, ring: KeyRing, now: datetime) -> Look | None:
    """The last look that ``stage`` counts; None where nobody can tell.

    That makes the next look a new one, which costs one and lets nothing more pass.
    """
    with contextlib.suppress(DecisionOSError, ValidationError):
        document, _ = strict_json.read(root / FILE, max_bytes=4096)
        stated = _LookFile.model_validate(document)
        look = Look(stated.until, stated.evidence)
        key = ring.verifying("stage", stated.key_id, made_at=now)
        if hmac.compare_digest(_mac(key, stage, look), stated.mac):
            return look
    return None


def remember(root: Path, stage: Stage, look: Look, key: KeyEntry) -> None:
    """Write down what the look that ``stage`` counts has seen.

    Raises:
        UsageError: it cannot be written.
    """
    said = _LookFile(**look._asdict(), key_id=key.key_id, mac=_mac(key, stage, look))
    write_atomic(root / FILE, strict_json.dumps(said.model_dump(mode="json")).encode())


def _mac(key: KeyEntry, stage: Stage, look: Look) -> str:
    # Bound to the step and the count, not to the file: a pause in between changes nothing here.
    said: dict[str, Any] = {
        "use": "look",
        "target": stage.target.model_dump(),
        "since": stage.since.astimezone(UTC).isoformat(),
        "looks": stage.looks,
        "until": look.until.astimezone(UTC).isoformat(),
        "evidence": look.evidence,
        "key_id": key.key_id,
    }
    return key.mac("stage", canonical(said))
