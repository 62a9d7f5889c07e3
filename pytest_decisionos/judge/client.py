"""One question to one judge over HTTP: signed, bounded in size and time, tried again only when safe.

A request that no answer came to may be sent again: judging changes nothing, and each try has a nonce
and a time of its own. What was answered is not asked again, whatever it says.
"""

from __future__ import annotations

import secrets
import ssl
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import urllib3
from urllib3.exceptions import (
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    SSLError,
)
from urllib3.exceptions import (
    TimeoutError as TimedOut,
)
from urllib3.util import Retry, Timeout, parse_url

from pytest_decisionos.errors import DecisionOSError, RemoteError, UsageError, shown
from pytest_decisionos.judge.wire import MAX_ANSWER, PATH
from pytest_decisionos.model import strict_json
from pytest_decisionos.trust.files import read_private
from pytest_decisionos.trust.http_sign import sign_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_decisionos.settings import Settings
    from pytest_decisionos.trust.keys import KeyEntry, KeyRing

TRIES: Final = 4
BACKOFF_SEC: Final = 0.1
"""Pause before the second try; it doubles with each, and is drawn from its upper half."""
MAX_PROBLEM: Final = 65_536
CHUNK: Final = 65_536
T = TypeVar("T")
_PORTS: Final = {"http": 80, "https": 443}


class Exchange(NamedTuple):
    """An answer, and the request that it answers.

    Attributes:
        body: of the answer.
        nonce: of the request.
        sent: when the request went out, by this host's clock.
        received: when the whole answer was there.
    """

    body: bytes
    nonce: str
    sent: datetime
    received: datetime


class RequestKeys:
    """The key that requests are signed with. Threads may share it."""

    def __init__(self, ring: KeyRing, reread: Callable[[], KeyRing | None]) -> None:
        """Args: ``reread`` gives the ring as its source has it now; it is asked once at most."""
        self._ring = ring
        self._reread: Callable[[], KeyRing | None] | None = reread
        self._lock = threading.Lock()

    def current(self) -> KeyEntry:
        """The key that signs now.

        Raises:
            KeysError: none does.
        """
        return self._ring.signing("request", datetime.now(UTC))

    def renewed(self, refused: KeyEntry) -> KeyEntry | None:
        """Another key than the one that a judge refused, if the ring was rotated meanwhile."""
        with self._lock:
            reread, self._reread = self._reread, None
            try:
                self._ring = (reread() if reread else None) or self._ring
                key = self.current()
            except DecisionOSError:
                return None
        return None if (key.key_id, key.raw) == (refused.key_id, refused.raw) else key


class _NoAnswerError(Exception):
    """Why a try gave no verdict.

    Attributes:
        again: whether the same may be tried again.
        wait_sec: how long the judge asks to wait before.
        refused_key: whether the judge refused the request's signature.
    """

    def __init__(
        self, words: str, *, again: bool = False, wait_sec: float = 0.0, refused_key: bool = False
    ) -> None:
        super().__init__(words)
        self.again, self.wait_sec, self.refused_key = again, wait_sec, refused_key


class JudgeClient:
    """Asks one judge. Threads may share it.

    Attributes:
        url: where, in the spelling that is signed: as the judge can tell it from what it receives.
    """

    def __init__(
        self, url: str, keys: RequestKeys, tls: ssl.SSLContext | None, *, connections: int = 1
    ) -> None:
        """Prepare to ask; nothing is connected yet.

        Args:
            url: of the judge, without ``/judge``.
            keys: whose requests it takes.
            tls: for https; see ``tls_of``.
            connections: how many may be kept open.

        Raises:
            UsageError: ``url`` is none.
        """
        try:
            parsed = parse_url(url.rstrip("/") + PATH)
        except urllib3.exceptions.LocationParseError:
            raise UsageError("not a URL", field="url", found=url) from None
        port = None if parsed.port == _PORTS.get(parsed.scheme or "") else parsed.port
        parsed = parsed._replace(port=port)
        self.url = parsed.url
        self._path = parsed.request_uri
        self._keys = keys
        # Neither proxies nor credentials of the environment: the request goes where gate.yaml says.
        self._pool = urllib3.connection_from_url(
            self.url, maxsize=connections, **({"ssl_context": tls} if tls is not None else {})
        )

    def close(self) -> None:
        """Close what is idle; a request that is under way ends by its own deadline."""
        self._pool.close()

    def ask(self, body: bytes, until: float) -> Exchange:
        """Send ``body``, and give the answer.

        Args:
            body: text of a ``Question``.
            until: the time on ``time.monotonic`` by which the answer must be there.

        Raises:
            RemoteError: there is none, in the words that people are told.
            KeysError: no key signs requests now.
        """
        key, fault = self._keys.current(), _NoAnswerError("no time left")
        for attempt in range(1, TRIES + 1):
            try:
                return self._once(body, key, until)
            except _NoAnswerError as no_answer:
                fault = no_answer
            if fault.refused_key:
                newer = self._keys.renewed(key)
                if newer is None:
                    break
                key = newer
            elif not fault.again:
                break
            pause = BACKOFF_SEC * 2.0**attempt
            pause = max(fault.wait_sec, pause * (500 + secrets.randbelow(501)) / 2000)
            if time.monotonic() + pause >= until:
                break
            time.sleep(pause)
        raise RemoteError(str(fault), file=self.url)

    def _once(self, body: bytes, key: KeyEntry, until: float) -> Exchange:
        left = until - time.monotonic()
        if left <= 0:
            raise _NoAnswerError("it did not answer in time")
        nonce, sent = secrets.token_urlsafe(24), datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",  # so that what comes is as large as it looks
            **sign_request("POST", self.url, body, key, now=sent, nonce=nonce),
        }
        try:
            response = self._pool.urlopen(
                "POST", self._path, body, headers, retries=False, redirect=False,
                timeout=Timeout(total=left), preload_content=False, decode_content=False,
            )  # fmt: skip
        except HTTPError as fault:
            raise _why(fault) from None
        try:
            if response.status != 200:
                raise _refusal(response, until)
            data = _read(response, MAX_ANSWER, until)
        except (HTTPError, OSError) as fault:
            raise _NoAnswerError(
                f"its answer broke off: {_told(fault)}"
            ) from None  # it was answered: no second try
        finally:
            response.close()
        return Exchange(data, nonce, sent, datetime.now(UTC))


