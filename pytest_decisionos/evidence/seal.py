"""The seal: a digest that anyone can recompute, and with keys a MAC that only their holders make."""

from __future__ import annotations

import hmac
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from pytest_decisionos.errors import EvidenceError, SignatureError, shown
from pytest_decisionos.evidence.digest import digest, digest_fault
from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.model.seal import Seal
from pytest_decisionos.model.target import Target
from pytest_decisionos.trust.keys import KeyRing, canonical

if TYPE_CHECKING:
    from collections.abc import Mapping

ALG: Final = "HMAC-SHA256"
FUTURE_SEC: Final = 5.0
"""How far ahead of this clock a seal may say that it was made: the design's bound for rows."""


def sealed(
    blocks: Mapping[str, Any], ring: KeyRing | None = None, *, now: datetime | None = None
) -> dict[str, Any]:
    """The document of ``blocks`` with its seal: the digest, and with ``ring`` the MAC.

    An earlier seal and blocks that are null fall away.

    Args:
        blocks: block name → value.
        ring: its active key for evidence makes the MAC; None makes none.
        now: when it is sealed; needed with ``ring``.

    Raises:
        EvidenceError: with ``ring``: /meta/target names no target, or a number has no RFC 8785 form.
        KeysError: no key is active for evidence.
    """
    bare = {name: v for name, v in blocks.items() if name != "integrity" and v is not None}
    integrity: dict[str, Any] = {"signature_sha256": digest(bare)}
    if ring is not None:
        now = now or datetime.now(UTC)
        # As ``created`` tells it, or a key could seal in its first millisecond what it never verifies.
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        target = target_of(bare)
        if target is None:
            raise EvidenceError(
                "a seal is for one target, and the evidence names none",
                field="/meta/target",
                next_step="build it with --target, or with a gate.yaml",
            )
        key = ring.signing("evidence", now)
        created = now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        try:
            value = key.mac("evidence", message(bare, target, created))
        except ValueError as fault:
            raise EvidenceError(
                f"has no RFC 8785 form: {fault}",
                field=_inexact(bare),
                next_step="write numbers beyond ±2^53 as text",
            ) from None
        integrity["mac"] = {"alg": ALG, "key_id": key.key_id, "created": created, "value": value}
    return bare | {"integrity": integrity}


def verify(
    blocks: Mapping[str, Any],
    ring: KeyRing | None,
    *,
    now: datetime,
    anchored_at: datetime | None = None,
) -> Seal:
    """What digest and MAC of ``blocks`` prove together; see ``digest_fault`` and ``check``."""
    fault = digest_fault(blocks)
    if fault is not None:
        return _refused(*fault)
    return check(blocks, ring, now=now, anchored_at=anchored_at)


def check(
    blocks: Mapping[str, Any],
    ring: KeyRing | None,
    *,
    now: datetime,
    anchored_at: datetime | None = None,
) -> Seal:
    """What the seal of ``blocks`` proves. The digest is checked where the evidence is judged.

    Args:
        blocks: the document.
        ring: the keys; None where none are configured.
        now: the time here: a seal from the future is refused.
        anchored_at: when the index took the document up, for keys that have retired since.
    """
    if ring is None:
        return Seal()
    integrity = blocks.get("integrity")
    mac = integrity.get("mac") if isinstance(integrity, dict) else None
    if mac is None or not isinstance(integrity, dict):
        return _refused("missing", "/integrity/mac is missing, and keys are configured")
    wrong = _form_fault(integrity, mac)
    if wrong is not None:
        return _refused("wrong_type", wrong)
    target = target_of(blocks)
    if target is None:
        return _refused("missing", "/meta/target names no target, so no MAC can be about it")
    created = parse_time(mac["created"])
    if created is None or (created - now).total_seconds() > FUTURE_SEC:
        what = f"/integrity/mac/created is {shown(mac['created'], 50)}"
        return _refused("out_of_range", f"{what}, no time until now")
    try:
        key = ring.verifying("evidence", mac["key_id"], made_at=created, anchored_at=anchored_at)
    except SignatureError as fault:
        return _refused(fault.cause, f"/integrity/mac: {fault}")
    bare = {name: value for name, value in blocks.items() if name != "integrity"}
    try:
        value = key.mac("evidence", message(bare, target, mac["created"]))
    except ValueError as fault:
        return _refused("out_of_range", f"has no RFC 8785 form: {fault}")
    if not hmac.compare_digest(value, mac["value"]):
        return _refused("tampered", "/integrity/mac is not that of these blocks: they were changed")
    return Seal(state="valid", key_id=key.key_id, created=mac["created"])


def _refused(cause: str, message: str) -> Seal:
    return Seal(state="refused", cause=cause, message=message)


def _form_fault(integrity: dict[str, Any], mac: Any) -> str | None:
    """What keeps the seal from having exactly one spelling: the MAC does not cover itself."""
    unknown = sorted(set(integrity) - {"signature_sha256", "mac"})
    if unknown:
        return f"/integrity has the unknown field {shown(unknown[0], 60)}"
    if not isinstance(mac, dict) or set(mac) != {"alg", "key_id", "created", "value"}:
        return "/integrity/mac is not alg, key_id, created and value"
    if not all(isinstance(part, str) for part in mac.values()):
        return "/integrity/mac holds something else than text"
    if mac["alg"] != ALG:
        return f"/integrity/mac/alg is {shown(mac['alg'], 40)}, not {ALG}"
    if not re.fullmatch(r"[0-9a-f]{64}", mac["value"]):
        return "/integrity/mac/value is not 64 hexadecimal digits"
    return None


def _inexact(value: Any, path: str = "") -> str | None:
    """Where the first whole number stands that a double cannot hold: RFC 8785 has no form for it."""
    if isinstance(value, dict | list):
        steps = value.items() if isinstance(value, dict) else enumerate(value)
        found = (_inexact(item, f"{path}/{step}") for step, item in steps)
        return next((where for where in found if where is not None), None)
    return path if isinstance(value, int) and abs(value) >= 2**53 else None


def target_of(blocks: Mapping[str, Any]) -> Target | None:
    """The target that the document is about; None if it names none."""
    meta = blocks.get("meta")
    try:
        return Target.model_validate(meta.get("target") if isinstance(meta, dict) else None)
    except ValidationError:
        return None


def message(blocks: Mapping[str, Any], target: Target, created: str) -> bytes:
    """What the MAC covers: use, target, time and blocks, in RFC 8785 form.

    Raises:
        ValueError: it has no such form.
    """
    return canonical(
        {"use": "evidence", "target": target.model_dump(), "created": created, "blocks": blocks}
    )
