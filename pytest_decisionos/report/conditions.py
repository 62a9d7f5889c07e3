"""What was asked before a change of a stage, for people and for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_decisionos.model.outcome import Status
from pytest_decisionos.report.text import COLUMNS, labelled, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_decisionos.model.outcome import Outcome
    from pytest_decisionos.release.stage_model import Reading


def condition_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each condition, folded to 80 columns."""
    lines: list[str] = []
    for one in outcomes:
        good = one.status is Status.SUCCESSFUL
        name, _, part = one.id.removeprefix("release.").partition(".")
        text = one.message if good else f"{one.cause}: {one.message}"
        mark = "✓" if good else "?" if one.status is Status.INCONCLUSIVE else "✗"
        told = f"{part} {text}" if part else text
        lines += labelled(f"{mark} {plain(name):<13}", plain(told), COLUMNS - 7)
    return lines


def condition_json(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The same as JSON."""
    return [
        {
            "id": one.id,
            "status": one.status,
            "reason": one.reason,
            "cause": one.cause,
            "message": one.message,
        }
        for one in outcomes
    ]


def stage_json(reading: Reading) -> dict[str, Any]:
    """The stage as a controller has to take it."""
    return {
        "stage": reading.name,
        "pct": reading.pct,
        "release": reading.release,
        "baseline_release": reading.baseline_release,
        "paused": reading.paused,
        "looks": reading.looks,
        "seq": reading.seq,
        "sha256": reading.sha256,
        "alarm": reading.alarm,
    }


def stage_words(reading: Reading) -> str:
    """The stage as one says it, and its alarm."""
    alarm = f"; ALARM {reading.alarm}" if reading.alarm else ""
    return stage_alone(reading) + alarm


def stage_alone(reading: Reading) -> str:
    """The same, for who tells an alarm by itself."""
    release = plain(reading.release or "an unknown release", 200)
    base = plain(reading.baseline_release or "an unknown release", 200)
    text = {
        "stable": f"stable: everybody runs {release}",
        "canary": f"canary: {reading.pct:g} % runs {release}, the rest {base}"
        if reading.pct
        else f"canary: {release} gets copies of requests, everybody runs {base}",
        "promote": f"promote: everybody runs {release}, and {base} is kept warm",
        "abort": f"abort: back to {base}",
    }[reading.name]
    return f"{text}; paused" if reading.paused else text
