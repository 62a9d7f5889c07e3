"""``dosctl evidence``: logs → evidence."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_decisionos.cli.evidence_told import tell
from pytest_decisionos.cli.lazy import LazyGroup
from pytest_decisionos.cli.progress import progress_bar
from pytest_decisionos.cli.times import time_of
from pytest_decisionos.errors import UsageError
from pytest_decisionos.model.target import Target
from pytest_decisionos.settings import from_environment
from pytest_decisionos.trust.files import is_there

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_decisionos.harvest.options import Options
    from pytest_decisionos.settings import Settings
    from pytest_decisionos.trust.keys import KeyRing

_BUILD_EXAMPLES = """\b
Examples:
  dosctl evidence build
  dosctl evidence build --reqlog 'var/log/reqlog-*.csv.gz'
  dosctl evidence build --block budget=var/log/budget.json \\
      --target checkout/production
"""
_HARVEST_EXAMPLES = """\b
Examples:
  dosctl evidence harvest --csv 'var/log/reqlog-*.csv.gz'
  dosctl evidence harvest --role judgelog --csv var/log/judgelog.csv
"""

_OPTIONS = {
    "guardband_minutes": "--guardband",
    "assume_tz": "--assume-tz",
    "max_bad_rows": "--max-bad-rows",
    "lag_sec": "--lag",
    "window_sec": "--window",
    "filters": "--filter",
    "since": "--since",
    "until": "--until",
}
"""Fields of ``harvest.options.Options`` → the options that state them."""
_HOME = "pytest_decisionos.cli.evidence_"


@click.group(
    cls=LazyGroup,
    lazy={
        "seal": (f"{_HOME}store:seal", "Seal a document: digest, and with keys a MAC."),
        "verify": (f"{_HOME}store:verify", "Check the seal of documents."),
        "merge": (f"{_HOME}store:merge", "Put blocks from elsewhere into a document."),
        "lock": (f"{_HOME}store:lock", "Make a document LOCKED: read-only, never overwritten."),
        "index": (f"{_HOME}archive:index", "Index all documents, or verify the index."),
        "gc": (f"{_HOME}archive:gc", "Delete what nobody needs any longer; dry-run by default."),
        "objectlock": (f"{_HOME}objectlock:objectlock", "Lock documents in S3, and verify it."),
    },
)
def evidence() -> None:
    """Build, seal, lock, index and archive evidence."""


def _how(*, step_start: str, shadow: str) -> Callable[[Any], Any]:
    """The options of how to harvest; only who knows the target can ask its stage for a default."""
    options = [
        click.option("--since", metavar="ISO", help="Leave out rows before this time."),
        click.option("--until", metavar="ISO", help="Leave out rows from this time on."),
        click.option(
            "--step-start",
            metavar="ISO",
            help=f"When the canary step began.  [default: {step_start}]",
        ),
        click.option(
            "--guardband",
            type=float,
            metavar="MIN",
            help="Warm-up at the start of the step to leave out, in minutes.  [default: 10]",
        ),
        click.option("--assume-tz", metavar="ZONE", help="Zone of times without an offset."),
        click.option(
            "--max-bad-rows",
            type=int,
            metavar="N",
            help="Unreadable rows to tolerate.  [default: 0]",
        ),
        click.option(
            "--lag",
            type=int,
            metavar="SEC",
            help="A window closes this long after its end.  [default: 5]",
        ),
        click.option(
            "--window", type=int, metavar="SEC", help="Length of a window.  [default: 300]"
        ),
        click.option(
            "--filter",
            "filters",
            multiple=True,
            metavar="COLUMN=GLOB",
            help="Leave out rows that match, besides health checks and mirrored requests;"
            " repeatable.",
        ),
        click.option(
            "--shadow/--no-shadow",
            default=None,
            help="Measure the canary by the copies of requests that it answers (variant shadow)."
            f"  [default: {shadow}]",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    ]

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@evidence.command(epilog=_BUILD_EXAMPLES)
@click.option("--reqlog", multiple=True, help="Request log, or a glob; repeatable.")
@click.option("--judgelog", multiple=True, help="The judge's request log, or a glob; repeatable.")
@click.option("--peer", multiple=True, help="Log of the same traffic seen from elsewhere.")
@click.option("--block", multiple=True, metavar="NAME=FILE", help="A block from elsewhere.")
@click.option("--out", type=click.Path(path_type=Path), help="Evidence file to write.")
@click.option("--root", type=click.Path(path_type=Path), help="Root folder of the target.")
@click.option("--gate", type=click.Path(path_type=Path), help="gate.yaml; says the target.")
@click.option("--target", metavar="SERVICE/ENV[/REGION[/TENANT]]", help="What is released where.")
@click.option("--release", help="The release judged.  [default: what the log says]")
@click.option("--baseline-release", help="The release before.  [default: what the log says]")
@click.option(
    "--canary-policy",
    type=click.Path(path_type=Path),
    help="Says how large a burst is.  [default: canary/policy.json beside gate.yaml, if there]",
)
@_how(
    step_start="as the stage says, else the canary's first row", shadow="as the stage says: at 0 %"
)
def build(  # noqa: PLR0917 - click passes every option by name
    reqlog: tuple[str, ...],
    judgelog: tuple[str, ...],
    peer: tuple[str, ...],
    block: tuple[str, ...],
    out: Path | None,
    root: Path | None,
    gate: Path | None,
    target: str | None,
    release: str | None,
    baseline_release: str | None,
    canary_policy: Path | None,
    step_start: str | None,
    shadow: bool | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Build the evidence document from logs, in one step.

    Without options it reads log/reqlog.csv (else log/reqlog.jsonl, which the nginx adapter writes),
    log/judgelog.csv and log/lb.csv of the root folder, as far as they are there, and writes
    evidence/latest.json. While the stage is a canary at 0 %, mirrored requests count as its own: in
    the comparison, not in perf. With keys configured it is sealed with their MAC, without any with
    its digest only. evidence.yaml beside gate.yaml may say what to mask; a value under the name of
    a secret is refused.
    """
    from pytest_decisionos.evidence.build import Inputs, build_evidence  # noqa: PLC0415 - loads duckdb
    from pytest_decisionos.evidence.config import load_config  # noqa: PLC0415 - the same
    from pytest_decisionos.evidence.document import publish  # noqa: PLC0415 - the same
    from pytest_decisionos.trust.sources import ring_of  # noqa: PLC0415 - only where it is sealed

    settings = from_environment()
    root = root or settings.root
    beside_gate = (gate or settings.gate).parent
    about, ring = _target(target, gate or settings.gate), ring_of(settings)
    since, shadow = _step(root, about, ring, settings, shadow)
    inputs = Inputs(
        reqlog=reqlog or _there(root / "log/reqlog.csv") or _there(root / "log/reqlog.jsonl"),
        judgelog=judgelog or _there(root / "log/judgelog.csv"),
        peer=peer or _there(root / "log/lb.csv"),
        blocks=_blocks(block),
        target=about,
        release=release,
        baseline_release=baseline_release,
        step_start=time_of("--step-start", step_start) or since,
        options=_with_policy(
            _options(shadow=shadow, **how),
            canary_policy,
            beside_gate,
        ),
    )
    if not inputs.reqlog and not inputs.judgelog:
        raise UsageError(
            "no log to build from",
            file=root / "log",
            expected="reqlog.csv or judgelog.csv",
            next_step="name one with --reqlog, or try with `dosctl sample`",
        )
    privacy = load_config(beside_gate / "evidence.yaml").privacy
    with progress_bar() as progress:
        document = build_evidence(
            inputs, now=datetime.now(UTC), ring=ring, privacy=privacy, progress=progress
        )
    path = out or root / "evidence/latest.json"
    publish(path, document)
    tell(path, document, as_json=as_json)


