"""The head of the index: how far it went, for which target and when, signed by the key of role index.

A DSSE envelope of an in-toto statement. Without a key it is the same envelope with no signature.
"""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pytest_decisionos.errors import DecisionOSError, RefusedError, UnusableInputError
from pytest_decisionos.evidence.index_files import HEAD, Fault
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.trust import dsse
from pytest_decisionos.trust.files import is_there, write_atomic
from pytest_decisionos.trust.journal import Head

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.model.target import Target
    from pytest_decisionos.trust.ed25519 import PrivateKey
    from pytest_decisionos.trust.trustfile import TrustFile

PREDICATE: Final = "urn:decisionos:index-head:v1"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
MAX_BYTES: Final = 64 * 1024
KEY: Final = "index.key"
FUTURE: Final = timedelta(seconds=5)
"""How far ahead of this clock a head may say that it was made; the seal's bound."""


class SignedHead(NamedTuple):
    """The head as it was read; ``signature_fault`` tells whether its signature counts.

    Attributes:
        head: number of entries, and hash of the last one's line.
        target: what the index is about; None if no document ever named a target.
        at: when it was made.
        envelope: the envelope.
    """

    head: Head
    target: dict[str, str] | None
    at: str
    envelope: dsse.Envelope

    @property
    def keyid(self) -> str:
        """The key that it says it is signed by; empty if it is unsigned."""
        return self.envelope.signatures[0].keyid if self.envelope.signatures else ""


def time_text(time: datetime) -> str:
    """``time`` as the index writes it: UTC, milliseconds, ``Z``."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def told(target: Mapping[str, str] | None) -> str:
    """The target of an index as people write it, whatever the order of its fields."""
    names = ("service", "environment", "region", "tenant")
    return "/".join(target[name] for name in names) if target else "none"


def signing_key(folder: Path | None) -> PrivateKey | None:
    """The private key of the index, ``index.key`` in ``folder``; None if there is none.

    Raises:
        KeysError: it is there, and others may read it, or it is no Ed25519 key.
    """
    if folder is None:
        return None
    path = folder / KEY
    if not is_there(path):
        return None
    from pytest_decisionos.trust.ed25519 import load_private  # noqa: PLC0415 - loads cryptography

    return load_private(path)


def write_head(
    root: Path,
    head: Head,
    *,
    target: Mapping[str, str] | None,
    now: datetime,
    key: PrivateKey | None,
) -> None:
    """Write the head, signed if there is a key.

    Raises:
        UsageError: it cannot be written.
    """
    payload = _payload(head, target, time_text(now))
    write_atomic(root / HEAD, dsse.sign(payload, [] if key is None else [key]))


def _payload(head: Head, target: Mapping[str, str] | None, at: str) -> bytes:
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": "index.jsonl", "digest": {"lineSha256": head.sha256}}],
        "predicateType": PREDICATE,
        "predicate": {
            "entries": head.entries,
            "sha256": head.sha256,
            "target": None if target is None else dict(target),
            "at": at,
        },
    }
    return json.dumps(statement, ensure_ascii=False, sort_keys=True).encode()


def parse_head(data: bytes) -> SignedHead | Fault:
    """The head in ``data``.

    Only the one spelling that we write is one: key id and blanks are not under the signature, and
    a change of them is a change too.
    """
    try:
        envelope = dsse.parse(data, HEAD)
        document = strict_json.loads(envelope.payload, file=HEAD)
        made = document["predicate"]
        entries, sha256, target, at = (made[n] for n in ("entries", "sha256", "target", "at"))
        ours = _payload(Head(entries, sha256), target, at)
    except (UnusableInputError, KeyError, TypeError, ValueError) as fault:
        why = fault.what if isinstance(fault, DecisionOSError) else "not the head of an index"
        return Fault("changed", HEAD, None, why)
    fits = (
        type(entries) is int
        and entries >= 0
        and isinstance(sha256, str)
        and parse_time(at) is not None
        and (target is None or _is_target(target))
        and envelope.payload_type == dsse.IN_TOTO
        and len(envelope.signatures) <= 1
    )
    if not fits or ours != envelope.payload or _spelled(envelope) != data:
        return Fault("changed", HEAD, None, "not as this index writes its head")
    return SignedHead(Head(entries, sha256), target, at, envelope)


def _is_target(value: Any) -> bool:
    fields = {"service", "environment", "region", "tenant"}
    return (
        isinstance(value, dict)
        and set(value) == fields
        and all(isinstance(v, str) for v in value.values())
    )


def _spelled(envelope: dsse.Envelope) -> bytes:
    document = {
        "payloadType": envelope.payload_type,
        "payload": b64encode(envelope.payload).decode(),
        "signatures": [
            {"keyid": one.keyid, "sig": b64encode(one.sig).decode()} for one in envelope.signatures
        ],
    }
    return strict_json.dumps(document).encode()


def signature_fault(
    signed: SignedHead, trust: TrustFile, *, now: datetime, target: Target | None = None
) -> Fault | None:
    """Why the signature of the head does not count; None if it does.

    Args:
        signed: the head.
        trust: whose signatures count.
        now: the time here; a head from the future says nothing.
        target: what the index must be about; None takes the head's word.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - only with a trust file

    from pytest_decisionos.model.target import Target as Model  # noqa: PLC0415 - the same

    if not signed.keyid and not signed.envelope.signatures:
        return Fault("unsigned", HEAD, None, "has no signature, and the trust file asks for one")
    at = parse_time(signed.at)
    try:
        stated = Model.model_validate(signed.target)
    except ValidationError:
        return Fault("wrong_target", HEAD, None, "names no target, so no key can be for it")
    if target is not None and stated != target:
        return Fault("wrong_target", HEAD, None, f"is about {stated}, not about {target}")
    if at is None or at - now > FUTURE:
        return Fault("outside_validity", HEAD, None, f"is from the future: {signed.at}")
    counted = dsse.signers(signed.envelope, trust.usable("index", stated, at))
    if not counted:
        cause, words = trust.why_not(signed.envelope, "index", stated, at)
        return Fault(cause, HEAD, None, words)
    if counted != [signed.keyid]:
        return Fault("changed", HEAD, None, "names another key than the one that signed it")
    return None


