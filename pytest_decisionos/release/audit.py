"""The audit journal: who changed the stage or was refused, why, from what to what, by which decision."""

from __future__ import annotations

import getpass
import os
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AwareDatetime, BeforeValidator, ConfigDict, Field, StringConstraints

from pytest_decisionos.errors import DecisionOSError, ExitCode, JournalError, shown
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.release.transitions import StageName
from pytest_decisionos.trust.files import LOCK_TIMEOUT_SEC
from pytest_decisionos.trust.journal import open_journal, read

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_decisionos.release.stage import Reading, Stage

FILE: Final = "rollout/audit.jsonl"
CI_VARIABLES: Final = (
    "GITHUB_ACTOR",
    "GITLAB_USER_LOGIN",
    "BUILD_USER_ID",  # Jenkins, build user vars plugin
    "BUILDKITE_BUILD_CREATOR",
    "CIRCLE_USERNAME",
)
_Text = Annotated[str, BeforeValidator(lambda text: shown(text, 2000))]
"""Escaped and cut, never refused: no abort fails for its own record."""
_Digest = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{64}$")]


class StageAt(Frozen):
    """A stage as the journal names it; ``seq`` 0 is one that cannot be believed."""

    stage: StageName
    pct: float
    seq: int


class AuditEntry(Frozen):
    """One line of the journal.

    Attributes:
        time: when.
        actor: who, as it was said: a claim, not a proof.
        scope: the RBAC scope that this needs; empty if none.
        command: what was called, without secrets.
        allowed: whether it was done.
        code: reason code.
        why: the reason in words.
        from_: the stage before, ``from`` in the file; None if it was not looked at.
        to: the stage after; None if it stayed.
        release: what it was about.
        decision_sha256: digest of the decision that allowed it.
        decision_id: its name.
        override: key ids of the operators who let it pass without a GO.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    time: AwareDatetime
    actor: _Text
    scope: _Text = ""
    command: _Text
    allowed: bool
    code: _Text
    why: _Text = ""
    from_: StageAt | None = Field(default=None, alias="from")
    to: StageAt | None = None
    release: _Text | None = None
    decision_sha256: _Digest | None = None
    decision_id: _Text | None = None
    override: tuple[_Text, ...] = ()


def actor_of(stated: str) -> str:
    """Who acts: as ``stated`` (``DECISIONOS_ACTOR``), else as CI says, else the user of this process."""
    for name in (stated, *(os.environ.get(variable, "") for variable in CI_VARIABLES)):
        if name.strip():
            return shown(name.strip(), 200)
    try:
        return shown(getpass.getuser(), 200)
    except (OSError, KeyError):  # a user id without a name
        return f"uid {os.getuid()}"


def code_of(fault: DecisionOSError) -> str:
    """The reason code of a change that was not done because of ``fault``."""
    codes = {ExitCode.DENIED: "denied", ExitCode.NO_GO: "refused"}
    return codes.get(fault.exit_code, "unusable")


def at(stage: Stage | Reading) -> StageAt:
    """``stage`` as the journal names it."""
    name = stage.stage if isinstance(stage.stage, str) else stage.name
    return StageAt(stage=name, pct=stage.pct, seq=stage.seq)


def record(root: Path, entry: AuditEntry, *, wait_sec: float = LOCK_TIMEOUT_SEC) -> str:
    """Append ``entry`` to the journal of ``root``, durably; waits so long for another writer.

    Returns:
        Empty, or why it could not be written. An abort goes on nevertheless, nothing else does.
    """
    try:
        made = entry.model_dump(mode="json", by_alias=True)
        time = entry.time.astimezone(UTC).isoformat(timespec="milliseconds")
        made["time"] = time.replace("+00:00", "Z")
        with open_journal(root / FILE, wait_sec=wait_sec) as journal:
            journal.append([made])
    except (DecisionOSError, OSError) as fault:
        return str(fault)
    return ""


def entries_of(root: Path) -> list[dict[str, Any]]:
    """What the journal tells; a last line that a crash cut off was told to nobody.

    Raises:
        JournalError: it cannot be read, or was changed: then nobody can tell.
    """
    path = root / FILE
    found = read(path)
    if found.fault is not None and found.fault.cause != "truncated":
        raise JournalError(
            found.fault.message,
            file=path,
            line=found.fault.line,
            next_step="find out who changed it; put the last good copy back",
        )
    return found.entries


def used(root: Path, decision_sha256: str) -> bool:
    """Whether an earlier change was allowed by this decision.

    Raises:
        JournalError: as ``entries_of``.
    """
    return any(
        entry.get("decision_sha256") == decision_sha256 and entry.get("allowed") is not False
        for entry in entries_of(root)
    )
