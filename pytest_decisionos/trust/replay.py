"""Replay stores: each nonce of a verified request is accepted once, or nobody is answered.

A store keeps two things: the names of nonces, each with the second in which its request was made,
and ``since``, the last second whose requests it refuses. Two rules make it honest, whatever clocks
do:

1. What it does not know, it refuses if it may have forgotten it. A store that is new, or that may
   have lost something, sets ``since`` to now and the skew: no request that was accepted before can
   be younger, because a request from further ahead is no valid one. It is the only time that a
   store looks at a clock.
2. It forgets by the requests, not by a clock. A request made at ``created`` was just found valid,
   so no request made ``life_sec`` before that can be valid any more; in the same step as the store
   forgets those, ``since`` rises to there. So what was forgotten is refused, even if a clock jumps
   ahead, nonces are forgotten, and the clock jumps back. A clock that is wrong verifies nothing,
   hence makes no store forget.

``created`` counts whole seconds (RFC 9421 §2.3), rounded down: so does ``since``, and what was made
in that very second is refused.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from pytest_decisionos.errors import SignatureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

FRESH_SEC: Final = 0.5
"""How long an answer of ``Probe`` holds: readiness is asked far more often than it changes."""
PATIENCE_SEC: Final = 0.8
"""How long ``Probe`` waits for an answer; whoever asks for readiness waits a second."""


class ReplayStore(Protocol):
    """Where nonces are claimed. Threads may share one; so may processes and, on Redis, hosts.

    Each process opens its own.
    """

    def claim(self, key_id: str, nonce: str, *, created: datetime) -> None:
        """Claim ``nonce`` of ``key_id``: of all who try, within its life, one succeeds.

        Args:
            key_id: the key that signed the request; each has nonces of its own.
            nonce: of the request, at most 256 characters.
            created: when the request says that it was made. It was verified, and is not too old
                nor too far ahead.

        Raises:
            SignatureError: ``replayed``: it was claimed before; ``older_than_store``: it was made
                before the store began to remember, so nobody can tell.
            ReplayStoreError: nobody can tell: an error, or a store that may have forgotten.
        """

    def fault(self) -> str | None:
        """Why the store cannot be relied on now; None if it can. Never raises, nor takes a second."""

    def close(self) -> None:
        """Let go of files and connections."""


def open_store(url: str, *, life_sec: float, skew_sec: float) -> ReplayStore:
    """The replay store that ``url`` names.

    Args:
        url: ``redis://…``, ``rediss://…`` or ``unix://…``; anything else is a file for SQLite.
        life_sec: how long a nonce is remembered: the longest age of a request and twice the skew.
        skew_sec: how far the clocks of those who ask may be ahead of ours.

    Raises:
        UsageError: it needs the extra ``redis``, which is not installed; or it is no URL.
        ReplayStoreError: it cannot be opened, or is not honest.
    """
    if url.startswith(("redis://", "rediss://", "unix://")):
        try:
            from pytest_decisionos.trust.replay_redis import RedisStore  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as fault:
            if (fault.name or "").partition(".")[0] != "redis":
                raise
            raise UsageError(
                "a replay store on Redis needs the Python package redis",
                next_step="pip install 'pytest-decisionos[redis]'",
            ) from None
        return RedisStore(url, life_sec=life_sec, skew_sec=skew_sec)
    if "://" in url or not url:  # it may hold a password: not told
        raise UsageError("no replay store", expected="redis://…, rediss://…, unix://… or a file")
    from pytest_decisionos.trust.replay_sqlite import SqliteStore  # noqa: PLC0415 - as above

    return SqliteStore(Path(url), life_sec=life_sec, skew_sec=skew_sec)


def name_of(key_id: str, nonce: str) -> bytes:
    """What a store calls the nonce: 32 bytes, whatever characters it and the key id are made of."""
    text = f"{len(key_id)}:{key_id}{nonce}"
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def refusal(key_id: str, nonce: str, made: int, since: int) -> SignatureError:
    """Why a nonce that was not taken up was not: it is older than the memory, or known to it."""
    if made <= since:
        return SignatureError(
            "the request was made before the replay store began to remember",
            cause="older_than_store",
            found=_iso(made),
            expected=f"after {_iso(since)}",
            next_step="sign and send it anew",
        )
    return SignatureError(
        "the nonce was used before", cause="replayed", found=f"{nonce} of {key_id}"
    )


def too_young(since: int, now: float, skew_sec: float) -> str | None:
    """That the store refuses what is made now, by a clock that is right or behind; None if not."""
    if math.floor(now - skew_sec) > since:
        return None
    return f"the replay store is too young: it refuses what was made until {_iso(since)}"


def _iso(second: int) -> str:
    try:
        return datetime.fromtimestamp(second, UTC).isoformat()
    except (ValueError, OverflowError, OSError):  # no year has it
        return f"{second} s"


class Probe:
    """The latest answer to a question that may block, for those who must not.

    It is asked in a thread of its own, when somebody wants to know and the last answer is older
    than ``FRESH_SEC``. That even a name server that hangs holds nobody up.
    """

    def __init__(self, ask: Callable[[], str | None]) -> None:
        """``ask`` gives a fault, or None; it may raise."""
        self._ask = ask
        self._lock = threading.Lock()
        self._asked = -math.inf
        self._answer: Future[str | None] = Future()
        self._answer.set_result(None)

    def __call__(self) -> str | None:
        """The fault that was found; also that nothing answers within ``PATIENCE_SEC``."""
        with self._lock:
            now = time.monotonic()
            if self._answer.done() and now - self._asked >= FRESH_SEC:
                self._asked, self._answer = now, Future()
                self._start(self._answer)
            asked, answer = self._asked, self._answer
        try:
            return answer.result(timeout=max(0.0, asked + PATIENCE_SEC - time.monotonic()))
        except TimeoutError:
            return f"the replay store does not answer within {PATIENCE_SEC:g} s"

    def _start(self, answer: Future[str | None]) -> None:
        thread = threading.Thread(
            target=self._run, args=(answer,), name="replay-probe", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # as many threads as there may be
            answer.set_result("no thread can be started to ask the replay store")

    def _run(self, answer: Future[str | None]) -> None:
        try:
            answer.set_result(self._ask())
        except Exception as fault:  # noqa: BLE001 - whatever it is, the store cannot be relied on
            answer.set_result(str(fault))
