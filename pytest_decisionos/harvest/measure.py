"""What is measured of a parsed log: quantiles, rates, their dispersion and order statistics."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pytest_decisionos.stats.dispersion import dispersion

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_decisionos.harvest.engine import Engine
    from pytest_decisionos.harvest.load import Loaded

QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
RATES: Final = ("errors", "unavailable", "signature_errors")


@dataclass
class Measured:
    """One set of requests.

    Attributes:
        count: how many.
        errors: status ≥ 500 or 429.
        unavailable: status ≥ 500.
        signature_errors: requests whose signature failed.
        latency: p50, p95, p99 in ms, interpolated linearly (R type 7); None without requests.
        d: dispersion by name (a quantile or a rate); None where it cannot be estimated.
        order: (quantile, level) → its (lower, upper) limit in ms.
    """

    count: int = 0
    errors: int = 0
    unavailable: int = 0
    signature_errors: int = 0
    latency: tuple[float, float, float] | None = None
    d: dict[str, float | None] = field(default_factory=dict)
    order: dict[tuple[str, float], tuple[float | None, float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Numbers:
    """Everything measured of a log.

    Attributes:
        whole: all requests.
        groups: the same by (``route`` or ``tenant``, code).
        sides: control (1) and canary (2) after the guardband; None without variants.
        windows: rows of the query part ``by_window``.
    """

    whole: Measured
    groups: dict[tuple[str, int], Measured]
    sides: dict[int, Measured] | None
    windows: list[tuple[Any, ...]]


def measure(
    log: Loaded, *, warm: int | None, windows: dict[str, int] | None, limits: bool
) -> Numbers:
    """Measure a log.

    Args:
        log: the log.
        warm: end of the guardband, epoch ms; None without a canary.
        windows: parameters of ``by_window``; None for no windows.
        limits: whether to add dispersions and order statistics.
    """
    dimensions = [by for by in ("route", "tenant") if any(by == known for known, _ in log.names)]
    jobs: dict[str, dict[str, Any]] = {
        part: {} for part in ("all", *(f"by_{by}" for by in dimensions))
    }
    if log.has_variants and warm is not None:
        jobs["by_side"] = {"warm": warm}
    if windows is not None:
        jobs["by_window"] = windows
    found = dict(zip(jobs, log.engine.run_all(list(jobs.items())), strict=True))
    whole = _rows(found["all"])[0]
    groups = {(by, code): m for by in dimensions for code, m in _rows(found[f"by_{by}"]).items()}
    # A side without requests counts 0; without a canary there is no step, and both are empty.
    empty = {1: Measured(), 2: Measured()}
    sides = empty | _rows(found.get("by_side", [])) if log.has_variants else None
    if limits:
        _add_limits(log, whole, groups, sides or {}, warm)
    return Numbers(whole, groups, sides, found.get("by_window", []))


def _rows(rows: Iterable[tuple[Any, ...]]) -> dict[int, Measured]:
    return {
        code: Measured(count, errors, unavailable, signature, tuple(latency))
        for code, count, errors, unavailable, signature, latency in rows
    }


def _add_limits(
    log: Loaded,
    whole: Measured,
    groups: dict[tuple[str, int], Measured],
    sides: dict[int, Measured],
    warm: int | None,
) -> None:
    """Give every set its dispersion and order statistics."""
    everything = {("all", 0): whole, **groups} | {("side", v): m for v, m in sides.items()}
    cuts = [(*key, *m.latency) for key, m in everything.items() if m.latency]
    log.engine.fill("cuts", cuts)
    spread = _Spread()
    length = log.last - log.first + 1
    for r, x, bucket, count, *events in log.engine.run("spread", first=log.first, length=length):
        rates, slow = events[:3], events[3:]
        spread.add(("all", 0), bucket, count, [*slow[:3], *rates])
        spread.add(("route", r), bucket, count, [*slow[3:6], *rates])
        spread.add(("tenant", x), bucket, count, [*slow[6:], *rates])
    if warm is not None and sides:
        length = max(1, log.last - warm + 1)
        rows = log.engine.run("side_spread", warm=warm, length=length)
        for v, bucket, count, *events in rows:
            spread.add(("side", v), bucket, count, [*events[3:], *events[:3]])
    jobs = []
    for key, measured in everything.items():
        measured.d = spread.dispersions(key)
        by, code = key
        given = {"all": {}, "side": {"code": code, "warm": warm}}.get(by, {"code": code})
        if measured.count:
            jobs.append((measured, f"order_{by}", given))
    _add_order(log.engine, jobs)


class _Spread:
    """Counts of events in sub-buckets, by set of requests."""

    def __init__(self) -> None:
        self.buckets: dict[tuple[str, int], dict[int, list[int]]] = defaultdict(dict)

    def add(self, key: tuple[str, int], bucket: int, count: int, events: Sequence[int]) -> None:
        sums = self.buckets[key].setdefault(bucket, [0] * 7)
        for i, n in enumerate((count, *events)):
            sums[i] += n

    def dispersions(self, key: tuple[str, int]) -> dict[str, float | None]:
        rows = [sums for _, sums in sorted(self.buckets[key].items())]
        trials = [row[0] for row in rows]
        return {
            name: dispersion([row[i] for row in rows], trials)
            for i, name in enumerate((*QUANTILES, *RATES), 1)
        }


def _add_order(engine: Engine, wanted: Sequence[tuple[Measured, str, dict[str, Any]]]) -> None:
    """Read the order statistics that are the limits of the quantiles.

    Args:
        engine: the database.
        wanted: the sets, each with the part of the query that reads it, and its parameters.
    """
    from pytest_decisionos.stats.limits import LEVELS, quantile_ranks  # noqa: PLC0415 - scipy

    jobs: list[tuple[str, dict[str, Any]]] = []
    ranks: list[dict[tuple[str, float], tuple[float | None, float | None]]] = []
    for measured, part, parameters in wanted:
        ranks.append({})
        for name, p in QUANTILES.items():
            d = measured.d[name]
            for level in LEVELS:
                ranks[-1][name, level] = (
                    (None, None) if d is None else quantile_ranks(measured.count, p, level, d)
                )
        fractions = sorted({f for pair in ranks[-1].values() for f in pair if f is not None})
        # Of nothing wanted, any one: DuckDB has no quantiles of an empty list.
        jobs.append((part, {"ranks": fractions or [0.5], **parameters}))
    for (measured, *_), pairs, (_, job), [(values,)] in zip(
        wanted, ranks, jobs, engine.run_all(jobs), strict=True
    ):
        read: dict[float | None, float | None] = {None: None}
        read |= dict(zip(job["ranks"], values, strict=True))
        measured.order = {key: (read[low], read[high]) for key, (low, high) in pairs.items()}
