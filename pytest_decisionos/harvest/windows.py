"""Windows of fixed length, the bursts in them, and the anomaly of the latest."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from pytest_decisionos.stats.burst import WINDOW_ALPHA, bursts
from pytest_decisionos.stats.dispersion import dispersion

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_decisionos.harvest.load import Loaded
    from pytest_decisionos.harvest.options import Options

MAX_WINDOWS: Final = 2016
"""Windows kept, the latest: a week of five minutes; the evidence stays readable."""

LOOK_BACK: Final = 6
"""Windows before that are the reference where there is no control: half an hour of five minutes."""

EWMA_ALPHA: Final = 0.3
"""Weight of the newest window in the moving average (Roberts, Technometrics 1:239, 1959, who
advises 0.2 to 0.3)."""

CONTROL: Final = 1
CANARY: Final = 2

Key = tuple[int, int]
"""(variant code, window number since the epoch)."""


@dataclass
class Window:
    """A closed window of one variant.

    Attributes:
        v: variant code: 1 control, 2 canary, 0 for a log without variants.
        w: its number: start ÷ length since the epoch.
        count: requests.
        errors: status ≥ 500 or 429.
        p95: in ms.
        p99: in ms.
        burst: its sub-buckets that spiked.
    """

    v: int
    w: int
    count: int
    errors: int
    p95: float
    p99: float
    burst: int = 0


def span(options: Options, since: int, until: int) -> dict[str, int] | None:
    """Which windows lie fully inside [``since``, ``until``) and are closed: query parameters.

    Args:
        options: length and lag of a window.
        since: epoch ms.
        until: epoch ms, exclusive.
    """
    length = options.window_sec * 1000
    last = (until - options.lag_sec * 1000) // length
    first = max(-(-since // length), last - MAX_WINDOWS)
    if last <= first:
        return None
    return {"window": length, "first": first * length, "last": last * length}


def windows(
    log: Loaded, options: Options, where: dict[str, int], rows: Iterable[tuple[Any, ...]]
) -> list[Window]:
    """The closed windows with their bursts.

    Args:
        log: the log.
        options: length of a sub-bucket, and how large a burst is.
        where: what ``span`` gave.
        rows: what the query part ``by_window`` gave.
    """
    made = [Window(v, w, n, errors, *latency) for v, w, n, errors, latency in rows]
    _find_bursts(log, options, {(x.v, x.w): x for x in made}, where)
    return made


def _references(found: dict[Key, Window]) -> dict[Key, list[Key]]:
    """Each window's reference: control in the same span, else the windows before."""
    references = {}
    for v, w in found:
        before = range(w - LOOK_BACK, w)
        choices = [
            [(CONTROL, w)] if v == CANARY else [],
            [(CONTROL, b) for b in before] if v == CANARY else [],
            [(v, b) for b in before],
        ]
        there = ([key for key in keys if key in found] for keys in choices)
        references[v, w] = next((keys for keys in there if keys), [])
    return references


def _find_bursts(
    log: Loaded, options: Options, found: dict[Key, Window], where: dict[str, int]
) -> None:
    """Count in each window the sub-buckets with too many errors or too many slow requests.

    Slow is what is above the reference's p95, of several windows the median of theirs. The first
    window of a log has no reference and cannot show a burst: 0.
    """
    length, bucket = where["window"], options.bucket_sec * 1000
    references = {key: refs for key, refs in _references(found).items() if refs}
    if not references:
        return
    slow_above = [
        (*key, *other, median(found[ref].p95 for ref in refs))
        for key, refs in references.items()
        for other in (key, *refs)
    ]
    engine = log.engine
    engine.fill("slow_above", slow_above)
    lowest = min(row[-1] for row in slow_above)
    counts: dict[Key, dict[int, tuple[int, int]]] = defaultdict(dict)
    for v, b, n, errors in engine.run(
        "buckets", bucket=bucket, first=where["first"], last=where["last"]
    ):
        counts[v, b * bucket // length][b] = (n, errors)
    slow: dict[tuple[Key, int, int], int] = {}
    for v, w, other, b, n in engine.run("slow", bucket=bucket, lowest=lowest, **where):
        slow[(v, w), other, b] = n
    for key, refs in references.items():
        trials = [n for n, _ in counts[key].values()]
        reference = [(ref[0], b, n, e) for ref in refs for b, (n, e) in counts[ref].items()]
        reference_trials = [n for _, _, n, _ in reference]
        errors = [e for _, e in counts[key].values()]
        slows = [slow.get((key, key[0], b), 0) for b in counts[key]]
        slow_reference = [slow.get((key, v, b), 0) for v, b, *_ in reference]
        same_span = refs == [(CONTROL, key[1])]
        least = options.burst_threshold if same_span else options.ewma_tolerance
        hits = zip(
            _spiked(errors, trials, [e for *_, e in reference], reference_trials, least),
            _spiked(slows, trials, slow_reference, reference_trials, least),
            strict=True,
        )
        found[key].burst = sum(any(pair) for pair in hits)


def _spiked(
    events: list[int],
    trials: list[int],
    reference_events: list[int],
    reference_trials: list[int],
    min_relative: float,
) -> list[bool]:
    # A reference too short to show its dispersion counts as independent: that finds more, not less.
    d = dispersion(reference_events, reference_trials) or 1.0
    alpha = WINDOW_ALPHA / (2 * len(events))
    reference = sum(reference_events), sum(reference_trials), d
    return bursts(events, trials, *reference, alpha=alpha, min_relative=min_relative)


def anomaly(found: list[Window], warm_window: int) -> dict[str, Any]:
    """The block ``anomaly``, from the windows alone.

    ``is_spike``: a canary window after the guardband (without canary, the latest window) has a
    burst. ``ewma``: exponentially weighted average of the p95 (ms) of the windows before the
    latest; ``ratio``: the latest over it; both null with fewer than two windows. ``source`` says
    that a log judge can compute it too.

    Args:
        found: the closed windows.
        warm_window: number of the first window that starts after the guardband.
    """
    judged = [x for x in found if x.v == CANARY] or [x for x in found if x.v != CANARY]
    spike = (
        any(x.burst for x in judged if x.w >= warm_window)
        if judged and judged[0].v == CANARY
        else bool(judged and judged[-1].burst)
    )
    if len(judged) < 2:
        return {"is_spike": spike, "ewma": None, "ratio": None, "source": "log"}
    average = judged[0].p95
    for window in judged[1:-1]:
        average += EWMA_ALPHA * (window.p95 - average)
    ratio = judged[-1].p95 / average if average else None
    return {"is_spike": spike, "ewma": average, "ratio": ratio, "source": "log"}
