"""``dosctl evidence objectlock``: is the bucket ready, put everything into it, is everything there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_decisionos.cli.output import echo_json
from pytest_decisionos.cli.progress import progress_bar
from pytest_decisionos.cli.trusted import trusted
from pytest_decisionos.errors import ExitCode, PolicyError, UsageError
from pytest_decisionos.report.text import COLUMNS, labelled, plain
from pytest_decisionos.settings import from_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from types_boto3_s3 import S3Client

    from pytest_decisionos.evidence.config import ObjectLock
    from pytest_decisionos.model.target import Target
    from pytest_decisionos.settings import Settings

_EXAMPLES = """\b
Examples:
  dosctl evidence objectlock --precheck
  dosctl evidence objectlock --upload
  python -m jobs.evidence_objectlock --verify --json
"""
_LISTED = 100
"""Lines about single versions in a table; JSON has all."""


@click.command(epilog=_EXAMPLES)
@click.option("--precheck", "action", flag_value="precheck", help="Would an upload work?")
@click.option("--upload", "action", flag_value="upload", help="Upload what is not yet locked.")
@click.option("--verify", "action", flag_value="verify", help="Is all there, locked, unchanged?")
@click.option(
    "--root", type=click.Path(path_type=Path), help="Root folder of the target  [default: var]"
)
@click.option(
    "--gate", type=click.Path(path_type=Path), help="gate.yaml; evidence.yaml lies beside it."
)
@click.option("--keys", type=click.Path(path_type=Path), help="--upload: folder of index.key.")
@click.option(
    "--trust", type=click.Path(path_type=Path), help="--upload: trust file the index must meet."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def objectlock(
    action: str | None,
    root: Path | None,
    gate: Path | None,
    keys: Path | None,
    trust: Path | None,
    *,
    as_json: bool,
) -> int:
    """Keep LOCKED documents, bundles and the index in S3, where nobody can change them.

    Bucket, mode and days are those of object_lock in evidence.yaml; credentials come by boto3's own
    chain. --precheck leaves nothing behind. --upload goes on where it was cut off, and tells the
    index what it did, which is signed anew. --verify reads each version by its VersionId.

    Exit status: 0 fine (warnings too), 2 something is wrong or refused, 4 unusable input, or S3
    cannot be asked.
    """
    if action is None:
        raise UsageError("nothing to do", expected="one of --precheck, --upload, --verify")
    from pytest_decisionos.evidence.config import load_config  # noqa: PLC0415 - reads YAML
    from pytest_decisionos.evidence.s3 import open_s3  # noqa: PLC0415 - loads boto3
    from pytest_decisionos.judge.gate import load_gate  # noqa: PLC0415 - reads YAML

    settings = from_environment()
    gate = gate or settings.gate
    path = gate.parent / "evidence.yaml"
    config = load_config(path).object_lock
    if config is None:
        raise PolicyError(
            "does not say where to",
            file=path,
            field="object_lock",
            next_step="state bucket, mode and days under object_lock",
        )
    target = load_gate(gate).target
    where = root or settings.root
    with open_s3(config, region=settings.aws_region) as client:
        if action == "precheck":
            return _precheck(config, target, client, as_json=as_json)
        if action == "upload":
            return _upload(
                where, config, target, client, settings, keys=keys, trust=trust, as_json=as_json
            )
        return _verify(where, config, target, client, as_json=as_json)


def _precheck(config: ObjectLock, target: Target, client: S3Client, *, as_json: bool) -> int:
    from pytest_decisionos.evidence.objectlock_precheck import precheck  # noqa: PLC0415 - boto3

    rows = precheck(config, target, client=client)
    wrong = sum(row.result == "no" for row in rows)
    if as_json:
        checks = [row._asdict() for row in rows]
        echo_json({"bucket": config.bucket, "ok": not wrong, "checks": checks})
    else:
        for row in rows:
            _line(f"{row.name:<18}{row.result:<11}", row.message)
        unsure = sum(row.result in {"warning", "cannot tell"} for row in rows)
        click.echo(f"s3://{config.bucket}: {wrong} in the way, {unsure} to look at")
    return int(ExitCode.NO_GO if wrong else ExitCode.GO)


def _upload(
    root: Path,
    config: ObjectLock,
    target: Target,
    client: S3Client,
    settings: Settings,
    *,
    keys: Path | None,
    trust: Path | None,
    as_json: bool,
) -> int:
    from pytest_decisionos.evidence import index_open  # noqa: PLC0415 - loads slowly
    from pytest_decisionos.evidence.index_head import signing_key  # noqa: PLC0415 - the same
    from pytest_decisionos.evidence.objectlock_upload import upload  # noqa: PLC0415 - boto3

    now = datetime.now(UTC)
    key = signing_key(keys or settings.keys_dir)
    believed = trusted(trust, settings, now)

    def record(events: Sequence[Mapping[str, Any]]) -> None:
        index_open.record(root, events, now=datetime.now(UTC), key=key, trust=believed)

    with progress_bar() as progress:
        report = upload(
            root, config, target, client=client, record=record, now=now, progress=progress
        )
    if as_json:
        told = {
            "bucket": config.bucket,
            "uploaded": [receipt.event() for receipt in report.uploaded],
            "present": len(report.present),
            "refused": [str(fault) for fault in report.refused],
        }
        echo_json(told)
    else:
        anchored = max((receipt.entries or 0 for receipt in report.uploaded), default=0)
        _lines(("refused", str(fault)) for fault in report.refused)
        if anchored:
            click.echo(f"index anchored with {anchored:,} entries")
        click.echo(
            f"s3://{config.bucket}: {len(report.uploaded):,} uploaded, {len(report.present):,} were"
            f" there, {len(report.refused):,} refused"
        )
    return int(ExitCode.NO_GO if report.refused else ExitCode.GO)


def _verify(
    root: Path, config: ObjectLock, target: Target, client: S3Client, *, as_json: bool
) -> int:
    from pytest_decisionos.evidence.objectlock_verify import verify  # noqa: PLC0415 - boto3

    with progress_bar() as progress:
        report = verify(
            root, config, target, client=client, now=datetime.now(UTC), progress=progress
        )
    if as_json:
        told = {
            "bucket": config.bucket,
            "ok": not report.errors,
            "versions": report.versions,
            "anchored": report.anchored,
            "findings": [finding._asdict() for finding in report.findings],
        }
        echo_json(told)
    else:
        _lines(
            (
                f"{finding.severity:<9}{finding.cause:<15}",
                f"{finding.path}: {finding.message}"
                + (f" (version {finding.version_id})" if finding.version_id else ""),
            )
            for finding in report.findings
        )
        warnings = len(report.findings) - report.errors
        click.echo(
            f"s3://{config.bucket}: {report.versions:,} versions, index of {report.anchored:,}"
            f" entries, {report.errors:,} errors, {warnings:,} warnings"
        )
    return int(ExitCode.NO_GO if report.errors else ExitCode.GO)


def _lines(rows: Iterable[tuple[str, str]]) -> None:
    count = 0
    for count, (label, text) in enumerate(rows, 1):
        if count <= _LISTED:
            _line(label, text)
    if count > _LISTED:
        click.echo(f"… and {count - _LISTED:,} more: --json has all")


def _line(label: str, text: str) -> None:
    """``label`` and ``text`` at most 80 columns wide; what goes on stands behind a bar."""
    for line in labelled(label, plain(text, 1000), COLUMNS - max(len(label) - 9, 0)):
        click.echo(line)
