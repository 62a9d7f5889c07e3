"""``dosctl release auto``: promote, step, wait or abort, as evidence and stage say now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pytest_decisionos.cli.output import even_unread, say
from pytest_decisionos.cli.releasing import as_json, dry_run, here_of, judged, tell, where
from pytest_decisionos.errors import ExitCode
from pytest_decisionos.release.auto import auto as act

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_decisionos.release.auto import AutoDone

_EXIT = {
    "promote": ExitCode.GO,
    "step": ExitCode.GO,
    "wait": ExitCode.HOLD,
    "abort": ExitCode.NO_GO,
}
_AUTO = """\b
Examples:
  dosctl release auto --dry-run
  */1 * * * * cd /srv/checkout && python -m jobs.canary_auto_promote
"""


@click.command(epilog=_AUTO)
@judged
@dry_run
@where
@as_json
def auto(  # noqa: PLR0917 - click passes each option by name
    evidence: Path | None,
    trust: Path | None,
    dry_run: bool,
    root: Path | None,
    gate: Path | None,
    as_json: bool,
) -> int:
    """Judge the canary by the sealed evidence, and do what is due.

    A step or promote goes by the newest decision that is signed for the stage as it is; until there
    is one, it waits. A look at the numbers of a step is taken, and counted, only when all the rest
    holds. Twice is the same as once, so it may run from cron.

    Needs the scope of what is due: deploy:promote, deploy:abort. Exit status: 0 stepped or promoted,
    2 aborted, or the stage cannot be believed, 3 denied, 4 unusable, 10 wait.
    """
    here = here_of("dosctl release auto", root=root, gate=gate, evidence=evidence, trust=trust)
    done = act(here, dry_run=dry_run)
    with even_unread():
        _tell(done, dry_run=dry_run, as_json=as_json)
    return int(_EXIT[done.action])


def _tell(done: AutoDone, *, dry_run: bool, as_json: bool) -> None:
    told: dict[str, Any] = {"action": done.action, "dry_run": dry_run, "from_pct": done.from_pct}
    tell(
        done.reading,
        done.reasons,
        as_json=as_json,
        **told,
        to_pct=done.to_pct,
        faults=list(done.faults),
    )
    if not as_json:
        for fault in done.faults:
            say("FAILED", fault, err=True)
        would = "would " if dry_run else ""
        say("action", f"{would}{done.action}, {done.from_pct:g} → {done.to_pct:g} %")
