"""``dosctl keys``: make, list, check, rotate and revoke keys."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_decisionos.cli.output import echo_json, say
from pytest_decisionos.errors import ExitCode, KeysError, UsageError, shown
from pytest_decisionos.report.text import row
from pytest_decisionos.settings import Settings, from_environment
from pytest_decisionos.trust import sources
from pytest_decisionos.trust.keys import USES, Use

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_decisionos.trust.keys import KeyEntry, KeyRing
    from pytest_decisionos.trust.rotate import Step

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_WIDTHS = (24, 7, 8, 16, 16)
_ROLES = "gate|judge|index|operator|deploy-owner"

_LIST = """\b
Example:
  dosctl keys list --ring keys/ring.json
"""
_CHECK = """\b
Example:
  DECISIONOS_JUDGE_KEYS=@keys/ring.json dosctl keys check --strict
"""
_GEN = """\b
Example:
  dosctl keys gen --use request --use evidence --ring keys/ring.json
  dosctl keys gen --role gate --keys keys
  dosctl keys gen --role judge --judge witness --keys keys
"""
_ROTATE = """\b
Example:
  dosctl keys rotate --use evidence --ring keys/ring.json --overlap 24h
  dosctl keys rotate --use request --ssm /decisionos/judge
"""
_REVOKE = """\b
Example:
  dosctl keys revoke request-20260105-1a2b3c --ring keys/ring.json
"""


def _where(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where the ring lies."""
    for option in (
        click.option("--ssm", metavar="PATH", help="The ring at this path in SSM."),
        click.option("--ring", metavar="FILE", help="The ring in this file, of mode 0600."),
    ):
        command = option(command)
    return command


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(epilog="\b\nExample:\n  dosctl keys check")
def keys() -> None:
    """Make, list, check, rotate and revoke keys.

    HMAC keys lie in a ring: --ring FILE, --ssm PATH, or what the environment names
    (DECISIONOS_KMS_PARAM_PATH, then DECISIONOS_JUDGE_KEYS). Ed25519 keys lie in files of their own.
    """


@keys.command("list", epilog=_LIST)
@_where
@_as_json
def list_(ring: str | None, ssm: str | None, as_json: bool) -> None:
    """List the HMAC keys; never a secret."""
    settings = from_environment()
    found = sources.ring_at(_place(settings, ring, ssm), settings)
    if as_json:
        listed = [entry.model_dump(mode="json", exclude={"secret"}) for entry in found.keys]
        echo_json({"origin": found.origin, "keys": listed})
        return
    _row("key_id", "state", "use", "not_before UTC", "not_after UTC")
    for entry in found.keys:
        _row(*_cells(entry))
    click.echo(f"→ {shown(found.origin, 300)}")


@keys.command(epilog=_CHECK, short_help="Say whether every use has a key that signs.")
@_where
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@_as_json
def check(ring: str | None, ssm: str | None, strict: bool, as_json: bool) -> int:
    """Say whether every use has a key that signs, and what should be better.

    Exit status: 0 it has, 2 a use has none (with --strict, or there are warnings), 4 the ring
    cannot be used.
    """
    from pytest_decisionos.trust.rotate import health  # noqa: PLC0415 - only two commands need it

    settings = from_environment()
    place = _place(settings, ring, ssm)
    found = sources.ring_at(place, settings)
    told = health(found, now=datetime.now(UTC), plain=place.kind == "variable")
    if as_json:
        echo_json({"origin": found.origin, "source": place.kind, **told._asdict()})
    else:
        click.echo(f"ring      {shown(found.origin, 300)} ({place.kind})")
        for use in USES:
            fault = told.faults.get(use)
            say(use, f"FAULT: {fault}" if fault else f"{told.signing[use]} signs")
        for warning in told.warnings:
            say("warning", warning)
    failed = told.faults or (strict and told.warnings)
    return int(ExitCode.NO_GO if failed else ExitCode.GO)


