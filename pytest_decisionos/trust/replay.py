"""Replay stores: each nonce of a verified request is accepted once, or nobody is answered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime


class ReplayStore(Protocol):
    """Where nonces are claimed. Threads may share one; so may processes and, on Redis, hosts."""

    def claim(self, key_id: str, nonce: str, *, created: datetime) -> None:
        """Claim ``nonce`` of ``key_id``: of all who try, within its life, one succeeds.

        Args:
            key_id: the key that signed the request; each has nonces of its own.
            nonce: of the request, at most 256 characters.
            created: when the request says that it was made.

        Raises:
            SignatureError: ``replayed``: it was claimed before; ``older_than_store``: it was made
                before the store began to remember, so nobody can tell.
            ReplayStoreError: nobody can tell: an error, or a store that may have forgotten.
        """

    def fault(self) -> str | None:
        """Why the store cannot be relied on now; None if it can. Never raises."""

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
        from pytest_decisionos.trust.replay_redis import RedisStore  # noqa: PLC0415 - an extra

        return RedisStore(url, life_sec=life_sec, skew_sec=skew_sec)
    from pytest_decisionos.trust.replay_sqlite import SqliteStore  # noqa: PLC0415 - as above

    return SqliteStore(Path(url), life_sec=life_sec, skew_sec=skew_sec)
