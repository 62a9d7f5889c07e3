"""``dosctl sample``: sample logs to try the gate with."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from pytest_decisionos.cli.times import time_of
from pytest_decisionos.errors import shown

# Spelt out, because naming them by import would make every `dosctl --help` load numpy.
_SCENARIOS = ("healthy", "slow-canary", "error-burst", "thin-traffic", "evil-evidence")


_EXAMPLES = """\b
Examples:
  dosctl sample --out var/log --seed 7
  dosctl sample --scenario slow-canary --end 2026-01-05T09:00:00+09:00
"""


@click.command(epilog=_EXAMPLES)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("var/log"),
    show_default=True,
    help="Folder to write into; files of the same names are replaced.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    metavar="N",
    default=7,
    show_default=True,
    help="The same seed gives the same traffic.",
)
@click.option(
    "--scenario",
    type=click.Choice(_SCENARIOS),
    default="healthy",
    show_default=True,
    help="What happens to the canary.",
)
@click.option("--end", metavar="ISO", help="When the logs end, with offset.  [default: now]")
def sample(out: Path, seed: int, scenario: str, end: str | None) -> None:
    """Write sample logs: 40 minutes of traffic, a canary in the last 22.

    Writes reqlog.csv, judgelog.csv, lb.csv (the same requests as the load balancer saw them) and
    the blocks budget.json, quota.json and usage.json. evil-evidence adds forged evidence that
    contradicts its own logs.
    """
    from pytest_decisionos.harvest.sample import write_sample  # noqa: PLC0415 - numpy is slow to load

    written = write_sample(
        out,
        seed=seed,
        scenario=scenario,
        end=time_of("--end", end) or datetime.now(UTC).replace(microsecond=0),
    )
    if scenario == "evil-evidence":
        from pytest_decisionos.evidence.build import forge_sample  # noqa: PLC0415 - loads duckdb

        written.append(forge_sample(out))
    for path in written:
        rows = f"{_rows(path):>9,} rows" if path.suffix == ".csv" else " " * 14
        click.echo(f"{rows}  {shown(str(path), 300)}")


def _rows(path: Path) -> int:
    return path.read_bytes().count(b"\n") - 1
