"""The server as processes: one that serves by itself, or one that minds several workers."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_decisionos.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.context import SpawnProcess

    from pytest_decisionos.judge.server.options import ServeOptions

BACKLOG: Final = 1024
RESTART_SEC: Final = 1.0
KILL_SEC: Final = 10.0
"""How much longer than its own time to drain a worker may take before it is killed."""
WILDCARDS: Final = ("0.0.0.0", "::", "")  # noqa: S104 - they are what is looked for


def serve(options: ServeOptions, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is in work, and return.

    Args:
        options: what to serve.
        say: is told the address, once it listens, and what becomes of workers.

    Raises:
        DecisionOSError: it cannot start: the address is taken, a key is missing or open to others,
            no ring is configured, the replay store is not honest, TLS files cannot be used.
    """
    if options.host in WILDCARDS and options.public_url is None:
        raise UsageError(
            "clients sign the address that they ask, and this one is nobody's",
            field="--host",
            found=options.host,
            next_step="name the address that clients use with --public-url",
        )
    # Until somebody handles it, it would end this process; it is taken up then.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    with _listening(options) as listener:
        options = dataclasses.replace(options, port=listener.getsockname()[1])
        if options.workers == 1:
            from pytest_decisionos.judge.server.worker import serve_here  # noqa: PLC0415 - loads uvicorn

            serve_here(options, listener, lambda: say(f"listening on {options.url}"))
            return
        with tempfile.TemporaryDirectory(prefix="decisionos-judge-") as folder:
            options = dataclasses.replace(options, shared=Path(folder))
            metrics = Path(folder) / "metrics"
            metrics.mkdir(mode=0o700)
            # The library reads it when it is loaded, here for the try and in each worker.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
            _try(options)
            say(f"listening on {options.url}")
            Supervisor(options, listener, say).run()


@contextlib.contextmanager
def _listening(options: ServeOptions) -> Iterator[socket.socket]:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, UnicodeError, OverflowError) as fault:
        why = "not an address"
        if isinstance(fault, OSError):  # create_server adds the address, which is told below
            plain = not isinstance(fault, socket.gaierror) and fault.errno is not None
            why = os.strerror(fault.errno or 0) if plain else str(fault.strerror)
        raise UsageError(
            f"cannot listen: {why}", field="--host, --port", found=f"{options.host}:{options.port}"
        ) from None
    with listener:
        # What it accepts inherits it. asyncio sets it itself only on sockets that name their protocol,
        # and without it each answer waits 40 ms for the client to confirm its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


def _try(options: ServeOptions) -> None:
    """Open everything once: what keeps workers from starting is said once, and ends it."""
    from pytest_decisionos.judge.server.service import Service  # noqa: PLC0415 - loads starlette
    from pytest_decisionos.judge.server.tls import tls_context  # noqa: PLC0415 - only with workers

    if options.tls is not None:
        tls_context(options.tls)
    Service(options).close()


class Supervisor:
    """Minds workers that share one listener: starts them again, hands signals on, ends them."""

    def __init__(
        self, options: ServeOptions, listener: socket.socket, say: Callable[[str], None]
    ) -> None:
        self._options, self._listener, self._say = options, listener, say
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[SpawnProcess] = []
        self._caught: list[int] = []

    def run(self) -> None:
        """Mind them until SIGTERM or SIGINT."""
        awake, wake = socket.socketpair()
        with awake, wake, self._catching(wake):
            self._workers = [self._start() for _ in range(self._options.workers)]
            while not {signal.SIGTERM, signal.SIGINT} & set(self._caught):
                wait([awake, *(worker.sentinel for worker in self._workers)])
                time.sleep(0)
                self._hand_on(awake)
                self._mind()
            self._end()

    @contextlib.contextmanager
    def _catching(self, wake: socket.socket) -> Iterator[None]:
        wake.setblocking(False)

        def catch(number: int, _frame: object) -> None:
            self._caught.append(number)
            with contextlib.suppress(BlockingIOError):
                wake.send(b"\0")

        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {one: signal.signal(one, catch) for one in signals}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _start(self) -> SpawnProcess:
        worker = self._context.Process(target=_work, args=(self._options, self._listener))
        # A worker that does not know it yet would end by it; it takes it up when it can.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            worker.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        return worker

    def _hand_on(self, awake: socket.socket) -> None:
        awake.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            awake.recv(4096)
        while signal.SIGHUP in self._caught:
            self._caught.remove(signal.SIGHUP)
            for worker in self._workers:
                if worker.pid is not None and worker.is_alive():
                    os.kill(worker.pid, signal.SIGHUP)

    def _mind(self) -> None:
        for index, worker in enumerate(self._workers):
            if worker.is_alive() or self._caught:
                continue
            self._say(f"worker {worker.pid} ended with {worker.exitcode}; another one starts")
            worker.close()
            time.sleep(RESTART_SEC)
            self._workers[index] = self._start()

    def _end(self) -> None:
        self._listener.close()  # it is the workers' too: the last of them to close it refuses
        for worker in self._workers:
            worker.terminate()
        until = time.monotonic() + 2 * self._options.timeout_sec + KILL_SEC
        for worker in self._workers:
            worker.join(max(0.1, until - time.monotonic()))
            if worker.is_alive():
                worker.kill()
                worker.join()


def _work(options: ServeOptions, listener: socket.socket) -> None:
    """What a worker runs."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - it is started by one

    def follow() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)  # nobody minds it any more

    threading.Thread(target=follow, name="follow-parent", daemon=True).start()
    from pytest_decisionos.judge.server.worker import work  # noqa: PLC0415 - loads uvicorn

    work(options, listener)
