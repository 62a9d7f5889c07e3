"""What the commands of ``dosctl release`` share: their options, and how they tell what was done."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_decisionos.cli.output import echo_json, say
from pytest_decisionos.cli.trusted import must_trust
from pytest_decisionos.errors import DecisionOSError, UsageError
from pytest_decisionos.judge.gate import load_gate
from pytest_decisionos.release import audit
from pytest_decisionos.release.back import claimed_target
from pytest_decisionos.release.here import LATEST, Here
from pytest_decisionos.release.repair import Asked
from pytest_decisionos.report.conditions import condition_json, condition_lines, stage_words
from pytest_decisionos.settings import from_environment, what_can_be_used
from pytest_decisionos.trust.sources import ring_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_decisionos.model.outcome import Outcome
    from pytest_decisionos.model.target import Target
    from pytest_decisionos.release.conditions import Asking
    from pytest_decisionos.release.stage_model import Reading
    from pytest_decisionos.settings import Settings

Options = dict[str, Any]


def _with(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


where = _with(
    click.option(
        "--gate",
        type=click.Path(path_type=Path),
        help="Gate configuration; policy, freeze and rollout lie beside it."
        "  [default: configs/gate.yaml]",
    ),
    click.option(
        "--root", type=click.Path(path_type=Path), help="Root folder of the target  [default: var]"
    ),
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
dry_run = click.option("--dry-run", is_flag=True, help="Ask every condition, and change nothing.")
judged = _with(
    click.option(
        "--evidence",
        type=click.Path(path_type=Path),
        help="Evidence  [default: <root>/evidence/latest.json]",
    ),
    click.option("--trust", type=click.Path(path_type=Path), help="Trust file."),
)
by_decision = _with(
    click.option(
        "--bundle",
        default=LATEST,
        show_default=True,
        metavar="BUNDLE",
        help="The decision: its folder, its id, or the newest.",
    ),
    judged,
)
break_glass = _with(
    click.option(
        "--break-glass",
        is_flag=True,
        help="Without GO, canary condition, approval and freeze; two operators must sign.",
    ),
    click.option(
        "--operator-key",
        "operator_keys",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Private key of an operator, for --break-glass; twice.",
    ),
    click.option("--reason", default="", metavar="TEXT", help="Why, for --break-glass."),
)


def here_of(
    command: str,
    *,
    root: Path | None,
    gate: Path | None,
    evidence: Path | None = None,
    trust: Path | None = None,
) -> Here:
    """Who asks, and where everything lies.

    Raises:
        DecisionOSError: the environment or gate.yaml cannot be used.
    """
    settings = from_environment()
    gate = gate or settings.gate
    return _here(command, settings, root, gate, load_gate(gate).target, evidence, trust)


def here_of_abort(command: str, *, root: Path | None, gate: Path | None) -> tuple[Here, list[str]]:
    """The same for an abort, which goes on without what it can do without; and what that is.

    Only the variables that cannot be used are left out: without its keys it could but remove the stage.

    Raises:
        DecisionOSError: nothing says which target this is.
    """
    settings, unusable = what_can_be_used()
    faults = [f"left out: {fault}" for fault in unusable]
    gate = gate or settings.gate
    try:
        target = load_gate(gate).target
    except DecisionOSError as fault:
        faults.append(str(fault))
        claimed = claimed_target(root or settings.root)
        if claimed is None:
            raise
        target = claimed
    return _here(command, settings, root, gate, target, None, None), faults


def _here(  # noqa: PLR0917 - called above
    command: str,
    settings: Settings,
    root: Path | None,
    gate: Path,
    target: Target,
    evidence: Path | None,
    trust: Path | None,
) -> Here:
    root, now = root or settings.root, datetime.now(UTC)
    asked = Asked(
        root=root,
        target=target,
        ring=lambda: ring_of(settings),
        state_dir=settings.state_dir,
        scopes=settings.allow_scopes,
        actor=audit.actor_of(settings.actor),
        now=now,
    )
    return Here(
        asked=asked,
        command=command,
        gate=gate,
        evidence=evidence or settings.evidence or root / "evidence/latest.json",
        trust=lambda: must_trust(trust, settings, now),
        max_age_sec=settings.decision_max_age,
    )


def asking_of(
    bundle: str,
    dry_run: bool,
    break_glass: bool,
    operator_keys: Sequence[Path],
    reason: str,
) -> Asking:
    """How a change is asked for.

    Raises:
        UsageError: keys and reason without --break-glass, or it without them.
        KeysError: a key cannot be read.
    """
    from pytest_decisionos.release.conditions import Asking  # noqa: PLC0415 - loads the verifier

    if not break_glass:
        if operator_keys or reason:
            raise UsageError("--operator-key and --reason are for --break-glass")
        return Asking(bundle, None, dry_run)
    if not operator_keys or not reason.strip():
        raise UsageError(
            "breaking the glass takes two operators and a reason",
            field="--break-glass",
            expected="--operator-key FILE --operator-key FILE --reason TEXT",
        )
    from pytest_decisionos.release.approval import Override  # noqa: PLC0415 - loads cryptography
    from pytest_decisionos.trust.ed25519 import load_private  # noqa: PLC0415 - the same

    keys = tuple(load_private(path) for path in operator_keys)
    return Asking(bundle, Override(keys, reason), dry_run)


def tell(
    reading: Reading | None,
    outcomes: Sequence[Outcome],
    *,
    as_json: bool,
    bad_only: bool = False,
    **more: Any,
) -> None:
    """Print the stage and the conditions, to standard output."""
    if as_json:
        stage = None if reading is None else _stage(reading)
        echo_json({**more, "stage": stage, "conditions": condition_json(outcomes)})
        return
    shown = [one for one in outcomes if not bad_only or one.cause]
    for line in condition_lines(shown):
        click.echo(line)
    if reading is not None:
        say("stage", stage_words(reading))


def _stage(reading: Reading) -> Options:
    from pytest_decisionos.report.conditions import stage_json  # noqa: PLC0415 - only for JSON

    return stage_json(reading)
