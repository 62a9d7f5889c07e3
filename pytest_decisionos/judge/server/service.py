"""Everything that one worker of the server holds open: keys, nonces, numbers, log, readiness."""

from __future__ import annotations

import os
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from pytest_decisionos.errors import KeysError, ReplayStoreError, SignatureError
from pytest_decisionos.judge.server.access_log import AccessLog
from pytest_decisionos.judge.server.documents import Seals
from pytest_decisionos.judge.server.judging import answer, load_judge, parse_question
from pytest_decisionos.judge.server.limits import Work
from pytest_decisionos.judge.server.metrics import Metrics
from pytest_decisionos.judge.server.numbers import Numbers
from pytest_decisionos.judge.server.problems import ProblemError
from pytest_decisionos.judge.server.readiness import (
    Probe,
    Readiness,
    active_fault,
    folder_fault,
    keys_fault,
)
from pytest_decisionos.judge.wire import MAX_AGE_SEC
from pytest_decisionos.settings import split
from pytest_decisionos.trust.clock import clock_fault
from pytest_decisionos.trust.http_sign import verify_head, verify_request
from pytest_decisionos.trust.refresh import INTERVAL_SEC, RefreshingRing
from pytest_decisionos.trust.replay import open_store
from pytest_decisionos.trust.sources import place_of, ring_of

if TYPE_CHECKING:
    from pytest_decisionos.judge.server.judging import Answered, Judge
    from pytest_decisionos.judge.server.options import ServeOptions
    from pytest_decisionos.settings import Settings
    from pytest_decisionos.trust.keys import KeyRing
    from pytest_decisionos.trust.replay import ReplayStore

FILE_INTERVAL_SEC = 1.0
"""A ring in a file costs nothing to read, so a revoked key is out at once."""


class Received(NamedTuple):
    """A request as it came: ``url`` is what its client must have signed."""

    method: str
    url: str
    headers: list[tuple[str, str]]
    body: bytes


class Service:
    """A judge that is open for questions."""

    def __init__(self, options: ServeOptions) -> None:
        """Open everything.

        Raises:
            DecisionOSError: no judge's key, no ring, or a replay store that is not honest: then it
                does not start.
        """
        self.options = options
        self._judge = load_judge(options)
        self._seals = Seals()
        settings = options.settings
        place = place_of(settings)
        with ExitStack() as opened:
            self.keys = RefreshingRing(
                lambda: must_ring(settings),
                interval_sec=FILE_INTERVAL_SEC if place and place.kind == "file" else INTERVAL_SEC,
            )
            opened.callback(self.keys.close)
            self.store = replay_store(options)
            opened.callback(self.store.close)
            self.metrics = Metrics()
            self.log = AccessLog(options.access_log, self.metrics.log_drops.inc)
            opened.callback(self.log.close)
            self.work = Work(options.concurrency)
            opened.callback(self.work.close)
            self.numbers = Numbers(
                options.judge, options.witness_root, options.peer, options.shared
            )
            self.readiness = Readiness(self._probes())
            opened.callback(self.readiness.close)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Let go of everything; what was written stays."""
        self._opened.close()

    def reload(self) -> None:
        """Take up rotated keys and an edited gate.yaml; what is unusable changes nothing.

        Raises:
            DecisionOSError: why something stays as it was.
        """
        self.keys.refresh_now()
        self._judge = load_judge(self.options)

    @property
    def judge(self) -> Judge:
        """Who judges."""
        return self._judge

    def proven(self, head: Received) -> bool:
        """Whether the head of a request is signed by a key of the ring; its body is not looked at."""
        try:
            verify_head(
                head.method,
                head.url,
                head.headers,
                ring=self.keys.ring(),
                now=datetime.now(UTC),
                max_age_sec=MAX_AGE_SEC,
                max_skew_sec=self.options.settings.max_skew,
            )
        except (SignatureError, KeysError):
            return False
        return True

    def answer(self, request: Received) -> Answered:
        """Verify a request, claim its nonce, judge and sign. It blocks.

        Raises:
            SignatureError: it is not proven to come from somebody with a key, or was seen before.
            ProblemError: anything else that keeps it from being answered.
        """
        settings, now = self.options.settings, datetime.now(UTC)
        try:
            ring = self.keys.ring()
        except KeysError:  # readiness says why
            raise ProblemError(503, "keys") from None
        verified = verify_request(
            request.method,
            request.url,
            request.headers,
            request.body,
            ring=ring,
            now=now,
            max_age_sec=MAX_AGE_SEC,
            max_skew_sec=settings.max_skew,
        )
        try:
            self.store.claim(verified.key_id, verified.nonce, created=verified.created)
        except SignatureError as fault:
            self.metrics.replay_refusals.labels(fault.cause).inc()
            raise
        except ReplayStoreError:
            self.metrics.replay_refusals.labels("replay_store").inc()
            raise ProblemError(503, "replay_store") from None
        made = answer(
            parse_question(request.body, self.options.max_body),
            self._judge,
            self.numbers,
            self._seals,
            nonce=verified.nonce,
            ring=ring,
            now=now,
            max_skew_sec=settings.max_skew,
        )
        self.metrics.verdicts.labels(made.vote.value).inc()
        return made

    def _probes(self) -> list[Probe]:
        settings, options = self.options.settings, self.options
        ntp = split(settings.ntp)
        near = {
            "keys": lambda: keys_fault(self.keys),
            "active_key": lambda: active_fault(self.keys),
            "witness_root": lambda: folder_fault(options.witness_root),
            "access_log": self.log.fault,
        }
        clock = {"clock": lambda: clock_fault(ntp, settings.max_skew)}
        return [
            Probe(near),
            Probe({"replay_store": self.store.fault}),
            Probe(clock, every_sec=10.0, stale_sec=30.0),
        ]


def must_ring(settings: Settings) -> KeyRing:
    """The ring that the environment configures.

    Raises:
        KeysError: it configures none, or one that cannot be used.
        RemoteError: SSM cannot be reached.
    """
    ring = ring_of(settings)
    if ring is None:
        raise KeysError(
            "no keys are configured, so no request can be verified",
            next_step="export DECISIONOS_JUDGE_KEYS=@FILE",
        )
    return ring


def replay_store(options: ServeOptions) -> ReplayStore:
    """The replay store, opened.

    Raises:
        ReplayStoreError: it cannot be opened, or is not honest.
    """
    given = options.settings.replay
    url = os.fspath(options.root / "judge" / "replay.sqlite")
    skew = options.settings.max_skew
    return open_store(
        url if given is None else given.get_secret_value(),
        life_sec=MAX_AGE_SEC + 2 * skew + 1,
        skew_sec=skew,
    )
