"""Users of a service, and what became of each request of theirs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections import Counter
from typing import Any, Final, NamedTuple

from demo.service import head

ROUTES: Final = ("/pay/card", "/cart", "/items/42?page=2")


class Answer(NamedTuple):
    """What became of one request.

    Attributes:
        user: who asked.
        started: when, epoch seconds.
        latency_ms: until the last byte of the answer, or until it was lost.
        status: of the answer; None if there was none.
        release: which release answered; empty if none did, as with a 502.
        retried: sent twice, because an idle connection turned out to be closed.
        why: how it was lost.
    """

    user: str
    started: float
    latency_ms: float
    status: int | None
    release: str
    retried: bool
    why: str = ""


class Account(NamedTuple):
    """Every request, accounted for: ``sent`` is ``answered`` and ``lost``."""

    answers: tuple[Answer, ...]

    @property
    def sent(self) -> int:
        """How many requests began."""
        return len(self.answers)

    @property
    def answered(self) -> int:
        """How many got an answer, of whatever status."""
        return sum(one.status is not None for one in self.answers)

    @property
    def lost(self) -> int:
        """How many got none: the connection broke while they were under way, or timed out."""
        return self.sent - self.answered

    @property
    def retried(self) -> int:
        """How many went over an idle connection that had just been closed, and then over another."""
        return sum(one.retried for one in self.answers)

    @property
    def statuses(self) -> Counter[int | None]:
        """How many of each status."""
        return Counter(one.status for one in self.answers)

    @property
    def releases(self) -> Counter[str]:
        """How many each release answered."""
        return Counter(one.release for one in self.answers)

    def since(self, start: float) -> Account:
        """Only what began from ``start`` on, epoch seconds."""
        return Account(tuple(one for one in self.answers if one.started >= start))

    def quantile(self, share: float) -> float:
        """Latency in ms that ``share`` of the answers stayed within."""
        times = sorted(one.latency_ms for one in self.answers)
        return times[max(0, math.ceil(share * len(times)) - 1)] if times else math.nan


class _ClosedError(Exception):
    """A reused connection turned out to be closed before a byte of the answer came."""


class Load:
    """Users with a connection each, which stay on it, and come ``rate`` times a second together.

    A request is sent a second time only if the connection had been idle and was closed before any
    byte of the answer: that is what clients do (RFC 9112 §9.3.1), and the requests are all GET.
    """

    def __init__(
        self, port: int, *, users: int = 50, rate: float = 200.0, timeout_sec: float = 15.0
    ) -> None:
        self._port = port
        self._users = [f"u{number}" for number in range(users)]
        self._pause = users / rate
        self._timeout_sec = timeout_sec
        self._answers: list[Answer] = []
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Send until ``end``; what is under way then is awaited."""
        await asyncio.gather(*(self._user(n, name) for n, name in enumerate(self._users)))

    def end(self) -> None:
        """Send no more."""
        self._ended.set()

    def account(self) -> Account:
        """Everything until now; what is still under way is not in it."""
        return Account(tuple(self._answers))

    async def _user(self, number: int, name: str) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        due = time.monotonic() + self._pause * number / len(self._users)
        for turn in range(10**9):
            wait = due - time.monotonic()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), max(0.0, wait))
            if self._ended.is_set():
                break
            due = max(due + self._pause, time.monotonic())
            path = ROUTES[(number + turn) % len(ROUTES)]
            connection = await self._request(name, path, connection)
        if connection is not None:
            await _close(connection[1])

    async def _request(
        self, name: str, path: str, connection: tuple[Any, Any] | None
    ) -> tuple[Any, Any] | None:
        """Send one, and keep what became of it; the connection, if it is good for another."""
        started, begin, retried = time.time(), time.monotonic(), False
        status, release, why, keep = None, "", "", False
        try:
            async with asyncio.timeout(self._timeout_sec):
                while True:
                    if connection is not None and connection[0].at_eof():
                        await _close(connection[1])  # seen in time: as good as none
                        connection = None
                    reused = connection is not None
                    if connection is None:
                        connection = await asyncio.open_connection("127.0.0.1", self._port)
                    try:
                        status, release, keep = await _exchange(connection, name, path, reused)
                        break
                    except _ClosedError:
                        await _close(connection[1])
                        connection, retried = None, True
        except (OSError, TimeoutError, ValueError, EOFError) as fault:
            why = f"{type(fault).__name__}: {fault}"
        took = (time.monotonic() - begin) * 1000
        self._answers.append(Answer(name, started, took, status, release, retried, why))
        if connection is not None and not keep:
            await _close(connection[1])
            connection = None
        return connection


async def _exchange(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    name: str,
    path: str,
    reused: bool,
) -> tuple[int, str, bool]:
    """Send a request; status, release, and whether the connection stays."""
    reader, writer = connection
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: demo\r\nCookie: user={name}\r\n"
            f"X-Tenant: t{len(name)}\r\n\r\n".encode()
        )
        await writer.drain()
        first = await reader.readexactly(1)
    except (OSError, EOFError):
        if reused:
            raise _ClosedError from None
        raise
    line, headers = await head(reader, first)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    status = int(line.split(" ")[1])
    release = ""
    if headers.get("content-type") == "application/json":
        release = str(json.loads(body)["release"])
    return status, release, headers.get("connection", "").lower() != "close"


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        await asyncio.wait_for(writer.wait_closed(), 5)
