"""HTTP/1.1 by uvicorn and h11, with a limit on how long a request's head may take to come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from pytest_decisionos.judge.server.problems import ProblemError

if TYPE_CHECKING:
    import asyncio

HEAD_SEC: Final = 10.0


class BoundedProtocol(H11Protocol):
    """Closes a connection that sends no whole head in time; uvicorn alone waits for ever."""

    late: asyncio.TimerHandle | None = None
    """Runs while there is no request in work: when it is closed."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's
        """Begin to wait."""
        super().connection_made(transport)
        self._make_room()
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait on, unless a request is in work now."""
        super().data_received(data)
        self._wait()

    def on_response_complete(self) -> None:
        """Uvicorn waits for the next request by itself, but only for its first byte."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop()
        super().connection_lost(exc)

    def _make_room(self) -> None:
        """Close who keeps a connection without a request for the longest, if there are too many.

        Else uvicorn would refuse everybody for as long as strangers hold that many.
        """
        if self.limit_concurrency is None or len(self.connections) < self.limit_concurrency:
            return
        idle = [
            (one.late.when(), one)
            for one in self.connections
            if isinstance(one, BoundedProtocol) and one.late is not None
        ]
        if idle:
            min(idle, key=lambda pair: pair[0])[1].drop()

    def _wait(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._stop()
        elif self.late is None:
            self.late = self.loop.call_later(HEAD_SEC, self.drop)

    def _stop(self) -> None:
        if self.late is not None:
            self.late.cancel()
            self.late = None

    def drop(self) -> None:
        """Close it at once."""
        self._stop()
        self.transport.abort()  # who does not read an answer to its end is not waited for either

    def send_400_response(self, msg: str) -> None:
        """Say that it is not HTTP, as every other error is said."""
        response = ProblemError(400, "malformed", msg).response()
        headers: list[tuple[bytes, bytes]] = [*response.raw_headers, (b"connection", b"close")]
        events: list[Any] = [
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        ]
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
