"""What is known of a number of the evidence before looking at it: unit, range, samples, limits."""

from __future__ import annotations

from typing import NamedTuple

from pytest_decisionos.model import strict_json

SAMPLED = ("/canary/canary_perf", "/canary/control_perf", "/perf_judge", "/perf")
"""Blocks of measured traffic: each holds its own ``count`` and ``limits``."""


class Facts(NamedTuple):
    """What is known of a number of the evidence before looking at it."""

    unit: str = ""
    low: float | None = None
    low_open: bool = False
    high: float | None = None
    counts: tuple[str, ...] = ()
    limits: str | None = None


_BOTH_SIDES = ("/canary/canary_perf/count", "/canary/control_perf/count")
_KNOWN = {
    # A delta of −1 would need a side whose every request failed, or took no time: nonsense.
    "/canary/deltas/p95_rel": Facts("rel", -1, True, None, _BOTH_SIDES, "/canary/limits/p95_rel"),
    "/canary/deltas/error_delta": Facts(
        "rate", -1, True, 1, _BOTH_SIDES, "/canary/limits/error_delta"
    ),
    "/canary/deltas/sig_error_delta": Facts(
        "rate", -1, True, 1, _BOTH_SIDES, "/canary/limits/sig_error_delta"
    ),
    "/usage/cpu_percent": Facts("%", 0, False, 100),
    "/usage/mem_percent": Facts("%", 0, False, 100),
    "/usage/qps": Facts("/s", 0),
}


def facts_of(pointer: str) -> Facts:
    """Unit, possible range, sample counts and limits of the number that ``pointer`` names."""
    if pointer in _KNOWN:
        return _KNOWN[pointer]
    base = next((b for b in SAMPLED if pointer.startswith(b + "/")), None)
    if base is None:
        return Facts(low=0)
    rest = strict_json.tokens(pointer[len(base) :])
    counts = (base + "/count",)
    limits = f"{base}/limits/{'.'.join(rest)}"
    if rest[0] == "latency_ms":
        return Facts("ms", 0, False, None, counts, limits)
    if rest[0].endswith("rate") or rest[0] == "availability":
        return Facts("rate", 0, False, 1, counts, limits)
    return Facts(low=0, counts=counts)
