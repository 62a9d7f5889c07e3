"""``dosctl slo``: lint SLO files, tell their rules in words, and print their JSON Schema."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pytest_decisionos.cli.output import echo_json
from pytest_decisionos.errors import EvidenceError, ExitCode, UsageError
from pytest_decisionos.slo.compile import expand_globs, load_slo
from pytest_decisionos.slo.lint import lint as lint_file
from pytest_decisionos.slo.lint import traffic_seen

if TYPE_CHECKING:
    from pydantic import BaseModel

_MAX_RPS = 1e9

_LINT = """\b
Example:
  dosctl slo lint 'configs/slo/*.json' --rps 50
"""
_EXPLAIN = """\b
Example:
  dosctl slo explain configs/slo/slo-judge-infra.json
"""
_SCHEMA = """\b
Example:
  dosctl slo schema > slo.schema.json
  dosctl slo schema --gate > gate.schema.json
  dosctl slo schema --canary > canary-policy.schema.json
"""


@click.group(epilog="\b\nExample:\n  dosctl slo lint configs/slo/*")
def slo() -> None:
    """Lint, explain and describe SLO files."""


@slo.command(epilog=_LINT)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--rps", type=float, metavar="N", help="Requests per second  [default: as in --root]")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Root folder whose evidence/latest.json tells the traffic  [default: var]",
)
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def lint(
    files: tuple[str, ...], rps: float | None, root: Path | None, strict: bool, as_json: bool
) -> int:
    """Say everything that is wrong with SLO files (names or globs).

    Warns of numbers of samples that cannot prove their bound, and tells how many minutes enough
    of them take. Exit status: 0 clean or warnings only, 4 errors (with --strict, warnings too).
    """
    if rps is not None and not 0 < rps <= _MAX_RPS:
        expected = f"more than 0, at most {_MAX_RPS:.0e}"
        raise UsageError("not a rate of requests", field="--rps", found=rps, expected=expected)
    paths = expand_globs(files)
    traffic = _traffic(root) if rps is None else rps
    findings = [f for path in paths for f in lint_file(path, requests_per_second=traffic)]
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = len(findings) - errors
    if as_json:
        told = [finding._asdict() for finding in findings]
        report = {"files": [str(p) for p in paths], "errors": errors, "warnings": warnings}
        echo_json({**report, "findings": told})
    else:
        for finding in findings:
            click.echo(str(finding))
        click.echo(f"files: {len(paths)}, errors: {errors}, warnings: {warnings}")
    return int(ExitCode.UNUSABLE if errors or (strict and warnings) else ExitCode.GO)


@slo.command(epilog=_EXPLAIN)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the compiled rules as JSON.")
def explain(file: Path, as_json: bool) -> None:
    """Tell in words what an SLO file asks for."""
    loaded = load_slo(file)
    if as_json:
        echo_json(loaded.model_dump(mode="json"))
        return
    from pytest_decisionos.report import explain as words  # noqa: PLC0415 - only for people

    click.echo(words.explain(loaded, now=datetime.now(UTC)), nl=False)


@slo.command(epilog=_SCHEMA)
@click.option("--gate", is_flag=True, help="The schema of gate.yaml instead.")
@click.option("--canary", is_flag=True, help="The schema of the canary policy instead.")
def schema(gate: bool, canary: bool) -> None:
    """Print the JSON Schema (draft 2020-12) of SLO files, for editors."""
    model: type[BaseModel]
    if gate and canary:
        raise UsageError("two schemas at once", expected="--gate or --canary")
    if canary:
        from pytest_decisionos.release.canary_policy import PolicyFile as model  # noqa: N813, PLC0415 - on demand
    elif gate:
        from pytest_decisionos.judge.gate import GateFile as model  # noqa: N813, PLC0415 - on demand
    else:
        from pytest_decisionos.slo.schema import SloFile as model  # noqa: N813, PLC0415 - on demand
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    echo_json(made)


def _traffic(root: Path | None) -> float | None:
    """Requests per second that the root's evidence saw; why not is said, and stops nothing."""
    if root is None:
        from pytest_decisionos.settings import from_environment  # noqa: PLC0415 - loads slowly

        root = from_environment().root
    try:
        return traffic_seen(root / "evidence" / "latest.json")
    except EvidenceError as fault:
        click.echo(f"note: traffic is not known: {fault}", err=True)
        return None
