"""``dosctl stage``: show, check, begin, repair and follow the stage."""

from __future__ import annotations

import contextlib
import math
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from pytest_decisionos.cli.output import echo_json, even_unread, say
from pytest_decisionos.errors import ExitCode, UsageError, shown
from pytest_decisionos.judge.gate import load_gate
from pytest_decisionos.release import audit
from pytest_decisionos.release.repair import Asked, initialise, repair
from pytest_decisionos.release.rollout import load_rollout
from pytest_decisionos.release.stage import FILE, Reading
from pytest_decisionos.release.watch import Command, follow, look, until_stopped
from pytest_decisionos.report.conditions import stage_alone
from pytest_decisionos.settings import Settings, from_environment
from pytest_decisionos.trust.files import is_there
from pytest_decisionos.trust.sources import place_of, ring_at, ring_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_decisionos.model.target import Target
    from pytest_decisionos.release.repair import Done
    from pytest_decisionos.release.watch import Change
    from pytest_decisionos.trust.keys import KeyRing

_SHOW = """\b
Example:
  dosctl stage show --root var
"""
_VERIFY = """\b
Example:
  DECISIONOS_JUDGE_KEYS=@keys/ring.json dosctl stage verify
"""
_INIT = """\b
Example:
  DECISIONOS_ALLOW_SCOPES=deploy:promote dosctl stage init --release 1.4.2
"""
_RECONCILE = """\b
Example:
  DECISIONOS_ALLOW_SCOPES=deploy:abort dosctl stage reconcile
"""
_WATCH = """\b
Example:
  dosctl stage watch --exec 'bin/shift-traffic --now' --interval 2
"""


def _where(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say whose stage it is."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option(
            "--gate",
            type=click.Path(path_type=Path),
            help="Gate configuration, which names the target  [default: configs/gate.yaml]",
        ),
        click.option(
            "--root",
            type=click.Path(path_type=Path),
            help="Root folder of the target  [default: var]",
        ),
    ):
        command = option(command)
    return command


class _Place(NamedTuple):
    root: Path
    target: Target
    settings: Settings

    def look(self, ring: Callable[[], KeyRing | None] | None = None) -> Reading:
        return look(
            self.root,
            target=self.target,
            ring=ring or (lambda: ring_of(self.settings)),
            state_dir=self.settings.state_dir,
        )

    def asked(self) -> Asked:
        return Asked(
            root=self.root,
            target=self.target,
            ring=lambda: ring_of(self.settings),
            state_dir=self.settings.state_dir,
            scopes=self.settings.allow_scopes,
            actor=audit.actor_of(self.settings.actor),
            now=datetime.now(UTC),
        )


def _place(root: Path | None, gate: Path | None) -> _Place:
    settings = from_environment()
    target = load_gate(gate or settings.gate).target
    return _Place(root or settings.root, target, settings)


@click.group(epilog="\b\nExample:\n  dosctl stage show")
def stage() -> None:
    """Show, check, begin, repair and follow the stage: what a rollout controller obeys."""


@stage.command(epilog=_SHOW)
@_where
def show(root: Path | None, gate: Path | None, as_json: bool) -> int:
    """Show the stage as a controller has to take it.

    Whatever is wrong with its file, it reads as stable, with an alarm. Exit status: 0 it was
    shown, with an alarm too; 4 unusable configuration.
    """
    place = _place(root, gate)
    _tell(place, place.look(), as_json=as_json)
    return int(ExitCode.GO)


@stage.command(epilog=_VERIFY, short_help="Say whether the stage's file is valid.")
@_where
def verify(root: Path | None, gate: Path | None, as_json: bool) -> int:
    """Show the stage, and say by the exit status whether its file is valid.

    Exit status: 0 it is; 2 it reads as stable with an alarm; 4 unusable configuration.
    """
    place = _place(root, gate)
    reading = place.look()
    _tell(place, reading, as_json=as_json)
    return int(ExitCode.NO_GO if reading.alarm else ExitCode.GO)


@stage.command(epilog=_INIT)
@_where
@click.option("--release", help="The release that everybody runs.")
def init(root: Path | None, gate: Path | None, as_json: bool, release: str | None) -> int:
    """Write a signed stable stage, where there is none yet.

    Without --release, that is not known until it is said, or until a canary was promoted. A bad
    file is not touched: `dosctl stage reconcile` repairs it. Needs the scope deploy:promote and a
    key of the stage. Exit status: 0 done, or it was there; 2 refused, 3 denied, 4 unusable.
    """
    place = _place(root, gate)
    beside = (gate or place.settings.gate).parent / "rollout.yaml"
    rollout = None
    if release is not None and is_there(beside):
        rollout = load_rollout(beside, root=place.root, target=place.target)
    return _tell_done(place, initialise(place.asked(), release, rollout), as_json=as_json)


@stage.command(epilog=_RECONCILE, short_help="Repair a file that cannot be believed.")
@_where
def reconcile(root: Path | None, gate: Path | None, as_json: bool) -> int:
    """Repair a file that cannot be believed: keep it aside, and write a signed stable stage.

    A valid one stays what it is; if another key signs stages by now, it is signed anew. Traffic is
    not moved. Needs the scope deploy:abort and a key of the stage. Exit status: 0 done, or nothing
    was wrong; 2 refused, 3 denied, 4 unusable.
    """
    place = _place(root, gate)
    return _tell_done(place, repair(place.asked()), as_json=as_json)


