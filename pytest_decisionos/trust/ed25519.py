"""Ed25519 keys (RFC 8032): private ones in 0600 PEM files, public ones as PEM, named by digest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from pytest_decisionos.errors import KeysError, UsageError
from pytest_decisionos.model import strict_json
from pytest_decisionos.trust.files import read_private, write_new
from pytest_decisionos.trust.keys import fingerprint

if TYPE_CHECKING:
    from pathlib import Path

MAX_PEM_BYTES: Final = 4096
NO_JUDGE_NAME: Final = ("no name of a judge", "small letters, digits, _ and -, at most 63")
"""What is wrong with the name of a judge, and what is expected."""

_P: Final = 2**255 - 19
_Y8: Final = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_WEAK: Final = frozenset({0, 1, _P - 1, _Y8, _P - _Y8})
"""The y of the eight points whose order divides 8 (as in libsodium's ge25519_has_small_order)."""


class PublicKey:
    """A public key.

    Attributes:
        keyid: SHA-256 of its 32 raw bytes, hexadecimal: it cannot name another key.
        pem: as SubjectPublicKeyInfo PEM, which OpenSSL reads.
    """

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.keyid = fingerprint(key.public_bytes_raw())
        self.pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` (64 bytes) of ``message`` was made with the private key."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """A private key; its repr tells its public name only."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    def __repr__(self) -> str:
        return f"<private key of {self.public.keyid[:16]}…>"

    @property
    def keyid(self) -> str:
        """The name of its public key."""
        return self.public.keyid

    def sign(self, message: bytes) -> bytes:
        """The signature of ``message``, 64 bytes; the same every time (RFC 8032 §5.1.6)."""
        return self._key.sign(message)


def generate() -> PrivateKey:
    """A new key from the operating system's random numbers."""
    return PrivateKey(Ed25519PrivateKey.generate())


def write_private(path: Path, key: PrivateKey) -> None:
    """Write ``key`` as PKCS #8 PEM, mode 0600, and its public key beside it as ``.pub``.

    Raises:
        UsageError: one of the two is there already, or cannot be written.
    """
    pem = key._key.private_bytes(  # noqa: SLF001 - nobody else writes it
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    public = public_beside(path)
    _write_new(path, pem, 0o600)
    try:
        _write_new(public, key.public.pem.encode(), 0o644)
    except UsageError:
        path.unlink()  # half a pair would stand in the way of the next try
        raise


def file_name(role: str, judge: str | None = None) -> str:
    """The name of a private key in the folder of keys: ``<role>.key`` or ``judge-<id>.key``.

    Raises:
        UsageError: no such role, or a judge too much, too few, or with a name that is none.
    """
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - only new keys are named

    from pytest_decisionos.trust.trustfile import ROLES, JudgeName  # noqa: PLC0415 - it imports us

    if role not in ROLES:
        raise UsageError("no such role", field="--role", found=role, expected=", ".join(ROLES))
    if (role == "judge") != (judge is not None):
        raise UsageError("a judge is named for the role judge, and only there", field="--judge")
    if judge is None:
        return f"{role}.key"
    try:
        TypeAdapter(JudgeName).validate_python(judge)
    except ValidationError:
        what, expected = NO_JUDGE_NAME
        raise UsageError(what, field="--judge", found=judge, expected=expected) from None
    return f"judge-{judge}.key"


def public_beside(path: Path) -> Path:
    """Where the public key of the private one at ``path`` is written."""
    return path.with_name(path.name.removesuffix(".key") + ".pub")


def _write_new(file: Path, data: bytes, mode: int) -> None:
    if not write_new(file, data, mode=mode):
        raise UsageError(
            "is there already: a key is never overwritten",
            file=file,
            next_step="name another file, or move this one away",
        )


def load_private(path: Path) -> PrivateKey:
    """Read a private key.

    Raises:
        KeysError: it is missing, others may read it, or it is no Ed25519 key in PEM.
    """
    data = read_private(path, max_bytes=MAX_PEM_BYTES)
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeysError(
            "not an Ed25519 private key",
            file=path,
            expected="PKCS #8 in PEM, without password",
            next_step="make one with `dosctl keys gen --role`",
        )
    return PrivateKey(key)


def parse_public(pem: str | bytes, file: object = None) -> PublicKey:
    """A public key from its PEM.

    Raises:
        KeysError: it is no Ed25519 public key in PEM.
    """
    try:
        data = pem.encode() if isinstance(pem, str) else pem
        key = load_pem_public_key(data) if len(data) <= MAX_PEM_BYTES else None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise KeysError("not an Ed25519 public key in PEM", file=file)
    # OpenSSL takes these. With one of small order anybody can sign; one that is not reduced
    # (RFC 8032 §5.1.3 refuses it) would be a second name of another key.
    y = int.from_bytes(key.public_bytes_raw(), "little") & (2**255 - 1)
    if y in _WEAK or y >= _P:
        raise KeysError("not a key that somebody alone can have: its point is weak", file=file)
    return PublicKey(key)


def load_public(path: Path) -> PublicKey:
    """Read a public key.

    Raises:
        KeysError: it is missing, or no Ed25519 public key in PEM.
    """
    return parse_public(
        strict_json.read_bytes(path, error=KeysError, max_bytes=MAX_PEM_BYTES), path
    )
