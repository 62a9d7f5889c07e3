"""Request signatures: RFC 9421 with HMAC-SHA-256, over a body by its digest (RFC 9530).

The library reads the fields, builds the signature base and checks the MAC. What may be signed, by
which key and when is decided here, because the library asks the machine's clock, and asks it
before the key: then a stranger's request would read ``expired``. Here the MAC comes first, so a
cause behind it is a fault of somebody who holds a key.
"""

from __future__ import annotations

import hmac
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature as MacFault
from http_message_signatures import (
    ContentDigest,
    HTTPMessageSignaturesException,
    HTTPMessageSigner,
    HTTPMessageVerifier,
    MappingKeyResolver,
)
from http_message_signatures.algorithms import HMAC_SHA256
from pydantic import TypeAdapter, ValidationError

from pytest_decisionos.errors import SignatureError
from pytest_decisionos.trust.keys import KeyId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_decisionos.trust.keys import KeyEntry, KeyRing

TAG: Final = "decisionos-judge"
COVERED: Final = ("@method", "@target-uri", "content-digest")
MAX_FIELD: Final = 8192
"""Characters of a method, a URL or a header that is read; longer ones are refused unparsed."""
_LABEL: Final = "judge"
_NONCE: Final = re.compile(r"[!-~]{16,256}")
# One signature of 32 bytes in the one spelling that Base64 has for them: the library also takes
# missing padding and other left-over bits, by which a changed signature would pass as unchanged.
_SIGNATURE: Final = re.compile(r"[^=]+=:[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=:")
_KEY_ID: Final = TypeAdapter(KeyId)


class Verified(NamedTuple):
    """A request whose signature verified: by which key, with which nonce (empty if none), when."""

    key_id: str
    nonce: str
    created: datetime


class _Message(NamedTuple):
    """A request as the library reads it."""

    method: str
    url: str
    headers: dict[str, str]


def sign_request(
    method: str, url: str, body: bytes, key: KeyEntry, *, now: datetime, nonce: str | None = None
) -> dict[str, str]:
    """The headers that sign a request to a judge.

    Args:
        method: upper case.
        url: where it goes, as the judge will see it: absolute, with a path, without fragment.
        body: the bytes that are sent.
        key: the key that signs: ``ring.signing("request", now)``.
        now: when it is made; whole seconds are told.
        nonce: 16 to 256 visible ASCII characters; a random one if None.

    Returns:
        ``content-digest``, ``signature-input`` and ``signature``.

    Raises:
        SignatureError: ``wrong_use``: the key is not for requests; ``malformed``: such a method,
            URL or nonce cannot be signed.
    """
    if not key.serves("request"):
        raise SignatureError("the key does not serve request", cause="wrong_use", found=key.key_id)
    message = _Message(method, url, {})
    signer = HTTPMessageSigner(signature_algorithm=HMAC_SHA256)
    try:
        prepared = signer.prepare(
            message,
            key_id=key.key_id,
            created=now,
            nonce=_nonce(secrets.token_urlsafe(24) if nonce is None else nonce),
            label=_LABEL,
            tag=TAG,
            covered_component_ids=COVERED,
            body=body,
        )
        if f'"@target-uri": {url}\n'.encode() not in prepared.signature_base:
            raise _not_the_url(url)
        mac = hmac.digest(key.mac_key("request"), prepared.signature_base, "sha256")
        signer.apply(message, prepared, mac)
    except HTTPMessageSignaturesException as fault:
        raise SignatureError(
            f"such a request cannot be signed: {fault}", cause="malformed", found=f"{method} {url}"
        ) from None
    return {name.lower(): value for name, value in message.headers.items()}


def verify_request(
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    *,
    ring: KeyRing,
    now: datetime,
    max_age_sec: float,
    max_skew_sec: float,
) -> Verified:
    """Who signed a request to a judge. Its nonce is not claimed yet: that is the caller's next step.

    Args:
        method: of the request line.
        url: the whole URL that the client asked for, which behind a proxy is the public one.
        headers: every header line.
        body: the bytes that came.
        ring: the keys that may sign.
        now: the judge's time.
        max_age_sec: the oldest that is accepted.
        max_skew_sec: how far ``created`` may be ahead of ``now``.

    Raises:
        SignatureError: it does not verify; besides the causes of ``verify_head``:
            ``digest_mismatch``.
    """
    verified = verify_head(
        method, url, headers, ring=ring, now=now, max_age_sec=max_age_sec, max_skew_sec=max_skew_sec
    )
    # Only this digest and no other, in one spelling. No secret is in it, so a plain comparison does.
    digest = next(value.strip() for name, value in headers if name.lower() == "content-digest")
    expected = ContentDigest.create(body)
    if digest != expected:
        raise SignatureError(
            "the body is not the one that was signed",
            cause="digest_mismatch",
            field="content-digest",
            found=digest,
            expected=expected,
        )
    return verified


