"""The HMAC key ring: which key signs, which may still verify, for which use, and when.

States: exactly one ``active`` key of a use signs; ``grace`` verifies; ``retired`` verifies only
stored things that the index anchored before its ``not_after``; ``revoked`` verifies nothing.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
from base64 import b64decode
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

import rfc8785
from pydantic import (
    AwareDatetime,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_serializer,
    model_validator,
)

from pytest_decisionos.errors import KeysError, SignatureError
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.base import Frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

Use = Literal["request", "evidence", "stage"]
State = Literal["active", "grace", "retired", "revoked"]
USES: Final[tuple[Use, ...]] = get_args(Use)
KeyId = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
MIN_SECRET_BYTES: Final = 32
"""The output length of SHA-256: a shorter HMAC key is weaker than the hash (RFC 2104 §3)."""
MAX_SECRET_CHARS: Final = 4096
MAX_KEYS: Final = 256
_quoted: Final = json.encoder.encode_basestring


class KeyEntry(Frozen):
    """One key of a ring.

    Attributes:
        key_id: its name; public.
        secret: plain text, ``hex:…`` or ``b64:…``, at least 32 bytes. Never shown.
        state: active, grace, retired or revoked.
        use: what it may be used for; empty means every use, through a sub-key for each.
        not_before: what is said to be older was not made with it.
        not_after: what is said to be younger was not made with it.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    key_id: KeyId
    secret: SecretStr = Field(max_length=MAX_SECRET_CHARS)
    state: State
    use: tuple[Use, ...] = ()
    not_before: AwareDatetime | None = None
    not_after: AwareDatetime | None = None

    @model_validator(mode="after")
    def _usable(self) -> KeyEntry:
        if len(self.raw) < MIN_SECRET_BYTES:
            raise ValueError(f"the secret is shorter than {MIN_SECRET_BYTES} bytes")
        if len(set(self.use)) != len(self.use):
            raise ValueError("a use stands twice")
        if self.not_before and self.not_after and self.not_before >= self.not_after:
            raise ValueError("not_before is not before not_after")
        return self

    @field_serializer("secret", when_used="json")
    def _tell_secret(self, secret: SecretStr) -> str:
        return secret.get_secret_value()  # only a ring that is written to its 0600 file is dumped

    @property
    def raw(self) -> bytes:
        """The secret's bytes.

        Raises:
            ValueError: it is not the hexadecimal or Base64 that it says it is.
        """
        text = self.secret.get_secret_value()
        form, colon, rest = text.partition(":")
        try:
            if colon and form == "hex":
                return bytes.fromhex(rest)
            if colon and form == "b64":
                return b64decode(rest, validate=True)
        except (ValueError, binascii.Error):
            raise ValueError(f"the secret is not the {form} that it says it is") from None
        return text.encode(errors="surrogateescape")

    def serves(self, use: Use) -> bool:
        """Whether it may be used for ``use``."""
        return not self.use or use in self.use

    def mac(self, use: Use, message: bytes) -> str:
        """HMAC-SHA-256 (RFC 2104) of ``message`` as 64 hexadecimal digits, with ``mac_key``."""
        return hmac.digest(self.mac_key(use), message, "sha256").hex()

    def mac_key(self, use: Use) -> bytes:
        """The bytes that MACs of ``use`` are made with.

        They are the secret itself; of a key without ``use`` a sub-key of its own for each use:
        HKDF-SHA-256 (RFC 5869) with no salt and ``decisionos/<use>`` as info.
        """
        return self.raw if self.use else _sub_key(self.raw, use)


def _sub_key(secret: bytes, use: Use) -> bytes:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - only rings without `use` pay
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415 - the same

    kdf = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=f"decisionos/{use}".encode())
    return kdf.derive(secret)


