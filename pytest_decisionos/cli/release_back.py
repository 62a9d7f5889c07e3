"""``dosctl release abort``, ``reconcile`` and ``acknowledge``: they load no more than they need.

An abort must not fail, nor be late, for a module that only a promotion needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pytest_decisionos.cli.output import echo_json, even_unread, say
from pytest_decisionos.cli.releasing import as_json, here_of, here_of_abort, where
from pytest_decisionos.errors import ExitCode
from pytest_decisionos.release import back
from pytest_decisionos.report.conditions import stage_json, stage_words

if TYPE_CHECKING:
    from pathlib import Path

_ABORT = """\b
Example:
  DECISIONOS_ALLOW_SCOPES=deploy:abort dosctl release abort --reason 'slow'
"""
_RECONCILE = """\b
Example:
  DECISIONOS_ALLOW_SCOPES=deploy:abort,deploy:promote dosctl release reconcile
"""
_ACKNOWLEDGE = """\b
Example:
  DECISIONOS_ALLOW_SCOPES=deploy:promote dosctl release acknowledge v0.5.11q
"""


@click.command(epilog=_ABORT)
@click.option("--reason", default="", metavar="TEXT", help="Why, for the audit journal.")
@where
@as_json
def abort(reason: str, root: Path | None, gate: Path | None, as_json: bool) -> int:
    """Drive all traffic back to the baseline, and bring the stage over abort to stable.

    Needs the scope deploy:abort and nothing else: whatever is broken is told, and does not stop it.
    Without a key of the stage it removes the stage's file, which reads as stable.

    Exit status: 0 the traffic is back and the stage reads stable, 2 it did all it could and says
    what failed, 3 denied.
    """
    here, faults = here_of_abort("dosctl release abort", root=root, gate=gate)
    done = back.abort(here, reason)
    with even_unread():
        _tell(done, [*faults, *done.notes], as_json=as_json)
    return int(ExitCode.GO if done.ok else ExitCode.NO_GO)


def _tell(done: back.Back, notes: list[str], *, as_json: bool) -> None:
    if as_json:
        told = {"command": "abort", "done": done.ok, "driven": done.driven, "notes": notes}
        echo_json(told | {"faults": list(done.faults), "stage": stage_json(done.after)})
        return
    for text in notes:
        say("note", text, err=True)
    for text in done.faults:
        say("FAILED", text, err=True)
    say("traffic", "back" if done.driven else "NOT known to be back")
    say("stage", stage_words(done.after))


@click.command(epilog=_RECONCILE)
@where
def reconcile(root: Path | None, gate: Path | None) -> None:
    """Repair a stage that cannot be believed, then bring about the traffic that the stage says.

    That heals a crash between the stage and the traffic. Needs the scope deploy:abort, and with a
    canary or a promoted release deploy:promote. Exit status: 0 done, 2 refused, 3 denied,
    4 unusable, or traffic could not be moved.
    """
    done = back.reconcile(here_of("dosctl release reconcile", root=root, gate=gate))
    with even_unread():
        for what in done.what:
            say("done", what)
        say("stage", stage_words(done.reading))


@click.command(epilog=_ACKNOWLEDGE)
@click.argument("candidate", metavar="RELEASE")
@where
def acknowledge(candidate: str, root: Path | None, gate: Path | None) -> None:
    """Say that the abort of RELEASE is known: after its cooldown it may come back.

    Needs the scope deploy:promote. Exit status: 0 done, 2 it was not aborted, 3 denied, 4 unusable.
    """
    here = here_of("dosctl release acknowledge", root=root, gate=gate)
    back.acknowledge(here, candidate)
    say("done", f"the abort of {candidate} is known")
