"""``dosctl clock``: hold this host's clock against chrony, SNTP servers, or judges."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pytest_decisionos.cli.output import echo_json, say
from pytest_decisionos.errors import ExitCode, UsageError
from pytest_decisionos.report.text import plain, row
from pytest_decisionos.settings import MAX_SKEW_SEC, from_environment, split
from pytest_decisionos.trust.clock import measure, seconds, weigh

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_decisionos.settings import Settings
    from pytest_decisionos.trust.clock import Reading, Skew

_WIDTHS = (26, 10, 10, 28)
_UNITS = {"ms": 1e-3, "s": 1.0, None: 1.0}

_CHECK = """\b
Example:
  dosctl clock check --max-skew 500ms
  dosctl clock check --ntp ntp1.example --ntp ntp2.example --ntp ntp3.example
  dosctl clock check --judge judge-1
"""


@click.group(epilog="\b\nExample:\n  dosctl clock check")
def clock() -> None:
    """Measure this host's clock."""


@clock.command(epilog=_CHECK)
@click.option(
    "--max-skew",
    "max_skew",
    metavar="TIME",
    help="The SLA: 500ms, 2s, 0.5  [default: DECISIONOS_MAX_SKEW, 500ms]",
)
@click.option(
    "--ntp",
    multiple=True,
    metavar="HOST[:PORT]",
    help="SNTP servers, at least 3  [default: DECISIONOS_NTP; without any, chrony is asked]",
)
@click.option(
    "--judge",
    "judges",
    multiple=True,
    metavar="ID",
    help="A judge of gate.yaml on another host: the time in its signed answer.",
)
@click.option("--gate", type=click.Path(path_type=Path), help="Gate configuration, for --judge.")
@click.option("--json", "as_json", is_flag=True, help="Print the readings as JSON.")
def check(
    max_skew: str | None,
    ntp: tuple[str, ...],
    judges: tuple[str, ...],
    gate: Path | None,
    as_json: bool,
) -> int:
    """Say whether this host's clock is within the SLA.

    It is if its offset and the error of that offset together are within it. "Not synchronised" and
    "cannot tell" are failures. Exit status: 0 within the SLA, 2 not, or nobody can tell, 4 unusable
    options.
    """
    settings = from_environment()
    sla = settings.max_skew if max_skew is None else _duration("--max-skew", max_skew)
    if ntp and judges:
        raise UsageError("--ntp and --judge are two questions", field="--judge", found=judges[0])
    readings = (
        _of_judges(judges, gate or settings.gate, settings)
        if judges
        else measure(ntp or split(settings.ntp))
    )
    skew = weigh(readings, sla)
    if as_json:
        echo_json(_report(readings, skew, sla))
    else:
        _print(readings, skew, sla)
    return int(ExitCode.NO_GO if skew.fault else ExitCode.GO)


def _of_judges(judges: Sequence[str], gate: Path, settings: Settings) -> list[Reading]:
    from pytest_decisionos.judge.gather import Request  # noqa: PLC0415 - loads the whole gate
    from pytest_decisionos.judge.remote import judge_clock  # noqa: PLC0415 - loads urllib3
    from pytest_decisionos.trust.sources import ring_of  # noqa: PLC0415 - only for judges

    request = Request(
        root=settings.root,
        gate=gate,
        phase=settings.phase,
        now=datetime.now(UTC),
        ring=ring_of(settings),
        settings=settings,
    )
    return [judge_clock(judge, request) for judge in dict.fromkeys(judges)]


def _report(readings: Sequence[Reading], skew: Skew, sla: float) -> dict[str, object]:
    def number(value: float) -> float | None:
        return value if abs(value) < float("inf") else None  # nor NaN

    return {
        "ok": skew.fault is None,
        "fault": skew.fault,
        "max_skew_sec": sla,
        "offset_sec": number(skew.offset_sec),
        "error_sec": number(skew.error_sec),
        "dissent": skew.dissent,
        "readings": [
            {
                "source": reading.source,
                "offset_sec": number(reading.offset_sec),
                "error_sec": number(reading.error_sec),
                "fault": fault or None,
            }
            for reading, fault in zip(readings, skew.faults, strict=True)
        ],
    }


def _print(readings: Sequence[Reading], skew: Skew, sla: float) -> None:
    _row("source", "offset", "bound", "verdict")
    for reading, fault in zip(readings, skew.faults, strict=True):
        numbers = ("-", "-") if reading.fault else _numbers(reading.offset_sec, reading.error_sec)
        _row(reading.source, *numbers, fault or "ok")
    if skew.fault:
        told = f"FAULT: {skew.fault}"
    else:
        told = f"within {seconds(sla)}: {' '.join(_numbers(skew.offset_sec, skew.error_sec))}"
    if skew.dissent:
        told += f"; {skew.dissent} of {len(readings)} say otherwise"
    say("clock", told)


def _numbers(offset: float, error: float) -> tuple[str, str]:
    sign = "+" if offset >= 0 else ""
    return f"{sign}{seconds(offset)}", f"± {seconds(error)}"


def _row(*cells: str) -> None:
    for line in row([plain(cell) for cell in cells], _WIDTHS):
        click.echo(line)


def _duration(option: str, text: str) -> float:
    """Seconds; a number alone is seconds too.

    Raises:
        UsageError: it is no duration, or not one that clocks are held to.
    """
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,9})?)(ms|s)?", text)
    value = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < value <= MAX_SKEW_SEC:
        raise UsageError(
            "not a duration for this",
            field=option,
            found=text,
            expected=f"such as 500ms, 2s or 0.5, more than 0 and at most {MAX_SKEW_SEC:g} s",
        )
    return value
