"""Judges that recompute from a log: which logs there are for them, and what those say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_decisionos.errors import DecisionOSError, shown
from pytest_decisionos.judge.decide import JudgeInput
from pytest_decisionos.model.decision import InputFile
from pytest_decisionos.model.strict_json import block_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_decisionos.judge.gate import JudgeConfig
    from pytest_decisionos.model.decision import JudgeState
    from pytest_decisionos.model.policy import Rule

FEEDS: Final = {
    "reqlog": {"perf", "canary", "anomaly"},
    "judgelog": {"perf_judge", "canary"},  # the canary's signature errors stand in it
    "peer": {"perf", "canary", "anomaly"},
}
"""The blocks whose numbers a log can give, by its role."""


def ask_log(
    judge: JudgeConfig, root: Path, blocks: Mapping[str, Any], rules: Sequence[Rule]
) -> JudgeInput:
    """Let a judge recompute from the logs that the evidence names, or from its own second one.

    Only logs that feed one of ``rules`` are read. A log that cannot be used puts the judge in
    error; logs that are not there, or feed none of the rules, make it abstain.
    """
    own = root / judge.path if judge.path else None
    return ask_folder(
        JudgeInput(id=judge.id, source=judge.source),
        own.parent if own else root / "log",
        blocks,
        own=own.name if own else None,
        reads={block_of(rule.metric) for rule in rules},
        limits=any(rule.level is not None for rule in rules),
    )


def ask_folder(
    judge: JudgeInput,
    folder: Path,
    blocks: Mapping[str, Any],
    *,
    own: str | None = None,
    reads: set[str] | None = None,
    limits: bool = True,
    tell_folder: bool = True,
) -> JudgeInput:
    """``judge`` with what the logs in ``folder`` say.

    Args:
        judge: who asks.
        folder: where its logs are; nothing else is opened.
        blocks: the evidence.
        own: name of its own log of the same traffic; None: the logs that the evidence names.
        reads: the blocks that are asked for; logs that feed none of them are not read. None: all.
        limits: whether to make confidence limits.
        tell_folder: whether its words and file names tell where ``folder`` is: not to other hosts.
    """

    def failed(state: JudgeState, reason: str) -> JudgeInput:
        return judge.model_copy(update={"state": state, "reason": reason})

    def told(name: str) -> str:
        return str(folder / name) if tell_folder else name

    if own is not None:
        named = [{"role": "peer", "name": own}] if _is_there(folder, own) else []
        absent = f"its log {told(own)} is not there"
    else:
        named, names = _named(blocks, folder)
        where = folder if tell_folder else "its log folder"
        absent = f"the log that the evidence names ({names}) is not in {where}"
    fitting = [log for log in named if reads is None or _feeds(log.get("role"), reads)]
    if not fitting:
        return failed("absent", "its log feeds none of these rules" if named else absent)
    # Loaded here: DuckDB costs more start-up than everything else, and not every run has a log.
    from pytest_decisionos.harvest.recompute import recompute  # noqa: PLC0415 - as said

    try:
        found, read = recompute(fitting, folder, blocks, limits=limits, exact=own is None)
    except DecisionOSError as fault:
        if not tell_folder:
            fault.file = fault.file and Path(fault.file).name
            fault.what = fault.what.replace(f"{folder}/", "")
        return failed("error", str(fault))
    logs = tuple(InputFile(file=told(s["name"]), sha256=s["sha256"]) for s in read)
    return judge.model_copy(update={"exact": own is None, "blocks": found, "logs": logs})


def _feeds(role: object, reads: set[str]) -> bool:
    """Whether a log of this role says something of these blocks; an unknown role is for recompute to refuse."""
    return not isinstance(role, str) or role not in FEEDS or bool(FEEDS[role] & reads)


def _named(blocks: Mapping[str, Any], folder: Path) -> tuple[list[dict[str, Any]], str]:
    """The logs that the evidence names and that are there; and the names of all, in words."""
    witness = blocks.get("witness")
    sources = witness.get("sources") if isinstance(witness, dict) else None
    if isinstance(witness, dict) and sources is None and isinstance(witness.get("csv_path"), str):
        # Producers before `sources` name one log by path and digest.
        sources = [
            {"role": "reqlog", "name": witness["csv_path"], "sha256": witness.get("csv_sha256")}
        ]
    listed = [s for s in sources if isinstance(s, dict)] if isinstance(sources, list) else []
    listed = [s for s in listed if s.get("role") != "peer" and isinstance(s.get("name"), str)]
    names = ", ".join(shown(s["name"], 60) for s in listed[:3]) or "none"
    return [s for s in listed if _is_there(folder, s["name"])], names


def _is_there(folder: Path, name: str) -> bool:
    """Whether a log is there, or its name is one for recompute to refuse, not to pass over."""
    if any(sign in name for sign in "/\\\0"):
        return True
    try:
        return (folder / name).exists()
    except (OSError, ValueError):  # too long a name, or a folder that may not be entered
        return True
