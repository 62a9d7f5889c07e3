"""This host's clock, held against others: how far it may be off, and whether anybody can tell."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import DecisionOSError
from pytest_decisionos.model.base import Frozen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

MIN_SERVERS: Final = 3
"""Of two that differ nobody can say which is wrong."""
RESOLUTION_SEC: Final = 1e-6
"""What a time in seconds since 1970 and a ``datetime`` can tell apart."""


class Reading(Frozen):
    """What one source says of this host's clock.

    Attributes:
        source: who says so.
        offset_sec: its time minus ours, seconds: more than 0 if this host's clock is slow.
        error_sec: the offset is known to this much, seconds, as long as the source is right.
        fault: why it says nothing; empty if it does. Then no number is to be had.
    """

    source: str
    offset_sec: float = math.nan
    error_sec: float = math.inf
    fault: str = ""


class Skew(NamedTuple):
    """How far this host's clock may be off, by all readings together.

    Attributes:
        offset_sec: of the median reading, seconds; NaN if nobody can tell.
        error_sec: how well that is known, seconds; infinite if nobody can tell.
        faults: for each reading, why by it alone the clock is not within the SLA; empty if it is.
        dissent: how many of those that say something disagree with the median about the SLA.
        fault: why the clock is not within the SLA; None if it is.
    """

    offset_sec: float
    error_sec: float
    faults: tuple[str, ...]
    dissent: int
    fault: str | None


def weigh(readings: Sequence[Reading], max_skew_sec: float) -> Skew:
    """Whether this host's clock is within the SLA, by the median of ``readings``.

    One puts it within the SLA if ``|offset| + error <= max_skew_sec``: wherever in its span the
    truth lies. A span that reaches beyond is a failure, because nobody can tell.

    Three must say something, or all where fewer were asked. The median is what counts, and more
    than half must agree with it: one liar among three is outvoted, and two that lie in opposite
    directions leave no majority to be in the middle of.
    """
    faults = tuple(_fault(reading, max_skew_sec) for reading in readings)
    said = [
        (reading, fault)
        for reading, fault in zip(readings, faults, strict=True)
        if not reading.fault and math.isfinite(reading.offset_sec + reading.error_sec)
    ]
    needed = max(1, min(MIN_SERVERS, len(readings)))
    if len(said) < needed:
        return Skew(math.nan, math.inf, faults, 0, _untold(readings, faults, len(said), needed))
    offsets = sorted(reading.offset_sec for reading, _ in said)
    # Of equal offsets the one that is known best; of two in the middle the worse one.
    middle = [
        min((one for one in said if one[0].offset_sec == offset), key=lambda one: one[0].error_sec)
        for offset in (offsets[(len(said) - 1) // 2], offsets[len(said) // 2])
    ]
    median, fault = max(middle, key=lambda one: abs(one[0].offset_sec) + one[0].error_sec)
    within = sum(not one for _, one in said)
    dissent = within if fault else len(said) - within
    if not fault and 2 * within <= len(said):
        fault = f"cannot tell: only {within} of {len(said)} sources put the clock within the SLA"
    return Skew(median.offset_sec, median.error_sec, faults, dissent, fault or None)


def skew_fault(readings: Sequence[Reading], max_skew_sec: float) -> str | None:
    """Why this host's clock is not within the SLA, as ``weigh`` says; None if it is."""
    return weigh(readings, max_skew_sec).fault


def clock_fault(ntp: Sequence[str], max_skew_sec: float) -> str | None:
    """Why this host's clock is not within the SLA; None if it is. Never raises.

    It takes as long as the slowest answer, at most some seconds.

    Args:
        ntp: SNTP servers, as ``measure``.
        max_skew_sec: the SLA, seconds.
    """
    try:
        return skew_fault(measure(ntp), max_skew_sec)
    except DecisionOSError as fault:
        return str(fault)
    except Exception as fault:  # noqa: BLE001 - readiness asks: whatever it is, the answer is no
        return f"cannot tell: {type(fault).__name__}"


def measure(ntp: Sequence[str]) -> list[Reading]:
    """What others say of this host's clock, now.

    Args:
        ntp: SNTP servers ``host[:port]``, at least three; if empty, chrony is asked.

    Raises:
        UsageError: a name is no server, or they are too few, too many or one twice.
    """
    if ntp:
        from pytest_decisionos.trust.clock_sntp import ask_servers  # noqa: PLC0415 - one is used

        return ask_servers(ntp)
    from pytest_decisionos.trust.clock_chrony import ask_chrony  # noqa: PLC0415 - the same

    return [ask_chrony()]


def from_answer(sent: float, received: float, theirs: datetime, source: str) -> Reading:
    """What a time in somebody's answer says of this host's clock.

    They took it between ``sent`` and ``received``, nobody knows when: so it is compared with the
    middle, and half the time between is its error. An answer that took long says little.

    Args:
        sent: when we asked, by this host's clock, seconds since 1970.
        received: when the answer was there, by the same clock.
        theirs: the time in the answer, as exact as microseconds; who trusts it has verified the
            signature.
        source: who answered.
    """
    took = received - sent
    if not took >= 0:
        return Reading(source=source, fault="this host's clock was set back meanwhile")
    return Reading(
        source=source,
        offset_sec=theirs.timestamp() - (sent + took / 2),
        error_sec=took / 2 + RESOLUTION_SEC,
    )


def _fault(reading: Reading, max_skew_sec: float) -> str:
    """Why the clock is not within the SLA by this reading alone; empty if it is."""
    offset, error = abs(reading.offset_sec), reading.error_sec
    if reading.fault:
        return reading.fault
    if error >= 0 and offset + error <= max_skew_sec:
        return ""
    if error >= 0 and offset - error > max_skew_sec:
        how = "slow" if reading.offset_sec > 0 else "fast"
        return f"this host's clock is {seconds(offset)} {how}, at most {seconds(max_skew_sec)} is the SLA"
    return (
        f"cannot tell: off by {seconds(offset)}, known to {seconds(error)}, "
        f"and {seconds(max_skew_sec)} is the SLA"
    )


def _untold(readings: Sequence[Reading], faults: Sequence[str], said: int, needed: int) -> str:
    if not readings:
        return "cannot tell: nobody was asked"
    if len(readings) == 1:
        return f"{readings[0].source}: {faults[0]}"
    why = "; ".join(
        f"{reading.source}: {fault}"
        for reading, fault in zip(readings, faults, strict=True)
        if reading.fault
    )
    return f"cannot tell: {said} of {len(readings)} sources say something, {needed} must; {why}"


def seconds(value: float) -> str:
    """A span of time in words: ``1.2 ms``, ``3 s``."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if abs(value) >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value * 1e6:.3g} µs"
