"""``dosctl trust``: make, change, show and verify the trust file."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_decisionos.cli.output import echo_json, say
from pytest_decisionos.cli.times import time_of
from pytest_decisionos.cli.trusted import must_trust_path
from pytest_decisionos.errors import UsageError, shown
from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.settings import from_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_decisionos.trust.trust_load import Loaded
    from pytest_decisionos.trust.trustfile import TrustFile, TrustKey

_ANY = "any"

_GROUP = """\b
Example:
  dosctl trust init --out trust.json --expires 365d --min-k 2 --min-n 3
  dosctl trust add trust.json --key keys/gate.pub --role gate \\
      --target 'checkout/production/*/*'
  dosctl trust add trust.json --policy any
  dosctl trust show trust.json
"""
_ADD = """\b
Examples:
  dosctl trust add trust.json --key keys/judge-peer.pub --role judge \\
      --judge peer --target 'checkout/production/*/*'
  dosctl trust add trust.json --policy "$(dosctl decision policy)"
"""
_REVOKE = """\b
Examples:
  dosctl trust revoke trust.json --key 3f0a91c2
  dosctl trust revoke trust.json --policy any
"""
_RENEW = """\b
Examples:
  dosctl trust renew trust.json --expires 365d
  dosctl trust renew trust.json --min-k 3 --min-n 5
