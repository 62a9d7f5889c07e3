"""DSSE envelopes (secure-systems-lab/dsse, protocol 1.0.2): who signed these very bytes.

The library gives the pre-authentication encoding. Which signature counts is decided here, because
the protocol lets a signature come without a key id, and the library does not.
"""

from __future__ import annotations

import binascii
import contextlib
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pytest_decisionos.errors import UnusableInputError
from pytest_decisionos.model import strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_decisionos.trust.ed25519 import PrivateKey, PublicKey

IN_TOTO: Final = "application/vnd.in-toto+json"
MAX_SIGNATURES: Final = 16


class Signature(NamedTuple):
    """One signature; ``keyid`` is only a hint, and empty where it says none."""

    keyid: str
    sig: bytes


class Envelope(NamedTuple):
    """An envelope as read: nothing in it is believed before ``signers`` names who signed it."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]


def pae(payload: bytes, payload_type: str) -> bytes:
    """The bytes that are signed: DSSE's pre-authentication encoding."""
    from securesystemslib.dsse import Envelope as Library  # noqa: PLC0415 - loads slowly

    encoded: bytes = Library(payload, payload_type, {}).pae()
    return encoded


def sign(payload: bytes, keys: Sequence[PrivateKey]) -> bytes:
    """An envelope of ``payload`` (in-toto), signed by each of ``keys``; by none it is unsigned."""
    message = pae(payload, IN_TOTO)
    document = {
        "payloadType": IN_TOTO,
        "payload": b64encode(payload).decode(),
        "signatures": [
            {"keyid": key.keyid, "sig": b64encode(key.sign(message)).decode()} for key in keys
        ],
    }
    return strict_json.dumps(document).encode()


def parse(data: bytes, file: object = None) -> Envelope:
    """The envelope in ``data``.

    Raises:
        UnusableInputError: it is not one, in the one spelling that Base64 has for its bytes.
    """
    document = strict_json.loads(data, file=file)
    if not isinstance(document, dict) or set(document) != {"payloadType", "payload", "signatures"}:
        raise UnusableInputError(
            "not a DSSE envelope", file=file, expected="payloadType, payload and signatures"
        )
    payload_type, listed = document["payloadType"], document["signatures"]
    if not isinstance(payload_type, str) or len(payload_type) > 1024:
        raise UnusableInputError("not a payload type", file=file, field="payloadType")
    if not isinstance(listed, list) or len(listed) > MAX_SIGNATURES:
        expected = f"a list of at most {MAX_SIGNATURES}"
        raise UnusableInputError("not signatures", file=file, field="signatures", expected=expected)
    return Envelope(
        _bytes(document["payload"], file, "payload"),
        payload_type,
        tuple(_signature(entry, file) for entry in listed),
    )


def _signature(entry: Any, file: object) -> Signature:
    if not isinstance(entry, dict) or not {"sig"} <= set(entry) <= {"sig", "keyid"}:
        raise UnusableInputError(
            "not a signature", file=file, field="signatures", expected="sig, and keyid"
        )
    keyid = entry.get("keyid", "")
    if not isinstance(keyid, str) or len(keyid) > 1024:
        raise UnusableInputError("not a key id", file=file, field="signatures.keyid")
    return Signature(keyid, _bytes(entry["sig"], file, "signatures.sig"))


def _bytes(text: Any, file: object, field: str) -> bytes:
    """Base64 of either alphabet. A second spelling of the same bytes would pass as unchanged."""
    data = text.encode("utf-8") if isinstance(text, str) else None
    for decode, encode in ((b64decode, b64encode), (urlsafe_b64decode, urlsafe_b64encode)):
        # Each alphabet alone may say no: without the other's letters the length is often wrong.
        with contextlib.suppress(TypeError, binascii.Error):
            made = decode(data or b"")
            if encode(made) == data:
                return made
    raise UnusableInputError("not Base64", file=file, field=field, expected="with padding")


def signers(envelope: Envelope, keys: Mapping[str, PublicKey]) -> list[str]:
    """Which of ``keys`` (by key id) signed ``envelope``; each counts once, however often it signed."""
    message = pae(envelope.payload, envelope.payload_type)
    found: dict[str, None] = {}
    for signature in envelope.signatures:
        # A hint that names none of the keys says nothing; then every key is tried.
        hinted = [signature.keyid] if signature.keyid in keys else list(keys)
        for keyid in hinted:
            if keyid not in found and keys[keyid].verifies(signature.sig, message):
                found[keyid] = None
                break
    return list(found)
