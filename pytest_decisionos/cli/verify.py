"""``dosctl verify``: check a decision's bundle against the trust file, offline."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from pytest_decisionos.cli.trusted import must_trust
from pytest_decisionos.errors import ExitCode
from pytest_decisionos.settings import from_environment

_VERIFY = """\b
Examples:
  dosctl verify latest
  dosctl verify ID --fresh --target checkout/production/eu-1/all
  dosctl verify /archive/ID --trust /etc/decisionos/trust.json
"""


@click.command(epilog=_VERIFY)
@click.argument("bundle", metavar="BUNDLE")
@click.option("--trust", type=click.Path(path_type=Path), help="Trust file.")
@click.option("--target", metavar="SERVICE/ENV/REGION/TENANT", help="What it must be about.")
@click.option("--release", help="The release it must be about.")
@click.option("--fresh", is_flag=True, help="It must not have expired: one may act on it.")
@click.option(
    "--root", type=click.Path(path_type=Path), help="Root folder of the target  [default: var]"
)
@click.option("--phase", help="Of which the latest is meant.  [default: cutover]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(  # noqa: PLR0917 - click passes each option by name
    bundle: str,
    trust: Path | None,
    target: str | None,
    release: str | None,
    fresh: bool,
    root: Path | None,
    phase: str | None,
    as_json: bool,
) -> int:
    """Check signatures, digests, quorum and bindings of a bundle, and judge it again.

    BUNDLE is the folder of one decision, its id, or `latest`, which is the newest of a phase,
    whatever it says. It is checked by what is in that folder and by the trust file
    (DECISIONOS_TRUST, or --trust), and nothing else. An expired decision verifies as a record;
    --fresh asks whether one may still act on it.

    Exit status: 0 verified, 2 not verified, 4 unusable input.
    """
    from pytest_decisionos.evidence.bundle import read_bundle  # noqa: PLC0415 - costs start-up
    from pytest_decisionos.judge.verify import verify_bundle  # noqa: PLC0415 - the same
    from pytest_decisionos.release.decisions import find  # noqa: PLC0415 - the same
    from pytest_decisionos.report.verification import report_json, report_lines  # noqa: PLC0415

    settings, now = from_environment(), datetime.now(UTC)
    keys = must_trust(trust, settings, now)
    folder = find(root or settings.root, bundle, phase or settings.phase)
    report = verify_bundle(
        read_bundle(folder), keys, now=now, target=target, release=release, fresh=fresh
    )
    if as_json:
        click.echo(json.dumps(report_json(report), ensure_ascii=False, indent=2))
    else:
        click.echo("\n".join(report_lines(report)))
    return int(ExitCode.GO if report.ok else ExitCode.NO_GO)