@evidence.command(epilog=_HARVEST_EXAMPLES)
@click.option("--role", type=click.Choice(["reqlog", "judgelog"]), default="reqlog")
@click.option("--csv", "logs", multiple=True, help="Log, or a glob; any format; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), help="Block file to write.")
@click.option("--root", type=click.Path(path_type=Path), help="Root folder of the target.")
@_how(step_start="the canary's first row", shadow="no")
def harvest(  # noqa: PLR0917 - click passes every option by name
    role: str,
    logs: tuple[str, ...],
    out: Path | None,
    root: Path | None,
    step_start: str | None,
    shadow: bool | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Harvest one kind of log into a block file.

    The file holds the block perf (of a judgelog: perf_judge), canary and anomaly if the log gives
    them, and in witness which bytes they were made from.
    """
    from pytest_decisionos.evidence.build import harvest_block  # noqa: PLC0415 - loads duckdb
    from pytest_decisionos.evidence.document import write_evidence  # noqa: PLC0415 - the same

    root = root or from_environment().root
    name = "perf" if role == "reqlog" else "perf_judge"
    with progress_bar() as progress:
        document = harvest_block(
            logs or (root / f"log/{role}.csv",),
            role=role,
            options=_options(shadow=bool(shadow), **how),
            step_start=time_of("--step-start", step_start),
            now=datetime.now(UTC),
            progress=progress,
        )
    path = out or root / f"evidence/{name}.json"
    write_evidence(path, document)
    tell(path, document, as_json=as_json)


def _there(path: Path) -> tuple[Path, ...]:
    return (path,) if is_there(path) else ()


def _blocks(given: tuple[str, ...]) -> dict[str, Path]:
    made: dict[str, Path] = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not sign or not name or not path:
            raise UsageError("not a block", field="--block", found=text, expected="NAME=FILE")
        if name in made:
            raise UsageError("a block twice", field="--block", found=name)
        made[name] = Path(path)
    return made


def _step(
    root: Path, target: Target, ring: KeyRing | None, settings: Settings, shadow: bool | None
) -> tuple[datetime | None, bool]:
    """When the canary's step began, if there is one, and whether copies count as its requests."""
    from pytest_decisionos.release.stage import read_stage  # noqa: PLC0415 - as above

    found = read_stage(
        root, target=target, ring=ring, state_dir=settings.state_dir, now=datetime.now(UTC)
    )
    if found.stage is None or found.name != "canary":
        return None, bool(shadow)
    pct = found.stage.pct
    if shadow and pct:
        raise UsageError(
            "a canary with users is not measured by copies",
            field="--shadow",
            found=f"{pct:g} %",
            expected="a stage at 0 %",
        )
    return found.stage.since, pct == 0 if shadow is None else shadow


def _target(text: str | None, gate: Path) -> Target:
    if text is None:
        from pytest_decisionos.judge.gate import load_gate  # noqa: PLC0415 - reads YAML

        if not is_there(gate):
            raise UsageError(
                "no target",
                file=gate,
                expected="gate.yaml with the key target",
                next_step="name it with --target service/environment, or --gate FILE",
            )
        return load_gate(gate).target
    parts = text.split("/")
    if not 2 <= len(parts) <= 4 or any(not 0 < len(part) <= 128 for part in parts):
        raise UsageError(
            "not a target",
            field="--target",
            found=text,
            expected="service/environment[/region[/tenant]]",
        )
    return Target(**dict(zip(("service", "environment", "region", "tenant"), parts, strict=False)))


def _options(
    *,
    since: str | None,
    until: str | None,
    guardband: float | None,
    assume_tz: str | None,
    max_bad_rows: int | None,
    lag: int | None,
    window: int | None,
    filters: tuple[str, ...],
    shadow: bool,
) -> Options:
    from pytest_decisionos.harvest.options import DEFAULT_FILTERS, Options  # noqa: PLC0415
    from pytest_decisionos.harvest.times import to_ms  # noqa: PLC0415

    instants = {"since": time_of("--since", since), "until": time_of("--until", until)}
    given = {
        "guardband_minutes": guardband,
        "assume_tz": assume_tz,
        "max_bad_rows": max_bad_rows,
        "lag_sec": lag,
        "window_sec": window,
    } | {name: None if at is None else to_ms(at) for name, at in instants.items()}
    stated: Mapping[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        return Options(**stated, filters=(*DEFAULT_FILTERS, *filters), shadow=shadow)
    except UsageError as fault:
        fault.field = _OPTIONS.get(fault.field or "", fault.field)
        raise


def _with_policy(options: Options, policy: Path | None, beside_gate: Path) -> Options:
    """Bursts as large as the canary policy says: evidence made otherwise promotes nothing."""
    default = beside_gate / "canary/policy.json"
    if policy is None and not is_there(default):
        return options
    from pytest_decisionos.release.canary_policy import load_policy  # noqa: PLC0415 - loads pydantic

    stated = load_policy(policy or default)
    return replace(
        options, burst_threshold=stated.burst_threshold, ewma_tolerance=stated.ewma_tolerance
    )
