"""Beginning a stage and repairing one: changes that take no traffic anywhere, each of them audited."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_decisionos.errors import DecisionOSError, ExitCode, RefusedError
from pytest_decisionos.release import audit
from pytest_decisionos.release.stage import Changer, Reading, change_stage
from pytest_decisionos.trust import rbac

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.model.target import Target
    from pytest_decisionos.trust.keys import KeyRing


class Asked(NamedTuple):
    """Who asks for a change, of what, and with which means.

    Attributes:
        root: root folder of the target.
        target: what is released where.
        ring: gives the keys, or raises why not.
        state_dir: where this host remembers what it has seen; None is ``seen.default_folder``.
        scopes: what is granted.
        actor: who asks; see ``audit.actor_of``.
        now: when.
    """

    root: Path
    target: Target
    ring: Callable[[], KeyRing | None]
    state_dir: Path | None
    scopes: str
    actor: str
    now: datetime


class Done(NamedTuple):
    """What became of it.

    Attributes:
        reading: the stage that is there now.
        what: reason code of what was done; empty if nothing had to be.
        unaudited: why the audit journal does not tell it; empty if it does.
    """

    reading: Reading
    what: str
    unaudited: str = ""


def initialise(asked: Asked, release: str | None) -> Done:
    """Write a signed stable stage where there is none, and say what everybody runs, if nobody did.

    Args:
        asked: who asks; needs the scope ``deploy:promote``.
        release: what everybody runs; None says nothing.

    Raises:
        DecisionOSError: it was not done; the audit journal tells that too.
    """

    def begin(changer: Changer) -> str:
        reading = changer.reading
        if reading.alarm not in {"", "missing"}:
            raise RefusedError(
                f"there is one that cannot be believed: {reading.message}",
                next_step="repair it with `dosctl stage reconcile`",
            )
        if reading.stage is None and release is None:
            changer.write(stage="stable")
        elif release is not None and release != reading.release:
            changer.write(stage="stable", release=release)
        else:
            return ""
        return "initialised"

    return _audited(asked, "dosctl stage init", "deploy:promote", begin)


def repair(asked: Asked) -> Done:
    """Keep a stage that cannot be believed aside, and write a signed stable one.

    A valid stage stays what it is; if another key signs by now, it is signed anew, so that it
    outlives the key that signed it.

    Args:
        asked: who asks; needs the scope ``deploy:abort``.

    Raises:
        DecisionOSError: it was not done; the audit journal tells that too.
    """

    def mend(changer: Changer) -> str:
        reading = changer.reading
        if reading.stage is None:
            changer.write(stage="stable")
            return f"repaired:{reading.alarm}"
        if reading.stage.key_id == changer.key_id:
            return ""
        changer.write()
        return "signed_anew"

    return _audited(asked, "dosctl stage reconcile", "deploy:abort", mend)


def _audited(asked: Asked, command: str, scope: str, act: Callable[[Changer], str]) -> Done:
    before: Reading | None = None

    def record(*, allowed: bool, code: str, why: str, after: Reading | None = None) -> str:
        entry = audit.AuditEntry(
            time=asked.now,
            actor=asked.actor,
            scope=scope,
            command=command,
            allowed=allowed,
            code=code,
            why=why,
            from_=None if before is None else audit.at(before),
            to=None if after is None else audit.at(after),
            release=None if after is None else after.release,
        )
        return audit.record(asked.root, entry)

    try:
        rbac.require(asked.scopes, scope)
        with change_stage(
            asked.root,
            target=asked.target,
            ring=asked.ring(),
            state_dir=asked.state_dir,
            now=asked.now,
        ) as changer:
            before = changer.reading
            what = act(changer)
    except DecisionOSError as fault:
        codes = {ExitCode.DENIED: "denied", ExitCode.NO_GO: "refused"}
        record(allowed=False, code=codes.get(fault.exit_code, "unusable"), why=str(fault))
        raise
    unaudited = ""
    if what:
        why = before.message
        unaudited = record(allowed=True, code=what, why=why, after=changer.reading)
    return Done(changer.reading, what, unaudited)