"""


@click.group(epilog=_GROUP)
def trust() -> None:
    """Make, show and verify the trust file: whose signature counts, for what."""


_FILE = click.argument("file", required=False, type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _floors(command: Any) -> Any:
    """The options of the least quorum, for both commands."""
    for name, least, words in (
        ("--min-remote", 0, "At least so many judges must be on other hosts."),
        ("--min-n", 1, "The least n of every quorum."),
        ("--min-k", 1, "The least k of every quorum."),
    ):
        command = click.option(name, type=click.IntRange(least, 99), metavar="N", help=words)(
            command
        )
    return command


@trust.command(epilog="\b\nExample:\n  dosctl trust init --out trust.json --expires 365d --min-k 2")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write.")
@click.option("--expires", required=True, metavar="DAYS|ISO", help="365d, or a time.")
@_floors
@_JSON
def init(out: Path, expires: str, as_json: bool, **floors: int | None) -> None:
    """Write a new trust file, version 1, in which no key counts yet."""
    from pytest_decisionos.trust.trust_change import first, write_first  # noqa: PLC0415 - on demand

    made = first(_until(expires), **_stated(floors))
    _tell(out, write_first(out, made), as_json)


@trust.command(epilog=_ADD)
@_FILE
@click.option("--key", type=click.Path(path_type=Path), help="Public key, in PEM.")
@click.option("--role", help="gate, judge, index, operator or deploy-owner.")
@click.option("--judge", metavar="ID", help="Whose key it is, for the role judge.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="GLOB",
    help="service/environment/region/tenant, * for any; repeatable.",
)
@click.option("--not-before", metavar="ISO", help="Signatures before this do not count.")
@click.option("--not-after", metavar="ISO", help="Signatures after this do not count.")
@click.option("--policy", metavar="SHA256|any", help="A policy that may be decided by.")
@_JSON
def add(  # noqa: PLR0917 - click passes every option by name
    file: Path | None,
    key: Path | None,
    role: str | None,
    judge: str | None,
    targets: tuple[str, ...],
    not_before: str | None,
    not_after: str | None,
    policy: str | None,
    as_json: bool,
) -> None:
    """Add a key or a policy. Without FILE it is DECISIONOS_TRUST."""
    from pytest_decisionos.trust import trust_change  # noqa: PLC0415 - loads cryptography
    from pytest_decisionos.trust.ed25519 import load_public  # noqa: PLC0415 - the same

    of_key = {
        "--role": role,
        "--judge": judge,
        "--target": targets,
        "--not-before": not_before,
        "--not-after": not_after,
    }
    _one_of(key, policy)
    if policy is not None:
        extra = next((name for name, value in of_key.items() if value), None)
        if extra is not None:
            raise UsageError("is about a key, not about a policy", field=extra)
        digest = _policy(policy)
        _change(file, as_json, lambda was: trust_change.with_policy(was, digest))
        return
    if role is None or not targets:
        raise UsageError("missing", field="--target" if role else "--role", expected="with --key")
    assert key is not None  # noqa: S101 - one of the two is there
    entry = trust_change.new_key(
        load_public(key),
        role,
        targets,
        judge=judge,
        not_before=time_of("--not-before", not_before),
        not_after=time_of("--not-after", not_after),
    )
    _change(file, as_json, lambda was: trust_change.with_key(was, entry))


@trust.command(epilog=_REVOKE)
@_FILE
@click.option("--key", metavar="KEYID", help="Key id, or its first 8 digits or more.")
@click.option("--policy", metavar="SHA256|any", help="A policy that may be decided by no longer.")
@_JSON
def revoke(file: Path | None, key: str | None, policy: str | None, as_json: bool) -> None:
    """Revoke a key, or take a policy out.

    A revoked key stays in the file and says so: what it signed counts no longer, also not what it
    signed before.
    """
    from pytest_decisionos.trust.trust_change import (  # noqa: PLC0415 - loads cryptography
        without_key,
        without_policy,
    )

    _one_of(key, policy)
    if key is not None:
        _change(file, as_json, lambda was: without_key(was, key))
    else:
        digest = _policy(policy or "")
        _change(file, as_json, lambda was: without_policy(was, digest))


@trust.command(epilog=_RENEW)
@_FILE
@click.option("--expires", metavar="DAYS|ISO", help="365d, or a time.")
@_floors
@_JSON
def renew(file: Path | None, expires: str | None, as_json: bool, **floors: int | None) -> None:
    """Set when it expires anew, or the least quorum."""
    stated: dict[str, Any] = _stated(floors)
    if expires is not None:
        stated["expires"] = _until(expires)
    if not stated:
        raise UsageError("nothing to renew", expected="--expires, --min-k, --min-n or --min-remote")
    _change(file, as_json, lambda was: was.model_copy(update=stated))


@trust.command(epilog="\b\nExample:\n  dosctl trust show trust.json")
@_FILE
@_JSON
def show(file: Path | None, as_json: bool) -> None:
    """Show what it says, whether it may be believed or not."""
    from pytest_decisionos.trust.trust_load import read_trust  # noqa: PLC0415 - loads cryptography

    path = _path(file)
    loaded = read_trust(path)
    if as_json:
        told = {"file": str(path), "sha256": loaded.sha256}
        echo_json(told | loaded.trust.model_dump(mode="json"))
        return
    _head(path, loaded)
    _table(loaded.trust)


@trust.command(epilog="\b\nExample:\n  dosctl trust verify /etc/decisionos/trust.json")
@_FILE
@_JSON
def verify(file: Path | None, as_json: bool) -> None:
    """Load it as every verifier does, and warn of doubts.

    Without DECISIONOS_TRUST_SHA256 it must be a file that only its owner writes, outside the
    checkout, not older than what this host has seen.
    """
    from pytest_decisionos.trust.trust_change import doubts  # noqa: PLC0415 - loads cryptography
    from pytest_decisionos.trust.trust_load import verify_trust  # noqa: PLC0415 - the same

    settings = from_environment()
    path = _path(file)
    now = datetime.now(UTC)
    pin = settings.trust_sha256
    loaded = verify_trust(path, now=now, sha256_pin=pin, state_dir=settings.state_dir)
    warnings = list(doubts(loaded.trust, now))
    if as_json:
        echo_json(_told(path, loaded) | {"pinned": bool(pin), "warnings": warnings})
        return
    _head(path, loaded)
    for warning in warnings:
        say("warning", warning)
    click.echo(f"may be believed, {'by its pin' if pin else 'unpinned'}; warnings: {len(warnings)}")


def _change(file: Path | None, as_json: bool, change: Callable[[TrustFile], TrustFile]) -> None:
    from pytest_decisionos.trust.trust_change import write_next  # noqa: PLC0415 - on demand
    from pytest_decisionos.trust.trust_load import read_trust  # noqa: PLC0415 - on demand

    path = _path(file)
    was = read_trust(path)
    _tell(path, write_next(path, change(was.trust), replaces=was.sha256), as_json)


def _path(file: Path | None) -> Path:
    return file or must_trust_path(None, from_environment(), "FILE")


def _one_of(key: object, policy: object) -> None:
    if (key is None) == (policy is None):
        raise UsageError("one thing at a time", expected="either --key or --policy")


def _policy(text: str) -> str:
    """The entry of the trust file that ``text`` stands for."""
    if text == _ANY:
        return "*"
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        expected = f"64 digits 0-9a-f, or {_ANY}"
        raise UsageError("not a SHA-256", field="--policy", found=text, expected=expected)
    return text


def _stated(floors: dict[str, int | None]) -> dict[str, int]:
    return {name: value for name, value in floors.items() if value is not None}


def _until(text: str) -> datetime:
    now = datetime.now(UTC).replace(microsecond=0)
    days = re.fullmatch(r"([0-9]{1,4})d", text)
    found = now + timedelta(days=int(days[1])) if days else parse_time(text)
    if found is None or found <= now:
        raise UsageError(
            "not a time to come" if found is None else "is not to come",
            field="--expires",
            found=text,
            expected="365d, or ISO-8601 such as 2030-01-05T09:00:00+09:00",
        )
    return found


def _told(path: Path, loaded: Loaded) -> dict[str, Any]:
    return {
        "file": str(path),
        "version": loaded.trust.version,
        "expires": loaded.trust.expires.isoformat(),
        "sha256": loaded.sha256,
    }


def _tell(path: Path, loaded: Loaded, as_json: bool) -> None:
    if as_json:
        echo_json(_told(path, loaded))
    else:
        _head(path, loaded)


def _head(path: Path, loaded: Loaded) -> None:
    """Version, expiry, and the digest to pin: alone in its line, ready for a shell."""
    made = loaded.trust
    click.echo(f"{shown(str(path), 200)}: version {made.version}, expires {_date(made.expires)}")
    click.echo(f"DECISIONOS_TRUST_SHA256={loaded.sha256}")


def _date(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def _table(made: TrustFile) -> None:
    from rich.console import Console  # noqa: PLC0415 - loads slowly
    from rich.table import Table  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    click.echo(f"quorum: at least {made.min_k}/{made.min_n}, {made.min_remote} remote")
    for sha256 in made.policy_sha256:
        click.echo(f"policy: {_ANY if sha256 == '*' else sha256}")
    if not made.policy_sha256:
        click.echo("policy: none")
    table = Table(box=None, pad_edge=False)
    for name in ("key", "role", "targets", "valid"):
        table.add_column(name, overflow="fold", no_wrap=name == "key")
    for key in made.keys:
        role = f"{key.role} {key.judge}" if key.judge else key.role
        targets = "\n".join(shown(one, 600) for one in key.targets)
        table.add_row(*(Text(cell) for cell in (key.keyid[:12], role, targets, _valid(key))))
    if made.keys:
        Console(highlight=False).print(table)
    click.echo(f"keys: {len(made.keys)}")


def _valid(key: TrustKey) -> str:
    if key.revoked:
        return "revoked"
    ends = (("from", key.not_before), ("until", key.not_after))
    return "\n".join(f"{word} {_date(time)}" for word, time in ends if time) or "always"
