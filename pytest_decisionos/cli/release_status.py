"""``dosctl release status``: where a release is, and what its next step lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pytest_decisionos.cli.output import echo_json, say
from pytest_decisionos.cli.releasing import as_json, by_decision, here_of, where
from pytest_decisionos.errors import DecisionOSError, ExitCode
from pytest_decisionos.release.conditions import Asking
from pytest_decisionos.release.outlook import outlook
from pytest_decisionos.release.rollout import load_rollout, traffic_of
from pytest_decisionos.report.conditions import (
    condition_json,
    condition_lines,
    stage_json,
    stage_words,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_decisionos.release.here import Here
    from pytest_decisionos.release.stage_model import Reading


@click.command(epilog="\b\nExample:\n  dosctl release status")
@by_decision
@where
@as_json
def status(  # noqa: PLR0917 - click passes each option by name
    bundle: str,
    evidence: Path | None,
    trust: Path | None,
    root: Path | None,
    gate: Path | None,
    as_json: bool,
) -> int:
    """Show the stage, what carries the traffic, and every condition of what comes next.

    Changes nothing and needs no scope. Exit status: 0 it was shown, 4 unusable configuration.
    """
    here = here_of("dosctl release status", root=root, gate=gate, evidence=evidence, trust=trust)
    ring, keys = None, ""
    try:
        ring = here.keys()
    except DecisionOSError as fault:
        keys = str(fault)
    reading = here.look(ring)
    traffic = _traffic(here, reading)
    following, judged = outlook(here, reading, ring, Asking(bundle, dry_run=True))
    outcomes = judged.outcomes if judged else ()
    if as_json:
        told: dict[str, Any] = {"stage": stage_json(reading), "traffic": traffic, "keys": keys}
        echo_json(told | {"next": following, "conditions": condition_json(outcomes)})
        return int(ExitCode.GO)
    say("stage", stage_words(reading))
    if keys:
        say("keys", keys)
    say("traffic", traffic)
    say("next", following)
    for line in condition_lines(outcomes):
        click.echo(line)
    return int(ExitCode.GO)


def _traffic(here: Here, reading: Reading) -> str:
    try:
        rollout = load_rollout(here.rollout_file, root=here.asked.root, target=here.asked.target)
        told = rollout.running()
        want = traffic_of(reading)
    except DecisionOSError as fault:
        return str(fault)
    if told is None:
        return f"{rollout.name} does not tell"
    if told.baseline_release is None:
        said = f"{rollout.name}: everybody on {told.release}"
    else:
        share = "copies" if told.shadow else f"{told.pct:g} %"
        said = f"{rollout.name}: {share} to {told.release}, the rest on {told.baseline_release}"
    same = (told.pct, told.baseline_release) == (want.pct, want.baseline_release)
    if same and want.release in {None, told.release}:
        return said
    return f"{said}: NOT what the stage says → dosctl release reconcile, or abort"
