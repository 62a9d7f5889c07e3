"""Limits on what comes from outside: headers, body, time, and how much is in work at a time."""

from __future__ import annotations

import asyncio
import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from pytest_decisionos.judge.server.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from starlette.requests import Request

T = TypeVar("T")
MAX_HEADERS: Final = 64
MAX_HEADER_BYTES: Final = 32 * 1024
MAX_TARGET: Final = 8 * 1024
THREADS: Final = 8
DRAINED: Final = 8 * 1024 * 1024
"""How much of a refused body is read and thrown away: a client that is still sending would see its
connection break, and not the answer."""
DRAIN_SEC: Final = 2.0
DISCONNECTED: Final = 499
"""What the access log says of a client that went away; nobody gets that answer."""
_JSON: Final = re.compile(r'application/json(\s*;\s*charset="?utf-8"?)?\s*', re.IGNORECASE)


def check_head(headers: Sequence[tuple[bytes, bytes]], target: bytes) -> None:
    """Hold a request's head against the limits.

    Raises:
        ProblemError: 414 ``target_too_long`` or 431 ``headers_too_large``.
    """
    close = {"connection": "close"}
    if len(target) > MAX_TARGET:
        raise ProblemError(414, "target_too_long", f"at most {MAX_TARGET:,} bytes", headers=close)
    size = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        told = f"at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES:,} bytes together"
        raise ProblemError(431, "headers_too_large", told, headers=close)


async def read_body(request: Request, max_body: int, timeout_sec: float) -> bytes:
    """The body of a request, however it is framed.

    Raises:
        ProblemError: 415 ``media_type``, 413 ``body_too_large``, 408 ``body_timeout``; 499 if the
            client went away.
    """
    try:
        async with asyncio.timeout(timeout_sec):
            return await _read(request, max_body)
    except TimeoutError:
        told = f"the body did not come within {timeout_sec:g} s"
        raise ProblemError(408, "body_timeout", told, headers={"connection": "close"}) from None


async def _read(request: Request, max_body: int) -> bytes:
    types = request.headers.getlist("content-type")
    if len(types) != 1 or not _JSON.fullmatch(types[0]) or "content-encoding" in request.headers:
        await _drain(request)
        raise ProblemError(415, "media_type", "expected application/json, not encoded")
    length = request.headers.get("content-length", "")
    more = True
    if not (len(length) < 20 and length.isascii() and length.isdigit() and int(length) > max_body):
        body = bytearray()
        while more and len(body) <= max_body:
            part, more = await _part(request)
            body += part
        if len(body) <= max_body:
            return bytes(body)
    if more:
        await _drain(request)
    told = f"a body may have {max_body:,} bytes"
    raise ProblemError(413, "body_too_large", told, headers={"connection": "close"})


async def _part(request: Request) -> tuple[bytes, bool]:
    """The next part of the body, and whether there is more."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ProblemError(DISCONNECTED, "disconnected")
    return message.get("body", b""), message.get("more_body", False)


async def _drain(request: Request) -> None:
    """Throw away what still comes, within bounds."""
    size, more = 0, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SEC):
            while more and size <= DRAINED:
                part, more = await _part(request)
                size += len(part)


class Work:
    """Blocking work in threads, so much at a time and no more.

    A piece that took too long is not waited for; it counts as in work until it has really ended.
    """

    def __init__(self, at_a_time: int) -> None:
        # Of who proves a key, and of who does not: strangers take nobody's place who does.
        self._free = {True: at_a_time, False: at_a_time}
        self._threads = ThreadPoolExecutor(min(at_a_time, THREADS), thread_name_prefix="judge")

    @contextlib.contextmanager
    def admitted(self, *, proven: bool) -> Iterator[None]:
        """Be one of those in work.

        Args:
            proven: whether the request's head is signed by a key of the ring.

        Raises:
            ProblemError: 503 ``busy``: there are too many.
        """
        if self._free[proven] <= 0:
            raise ProblemError(503, "busy", headers={"connection": "close"})
        self._free[proven] -= 1
        try:
            yield
        finally:
            self._free[proven] += 1

    async def run(self, call: Callable[[], T], timeout_sec: float) -> T:
        """What ``call`` returns.

        Raises:
            ProblemError: 503 ``timeout``.
        """
        working = self._threads.submit(call)
        done = asyncio.wrap_future(working)
        await asyncio.wait({done}, timeout=timeout_sec)
        if done.done():
            return done.result()
        if not working.cancel():
            self._free[True] -= 1
            done.add_done_callback(self._ended)
        raise ProblemError(503, "timeout", f"no answer within {timeout_sec:g} s")

    def _ended(self, late: asyncio.Future[T]) -> None:
        self._free[True] += 1
        if not late.cancelled():
            late.exception()  # nobody waits for it any more

    def close(self) -> None:
        """Let no more begin; what runs ends with the process."""
        self._threads.shutdown(wait=False, cancel_futures=True)