class KeyRing(Frozen):
    """The keys of one source.

    Attributes:
        origin: where they come from, in words.
        keys: in the order of the source; never empty.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    origin: str
    keys: Annotated[tuple[KeyEntry, ...], Field(min_length=1, max_length=MAX_KEYS)]

    @model_validator(mode="after")
    def _consistent(self) -> KeyRing:
        ids = [key.key_id for key in self.keys]
        if len(set(ids)) != len(ids):
            raise ValueError("two keys have one key_id")
        for use in USES:
            active = [key.key_id for key in self.keys if key.state == "active" and key.serves(use)]
            if len(active) > 1:
                raise ValueError(f"{', '.join(active)} are all active for {use}")
        return self

    def of(self, use: Use) -> list[KeyEntry]:
        """The keys that serve ``use``."""
        return [key for key in self.keys if key.serves(use)]

    def signing(self, use: Use, now: datetime) -> KeyEntry:
        """The one key that signs for ``use``.

        Raises:
            KeysError: none is active, or the active one is not valid now.
        """
        active = [key for key in self.of(use) if key.state == "active"]
        if not active:
            raise KeysError(
                f"no key is active for {use}",
                file=self.origin,
                next_step=f"make one with `dosctl keys rotate --use {use}`",
            )
        (key,) = active
        fault = _time_fault(key, now)
        if fault is not None:
            raise KeysError(f"the active key of {use} {fault}", file=self.origin, found=key.key_id)
        return key

    def verifying(
        self, use: Use, key_id: str, *, made_at: datetime, anchored_at: datetime | None = None
    ) -> KeyEntry:
        """The key ``key_id``, if it may verify what was made for ``use`` at ``made_at``.

        Args:
            use: what the MAC is for.
            key_id: the key that it names.
            made_at: when it says that it was made.
            anchored_at: when the index took up what it stands on; None if it did not.

        Raises:
            SignatureError: it may not: ``unknown_key``, ``revoked_key``, ``wrong_use``,
                ``retired_key`` or ``outside_validity``.
        """
        key = next((key for key in self.keys if key.key_id == key_id), None)
        if key is None:
            raise SignatureError("no such key", cause="unknown_key", file=self.origin, found=key_id)
        if key.state == "revoked":
            raise SignatureError(
                "the key is revoked", cause="revoked_key", file=self.origin, found=key_id
            )
        if not key.serves(use):
            raise SignatureError(
                f"the key does not serve {use}",
                cause="wrong_use",
                file=self.origin,
                found=f"{key_id} for {', '.join(key.use)}",
            )
        if key.state == "retired" and (
            key.not_after is None or anchored_at is None or anchored_at > key.not_after
        ):
            raise SignatureError(
                "the key is retired: it verifies only what the index took up before its not_after",
                cause="retired_key",
                file=self.origin,
                found=key_id,
            )
        fault = _time_fault(key, made_at)
        if fault is not None:
            raise SignatureError(
                f"the key {fault}",
                cause="outside_validity",
                file=self.origin,
                found=f"{key_id} at {made_at.isoformat()}",
            )
        return key


def _time_fault(key: KeyEntry, when: datetime) -> str | None:
    if key.not_before is not None and when < key.not_before:
        return f"is valid only from {key.not_before.isoformat()}"
    if key.not_after is not None and when > key.not_after:
        return f"was valid only until {key.not_after.isoformat()}"
    return None


def parse_ring(data: bytes, origin: str) -> KeyRing:
    """A ring from its JSON: a list of entries.

    Raises:
        KeysError: it is not one. The message tells no value, which might be a secret.
    """
    try:
        document = strict_json.loads(data, file=origin, error=KeysError, max_bytes=1024 * 1024)
    except KeysError as fault:
        # Not even the character that is wrong: it may be one of a secret.
        what = "not a key ring" if fault.line is None else "not JSON"
        raise KeysError(what, file=origin, expected="a JSON list of keys") from None
    return make_ring(document, origin)


def make_ring(entries: Any, origin: str) -> KeyRing:
    """A ring from the value of its JSON.

    Raises:
        KeysError: it is not one. The message tells no value, which might be a secret.
    """
    if not isinstance(entries, list) or not entries:
        raise KeysError("not a key ring", file=origin, expected="a list of one key or more")
    try:
        return KeyRing.model_validate({"origin": origin, "keys": entries})
    except ValidationError as fault:
        from pytest_decisionos.model import validate  # noqa: PLC0415 - loads YAML

        first = validate.first_fault(fault)
        # A name that is no field's may be a secret in the wrong place; secrets are longer than this.
        named = [part for part in first.path if len(str(part)) < MIN_SECRET_BYTES // 2]
        where = validate.dotted(named) or None
        raise KeysError(first.words, file=origin, field=where) from None


def ring_json(ring: KeyRing) -> bytes:
    """``ring`` as ``parse_ring`` reads it, with its secrets: only for its own private file or store."""
    listed = [key.model_dump(mode="json", exclude_none=True) for key in ring.keys]
    return strict_json.dumps(listed).encode()


def canonical(value: Mapping[str, Any]) -> bytes:
    """``value`` in the one spelling of RFC 8785 (JCS).

    Raises:
        ValueError: a number that JCS cannot tell (beyond ±2^53, not finite), or no Unicode text.
    """
    parts: list[str] = []
    try:
        _spell(value if type(value) is dict else dict(value), parts.append)
        return "".join(parts).encode()
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as fault:
        raise ValueError(str(fault)) from None


def _spell(value: Any, say: Callable[[str], None]) -> None:
    """Spell ``value``: what rfc8785 does, more than twice as fast, and what is not plain is left to it.

    A float between 0.0001 and 10^16 that is not whole has Python's own shortest digits (§3.2.2.3);
    the rare others are spelled by the library one by one.
    """
    kind = type(value)
    if kind is str:
        say(_quoted(value))
    elif (kind is int and abs(value) < 2**53) or (
        kind is float and 1e-4 <= abs(value) < 1e16 and not value.is_integer()
    ):
        say(repr(value))
    elif kind is dict:
        for key, spelled in _names(tuple(value)):
            say(spelled)
            _spell(value[key], say)
        say("}" if value else "{}")
    elif kind is list:
        mark = "["
        for item in value:
            say(mark)
            _spell(item, say)
            mark = ","
        say("]" if mark == "," else "[]")
    else:
        say(rfc8785.dumps(value).decode())


_SHAPES: Final[dict[tuple[Any, ...], list[tuple[str, str]]]] = {}
"""Of objects that were spelled: a document has thousands of a few shapes. Bounded in number and size,
because documents come from others."""


def _names(keys: tuple[Any, ...]) -> list[tuple[str, str]]:
    """Each key with how it is spelled with the signs around it; by UTF-16 units (§3.2.3)."""
    made = _SHAPES.get(keys)
    if made is None:
        ordered = sorted(keys, key=_utf16)
        made = [(key, f"{',' if i else '{'}{_quoted(key)}:") for i, key in enumerate(ordered)]
        if len(_SHAPES) < 512 and len(keys) <= 64 and sum(map(len, keys)) <= 1024:
            _SHAPES[keys] = made
    return made


def _utf16(key: object) -> bytes:
    if not isinstance(key, str):
        raise rfc8785.CanonicalizationError(f"object keys must be strings, not {key!r}")
    return key.encode("utf-16-be")


def fingerprint(data: bytes) -> str:
    """SHA-256 of ``data``, hexadecimal."""
    return hashlib.sha256(data).hexdigest()