def _read(response: urllib3.BaseHTTPResponse, limit: int, until: float) -> bytes:
    """The body, of at most ``limit`` bytes; however slowly it drips, not after ``until``."""
    data = bytearray()
    while part := response.read1(CHUNK):
        data += part
        if len(data) > limit:
            raise _NoAnswerError(f"its answer is larger than {limit:,} bytes")
        if time.monotonic() > until:
            raise _NoAnswerError("it did not answer in time")
    return bytes(data)


def _why(fault: HTTPError) -> _NoAnswerError:
    """Why no answer came, and whether the request surely had none."""
    if isinstance(fault, NameResolutionError):
        return _NoAnswerError("its name cannot be resolved", again=True)
    if isinstance(fault, NewConnectionError):
        return _NoAnswerError(f"cannot be reached: {_told(fault)}", again=True)
    if isinstance(fault, TimedOut):
        return _NoAnswerError("it did not answer in time")
    if isinstance(fault, SSLError):
        return _NoAnswerError(f"TLS: {shown(str(fault), 200)}")
    # A connection that was kept open, and is gone with a restart of the judge, ends like this.
    inner = fault.args[-1] if fault.args else None
    lost = isinstance(fault, ProtocolError) and isinstance(inner, ConnectionError)
    words = "broke off before it answered" if lost else "it does not speak HTTP"
    return _NoAnswerError(f"{words}: {_told(fault)}", again=lost)


def _told(fault: BaseException) -> str:
    """The operating system's word for it, where there is one: the rest is Python's own."""
    inner = fault.__cause__ or fault.__context__ or (fault.args[-1] if fault.args else None)
    for one in (fault, inner):
        if isinstance(one, OSError) and one.strerror:
            return one.strerror
    return shown(str(fault), 200)


def _refusal(response: urllib3.BaseHTTPResponse, until: float) -> _NoAnswerError:
    """An answer that is no verdict: its status, and the reason code of a problem (RFC 9457)."""
    try:
        problem = strict_json.loads(_read(response, MAX_PROBLEM, until))
        reason = problem.get("reason") if isinstance(problem, dict) else None
    except (DecisionOSError, _NoAnswerError, HTTPError, OSError):
        reason = None  # what it says beside its status is help for people only
    words = f"it answered {response.status}"
    words += f" ({shown(reason, 100)})" if isinstance(reason, str) else ""
    wait = response.headers.get("Retry-After")
    if response.status == 503 and wait is not None:
        try:
            return _NoAnswerError(words, again=True, wait_sec=Retry().parse_retry_after(wait))
        except (HTTPError, ValueError, OverflowError):
            return _NoAnswerError(words)
    return _NoAnswerError(words, refused_key=response.status == 401)


def tls_of(settings: Settings) -> ssl.SSLContext:
    """How judges are spoken to over https: whose certificates are believed, and our own.

    Raises:
        UsageError: a file is not what it should be.
        KeysError: others may read our private key.
    """
    cert, key = settings.judge_cert, settings.judge_cert_key
    if key is not None and cert is None:
        raise UsageError("a key without its certificate", field="DECISIONOS_JUDGE_CERT")
    ca = settings.judge_ca
    context = _loaded("DECISIONOS_JUDGE_CA", ca, lambda: ssl.create_default_context(cafile=ca))
    if cert is not None:
        read_private(key or cert)
        # Without a password of ours OpenSSL would ask the terminal for one.
        _loaded(
            "DECISIONOS_JUDGE_CERT", cert, lambda: context.load_cert_chain(cert, key, lambda: "")
        )
    return context


def _loaded(field: str, path: Path | None, load: Callable[[], T]) -> T:
    try:
        return load()
    except (OSError, ValueError) as fault:
        raise UsageError(
            f"cannot be used: {shown(str(fault), 200)}", file=path, field=field
        ) from None