@keys.command(epilog=_GEN)
@click.option("--use", "uses", multiple=True, type=click.Choice(USES), help="A new HMAC key.")
@_where
@click.option("--role", metavar=_ROLES, help="A new pair of Ed25519 keys.")
@click.option("--judge", metavar="ID", help="Whose key it is, for the role judge.")
@click.option("--out", type=click.Path(path_type=Path), help="File of the private key.")
@click.option(
    "--keys",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder of private keys  [default: DECISIONOS_KEYS_DIR]",
)
@_as_json
def gen(  # noqa: PLR0917 - click passes every option by name
    uses: tuple[Use, ...],
    ring: str | None,
    ssm: str | None,
    role: str | None,
    judge: str | None,
    out: Path | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Make a new key.

    --use adds an HMAC key of its own for each use to the ring, where none is active yet. --role
    makes an Ed25519 pair: the private key (mode 0600) and its .pub beside it. A key is never
    printed, and never overwritten.
    """
    if bool(uses) == bool(role):
        raise UsageError("say which key: --use for an HMAC key, or --role for an Ed25519 pair")
    settings = from_environment()
    if role is not None:
        if ring or ssm:
            raise UsageError("an Ed25519 key is in no ring", field="--role", found=role)
        _gen_pair(role, judge, out, folder or settings.keys_dir, as_json=as_json)
        return
    if judge or out or folder:
        raise UsageError("--judge, --out and --keys are for --role", field="--use")
    from pytest_decisionos.trust.rotate import add  # noqa: PLC0415 - only this needs it

    place = _place(settings, ring, ssm)
    now = datetime.now(UTC)
    step = sources.update_ring(
        place,
        lambda there: add(there, uses, now=now, origin=str(place)),
        region=settings.aws_region,
    )
    _tell(step, as_json=as_json)


@keys.command(epilog=_ROTATE, short_help="Do the step of the rotation that is due.")
@click.option("--use", required=True, type=click.Choice(USES), help="Whose key to rotate.")
@_where
@click.option(
    "--overlap",
    default="24h",
    show_default=True,
    help="How long old and new key both verify, such as 90m, 24h, 7d.",
)
@_as_json
def rotate(use: Use, ring: str | None, ssm: str | None, overlap: str, as_json: bool) -> None:
    """Do the step of the rotation that is due, and say the next one and when.

    The new key joins and verifies only; it becomes active, and the old one verifies only; the old
    one is retired. Called too early, nothing changes. Uses that share a key are rotated together.
    """
    from pytest_decisionos.trust.rotate import next_step  # noqa: PLC0415 - only this needs it

    span = _duration(overlap)
    settings = from_environment()
    place = _place(settings, ring, ssm)

    def change(there: KeyRing | None) -> Step:
        # The time when the lock was got: until then another run may have done this step.
        return next_step(_there(there, place), use, now=datetime.now(UTC), overlap=span)

    step = sources.update_ring(place, change, region=settings.aws_region)
    _tell(step, as_json=as_json)


@keys.command(epilog=_REVOKE, short_help="Revoke an HMAC key: it verifies nothing any longer.")
@click.argument("key_id")
@_where
@_as_json
def revoke(key_id: str, ring: str | None, ssm: str | None, as_json: bool) -> None:
    """Revoke an HMAC key, whatever its state: from now on it verifies nothing."""
    from pytest_decisionos.trust import rotate  # noqa: PLC0415 - only this needs it

    settings = from_environment()
    place = _place(settings, ring, ssm)
    step = sources.update_ring(
        place,
        lambda there: rotate.revoke(_there(there, place), key_id),
        region=settings.aws_region,
    )
    _tell(step, as_json=as_json)


def _place(settings: Settings, ring: str | None, ssm: str | None) -> sources.Place:
    if ring is not None and ssm is not None:
        raise UsageError("two rings", field="--ssm", found=ssm, expected="--ring or --ssm")
    if ring is not None:
        return sources.Place("file", ring)
    if ssm is not None:
        return sources.Place("ssm", ssm)
    place = sources.place_of(settings)
    if place is None:
        raise UsageError(
            "no ring is configured",
            next_step="name it with --ring or --ssm, or export DECISIONOS_JUDGE_KEYS=@FILE",
        )
    return place


def _there(ring: KeyRing | None, place: sources.Place) -> KeyRing:
    if ring is None:
        raise KeysError("no ring is there", file=place, next_step="make one with `dosctl keys gen`")
    return ring


def _gen_pair(
    role: str, judge: str | None, out: Path | None, folder: Path | None, *, as_json: bool
) -> None:
    from pytest_decisionos.trust import ed25519  # noqa: PLC0415 - loads cryptography

    if out is None and folder is None:
        raise UsageError(
            "no place for the key",
            field="--keys",
            next_step="name a folder with --keys or a file with --out, or export DECISIONOS_KEYS_DIR",
        )
    name = ed25519.file_name(role, judge)
    path = out or (folder or Path()) / name
    if not path.name:
        raise UsageError("not a file name", field="--out", found=str(path))
    key = ed25519.generate()
    ed25519.write_private(path, key)
    public = ed25519.public_beside(path)
    if as_json:
        told = {"private": str(path), "public": str(public), "keyid": key.keyid, "role": role}
        echo_json(told)
        return
    click.echo(f"keyid {key.keyid}\n→ {shown(str(path), 300)}\n→ {shown(str(public), 300)}")
    click.echo("next: `dosctl trust add` lets its signatures count")


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if not found:
        raise UsageError(
            "not a duration", field="--overlap", found=text, expected="such as 90m, 24h, 7d"
        )
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _tell(step: Step, *, as_json: bool) -> None:
    if as_json:
        at = None if step.at is None else step.at.isoformat()
        told = {"origin": step.ring.origin, "changed": step.changed, "done": step.done}
        echo_json({**told, "next": step.then, "at": at})
        return
    say("ring", step.ring.origin)
    say("done", step.done)
    when = "" if step.at is None else f", from {_time(step.at, '%Y-%m-%d %H:%M:%S UTC')}"
    say("next", step.then + when)


def _cells(entry: KeyEntry) -> tuple[str, ...]:
    times = (
        "–" if when is None else _time(when, "%Y-%m-%d %H:%M")
        for when in (entry.not_before, entry.not_after)
    )
    return (entry.key_id, entry.state, " ".join(entry.use) or "every", *times)


def _time(when: datetime, form: str) -> str:
    """``when`` in UTC; or as it was given, if UTC has no such year."""
    try:
        return when.astimezone(UTC).strftime(form)
    except OverflowError:
        return when.isoformat(timespec="seconds")


def _row(*cells: str) -> None:
    for line in row(cells, _WIDTHS):
        click.echo(line)