def require_writer(
    root: Path,
    signed: SignedHead | None,
    key: PrivateKey | None,
    trust: TrustFile | None,
    *,
    now: datetime,
) -> None:
    """Refuse to put a new head in the place of ``signed`` where that would launder or weaken it.

    What ``key`` signs stands for all that went before. So the head before must have a signature
    that counts here: of a trusted key, or without a trust file of this very key. Nor may a host
    without the key take a signature away.

    Raises:
        RefusedError: it would.
    """
    if signed is None:
        return
    if key is None:
        if signed.envelope.signatures:
            raise RefusedError(
                "is signed, and the key is not here: a new entry would take the signature away",
                file=root / HEAD,
                next_step=f"name the folder that holds {KEY} with --keys or DECISIONOS_KEYS_DIR",
            )
        return
    words: str | None = None
    if not signed.envelope.signatures:
        words = "is unsigned, and here is a key: what it covers may have been changed"
    elif trust is not None:
        fault = signature_fault(signed, trust, now=now)
        words = None if fault is None else fault.message
    elif dsse.signers(signed.envelope, {key.keyid: key.public}) != [signed.keyid]:
        words = "is not signed by the key here; with a trust file others can count"
    if words is not None:
        raise RefusedError(
            words,
            file=root / HEAD,
            next_step="verify the index; to begin a new one, move index.jsonl and its head away",
        )


def require_trusted(
    key: PrivateKey | None, trust: TrustFile | None, target: Mapping[str, str] | None, now: datetime
) -> None:
    """Refuse to sign with a key whose signature would not count.

    Raises:
        RefusedError: it would not.
    """
    if key is None or trust is None or target is None:
        return
    from pytest_decisionos.model.target import Target  # noqa: PLC0415 - only with a trust file

    if key.keyid not in trust.usable("index", Target.model_validate(target), now):
        raise RefusedError(
            "the key does not count as index for this target, says the trust file",
            field=f"key {key.keyid[:16]}…",
            next_step="add it with `dosctl trust add --role index`",
        )
