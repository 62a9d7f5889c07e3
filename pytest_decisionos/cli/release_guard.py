"""``dosctl release guard``: run the gate, and abort if that is its action."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pytest_decisionos.cli.gathered import EXIT, judged
from pytest_decisionos.cli.output import echo_json, even_unread, say
from pytest_decisionos.cli.releasing import as_json, here_of, where
from pytest_decisionos.errors import DeniedError, RefusedError
from pytest_decisionos.judge.admission import counts_copies
from pytest_decisionos.judge.gather import Request
from pytest_decisionos.model.decision import Action
from pytest_decisionos.release.back import abort
from pytest_decisionos.report.conditions import stage_json, stage_words
from pytest_decisionos.settings import from_environment

if TYPE_CHECKING:
    from pytest_decisionos.model.decision import Decision
    from pytest_decisionos.release.back import Back

_GUARD = """\b
Example:
  dosctl release guard --slo configs/slo/slo-canary-v2.json --quorum 2/3
"""


@click.command(epilog=_GUARD)
@click.option(
    "--slo",
    type=click.Path(path_type=Path),
    help="Judge by this SLO alone, not by all of the phase.",
)
@click.option(
    "--evidence",
    type=click.Path(path_type=Path),
    help="Evidence  [default: <root>/evidence/latest.json]",
)
@click.option("--quorum", default=None, metavar="K/N", help="Demand at least k of n.")
@click.option("--phase", default=None, help="Phase of gate.yaml  [default: cutover]")
@where
@as_json
def guard(  # noqa: PLR0917 - click passes each option by name
    slo: Path | None,
    evidence: Path | None,
    quorum: str | None,
    phase: str | None,
    root: Path | None,
    gate: Path | None,
    as_json: bool,
) -> int:
    """Judge the evidence, and drive the traffic back if the action is abort.

    Thin traffic is NO-GO with the action wait: that does not throw a healthy canary away. Needs the
    scope judge:run, and to abort deploy:abort.

    Exit status: 0 GO, 2 NO-GO, 3 denied, 4 unusable input, 10 HOLD.
    """
    settings = from_environment()
    here = here_of("dosctl release guard", root=root, gate=gate, evidence=evidence)
    here.require("judge:run")
    ring = here.asked.ring()
    request = Request(
        root=here.asked.root,
        gate=here.gate,
        phase=phase or settings.phase,
        now=here.asked.now,
        evidence=here.evidence,
        only_slo=slo,
        quorum=settings.quorum if quorum is None else quorum,
        ring=ring,
        settings=settings,
    )
    inputs, decision = judged(request)
    # Driving back is right whatever the numbers are of; going on is not.
    copies = decision.action is not Action.ABORT and counts_copies(inputs.blocks)
    if copies and here.look(ring).pct:
        raise RefusedError(
            "copies of requests count as the canary's, which has users",
            file=inputs.evidence.file,
            field="/witness/harvest/shadow",
            next_step="dosctl evidence build --no-shadow",
        )
    done = None
    if decision.action is Action.ABORT:
        # First of all: an output that cannot be written must not keep the traffic on the canary.
        try:
            done = abort(here, f"gate: {'; '.join(_reasons(decision)[:3])}")
        except DeniedError:
            with even_unread():
                _tell(decision, None, as_json=as_json)
            raise
    with even_unread() if done else contextlib.nullcontext():
        _tell(decision, done, as_json=as_json)
    return EXIT[decision.verdict]


def _reasons(decision: Decision) -> list[str]:
    return [f"{one.code}: {one.message}" for one in decision.reasons if not one.outvoted]


def _tell(decision: Decision, done: Back | None, *, as_json: bool) -> None:
    if as_json:
        reasons = [one.model_dump(mode="json") for one in decision.reasons if not one.outvoted]
        told = {
            "verdict": decision.verdict,
            "action": decision.action,
            "decision_id": decision.decision_id,
            "reasons": reasons,
            "aborted": None if done is None else done.ok,
            "faults": list(done.faults) if done else [],
            "stage": stage_json(done.after) if done else None,
        }
        echo_json(told)
        return
    say("gate", f"{decision.verdict}, {decision.action} (unsigned: a dry-run)")
    for reason in _reasons(decision)[:5]:
        say("reason", reason)
    if done is not None:
        for fault in done.faults:
            say("FAILED", fault, err=True)
        say("traffic", "back" if done.driven else "NOT known to be back")
        say("stage", stage_words(done.after))
    elif decision.action is Action.WAIT:
        say("stage", "nothing was aborted: the action is wait")
