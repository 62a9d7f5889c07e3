"""Beginning a stage and repairing one: changes that take no traffic anywhere, each of them audited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_decisionos.errors import DecisionOSError, RefusedError
from pytest_decisionos.release import audit
from pytest_decisionos.release.past import past_of
from pytest_decisionos.release.stage import Changer, Reading, change_stage
from pytest_decisionos.trust import rbac
from pytest_decisionos.trust.files import LOCK_TIMEOUT_SEC

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.model.target import Target
    from pytest_decisionos.release.traffic import Rollout
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

    def change(self, ring: KeyRing | None, **more: float) -> AbstractContextManager[Changer]:
        """``change_stage`` of this target."""
        return change_stage(
            self.root,
            target=self.target,
            ring=ring,
            state_dir=self.state_dir,
            now=self.now,
            **more,
        )

    def record(
        self,
        command: str,
        scope: str,
        *,
        allowed: bool,
        code: str,
        why: str = "",
        before: Reading | None = None,
        to: audit.StageAt | None = None,
        wait_sec: float = LOCK_TIMEOUT_SEC,
        **more: Any,
    ) -> str:
        """Write a line of the audit journal; returns why it could not be written, or nothing."""
        entry = audit.AuditEntry(
            time=self.now,
            actor=self.actor,
            scope=scope,
            command=command,
            allowed=allowed,
            code=code,
            why=why,
            from_=None if before is None else audit.at(before),
            to=to,
            **more,
        )
        return audit.record(self.root, entry, wait_sec=wait_sec)


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


def initialise(asked: Asked, release: str | None, rollout: Rollout | None = None) -> Done:
    """Write a signed stable stage where there is none, and say what everybody runs, if nobody did.

    Args:
        asked: who asks; needs the scope ``deploy:promote``.
        release: what everybody runs; None says nothing.
        rollout: what carries the traffic, which is asked whether they do: traffic goes by that name.

    Raises:
        DecisionOSError: it was not done; the audit journal tells that too. So it is where there was
            a stage before, and of a release that not everybody runs, or that may have been taken
            back where nothing carries traffic that could tell.
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
            return "initialised"
        if release is None or release == reading.release:
            return ""
        if reading.name == "stable":
            _must_be_run(reading, release)
        changer.write(stage="stable", release=release)
        return "initialised"

    def _must_be_run(reading: Reading, release: str) -> None:
        past = past_of(asked.root)
        if reading.alarm == "missing" and (reading.removed or past.seq is not None):
            raise RefusedError(
                "there was one, and its file is gone", next_step="dosctl stage reconcile"
            )
        told = None if rollout is None else rollout.running()
        if told is not None and told.serving != release:
            raise RefusedError(
                "not what everybody runs", field="--release", found=release, expected=told.serving
            )
        stable = (reading.seq, reading.stage.since) if reading.stage else None
        aborted = past.taken_back(release, stable)
        if told is None and aborted is not None and not past.known(release, aborted):
            raise RefusedError(
                "was taken back, so it is not what everybody runs",
                field="--release",
                found=release,
                next_step=f"name what they run; if it is this one: dosctl release acknowledge {release}",
            )

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
    try:
        rbac.require(asked.scopes, scope)
        with asked.change(asked.ring()) as changer:
            before = changer.reading
            what = act(changer)
    except DecisionOSError as fault:
        code = audit.code_of(fault)
        asked.record(command, scope, allowed=False, code=code, why=str(fault), before=before)
        raise
    after, unaudited = changer.reading, ""
    if what:
        unaudited = asked.record(
            command,
            scope,
            allowed=True,
            code=what,
            why=before.message,
            before=before,
            to=audit.at(after),
            release=after.release,
        )
    return Done(after, what, unaudited)