@stage.command(epilog=_WATCH, short_help="Follow the stage, and run a command at each change.")
@_where
@click.option("--exec", "program", metavar="CMD", help="Run this for each change; no shell.")
@click.option(
    "--interval",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.05, 3600),
    metavar="SEC",
    help="Seconds between two looks.",
)
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0.1, 3600),
    metavar="SEC",
    help="Seconds that CMD may take.",
)
@click.option("--once", is_flag=True, help="Look once, run CMD once, and end.")
def watch(  # noqa: PLR0917 - click passes each option by name
    root: Path | None,
    gate: Path | None,
    as_json: bool,
    program: str | None,
    interval: float,
    timeout: float,
    once: bool,
) -> int:
    """Follow the stage, and run CMD at the first look and at each change.

    CMD finds what it has to obey in DECISIONOS_STAGE, _PCT, _RELEASE, _BASELINE_RELEASE, _PAUSED,
    _SEQ, _ALARM, _ROOT and _TARGET, and no key. One that fails is told; at stable and abort it
    is tried again at each look, else at the next change. Ends with SIGTERM or SIGINT. Exit status:
    0 ended; 4 unusable configuration, or with --once CMD failed.
    """
    place = _place(root, gate)
    for option, seconds in (("--interval", interval), ("--timeout", timeout)):
        if not math.isfinite(seconds):  # which click lets through
            raise UsageError("not a number of seconds", field=option, found=seconds)
    command = None if program is None else Command(_words(program), timeout)
    failed = False
    with until_stopped(), contextlib.ExitStack() as held:
        ring = _followed_ring(place.settings, held)
        for change in follow(
            lambda: place.look(ring),
            command,
            root=place.root,
            target=place.target,
            interval_sec=interval,
            once=once,
        ):
            failed = bool(change.fault)
            # An abort that comes later must reach CMD, whatever became of this output.
            with even_unread() if command else contextlib.nullcontext():
                _tell_change(place, change, as_json=as_json)
    return int(ExitCode.UNUSABLE if once and failed else ExitCode.GO)


def _words(program: str) -> list[str]:
    try:
        words = shlex.split(program)
    except ValueError as fault:
        raise UsageError(f"not a command: {fault}", field="--exec", found=program) from None
    if not words:
        raise UsageError("nothing to run", field="--exec")
    return words


def _followed_ring(
    settings: Settings, held: contextlib.ExitStack
) -> Callable[[], KeyRing | None] | None:
    """The ring, read again in the background; where there is none, None."""
    place = place_of(settings)
    if place is None:
        return None
    from pytest_decisionos.trust.refresh import RefreshingRing  # noqa: PLC0415 - starts a thread

    refreshing = RefreshingRing(lambda: ring_at(place, settings))
    held.callback(refreshing.close)
    return refreshing.ring


def _tell_done(place: _Place, done: Done, *, as_json: bool) -> int:
    if done.unaudited:
        click.echo(f"note: not in the audit journal: {done.unaudited}", err=True)
    _tell(place, done.reading, as_json=as_json, done=done.what or "unchanged")
    return int(ExitCode.GO)


def _report(place: _Place, reading: Reading) -> dict[str, Any]:
    """The stage for other programs; without a valid file what it reads as."""
    fields = reading.stage.model_dump(mode="json", exclude={"mac"}) if reading.stage else {}
    return {
        "stage": reading.name,
        "pct": reading.pct,
        "release": reading.release,
        "baseline_release": reading.baseline_release,
        "alarm": reading.alarm,
        "message": reading.message,
        "file": str(place.root / FILE),
        "sha256": reading.sha256,
        **fields,
        "target": place.target.model_dump(),
    }


def _tell(place: _Place, reading: Reading, *, as_json: bool, done: str = "") -> None:
    if as_json:
        more = {"done": done} if done else {}
        echo_json(more | _report(place, reading))
        return
    say("stage", stage_alone(reading))
    if reading.stage is not None:
        found = reading.stage
        say("since", f"{found.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
        say("number", f"{found.seq}, signed by {found.key_id}; looks {found.looks}")
        if found.decision_sha256:
            say("decision", found.decision_sha256)
    say("target", str(place.target))
    if reading.message:
        say("ALARM" if reading.alarm else "note", _alarm(reading))
    if reading.alarm not in {"", "unverified", "memory"}:
        say("next", "dosctl stage init" if reading.alarm == "missing" else "dosctl stage reconcile")
    if done:
        say("done", done)
    click.echo(f"→ {shown(str(place.root / FILE), 300)}")


def _alarm(reading: Reading) -> str:
    return f"{reading.alarm}: {reading.message}" if reading.alarm else reading.message


def _tell_change(place: _Place, change: Change, *, as_json: bool) -> None:
    reading = change.reading
    at = change.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if as_json:
        command = {None: None, "": "done"}.get(change.fault, "failed")
        made = {"at": at, "command": command, "fault": change.fault or ""}
        echo_json(made | _report(place, reading), indent=None)
        return
    click.echo(f"{at} {stage_alone(reading)}")
    if reading.alarm:
        say("  ALARM", _alarm(reading))
    if change.fault:
        say("  FAILED", change.fault)
