"""Measured numbers → the blocks of the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_decisionos.errors import LogError
from pytest_decisionos.harvest.load import Given, Loaded, load
from pytest_decisionos.harvest.measure import QUANTILES, Measured, measure
from pytest_decisionos.harvest.options import Options
from pytest_decisionos.harvest.source import find
from pytest_decisionos.harvest.times import time_text
from pytest_decisionos.harvest.windows import CANARY, CONTROL, Window, anomaly, span, windows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Harvest:
    """What a log gave.

    Attributes:
        role: ``reqlog``, ``judgelog`` or ``peer``.
        perf: the block ``perf``, or for a judgelog ``perf_judge``.
        sides: control and canary after the guardband; None where the log has no variants.
        windows: closed windows; empty for a judgelog.
        anomaly: the block ``anomaly``; None for a judgelog.
        sources: entries of ``witness.sources``.
        since: start of the window covered, epoch ms.
        until: its end, exclusive.
        step_start: when the canary step began, epoch ms; None without a canary.
        warm: end of the guardband, epoch ms; None without a canary.
        releases: variant (empty where there is none) → release.
        has_signature: whether the log says if a signature failed.
        options: how it was harvested.
    """

    role: str
    perf: dict[str, Any]
    sides: dict[int, Measured] | None
    windows: list[Window]
    anomaly: dict[str, Any] | None
    sources: list[dict[str, Any]]
    since: int
    until: int
    step_start: int | None
    warm: int | None
    releases: dict[str, str]
    has_signature: bool
    options: Options


def harvest(
    paths: Sequence[Path | str | Given],
    *,
    role: str = "reqlog",
    options: Options | None = None,
    step_start: int | None = None,
    limits: bool = True,
    now: int | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Harvest:
    """Harvest log files, or globs of rotated ones, as one stream of requests.

    Args:
        paths: the files.
        role: ``reqlog``, ``judgelog`` or ``peer``.
        options: how; its ``since`` and ``until`` restrict what is covered.
        step_start: when the canary step began, epoch ms; None means its first row.
        limits: whether to make confidence limits; judges do without.
        now: the time here, epoch ms; rows from after it are refused. None does not ask.
        progress: told the share of the work that is done (0 to 1) and what is next.

    Raises:
        LogError: a log cannot be harvested.
        UsageError: the folder for temporary files cannot be used.
    """
    options = options or Options()
    tell = progress or (lambda _share, _text: None)
    given = [
        one
        for path in paths
        for one in ([path] if isinstance(path, Given) else [Given(p) for p in find(path)])
    ]
    with load(given, role=role, options=options, now=now, tell=tell) as log:
        # What was asked for cannot make a log look longer or fresher than it is. Only a peer is
        # held against the time that the evidence covers.
        asked_for = (options.since, options.until) if role == "peer" else (None, None)
        since = log.first if asked_for[0] is None else asked_for[0]
        until = log.last + 1 if asked_for[1] is None else asked_for[1]
        start = log.canary_since if step_start is None else step_start
        if options.shadow and start is not None:
            _refuse_users(log, start)
        warm = None if start is None else start + options.guardband_ms
        judge = role == "judgelog"
        where = None if judge else span(options, since, until)
        numbers = measure(log, warm=warm, windows=where, limits=limits)
        tell(0.9, "comparing")
        found = [] if where is None else windows(log, options, where, numbers.windows)
        how = {"judge": judge, "signed": log.has_signature, "limits": limits}
        perf = perf_block(
            numbers.whole, {"start": time_text(since), "end": time_text(until)}, **how
        )
        perf["groups"] = [
            {"by": by, "name": name} | perf_block(numbers.groups[by, code], None, **how)
            for (by, code), name in sorted(log.names.items(), key=lambda i: (i[0][0], i[1]))
        ]
        tell(1.0, "done")
        return Harvest(
            role=role,
            perf=perf,
            sides=numbers.sides,
            windows=found,
            anomaly=None
            if judge
            else anomaly(found, -(-(warm or 0) // (options.window_sec * 1000))),
            sources=log.sources,
            since=since,
            until=until,
            step_start=start,
            warm=warm,
            releases=log.releases,
            has_signature=log.has_signature,
            options=options,
        )


def _refuse_users(log: Loaded, start: int) -> None:
    """Copies must not speak for a canary that has users: a copy that fails hurts nobody."""
    [(users,)] = log.engine.run("users", start=start)
    if users:
        raise LogError(
            "the canary has users and copies at once",
            field="variant",
            found=f"{users:,} rows of canary beside rows of shadow, from {time_text(start)} on",
            expected="in shadow only copies, and nobody's users",
            next_step="build it with --no-shadow, or cut off an earlier step with --since",
        )


def perf_block(
    m: Measured,
    window: dict[str, str] | None,
    *,
    judge: bool = False,
    signed: bool = False,
    limits: bool = True,
) -> dict[str, Any]:
    """The numbers of one set of requests as a block; rates are null without requests."""
    n = m.count
    block: dict[str, Any] = {
        "latency_ms": dict(zip(QUANTILES, m.latency or (None, None, None), strict=True)),
        "error_rate": m.errors / n if n else None,
        "count": n,
        "errors": m.errors,
    }
    if judge:
        block |= {
            "availability": (n - m.unavailable) / n if n else None,
            "unavailable": m.unavailable,
            "signature_error_rate": m.signature_errors / n if n and signed else None,
            "signature_errors": m.signature_errors if signed else None,
        }
    if window is not None:
        block["window"] = window
    if limits:
        block["limits"] = _limits(m, judge=judge, signed=signed)
    return block


def _limits(m: Measured, *, judge: bool, signed: bool) -> dict[str, Any]:
    from pytest_decisionos.stats.limits import LEVELS, rate_limits  # noqa: PLC0415 - scipy

    def entry(d: float | None, pairs: dict[float, Any]) -> dict[str, Any]:
        return {
            "n": m.count,
            "d": d,
            "effective": None if d is None else m.count / d,
            "lower": {f"{level:.2f}": pair[0] for level, pair in pairs.items()},
            "upper": {f"{level:.2f}": pair[1] for level, pair in pairs.items()},
        }

    nothing = (None, None)
    made = {
        f"latency_ms.{name}": entry(
            m.d.get(name), {level: m.order.get((name, level), nothing) for level in LEVELS}
        )
        for name in QUANTILES
    }

    def rate(name: str, events: int) -> dict[str, Any]:
        d = m.d.get(name)
        return entry(
            d,
            {
                level: nothing if d is None else rate_limits(events, m.count, level, d)
                for level in LEVELS
            },
        )

    made["error_rate"] = rate("errors", m.errors)
    if judge:
        down = rate("unavailable", m.unavailable)
        made["availability"] = down | {
            "lower": _complement(down["upper"]),
            "upper": _complement(down["lower"]),
        }
        if signed:
            made["signature_error_rate"] = rate("signature_errors", m.signature_errors)
    return made


def _complement(limits: dict[str, float | None]) -> dict[str, float | None]:
    return {level: None if value is None else 1 - value for level, value in limits.items()}


def combine(
    reqlog: Harvest | None, judgelog: Harvest | None, *, limits: bool = True
) -> dict[str, Any]:
    """The harvested blocks.

    ``perf``, ``canary`` and ``anomaly`` come from a reqlog or peer log, ``perf_judge`` from a
    judgelog; ``canary.deltas.sig_error_delta`` needs both, or a reqlog that has signature errors.
    """
    made: dict[str, Any] = {}
    if reqlog is not None:
        made["perf"] = reqlog.perf
        if reqlog.sides is not None:
            made["canary"] = _canary(reqlog, judgelog, limits=limits)
        made["anomaly"] = reqlog.anomaly
    if judgelog is not None:
        made["perf_judge"] = judgelog.perf
    return made


def _canary(reqlog: Harvest, judgelog: Harvest | None, *, limits: bool) -> dict[str, Any]:
    sides = reqlog.sides or {}
    control, canary = sides[CONTROL], sides[CANARY]
    signed = next(
        (
            log.sides
            for log in (judgelog, reqlog)
            if log is not None and log.has_signature and log.sides is not None
        ),
        None,
    )
    begin = reqlog.since if reqlog.warm is None else max(reqlog.warm, reqlog.since)
    window = {
        "start": time_text(min(begin, reqlog.until)),
        "end": time_text(reqlog.until),
    }
    p95_rel = None
    if control.latency and canary.latency and control.latency[1] > 0:
        p95_rel = canary.latency[1] / control.latency[1] - 1
    block: dict[str, Any] = {
        "control_perf": perf_block(control, window, limits=limits),
        "canary_perf": perf_block(canary, window, limits=limits),
        "deltas": {
            "p95_rel": p95_rel,
            "error_delta": _delta(control, canary, "errors"),
            "sig_error_delta": signed
            and _delta(signed[CONTROL], signed[CANARY], "signature_errors"),
        },
    }
    if limits:
        block["limits"] = _delta_limits(control, canary, signed)
    length = reqlog.options.window_sec * 1000
    variants = {CONTROL: "control", CANARY: "canary"}
    block["windows"] = [
        {
            "start": time_text(x.w * length),
            "end": time_text((x.w + 1) * length),
            "variant": variants[x.v],
            "count": x.count,
            "p95": x.p95,
            "p99": x.p99,
            "error_rate": x.errors / x.count,
            "burst": x.burst,
        }
        for x in reqlog.windows
    ]
    block["step_start"] = None if reqlog.step_start is None else time_text(reqlog.step_start)
    block["guardband_minutes"] = reqlog.options.guardband_minutes
    return block


def _delta(control: Measured, canary: Measured, events: str) -> float | None:
    if not (control.count and canary.count):
        return None
    return float(getattr(canary, events) / canary.count - getattr(control, events) / control.count)


def _delta_limits(
    control: Measured, canary: Measured, signed: dict[int, Measured] | None
) -> dict[str, Any]:
    from pytest_decisionos.stats.limits import (  # noqa: PLC0415 - scipy
        LEVELS,
        difference_limits,
        ratio_limits,
    )

    def both(pairs: dict[float, Any]) -> dict[str, Any]:
        return {
            "lower": {f"{level:.2f}": pair[0] for level, pair in pairs.items()},
            "upper": {f"{level:.2f}": pair[1] for level, pair in pairs.items()},
        }

    nothing = (None, None)

    def difference(one: Measured, two: Measured, events: str) -> dict[str, Any]:
        d1, d2 = one.d.get(events), two.d.get(events)
        if d1 is None or d2 is None:
            return both(dict.fromkeys(LEVELS, nothing))
        return both(
            {
                level: difference_limits(
                    getattr(one, events), one.count, d1, getattr(two, events), two.count, d2, level
                )
                for level in LEVELS
            }
        )

    empty = Measured()
    return {
        "p95_rel": both(
            {
                level: ratio_limits(
                    control.order.get(("p95", level), nothing),
                    canary.order.get(("p95", level), nothing),
                )
                for level in LEVELS
            }
        ),
        "error_delta": difference(control, canary, "errors"),
        "sig_error_delta": difference(
            *((signed[CONTROL], signed[CANARY]) if signed else (empty, empty)), "signature_errors"
        ),
    }
