"""The server's routes, and what every request goes through: limits, access log, metrics."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from pytest_decisionos.errors import SignatureError
from pytest_decisionos.judge.server.access_log import Row
from pytest_decisionos.judge.server.limits import DISCONNECTED, check_head, read_body
from pytest_decisionos.judge.server.metrics import CONTENT_TYPE
from pytest_decisionos.judge.server.openapi import DESCRIPTION
from pytest_decisionos.judge.server.problems import ProblemError, signature
from pytest_decisionos.judge.server.readiness import document
from pytest_decisionos.judge.server.service import Received
from pytest_decisionos.judge.wire import PATH
from pytest_decisionos.trust.bearer import local_fault, scope_fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from pytest_decisionos.judge.server.judging import Answered
    from pytest_decisionos.judge.server.service import Service

LOGGER: Final = logging.getLogger("pytest_decisionos.judge.server")
SCOPE: Final = "ops:read"
ROUTES: Final = (PATH, "/readyz", "/healthz", "/metrics", "/openapi.json")
RING_WAIT_SEC: Final = 5.0
_NOTE: Final = "decisionos.reason"
_JSON: Final = "application/json"


def make_app(service: Service) -> ASGIApp:
    """The server as an ASGI application. Whoever made ``service`` closes it."""
    handlers = Handlers(service)
    endpoints: dict[str, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
        PATH: ("POST", handlers.judge),
        "/readyz": ("GET", handlers.readyz),
        "/healthz": ("GET", handlers.healthz),
        "/metrics": ("GET", handlers.metrics),
        "/openapi.json": ("GET", handlers.openapi),
    }
    routes = [
        Route(path, endpoint, methods=[method]) for path, (method, endpoint) in endpoints.items()
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            ProblemError: _problem,
            HTTPException: _http_problem,
            Exception: _bug,  # Starlette raises it again, once it is answered
        },
    )
    app.router.redirect_slashes = False
    return Recorded(app, service)


async def _problem(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, ProblemError)  # noqa: S101 - registered for nothing else
    request.scope[_NOTE] = fault.cause or fault.reason
    return fault.response()


async def _http_problem(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, HTTPException)  # noqa: S101 - registered for nothing else
    reason = {404: "not_found", 405: "method"}.get(fault.status_code, "http")
    return await _problem(request, ProblemError(fault.status_code, reason, headers=fault.headers))


async def _bug(request: Request, _fault: Exception) -> Response:
    return await _problem(request, ProblemError(500, "internal"))


class Recorded:
    """Holds a request's head against the limits, and records every answer."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), DISCONNECTED

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            check_head(scope["headers"], _target(scope))
            await self._app(scope, receive, sending)
        except ProblemError as fault:
            scope[_NOTE] = fault.reason
            await fault.response()(scope, receive, sending)
        except Exception as bug:  # noqa: BLE001 - told as a type and a place: words may hold a secret
            self._service.metrics.faults.inc()
            place = traceback.extract_tb(bug.__traceback__)[-1]
            told = f"{type(bug).__name__} at {place.filename}:{place.lineno}"
            LOGGER.error(told)  # noqa: TRY400 - as said
        finally:
            self._record(scope, status, time.perf_counter() - began)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope["path"] if scope["path"] in ROUTES else "(unknown)"
        unsigned, reason = status == 401, scope.get(_NOTE, "")
        self._service.log.put(Row(time.time(), status, seconds * 1000, unsigned, route, reason))
        metrics = self._service.metrics
        metrics.requests.labels(route, str(status)).inc()
        metrics.latency.labels(route).observe(seconds)
        if unsigned:
            metrics.signature_errors.labels(reason).inc()


class Handlers:
    """The endpoints."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._waiting = 0
        self._description = DESCRIPTION

    async def judge(self, request: Request) -> Response:
        """POST /judge."""
        options, work = self._service.options, self._service.work
        head = Received(request.method, self._url(request.scope), _headers(request.scope), b"")
        with work.admitted(proven=self._service.proven(head)):
            body = await read_body(request, options.max_body, options.timeout_sec)
            until = time.monotonic() + options.timeout_sec
            received = head._replace(body=body)
            try:
                made = await self._answer(received, until)
            except SignatureError as fault:
                raise signature(fault.cause) from None
            return Response(made.body, media_type=_JSON, headers={"cache-control": "no-store"})

    async def _answer(self, received: Received, until: float) -> Answered:
        def call() -> Answered:
            return self._service.answer(received)

        work = self._service.work
        try:
            return await work.run(call, until - time.monotonic())
        except SignatureError as fault:
            if fault.cause != "unknown_key":
                raise
        # The key may be newer than our ring: read that again, before a valid request is refused.
        await self._read_ring(until)
        return await work.run(call, until - time.monotonic())

    async def _read_ring(self, until: float) -> None:
        """Wait for a new reading of the ring.

        No more than half of those in work may wait: strangers' keys leave room for known ones.
        """
        if 2 * self._waiting >= self._service.options.concurrency:
            raise ProblemError(503, "busy")
        self._waiting += 1
        try:
            async with asyncio.timeout(min(RING_WAIT_SEC, until - time.monotonic())):
                read = await asyncio.wrap_future(self._service.keys.read_again())
        except TimeoutError:
            read = False
        finally:
            self._waiting -= 1
        if not read:  # nobody can tell whether that key is one
            raise ProblemError(503, "keys")

    def _url(self, scope: Scope) -> str:
        """What the client must have signed as @target-uri.

        The Host header decides only between names of this very server, and the signature covers
        the outcome.
        """
        options = self._service.options
        base = options.public_url
        if base is None:
            hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            base = options.url
            if len(hosts) == 1 and hosts[0].lower() in options.hosts:
                base = f"{base.partition('//')[0]}//{hosts[0]}"
        return base + _target(scope).decode("latin-1")

    async def readyz(self, request: Request) -> Response:
        """GET /readyz."""
        faults = self._service.readiness.faults()
        explain = request.query_params.get("explain") == "1" and self._refused(request) is None
        content = document(faults, explain=explain)
        headers = {"cache-control": "no-store"}
        return Response(content, 503 if faults else 200, headers, media_type=_JSON)

    async def healthz(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's signature
        """GET /healthz: this process answers."""
        return Response(b'{"status":"ok"}', media_type=_JSON, headers={"cache-control": "no-store"})

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: for this host, because they tell causes that clients must not know."""
        options = self._service.options
        if options.public_url is None:
            fault = local_fault(
                _headers(request.scope), loopback=options.loopback, hosts=options.hosts
            )
        else:  # a proxy of this host may bring others here, and not say so
            fault = self._refused(request)
        if fault is not None:
            raise ProblemError(403, "scope", fault)
        content = await self._service.work.run(self._service.metrics.text, options.timeout_sec)
        return Response(content, headers={"content-type": CONTENT_TYPE})

    async def openapi(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's signature
        """GET /openapi.json."""
        return Response(self._description, media_type=_JSON)

    def _refused(self, request: Request) -> str | None:
        options = self._service.options
        return scope_fault(
            _headers(request.scope),
            SCOPE,
            granted=options.settings.allow_scopes,
            loopback=options.loopback,
            hosts=options.hosts,
        )


def _headers(scope: Scope) -> list[tuple[str, str]]:
    listed: list[tuple[bytes, bytes]] = list(scope["headers"])
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in listed]


def _target(scope: Scope) -> bytes:
    """Path and query as they came."""
    raw: Any = scope.get("raw_path")
    path = raw if isinstance(raw, bytes) else quote(scope["path"]).encode()
    query: bytes = scope["query_string"]
    return path + b"?" + query if query else path
