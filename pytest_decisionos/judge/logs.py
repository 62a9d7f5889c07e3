"""Judges that recompute from a log: which logs there are for them, and what those say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pytest_decisionos.errors import DecisionOSError, shown
from pytest_decisionos.judge.decide import JudgeInput
from pytest_decisionos.model.decision import InputFile
from pytest_decisionos.model.strict_json import block_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_decisionos.judge.gate import JudgeConfig
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
    named, absent = _logs(judge, root, blocks)
    reads = {block_of(rule.metric) for rule in rules}
    fitting = [log for log in named if _feeds(log.get("role"), reads)]
    if not fitting:
        reason = "its log feeds none of these rules" if named else absent
        return JudgeInput(id=judge.id, source=judge.source, state="absent", reason=reason)
    # Loaded here: DuckDB costs more start-up than everything else, and not every run has a log.
    from pytest_decisionos.harvest.recompute import recompute  # noqa: PLC0415 - as said

    folder = (root / judge.path).parent if judge.path else root / "log"
    limits = any(rule.level is not None for rule in rules)
    try:
        own, read = recompute(fitting, folder, blocks, limits=limits, exact=judge.path is None)
    except DecisionOSError as fault:
        return JudgeInput(id=judge.id, source=judge.source, state="error", reason=str(fault))
    return JudgeInput(
        id=judge.id,
        source=judge.source,
        exact=judge.path is None,
        blocks=own,
        logs=tuple(InputFile(file=str(folder / s["name"]), sha256=s["sha256"]) for s in read),
    )


def _feeds(role: object, reads: set[str]) -> bool:
    """Whether a log of this role says something of these blocks; an unknown role is for recompute to refuse."""
    return not isinstance(role, str) or role not in FEEDS or bool(FEEDS[role] & reads)


def _logs(
    judge: JudgeConfig, root: Path, blocks: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], str]:
    """The logs that are there for ``judge``, as evidence sources; or why there is none."""
    if judge.path is not None:
        path = root / judge.path
        if not path.is_file():
            return [], f"its log {path} is not there"
        return [{"role": "peer", "name": path.name}], ""
    witness = blocks.get("witness")
    sources = witness.get("sources") if isinstance(witness, dict) else None
    if isinstance(witness, dict) and sources is None and isinstance(witness.get("csv_path"), str):
        # Producers before `sources` name one log by path and digest.
        sources = [
            {"role": "reqlog", "name": witness["csv_path"], "sha256": witness.get("csv_sha256")}
        ]
    listed = [s for s in sources if isinstance(s, dict)] if isinstance(sources, list) else []
    listed = [s for s in listed if s.get("role") != "peer" and isinstance(s.get("name"), str)]
    there = [s for s in listed if _is_there(root / "log", s["name"])]
    names = ", ".join(shown(s["name"], 60) for s in listed[:3]) or "none"
    return there, f"the log that the evidence names ({names}) is not in {root / 'log'}"


def _is_there(folder: Path, name: str) -> bool:
    """Whether a log is there, or its name is one for recompute to refuse, not to pass over."""
    if len(name) > 255 or any(sign in name for sign in "/\\\0"):
        return True
    return (folder / name).exists()
