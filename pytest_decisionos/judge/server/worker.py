"""One process that serves: uvicorn with our limits, and signals that drain or reload."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, Final

import uvicorn

from pytest_decisionos.errors import DecisionOSError
from pytest_decisionos.judge.server.app import make_app
from pytest_decisionos.judge.server.protocol import HEAD_SEC, BoundedProtocol
from pytest_decisionos.judge.server.service import Service
from pytest_decisionos.judge.server.tls import load_certificate, tls_context

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from pytest_decisionos.judge.server.options import ServeOptions

MAX_CONNECTIONS: Final = 512
"""Of one worker. Beyond it uvicorn answers 503 by itself."""
MAX_HEAD: Final = 64 * 1024
KEEP_ALIVE_SEC: Final = 5
MAX_FILES: Final = 4096
"""Open files that one worker asks the system for: a full queue of the listener, and its own."""
DRAIN_SEC: Final = 5.0
"""How much longer than a request may take its answer may, once the server shall end."""


def serve_here(
    options: ServeOptions, listener: socket.socket, ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is in work, and return.

    Args:
        options: what to serve.
        listener: a socket that listens.
        ready: is called once requests are taken.

    Raises:
        DecisionOSError: it cannot start.
    """
    _ask_for_files()
    context = tls_context(options.tls) if options.tls else None
    service = Service(options)

    def reload() -> None:
        try:
            service.reload()
            if options.tls and context:
                load_certificate(context, options.tls)
        except DecisionOSError as fault:
            sys.stderr.write(f"not reloaded: {fault}\n")

    # A stranger's nonsense is no news; errors go to standard error, as logging's last resort does.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = uvicorn.Config(
        make_app(service),
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SEC,
        timeout_graceful_shutdown=int(2 * options.timeout_sec + DRAIN_SEC),
        h11_max_incomplete_event_size=MAX_HEAD,
        ssl_context_factory=(lambda _config, _default: context) if context else None,
    )
    try:
        server = _Server(config, reload, ready)
        with _quiet_end(server):
            server.run(sockets=[listener])
    finally:
        service.close()


class _Server(uvicorn.Server):
    """uvicorn's, which knows no SIGHUP."""

    def __init__(
        self, config: uvicorn.Config, reload: Callable[[], None], ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._reload, self._ready = reload, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        loop = asyncio.get_running_loop()
        if self.config.is_ssl:  # uvicorn has no option for it, and a minute is asyncio's default
            make = functools.partial(loop.create_server, ssl_handshake_timeout=HEAD_SEC)
            loop.create_server = make  # type: ignore[method-assign]  # as said
        await super().startup(sockets)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        # Blocked until now by who started this: before, it would have ended this process.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is in work."""
        await super().shutdown(sockets)
        # The loop forgets our handler when it closes: then SIGHUP would end us before all is kept.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def _ask_for_files() -> None:
    """Strangers' connections must not use up the files that logs and keys are read through."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def _quiet_end(server: uvicorn.Server) -> Iterator[None]:
    """Uvicorn raises the signal that ended it once more; to end in order is no failure here.

    One that comes before uvicorn listens to signals must end it all the same.
    """

    def end(_number: int, _frame: object) -> None:
        server.should_exit = True

    signals = (signal.SIGTERM, signal.SIGINT)
    before = {one: signal.signal(one, end) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def work(options: ServeOptions, listener: socket.socket) -> None:
    """Serve as one of several workers."""
    try:
        serve_here(options, listener)
    except DecisionOSError as fault:
        sys.stderr.write(f"error: worker {os.getpid()}: {fault}\n")
        sys.exit(int(fault.exit_code))