def verify_head(
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]],
    *,
    ring: KeyRing,
    now: datetime,
    max_age_sec: float,
    max_skew_sec: float,
) -> Verified:
    """Who signed the head of a request to a judge, before its body is there.

    Args:
        method: of the request line.
        url: the whole URL that the client asked for, which behind a proxy is the public one.
        headers: every header line.
        ring: the keys that may sign.
        now: the judge's time.
        max_age_sec: the oldest that is accepted.
        max_skew_sec: how far ``created`` may be ahead of ``now``.

    Raises:
        SignatureError: it does not verify, by the causes of ``verify_message`` and of
            ``KeyRing.verifying``.
    """

    def key_of(key_id: str, created: datetime) -> bytes:
        return ring.verifying("request", key_id, made_at=created).mac_key("request")

    verified = verify_message(
        method,
        url,
        headers,
        covered=COVERED,
        tag=TAG,
        key_of=key_of,
        now=now,
        max_age_sec=max_age_sec,
        max_skew_sec=max_skew_sec,
    )
    _nonce(verified.nonce)
    return verified


def verify_message(
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]],
    *,
    covered: Sequence[str],
    tag: str | None,
    key_of: Callable[[str, datetime], bytes],
    now: datetime,
    max_age_sec: float | None,
    max_skew_sec: float,
) -> Verified:
    """Who signed a request, by its one HMAC-SHA-256 signature (RFC 9421 §3.2). The body is not read.

    Args:
        method: of the request line.
        url: the whole URL that the client asked for.
        headers: every header line.
        covered: exactly the components that the signature must cover, in any order.
        tag: the tag that it must have; None: it must have none.
        key_of: the secret of a key id, for what was made at that time.
        now: the time that ``created`` and ``expires`` are held against.
        max_age_sec: the oldest that is accepted; None: any age.
        max_skew_sec: how far ``created`` may be ahead of ``now``.

    Raises:
        SignatureError: ``missing_signature``; ``several_values`` or ``missing_field``: a header
            that is read stands twice or is not there; ``malformed``; ``wrong_tag``;
            ``not_covered`` or ``covers_more``; ``wrong_algorithm``; what ``key_of`` raises;
            ``bad_signature``; then, of a MAC that is right, ``from_the_future`` and ``expired``.
    """
    names = ("signature-input", "signature", *(name for name in covered if name[0] != "@"))
    fields = _fields(headers, names)
    if max(len(method), len(url)) > MAX_FIELD:
        raise _malformed(f"the method or the URL is longer than {MAX_FIELD} characters")
    if _SIGNATURE.fullmatch(fields["signature"].strip()) is None:
        raise _malformed(
            "not one signature by HMAC-SHA-256",
            field="signature",
            found=fields["signature"],
            expected="label=:44 characters of Base64:",
        )
    verifier = _Verifier(covered, tag, key_of)
    try:
        # Whatever max_age is: `validate_created_and_expires` is ours.
        (result,) = verifier.verify(_Message(method, url, fields), max_age=None)
    except HTTPMessageSignaturesException as fault:
        if isinstance(fault.__cause__, MacFault):
            raise SignatureError(
                "the signature is not of this request by this key",
                cause="bad_signature",
                found=verifier.verified.key_id,
            ) from None
        raise _malformed(str(fault), field="signature-input") from None
    if result.covered_components.get('"@target-uri"', url) != url:
        raise _not_the_url(url)
    _in_time(verifier.verified.created, verifier.expires, now, max_age_sec, max_skew_sec)
    return verifier.verified


