"""``dosctl release``: every change of a stage, from the first copies of requests to the end, and back."""

from __future__ import annotations

import click

from pytest_decisionos.cli.lazy import LazyGroup

_HOME = "pytest_decisionos.cli.release_"


@click.group(
    cls=LazyGroup,
    lazy={
        "abort": (f"{_HOME}back:abort", "Drive all traffic back, whatever is broken."),
        "acknowledge": (f"{_HOME}back:acknowledge", "Say that an abort is known."),
        "approve": (f"{_HOME}approve:approve", "Sign a decision as a deploy owner."),
        "auto": (f"{_HOME}auto:auto", "Do what is due now, if anything is."),
        "finish": (f"{_HOME}change:finish", "End a promotion after its verification."),
        "guard": (f"{_HOME}guard:guard", "Run the gate, and abort if that is its action."),
        "pause": (f"{_HOME}change:pause", "Let no step go on."),
        "promote": (f"{_HOME}change:promote", "Let the canary have all traffic."),
        "reconcile": (f"{_HOME}back:reconcile", "Repair the stage, bring its traffic about."),
        "resume": (f"{_HOME}change:resume", "Let steps go on again."),
        "status": (f"{_HOME}status:status", "Show the stage, the traffic and what is lacking."),
        "step": (f"{_HOME}change:step", "Let the canary have more traffic."),
    },
    epilog="\b\nExample:\n  dosctl release status",
)
def release() -> None:
    """Step, promote, pause, abort and finish a release."""
