"""``dosctl evidence seal|verify|merge|lock``: the life of a document once it is built."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_decisionos.cli.evidence import _blocks
from pytest_decisionos.cli.output import echo_json
from pytest_decisionos.cli.trusted import trusted
from pytest_decisionos.errors import EvidenceError, ExitCode, KeysError, UsageError, shown
from pytest_decisionos.report.text import below, plain
from pytest_decisionos.settings import from_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_decisionos.evidence.config import EvidenceFile

_SEAL = """\b
Example:
  DECISIONOS_JUDGE_KEYS=@/etc/decisionos/ring.json dosctl evidence seal
"""
_VERIFY = """\b
Examples:
  dosctl evidence verify
  dosctl evidence verify var/evidence/*.json --json
"""
_MERGE = """\b
Example:
  dosctl evidence merge --block budget=budget.json --block quota=quota.json
"""
_LOCK = """\b
Examples:
  dosctl evidence lock
  dosctl evidence lock var/evidence/latest.json --name 2026.01.1-final
  python -m jobs.evidence_lock
"""
_UNSIGNED = "unsigned: digest only. No keys are configured, so nothing says who made it."

_file = click.argument("file", required=False, type=click.Path(path_type=Path))
_root = click.option(
    "--root", type=click.Path(path_type=Path), help="Root folder of the target  [default: var]"
)
_gate = click.option(
    "--gate", type=click.Path(path_type=Path), help="gate.yaml; evidence.yaml lies beside it."
)
_trust = click.option(
    "--trust", type=click.Path(path_type=Path), help="Trust file, which believes the index."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command(epilog=_SEAL)
@_file
@_root
@_gate
@click.option("--new", is_flag=True, help="Seal a document without digest: I have looked at it.")
@_json
def seal(
    file: Path | None, root: Path | None, gate: Path | None, *, new: bool, as_json: bool
) -> None:
    """Seal a document with the MAC of the active key.

    FILE is <root>/evidence/latest.json by default. Its digest, and its MAC if it has one, must be
    right: what was changed is not sealed, it is built again. Exit status: 0 sealed, 2 refused,
    4 unusable input, or no key.
    """
    from pytest_decisionos.evidence import store  # noqa: PLC0415 - loads slowly
    from pytest_decisionos.trust.sources import ring_of  # noqa: PLC0415 - the same

    settings = from_environment()
    ring = ring_of(settings)
    if ring is None:
        raise KeysError(
            "no keys are configured to seal with",
            next_step="set DECISIONOS_KMS_PARAM_PATH, DECISIONOS_JUDGE_KEYS or DECISIONOS_JUDGE_HMAC_KEY",
        )
    path = file or (root or settings.root) / "evidence/latest.json"
    privacy = _config(gate or settings.gate).privacy
    document = store.seal(path, ring=ring, privacy=privacy, now=datetime.now(UTC), new=new)
    _tell_written(path, document, as_json=as_json)


@click.command(epilog=_VERIFY)
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path))
@_root
@_trust
@_json
def verify(files: tuple[Path, ...], root: Path | None, trust: Path | None, *, as_json: bool) -> int:
    """Check the digest of documents, and with keys configured their MAC.

    FILE is <root>/evidence/latest.json by default. A key that has retired since verifies what the
    index took up in time, if the trust file believes the index. Exit status: 0 all are right, 2 one is not,
    4 one cannot be read.
    """
    from pytest_decisionos.evidence.digest import digest_fault  # noqa: PLC0415 - the same
    from pytest_decisionos.evidence.index_open import anchored_at  # noqa: PLC0415 - loads slowly
    from pytest_decisionos.evidence.seal import verify as check  # noqa: PLC0415 - the same
    from pytest_decisionos.model.evidence import read_evidence  # noqa: PLC0415 - the same
    from pytest_decisionos.trust.sources import ring_of  # noqa: PLC0415 - the same

    settings = from_environment()
    ring = ring_of(settings)
    base, now = root or settings.root, datetime.now(UTC)
    rows: list[dict[str, Any]] = []
    for path in files or (base / "evidence/latest.json",):
        try:
            found = read_evidence(path)
        except EvidenceError as fault:
            rows.append(
                {"file": str(path), "sha256": None, "digest": "unreadable", "seal": "refused"}
                | {"key_id": "", "created": "", "cause": "unreadable", "message": str(fault)}
            )
            continue
        wrong = digest_fault(found.blocks)
        proof = check(found.blocks, ring, now=now)
        if proof.cause == "retired_key":
            at = anchored_at(base, found.sha256, trust=trusted(trust, settings, now), now=now)
            proof = check(found.blocks, ring, now=now, anchored_at=at)
        rows.append(
            {"file": str(path), "sha256": found.sha256, "digest": wrong[0] if wrong else "right"}
            | {"seal": proof.state, **proof.model_dump(exclude={"state"})}
        )
    if as_json:
        echo_json({"keys": ring is not None, "files": rows})
    else:
        click.echo(_verified(rows, unsigned=ring is None))
    if any(row["seal"] == "refused" and row["digest"] != "unreadable" for row in rows):
        return int(ExitCode.NO_GO)
    return int(ExitCode.UNUSABLE if any(row["seal"] == "refused" for row in rows) else ExitCode.GO)


def _verified(rows: list[dict[str, Any]], *, unsigned: bool) -> str:
    """The rows at 80 columns, a file name last so that it may be long, a fault below its file."""
    lines = [f"{'digest':<12}{'MAC':<12}{'key':<18}file"]
    for row in rows:
        key = shown(row["key_id"] or "–", 16)
        lines.append(
            f"{row['digest']:<12}{row['seal']:<12}{key:<18}{shown(row['file'], 300)}".rstrip()
        )
        if row["message"]:
            lines += below(plain(row["message"], 2000))
    wrong = sum(row["seal"] == "refused" for row in rows)
    lines.append(f"files: {len(rows)}, wrong: {wrong}")
    return "\n".join([*lines, _UNSIGNED] if unsigned else lines)


@click.command(epilog=_MERGE)
@_file
@click.option("--block", multiple=True, metavar="NAME=FILE", help="A block; repeatable.")
@_root
@_gate
@_json
def merge(
    file: Path | None,
    block: tuple[str, ...],
    root: Path | None,
    gate: Path | None,
    *,
    as_json: bool,
) -> None:
    """Put blocks from elsewhere into a document, and seal it again.

    FILE is <root>/evidence/latest.json by default. It must be there, because only logs can make
    one, and be unchanged; with keys configured it must have a valid MAC. A block takes the place
    of an earlier one of its name. Several may merge at once: each waits for the one before.
    """
    from pytest_decisionos.evidence import store  # noqa: PLC0415 - loads slowly
    from pytest_decisionos.evidence.document import read_block  # noqa: PLC0415 - the same
    from pytest_decisionos.trust.sources import ring_of  # noqa: PLC0415 - the same

    if not block:
        raise UsageError("nothing to merge", field="--block", expected="NAME=FILE")
    settings = from_environment()
    path = file or (root or settings.root) / "evidence/latest.json"
    document = store.merge(
        path,
        {name: read_block(name, source) for name, source in _blocks(block).items()},
        ring=ring_of(settings),
        privacy=_config(gate or settings.gate).privacy,
        now=datetime.now(UTC),
    )
    _tell_written(path, document, as_json=as_json)


@click.command(epilog=_LOCK)
@_file
@click.option("--name", help="NAME of NAME.locked.json  [default: FILE's, or the release's]")
@_root
@_gate
@click.option("--keys", type=click.Path(path_type=Path), help="Folder of index.key.")
@_trust
@_json
def lock(  # noqa: PLR0917 - click passes each option by name
    file: Path | None,
    name: str | None,
    root: Path | None,
    gate: Path | None,
    keys: Path | None,
    trust: Path | None,
    *,
    as_json: bool,
) -> None:
    """Make a document LOCKED: NAME.locked.json beside it, read-only, never overwritten.

    FILE is <root>/evidence/latest.json by default; because every release has one, it is LOCKED
    under the name of its release. It must be unchanged, and with keys configured have a valid MAC.
    Locking the same values again does nothing; other values of one name are refused. The index
    takes it up, with the date until which it stays.
    """
    from pytest_decisionos.evidence import store  # noqa: PLC0415 - loads slowly
    from pytest_decisionos.evidence.index import record_locked  # noqa: PLC0415 - the same
    from pytest_decisionos.evidence.index_head import signing_key  # noqa: PLC0415 - the same
    from pytest_decisionos.trust.sources import ring_of  # noqa: PLC0415 - the same

    settings = from_environment()
    base, now = root or settings.root, datetime.now(UTC)
    config = _config(gate or settings.gate)
    key, trusts = signing_key(keys or settings.keys_dir), trusted(trust, settings, now)
    made = store.lock(
        file or base / "evidence/latest.json",
        name,
        ring=ring_of(settings),
        privacy=config.privacy,
        now=now,
    )
    # Also if it was there: a crash may have come between the document and its entry.
    indexed = record_locked(
        base, made.path, now=now, retention=config.retention, key=key, trust=trusts
    )
    if as_json:
        told = made._asdict() | {
            "path": str(made.path),
            "target": made.target and made.target.model_dump(),
            "seal": made.seal.model_dump(),
            "indexed": indexed,
        }
        echo_json(told)
        return
    click.echo(f"{'LOCKED' if made.created else 'LOCKED already'}: {shown(str(made.path), 300)}")
    if made.writable:
        click.echo("it could be written to: now it is read-only again")
    click.echo(f"digest {made.digest}")
    if made.seal.state == "valid":
        click.echo(f"MAC of key {plain(made.seal.key_id, 64)} of {plain(made.seal.created, 64)}")
    else:
        click.echo(plain(made.seal.message or _UNSIGNED, 2000))
    if not indexed:
        click.echo(f"not in the index, which is of {shown(str(base / 'evidence'), 200)} alone")


def _config(gate: Path) -> EvidenceFile:
    from pytest_decisionos.evidence.config import load_config  # noqa: PLC0415 - loads slowly

    return load_config(gate.parent / "evidence.yaml")


def _tell_written(path: Path, document: Mapping[str, Any], *, as_json: bool) -> None:
    integrity = document["integrity"]
    mac = integrity.get("mac") or {}
    if as_json:
        told = {
            "evidence": str(path),
            "sha256": integrity["signature_sha256"],
            "key_id": mac.get("key_id"),
            "created": mac.get("created"),
            "blocks": [name for name in document if name != "integrity"],
        }
        echo_json(told)
        return
    click.echo(f"→ {shown(str(path), 300)}")
    click.echo(f"digest {integrity['signature_sha256']}")
    made = (
        f"MAC of key {plain(mac['key_id'], 64)} of {plain(mac['created'], 64)}"
        if mac
        else _UNSIGNED
    )
    click.echo(made)