class _Verifier(HTTPMessageVerifier):
    """The library's verifier, with our policy where it would ask the machine's clock.

    Attributes:
        verified: what the signature says of itself; to be believed once ``verify`` returned.
        expires: the end that it sets itself, likewise.
    """

    verified: Verified
    expires: datetime | None

    def __init__(
        self, covered: Sequence[str], tag: str | None, key_of: Callable[[str, datetime], bytes]
    ) -> None:
        super().__init__(signature_algorithm=HMAC_SHA256, key_resolver=None)
        self._covered = covered
        self._tag = tag
        self._key_of = key_of

    def validate_created_and_expires(
        self,
        sig_input: Any,
        max_age: timedelta | None = None,  # noqa: ARG002 - the library's signature
    ) -> None:
        """Check what is signed and how, and find the key. The library checked the types before."""
        params: dict[str, Any] = sig_input.params
        if params.get("tag") != self._tag:
            raise SignatureError(
                "signed for something else",
                cause="wrong_tag",
                field="tag",
                found=params.get("tag"),
                expected=self._tag or "no tag",
            )
        names = [item.value for item in sig_input if not item.params]
        missing = [name for name in self._covered if name not in names]
        if missing:
            raise SignatureError(
                f"the signature does not cover {', '.join(missing)}", cause="not_covered"
            )
        if len(sig_input) != len(self._covered):
            # What a proxy may change, or what nobody here reads, must not decide.
            raise SignatureError(
                "the signature covers more than is asked for",
                cause="covers_more",
                found=f"{len(sig_input)} components",
                expected=", ".join(self._covered),
            )
        if params.get("alg", HMAC_SHA256.algorithm_id) != HMAC_SHA256.algorithm_id:
            raise SignatureError(
                "not the algorithm that is used here",
                cause="wrong_algorithm",
                field="alg",
                found=params["alg"],
                expected=HMAC_SHA256.algorithm_id,
            )
        try:
            key_id = _KEY_ID.validate_python(params.get("keyid"))
        except ValidationError:
            raise _malformed("no key id", field="keyid", found=params.get("keyid")) from None
        created = _instant(params, "created")
        self.expires = _instant(params, "expires") if "expires" in params else None
        self.verified = Verified(key_id, params.get("nonce", ""), created)
        keys = {key_id: self._key_of(key_id, created)}
        self.key_resolver = MappingKeyResolver(public_keys=keys, private_keys={})


def _fields(headers: Sequence[tuple[str, str]], names: Sequence[str]) -> dict[str, str]:
    """The headers that are read, each of which must stand once, short and of printable ASCII."""
    found: dict[str, str] = {}
    for given, value in headers:
        name = given.lower()
        if name not in names:
            continue
        if name in found:
            raise SignatureError("the header stands twice", cause="several_values", field=name)
        if len(value) > MAX_FIELD:
            raise _malformed(f"longer than {MAX_FIELD} characters", field=name)
        if not (value.isascii() and value.isprintable()):
            raise _malformed("not printable ASCII", field=name, found=value)
        found[name] = value
    for name in names:
        if name not in found:
            cause = "missing_signature" if name.startswith("signature") else "missing_field"
            raise SignatureError("the header is missing", cause=cause, field=name)
    return found


def _instant(params: dict[str, Any], name: str) -> datetime:
    try:
        return datetime.fromtimestamp(params[name], UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        raise _malformed(
            "no time", field=name, found=params.get(name), expected="seconds since 1970"
        ) from None


def _in_time(
    created: datetime,
    expires: datetime | None,
    now: datetime,
    max_age_sec: float | None,
    max_skew_sec: float,
) -> None:
    early, late = created - now, now - created
    at, here = created.isoformat(), now.isoformat()
    if early > timedelta(seconds=max_skew_sec):
        what, cause, field = "signed in the future: a clock is wrong", "from_the_future", "created"
        expected = f"at most {max_skew_sec:g} s after {here}"
    elif max_age_sec is not None and late > timedelta(seconds=max_age_sec):
        what, cause, field = "signed too long ago", "expired", "created"
        expected = f"at most {max_age_sec:g} s before {here}"
    elif expires is not None and now > expires:
        what, cause, field = "past the end that the signature sets itself", "expired", "expires"
        at, expected = expires.isoformat(), f"not before {here}"
    else:
        return
    raise SignatureError(what, cause=cause, field=field, found=at, expected=expected)


def _nonce(text: str) -> str:
    if _NONCE.fullmatch(text) is None:
        raise _malformed(
            "no nonce", field="nonce", found=text, expected="16 to 256 visible ASCII characters"
        )
    return text


def _malformed(what: str, **where: Any) -> SignatureError:
    return SignatureError(what, cause="malformed", **where)


def _not_the_url(url: str) -> SignatureError:
    # The library would sign `http://host/` for `http://user@host#part`: another request.
    return _malformed(
        "not a URL as it is signed", found=url, expected="a path, no user and no fragment"
    )
