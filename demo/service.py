"""One release of a service, which behaves or misbehaves as it is told: HTTP/1.1 with asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from typing import Final, Literal

Behaviour = Literal["healthy", "slow", "errors", "burst", "hang", "dead"]
_LIMIT: Final = 65_536


class Upstream:
    """One release of the service: HTTP/1.1 on a free port of loopback.

    Attributes:
        release: what it says it is, in each answer.
        port: where it listens.
        took_ms: the least and the most that it takes for an answer.
        slow_ms: what it takes more when it is slow.
        behaviour: ``healthy``: nothing special. ``slow``: it is. ``errors``: 5 % are status
            500. ``burst``: half of them are, for ``burst_sec``, then none. ``hang``: it takes
            requests and never answers. ``dead``: nobody listens any more.
        users: requests that it got from users.
        copies: requests that were marked as copies.
        bodies: what it was sent, and how often; empty ones do not count.
        paths: what it was asked for, and how often.
    """

    def __init__(
        self,
        release: str,
        *,
        took_ms: tuple[float, float] = (2.0, 6.0),
        slow_ms: float = 60.0,
        burst_sec: float = 20.0,
    ) -> None:
        self.release = release
        self.behaviour: Behaviour = "healthy"
        self.burst_sec = burst_sec
        self.took_ms = took_ms
        self.slow_ms = slow_ms
        self.port = 0
        self.users = 0
        self.copies = 0
        self.bodies: Counter[bytes] = Counter()
        self.paths: Counter[str] = Counter()
        self._since = time.monotonic()
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.StreamWriter] = set()
        self._random = random.Random(release)  # noqa: S311 - it need not be unguessable

    async def start(self) -> None:
        """Listen; on the port of before, if it was dead."""
        self._server = await asyncio.start_server(
            self._talk, "127.0.0.1", self.port, limit=_LIMIT, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything, also what is under way, as a killed process would."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._talks):
            writer.transport.abort()

    async def become(self, behaviour: Behaviour) -> None:
        """Behave so from now on."""
        self._since = time.monotonic()
        self.behaviour = behaviour
        if behaviour == "dead":
            await self.stop()
        elif self._server is None:
            await self.start()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._talks.add(writer)
        with contextlib.suppress(
            OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError
        ):
            while await self._answer(reader, writer):
                pass
        self._talks.discard(writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection is good for another."""
        first, headers = await head(reader)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("x-decisionos-shadow"):
            self.copies += 1
        else:
            self.users += 1
        path = first.split(" ")[1]
        self.paths[path] += 1
        if body:
            self.bodies[body] += 1
        if self.behaviour == "hang":
            await reader.read(1)  # until the other side gives up
            return False
        status = await self._behave()
        say = {"release": self.release, "path": path}
        answer = json.dumps(say).encode()
        writer.write(
            f"HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(answer)}\r\n\r\n".encode()
            + answer
        )
        await writer.drain()
        return headers.get("connection", "").lower() != "close"

    async def _behave(self) -> int:
        """Take the time that it takes; the status."""
        took = self._random.uniform(*self.took_ms) / 1000
        if self.behaviour == "slow":
            took += self.slow_ms / 1000
        await asyncio.sleep(took)
        in_burst = time.monotonic() - self._since < self.burst_sec
        share = {"errors": 0.05, "burst": 0.5 if in_burst else 0.0}.get(self.behaviour, 0.0)
        return 500 if self._random.random() < share else 200


async def head(reader: asyncio.StreamReader, begun: bytes = b"") -> tuple[str, dict[str, str]]:
    """The first line of a message, and its headers by lower-case name."""
    text = (begun + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = text.rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}
