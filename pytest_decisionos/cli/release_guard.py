"""``dosctl release guard``: run the gate, and abort if that is its action."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pytest_decisionos.checks.run import with_checks
from pytest_decisionos.cli.gathered import gathered
from pytest_decisionos.cli.releasing import as_json, here_of, say, where
from pytest_decisionos.errors import ExitCode
from pytest_decisionos.judge.decide import decide
from pytest_decisionos.judge.gather import Request
from pytest_decisionos.model.decision import Action, Verdict
from pytest_decisionos.release.back import abort
from pytest_decisionos.report.conditions import stage_json, stage_words
from pytest_decisionos.settings import from_environment

_EXIT = {Verdict.GO: ExitCode.GO, Verdict.HOLD: ExitCode.HOLD, Verdict.NO_GO: ExitCode.NO_GO}
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
    request = Request(
        root=here.asked.root,
        gate=here.gate,
        phase=phase or settings.phase,
        now=here.asked.now,
        evidence=here.evidence,
        only_slo=slo,
        quorum=settings.quorum if quorum is None else quorum,
        ring=here.asked.ring(),
        settings=settings,
    )
    checks = request.loaded_gate.phase(request.phase).check_list()
    decision = decide(with_checks(gathered(request), checks, request.root))
    reasons = [one for one in decision.reasons if not one.outvoted]
    why = "; ".join(f"{one.code}: {one.message}" for one in reasons[:3])
    if not as_json:
        say("gate", f"{decision.verdict}, {decision.action}")
        for one in reasons[:5]:
            say("reason", f"{one.code}: {one.message}")
    done = abort(here, f"gate: {why}") if decision.action is Action.ABORT else None
    if as_json:
        told = {
            "verdict": decision.verdict,
            "action": decision.action,
            "decision_id": decision.decision_id,
            "reasons": [one.model_dump(mode="json") for one in reasons],
            "aborted": None if done is None else done.ok,
            "faults": list(done.faults) if done else [],
            "stage": stage_json(done.after) if done else None,
        }
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
        return int(_EXIT[decision.verdict])
    if done is None and decision.verdict is not Verdict.GO:
        say("stage", "nothing was aborted: the action is wait")
    if done is not None:
        for fault in done.faults:
            say("FAILED", fault, err=True)
        say("traffic", "back" if done.driven else "NOT known to be back")
        say("stage", stage_words(done.after))
    return int(_EXIT[decision.verdict])
