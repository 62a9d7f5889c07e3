"""``dosctl judge``: one SLO, judged by the quorum."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from pytest_decisionos.cli.gathered import EXIT, judged
from pytest_decisionos.cli.lazy import LazyGroup
from pytest_decisionos.cli.output import echo_json
from pytest_decisionos.judge.gather import Request
from pytest_decisionos.settings import from_environment, split
from pytest_decisionos.trust import rbac
from pytest_decisionos.trust.sources import ring_of


@click.group(
    cls=LazyGroup,
    lazy={
        "serve": (
            "pytest_decisionos.cli.judge_serve:serve",
            "Answer other hosts' questions, from this host's own logs.",
        )
    },
)
def judge() -> None:
    """Judge evidence by a quorum of judges."""


_QUORUM = """\b
Example:
  dosctl judge quorum --slo configs/slo/slo-judge-infra.json \\
    --evidence var/evidence/latest.json --quorum 2/3
"""


@judge.command(epilog=_QUORUM)
@click.option("--slo", required=True, type=click.Path(path_type=Path), help="SLO file to judge by.")
@click.option(
    "--evidence",
    type=click.Path(path_type=Path),
    help="Evidence  [default: <root>/evidence/latest.json]",
)
@click.option(
    "--quorum",
    "k_of_n",
    default=None,
    metavar="K/N",
    help="Demand at least k of n; never less than the files say.",
)
@click.option("--judges", default=None, metavar="NAMES", help="Ask only these; the others abstain.")
@click.option(
    "--gate",
    type=click.Path(path_type=Path),
    help="Gate configuration  [default: configs/gate.yaml]",
)
@click.option(
    "--root", type=click.Path(path_type=Path), help="Root folder of the target  [default: var]"
)
@click.option("--phase", default=None, help="Phase of gate.yaml  [default: cutover]")
@click.option("--json", "as_json", is_flag=True, help="Print the whole decision as JSON.")
def quorum(  # noqa: PLR0917 - click passes each option by name
    slo: Path,
    evidence: Path | None,
    k_of_n: str | None,
    judges: str | None,
    gate: Path | None,
    root: Path | None,
    phase: str | None,
    as_json: bool,
) -> int:
    """Judge evidence by one SLO, and print how each judge voted.

    Needs the scope judge:run. Exit status: 0 GO, 2 NO-GO, 3 denied, 4 unusable input, 10 HOLD.
    """
    settings = from_environment()
    rbac.require(settings.allow_scopes, "judge:run")
    request = Request(
        root=root or settings.root,
        gate=gate or settings.gate,
        phase=phase or settings.phase,
        now=datetime.now(UTC),
        evidence=evidence or settings.evidence,
        only_slo=slo,
        judges=tuple(split(settings.judges if judges is None else judges)),
        quorum=settings.quorum if k_of_n is None else k_of_n,
        ring=ring_of(settings),
        settings=settings,
    )
    _, decision = judged(request)
    if as_json:
        from pytest_decisionos.report.publish import decision_json  # noqa: PLC0415 - loads XML

        echo_json(json.loads(decision_json(decision)))
    else:
        from rich.console import Console  # noqa: PLC0415 - loads only for people

        from pytest_decisionos.report.table import QuorumTable  # noqa: PLC0415 - the same

        Console(highlight=False).print(QuorumTable(decision))
    return EXIT[decision.verdict]
