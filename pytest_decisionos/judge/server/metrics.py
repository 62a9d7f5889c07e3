"""What the server counts, for Prometheus; with several workers, of all of them together."""

from __future__ import annotations

import os
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The library's own variable: it must be set before the library loads."""
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_PREFIX: Final = "decisionos_judge"
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The counters of one server; no label is something that a client can make up."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, told: str, *labels: str) -> Counter:
            return Counter(f"{_PREFIX}_{name}", told, labels, registry=self._registry)

        self.requests = counter("requests", "Answered requests.", "route", "status")
        self.signature_errors = counter(
            "signature_errors", "Requests whose signature did not verify.", "cause"
        )
        self.replay_refusals = counter(
            "replay_refusals", "Verified requests that were seen before, or may have been.", "cause"
        )
        self.verdicts = counter("verdicts", "Signed verdicts.", "vote")
        self.log_drops = counter("access_log_dropped", "Access-log rows that were not written.")
        self.faults = counter("faults", "Requests that met a bug in the server.")
        self.latency = Histogram(
            f"{_PREFIX}_latency_seconds",
            "From the request's head to the end of its answer.",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def text(self) -> bytes:
        """All of them in Prometheus' text form."""
        if MULTIPROCESS not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # the library's
        return generate_latest(together)
