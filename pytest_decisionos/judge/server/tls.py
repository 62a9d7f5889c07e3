"""The server's side of TLS, and of mutual TLS."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from pytest_decisionos.errors import KeysError, UsageError
from pytest_decisionos.trust.files import read_private

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_decisionos.judge.server.options import Tls


def tls_context(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 and later.

    Raises:
        KeysError: others may read the key, or it asks for a password.
        UsageError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, tls)
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except OSError as fault:
            raise _unusable(tls.client_ca, "--tls-client-ca", fault) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def load_certificate(context: ssl.SSLContext, tls: Tls) -> None:
    """Read certificate and key: for connections from now on, also after they were renewed.

    Raises:
        KeysError: others may read the key, or it asks for a password.
        UsageError: a file cannot be used.
    """
    read_private(tls.key)

    def password() -> str:
        raise KeysError("asks for a password", file=tls.key, expected="a key without one")

    try:
        context.load_cert_chain(tls.cert, tls.key, password)
    except OSError as fault:  # of which SSLError is one
        raise _unusable(tls.cert, "--tls-cert", fault) from None


def _unusable(file: Path, option: str, fault: OSError) -> UsageError:
    why = getattr(fault, "reason", None) or fault.strerror or "not PEM"
    return UsageError(f"cannot be used for TLS: {why}", file=file, field=option)
