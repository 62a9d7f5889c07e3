"""``dosctl evidence index|gc``: what is there, and what need not be there any longer."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_decisionos.cli.output import echo_json
from pytest_decisionos.cli.progress import progress_bar
from pytest_decisionos.cli.trusted import trusted as load_trusted
from pytest_decisionos.errors import ExitCode, shown
from pytest_decisionos.report.text import below, plain
from pytest_decisionos.settings import from_environment
from pytest_decisionos.trust.files import is_there

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_decisionos.evidence.index_files import Fault
    from pytest_decisionos.evidence.index_verify import Report
    from pytest_decisionos.evidence.retention import Plan
    from pytest_decisionos.model.target import Target

_INDEX = """\b
Examples:
  dosctl evidence index
  dosctl evidence index --verify --trust /etc/decisionos/trust.json
  python -m jobs.evidence_index --verify
"""
_GC = """\b
Examples:
  dosctl evidence gc
  dosctl evidence gc --apply --keys /etc/decisionos/keys
  python -m jobs.evidence_gc --apply
"""
_SHOWN = 100
_UNSIGNED = "unsigned: no index key is here, so nothing says who wrote the index"

_root = click.option(
    "--root", type=click.Path(path_type=Path), help="Root folder of the target  [default: var]"
)
_gate = click.option(
    "--gate",
    type=click.Path(path_type=Path),
    help="gate.yaml, which names the target; evidence.yaml lies beside it.",
)
_keys = click.option(
    "--keys", type=click.Path(path_type=Path), help="Folder of index.key, which signs the index."
)
_trust = click.option(
    "--trust", type=click.Path(path_type=Path), help="Trust file: demand a signature that counts."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command(epilog=_INDEX)
@click.option("--verify", is_flag=True, help="Change nothing; name everything that differs.")
@_root
@_gate
@_keys
@_trust
@_json
def index(
    root: Path | None,
    gate: Path | None,
    keys: Path | None,
    trust: Path | None,
    *,
    verify: bool,
    as_json: bool,
) -> int:
    """Take documents up into the index, or verify the index and all documents.

    evidence/index.jsonl tells every evidence/*.json and every file of a bundle by its digest; its
    head is signed by index.key, if there is one. A document in work that changed is taken up
    again, a LOCKED one or a bundle never: that is a fault.

    Exit status: 0 all as it should be, 2 faults found, 4 unusable input.
    """
    settings, now = from_environment(), datetime.now(UTC)
    root, gate = root or settings.root, gate or settings.gate
    trusted = load_trusted(trust, settings, now)
    if verify:
        from pytest_decisionos.evidence.index_verify import (  # noqa: PLC0415 - costs start-up
            verify as verify_index,
        )

        target = None if trusted is None else _target(gate)
        with progress_bar() as progress:
            report = verify_index(root, trusted, now=now, target=target, progress=progress)
    else:
        from pytest_decisionos.evidence.config import load_config  # noqa: PLC0415 - the same
        from pytest_decisionos.evidence.index import update  # noqa: PLC0415 - the same
        from pytest_decisionos.evidence.index_head import signing_key  # noqa: PLC0415 - the same

        with progress_bar() as progress:
            report = update(
                root,
                now=now,
                retention=load_config(gate.parent / "evidence.yaml").retention,
                key=signing_key(keys or settings.keys_dir),
                trust=trusted,
                target=_target(gate),
                progress=progress,
            )
    if as_json:
        told = report._asdict() | {"faults": [fault._asdict() for fault in report.faults]}
        echo_json({"root": str(root), "verified": verify, **told})
    else:
        click.echo("\n".join(_report(report)))
    return int(ExitCode.NO_GO if report.faults else ExitCode.GO)


def _report(report: Report) -> list[str]:
    says = {
        "valid": "signed by a key that counts",
        "signed": "signed",
        "unchecked": "signed, and not checked: no trust file is named",
        "refused": "refused",
        "unsigned": _UNSIGNED,
    }
    lines = [
        f"entries:   {report.entries:,}",
        f"documents: {report.documents:,}",
        f"head:      {says[report.signature]}",
    ]
    if report.keyid:
        lines.append(f"key:       {shown(report.keyid, 64)}")
    if report.added or report.changed or report.removed:
        lines.append(
            f"taken up:  {report.added:,} new, {report.changed:,} changed,"
            f" {report.removed:,} no longer there"
        )
    if report.redone:
        lines.append(f"made again: {report.redone:,} entries that no head covered")
    return [*lines, *_faults(report.faults), f"faults: {len(report.faults):,}"]


def _faults(faults: Sequence[Fault]) -> list[str]:
    lines = []
    for fault in faults[:_SHOWN]:
        where = shown(fault.path, 300) + (f":{fault.line}" if fault.line else "")
        lines += [f"{fault.cause:<12} {where}", *below(plain(fault.message, 500))]
    if len(faults) > _SHOWN:
        lines.append(f"… and {len(faults) - _SHOWN:,} more, which --json tells")
    return lines


@click.command(epilog=_GC)
@click.option("--apply", "apply_it", is_flag=True, help="Delete; without it nothing is changed.")
@_root
@_gate
@_keys
@_trust
@_json
def gc(
    root: Path | None,
    gate: Path | None,
    keys: Path | None,
    trust: Path | None,
    *,
    apply_it: bool,
    as_json: bool,
) -> int:
    """Say which documents nobody needs any longer, and with --apply delete them.

    How long documents stay, which never go, and legal holds stand in evidence.yaml beside
    gate.yaml. A LOCKED document stays until the date that the index has for it, and whatever a
    decision or a bundle was made from stays. Every deletion is in the index before it is done.

    Exit status: 0 done, 2 refused, or the index or a LOCKED document was changed, 4 unusable input.
    """
    from pytest_decisionos.evidence.config import load_config  # noqa: PLC0415 - costs start-up
    from pytest_decisionos.evidence.index_head import signing_key  # noqa: PLC0415 - the same
    from pytest_decisionos.evidence.retention import plan  # noqa: PLC0415 - the same
    from pytest_decisionos.evidence.retention_apply import apply  # noqa: PLC0415 - the same

    settings, now = from_environment(), datetime.now(UTC)
    root, gate = root or settings.root, gate or settings.gate
    retention = load_config(gate.parent / "evidence.yaml").retention
    trusted = load_trusted(trust, settings, now)
    target = _target(gate) if apply_it or trusted is not None else None
    key = signing_key(keys or settings.keys_dir)
    with progress_bar() as progress:
        made = plan(root, retention, now=now, trust=trusted, target=target, progress=progress)
        if apply_it:
            made = apply(
                root,
                made,
                retention,
                now=now,
                key=key,
                trust=trusted,
                target=target,
                progress=progress,
            )
    if as_json:
        echo_json(_plan_json(made, applied=apply_it))
    else:
        click.echo("\n".join(_plan(made, applied=apply_it)))
    return int(ExitCode.NO_GO if made.faults else ExitCode.GO)


def _plan(made: Plan, *, applied: bool) -> list[str]:
    done = "deleted" if applied else "delete"
    lines = [f"{'action':<9}{'tier':<11}{'why':<12}file"] if made.items else []
    for item in made.items:
        action = done if item.action == "delete" else "keep"
        lines.append(f"{action:<9}{item.tier:<11}{item.cause:<12}{shown(item.path, 300)}")
        lines += below(plain(item.reason, 500))
    deletions = made.deletions
    freed = sum(item.freed for item in deletions)
    words = "deleted" if applied else "to delete"
    lines += _faults(made.faults)
    lines.append(
        f"kept: {len(made.items) - len(deletions):,}, {words}: {len(deletions):,},"
        f" {'freed' if applied else 'would free'}: {freed:,} bytes, faults: {len(made.faults):,}"
    )
    if not made.keyid:
        lines.append(_UNSIGNED)
    if not applied:
        lines.append("dry-run: nothing was deleted; --apply deletes")
    return lines


def _plan_json(made: Plan, *, applied: bool) -> dict[str, Any]:
    fields = ("path", "action", "cause", "reason", "tier", "tenant", "release", "sha256", "freed")
    return {
        "applied": applied,
        "kept": len(made.items) - len(made.deletions),
        "deleted": len(made.deletions),
        "freed": sum(item.freed for item in made.deletions),
        "signed_by": made.keyid or None,
        "items": [{name: getattr(item, name) for name in fields} for item in made.items],
        "faults": [fault._asdict() for fault in made.faults],
    }


def _target(gate: Path) -> Target | None:
    """The target that gate.yaml names; None where there is no gate.yaml."""
    if not is_there(gate):
        return None
    from pytest_decisionos.judge.gate import load_gate  # noqa: PLC0415 - reads YAML

    return load_gate(gate).target
