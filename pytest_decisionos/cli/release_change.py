"""``dosctl release step``, ``promote``, ``finish``, ``pause`` and ``resume``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from pytest_decisionos.cli.output import even_unread, say
from pytest_decisionos.cli.releasing import (
    as_json,
    asking_of,
    break_glass,
    by_decision,
    dry_run,
    here_of,
    tell,
    where,
)
from pytest_decisionos.errors import DecisionOSError, ExitCode, UsageError
from pytest_decisionos.release import change
from pytest_decisionos.release.here import ConditionsError
from pytest_decisionos.report.conditions import stage_words
from pytest_decisionos.settings import from_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_decisionos.release.change import Moved

_STEP = """\b
Examples:
  dosctl release step --release v0.5.11q --baseline v0.5.11p
  dosctl release step 25
  dosctl release step 25 --dry-run
"""
_PROMOTE = """\b
Examples:
  dosctl release promote
  dosctl release promote --bundle 20260115T120000000000Z-0123456789ab
"""
_FINISH = """\b
Example:
  dosctl decision sign --phase post && dosctl release finish
"""
_PAUSE = """\b
Example:
  DECISIONOS_ALLOW_SCOPES=deploy:abort dosctl release pause
"""
_RESUME = """\b
Example:
  DECISIONOS_ALLOW_SCOPES=deploy:promote dosctl release resume
"""


@click.command(epilog=_STEP)
@click.argument("pct", required=False, type=click.FloatRange(0, 100), metavar="[PCT]")
@click.option("--release", "candidate", help="The canary, for the first step.")
@click.option("--baseline", help="What everybody runs, for the first step.")
@by_decision
@break_glass
@dry_run
@where
@as_json
def step(  # noqa: PLR0917 - click passes each option by name
    pct: float | None,
    candidate: str | None,
    baseline: str | None,
    root: Path | None,
    gate: Path | None,
    as_json: bool,
    **how: Any,
) -> int:
    """Let the canary have more traffic: the next percentage of the policy, or PCT.

    Out of stable the first step is shadow: the canary gets copies of requests and no user waits for
    it. It needs a release and its baseline: by option, DECISIONOS_RELEASE and
    DECISIONOS_BASELINE_RELEASE, or as the evidence names them. Every later one needs a signed GO
    for exactly this step, and all that `--dry-run` lists.

    Needs the scope deploy:promote. Exit status: 0 done, 2 refused or aborted, 3 denied, 4 unusable.
    """
    if pct is not None and not math.isfinite(pct):
        raise UsageError("not a percentage", field="PCT", found=pct)
    settings = from_environment()

    def act(here: Any, asking: Any) -> Moved:
        return change.step(
            here,
            asking,
            pct,
            release=candidate or settings.release or None,
            baseline=baseline or settings.baseline_release or None,
        )

    return _change("step", act, root, gate, as_json=as_json, **how)


@click.command(epilog=_PROMOTE)
@by_decision
@break_glass
@dry_run
@where
@as_json
def promote(root: Path | None, gate: Path | None, as_json: bool, **how: Any) -> int:
    """Let the canary have all traffic; its baseline is kept warm until `dosctl release finish`.

    Needs the scope deploy:promote, and what a step needs. Exit status: 0 done, 2 refused or aborted,
    3 denied, 4 unusable.
    """
    return _change("promote", change.promote, root, gate, as_json=as_json, **how)


@click.command(epilog=_FINISH)
@by_decision
@dry_run
@where
@as_json
def finish(root: Path | None, gate: Path | None, as_json: bool, **how: Any) -> int:
    """End a promotion, after the post-verification: its release is what is stable.

    Needs the scope deploy:promote and a signed GO of the phase post. Exit status: 0 done, 2 refused,
    3 denied, 4 unusable.
    """
    more: dict[str, Any] = {"break_glass": False, "operator_keys": (), "reason": ""}
    return _change("finish", change.finish, root, gate, as_json=as_json, **how, **more)


def _change(
    name: str,
    act: Callable[[Any, Any], Moved],
    root: Path | None,
    gate: Path | None,
    *,
    as_json: bool,
    evidence: Path | None,
    trust: Path | None,
    **how: Any,
) -> int:
    asking = asking_of(**how)
    here = here_of(f"dosctl release {name}", root=root, gate=gate, evidence=evidence, trust=trust)
    told: dict[str, Any] = {"command": name, "dry_run": asking.dry_run}
    try:
        done = act(here, asking)
    except DecisionOSError as fault:
        outcomes = fault.outcomes if isinstance(fault, ConditionsError) else ()
        with even_unread():  # it may say that the traffic was driven back
            tell(None, outcomes, as_json=as_json, **told, done=False, error=str(fault))
        raise
    tell(
        done.reading,
        done.outcomes,
        as_json=as_json,
        **told,
        done=not asking.dry_run,
        to_pct=done.to_pct,
    )
    if asking.dry_run and not as_json:
        say("dry-run", f"every condition holds; {name} would lead to {done.to_pct:g} %")
    return int(ExitCode.GO)


@click.command(epilog=_PAUSE)
@where
def pause(root: Path | None, gate: Path | None) -> None:
    """Let no step go on until `dosctl release resume`; an abort always may.

    Like every change of the stage, it uses up the decisions that were signed before. Needs the scope
    deploy:abort. Exit status: 0 done, 2 refused, 3 denied, 4 unusable.
    """
    say("stage", stage_words(change.pause(here_of("dosctl release pause", root=root, gate=gate))))


@click.command(epilog=_RESUME)
@where
def resume(root: Path | None, gate: Path | None) -> None:
    """Let steps go on again.

    Needs the scope deploy:promote. Exit status: 0 done, 2 refused, 3 denied, 4 unusable.
    """
    say("stage", stage_words(change.resume(here_of("dosctl release resume", root=root, gate=gate))))
