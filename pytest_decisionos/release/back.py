"""The way back: abort, which nothing that is broken stops, and what heals a crash between two steps."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import ValidationError

from pytest_decisionos.errors import DecisionOSError, RefusedError, shown
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.target import Target
from pytest_decisionos.release import audit
from pytest_decisionos.release.here import AbortedError
from pytest_decisionos.release.past import ACKNOWLEDGED, past_of
from pytest_decisionos.release.repair import repair
from pytest_decisionos.release.rollout import load_rollout
from pytest_decisionos.release.stage import FILE, remove_stage
from pytest_decisionos.release.stage_memory import Memory
from pytest_decisionos.release.traffic import Traffic, traffic_of

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_decisionos.release.here import Here, Scope
    from pytest_decisionos.release.repair import Done
    from pytest_decisionos.release.stage import Changer
    from pytest_decisionos.release.stage_model import Reading
    from pytest_decisionos.release.traffic import Rollout
    from pytest_decisionos.trust.keys import KeyRing

LOCK_SEC: Final = 5.0
"""How long an abort waits for another writer: one that hangs must not keep traffic on a bad canary."""
KEYS_SEC: Final = 5.0
"""How long an abort waits for its keys, such as from SSM, before it drives the traffic back."""
LATE_KEYS_SEC: Final = 60.0
"""And how long after that, before it removes the stage because it cannot sign one."""
ABORT: Final = "deploy:abort"


class Back(NamedTuple):
    """What an abort did.

    Attributes:
        before: the stage that was there.
        after: the stage as it reads now.
        driven: whether the traffic was driven back.
        faults: everything that failed on the way, in words.
        notes: what did not work, and was not needed.
    """

    before: Reading
    after: Reading
    driven: bool
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the traffic is back, and the stage reads stable."""
        return self.driven and self.after.name == "stable"


def abort(here: Here, why: str = "") -> Back:
    """Drive the traffic back, then bring the stage over abort to stable.

    Needs the scope ``deploy:abort`` and nothing else. It does all it can, and tells what failed.

    Raises:
        DeniedError: the scope is not granted.
    """
    here.require("deploy:abort")
    return drive_back(here, why, scope=ABORT)


def drive_back(here: Here, why: str, *, scope: str = "") -> Back:
    """``abort`` for who may already: also where traffic could not be moved forward."""
    way = _Way(here)
    before = here.look(way.ring)
    driven = way.drive(_back_of(before))
    try:
        driven = way.sign(before, driven=driven)
    except Exception as fault:  # noqa: BLE001 - no fault whatever may stop an abort
        way.notes.append(f"the stage could not be signed: {_words(fault)}")
        way.remove()
    after = here.look(way.ring)
    code = "aborted" if driven and after.name == "stable" else "abort_incomplete"
    if driven and before.stage is not None and before.name == "stable" == after.name:
        code = "already_stable"
    told = "; ".join([*([why] if why else []), *way.faults, *way.notes])
    unwritten = here.record(
        scope,
        allowed=True,
        code=code,
        why=told,
        before=before,
        to=audit.at(after),
        release=before.release if before.name in {"canary", "promote"} else None,
        wait_sec=LOCK_SEC,
    )
    if unwritten:
        way.notes.append(f"not in the audit journal: {unwritten}")
    if after.name != "stable":
        way.faults.append(f"the stage reads {after.name}")
    return Back(before, after, driven, tuple(way.faults), tuple(way.notes))


class _Way:
    """One way back, and what fails on it."""

    def __init__(self, here: Here) -> None:
        self._here = here
        self.faults: list[str] = []
        self.notes: list[str] = []
        self._rollout: Rollout | None = None
        self.ring: KeyRing | None = None
        self._keys = Thread(target=self._fetch, daemon=True)
        self._keys.start()
        self._keys.join(KEYS_SEC)
        try:
            asked = here.asked
            self._rollout = load_rollout(here.rollout_file, root=asked.root, target=asked.target)
        except Exception as fault:  # noqa: BLE001 - the stage can still be brought back
            self.faults.append(f"traffic was not driven back: {_words(fault)}")

    def _fetch(self) -> None:
        try:
            self.ring = self._here.keys()
        except Exception as fault:  # noqa: BLE001 - a source of keys that fails in its own way
            self.notes.append(f"no keys: {_words(fault)}")

    def drive(self, want: Traffic) -> bool:
        """Drive the traffic; whether it is there."""
        if self._rollout is None:
            return False
        try:
            self._rollout.apply(want)
        except Exception as fault:  # noqa: BLE001 - the stage can still be brought back
            self.faults.append(f"traffic was not driven back: {_words(fault)}")
            return False
        return True

    def sign(self, before: Reading, *, driven: bool) -> bool:
        """Bring the stage back with its key; whether the traffic is.

        Keys that came too late for the first drive are waited for: they say where users belong.
        Where the traffic is not back, the stage stays ``abort``: it is told that all users have to go back.
        """
        self._keys.join(LATE_KEYS_SEC)
        with self._here.change(self.ring, wait_sec=LOCK_SEC) as changer:
            now = changer.reading
            moved = now.sha256 != before.sha256
            if now.stage is not None and now.name == "stable":
                return self.drive(traffic_of(now)) if moved else driven
            if now.alarm != "missing":
                changer.write(stage="abort")
            if moved:  # by somebody who was faster: what was driven is not what he drove
                driven = self.drive(_back_of(changer.reading))
            if driven:
                changer.write(stage="stable")
            return driven

    def remove(self) -> None:
        """Take the stage away: it reads as stable, also if the same file is put back."""
        asked = self._here.asked
        try:
            remove_stage(asked.root, wait_sec=0)
            Memory(asked.root, asked.state_dir).remember_removal()
        except Exception as fault:  # noqa: BLE001 - what follows still has to be told
            self.faults.append(f"the stage could not be removed: {_words(fault)}")


def _back_of(reading: Reading) -> Traffic:
    """All users where they were before there was a canary, whichever that is if nobody can tell."""
    if reading.stage is None:
        return Traffic()
    stable = reading.name == "stable"
    return Traffic(release=reading.release if stable else reading.baseline_release)


def _words(fault: Exception) -> str:
    if isinstance(fault, DecisionOSError):
        return str(fault)
    return f"{type(fault).__name__}: {shown(str(fault), 200)}"


def bring_about(here: Here, ring: KeyRing, rollout: Rollout, written: Reading) -> Reading:
    """Move the traffic to where the stage that was just written says; without the stage's lock.

    Whoever aborts meanwhile need not wait. So the stage is read again, and if it has become another
    one, that one is brought about.

    Returns:
        The stage that is there.

    Raises:
        AbortedError: traffic could not be moved, and the release was aborted; or another run
            aborted it meanwhile.
    """
    try:
        now = _settle(here, ring, rollout, written)
    except DecisionOSError as fault:
        back = drive_back(here, f"traffic could not be moved: {fault}")
        raise AbortedError(
            f"aborted, because traffic could not be moved: {fault}",
            found="; ".join(back.faults) or None,
            next_step=None if back.ok else "dosctl release abort",
        ) from None
    if (now.name, now.release) != (written.name, written.release):
        raise AbortedError(
            "another run changed the stage meanwhile, and the traffic is where that one wants it",
            field="stage",
            found=now.name,
            expected=written.name,
        )
    return now


def _settle(here: Here, ring: KeyRing | None, rollout: Rollout, now: Reading) -> Reading:
    """Bring about what ``now`` says, and what the stage says then, until both are the same."""
    applied = None
    while applied != (want := traffic_of(now)):
        rollout.apply(want)
        applied, now = want, here.look(ring)
    return now


def claimed_target(root: Path) -> Target | None:
    """What the stage file says that it is about, believed by nobody: for an abort without gate.yaml."""
    try:
        document, _ = strict_json.read(root / FILE)
        return Target.model_validate(document.get("target"))
    except (DecisionOSError, ValidationError, AttributeError):
        return None


class Healed(NamedTuple):
    """What ``reconcile`` did.

    Attributes:
        reading: the stage that is there.
        what: reason codes of what was done, besides bringing the traffic about.
    """

    reading: Reading
    what: tuple[str, ...]


def reconcile(here: Here) -> Healed:
    """Repair the stage if it cannot be believed, then bring about the traffic that it says.

    That heals a crash between the stage and the adapter. An abort that a crash cut off is ended.
    Needs one scope: with a canary or a promoted release, whose traffic may rise by it,
    ``deploy:promote``; else ``deploy:abort``.

    Raises:
        DecisionOSError: it was not done, or traffic could not be moved; nothing is aborted by that.
    """
    asked = here.asked
    ring, unusable, rises = None, None, False
    try:
        ring = here.keys()
        rises = here.look(ring).name in {"canary", "promote"}
    except DecisionOSError as fault:
        unusable = fault
    scope: Scope = "deploy:promote" if rises else "deploy:abort"
    here.require(scope)
    if unusable is not None:
        here.record(scope, allowed=False, code="unusable", why=str(unusable))
        raise unusable
    what: list[str] = []
    if not rises:
        done: Done = repair(asked)
        what += [done.what] if done.what else []
    before = here.look(ring)
    try:
        if before.name in {"canary", "promote"}:
            past_of(asked.root).must_not_be_over(before)
        rollout = load_rollout(here.rollout_file, root=asked.root, target=asked.target)
        if before.name == "stable":
            _must_serve(rollout, before.release)
        if _settle(here, ring, rollout, before).name == "abort":
            with here.change(ring) as changer:
                _end(changer)
            what.append("aborted")
    except DecisionOSError as fault:
        here.record(scope, allowed=False, code="failed", why=str(fault), before=before)
        raise
    after = here.look(ring)
    here.record(
        scope,
        allowed=True,
        code="reconciled",
        why=", ".join(what),
        before=before,
        to=audit.at(after),
        release=before.release,
    )
    return Healed(after, tuple(what))


def _must_serve(rollout: Rollout, release: str | None) -> None:
    """Refuse to bring everybody to a release that serves nobody, or a canary's users only.

    Where what carries the traffic does not say what it does, nothing is in the way back.
    """
    try:
        told = rollout.running()
    except DecisionOSError:
        return
    names = [] if told is None else [n for n in (told.serving, told.baseline_release) if n]
    if names and release is not None and release not in names:
        raise RefusedError(
            f"{rollout.name} has nobody on the release that everybody would be moved to",
            field="release.running:different",
            found=release,
            expected=" or ".join(dict.fromkeys(names)),
            next_step=f"if the stage names it wrongly: remove {FILE}, then `dosctl stage reconcile`"
            " and `dosctl stage init --release NAME`",
        )


def _end(changer: Changer) -> None:
    if changer.reading.name == "abort":
        changer.write(stage="stable")


def acknowledge(here: Here, release: str) -> None:
    """Say that the abort of ``release`` is known: after its cooldown it may come back.

    Raises:
        RefusedError: it was not taken back, or the audit journal cannot be written.
        JournalError: the journal cannot be read, so nobody can tell.
        DeniedError: the scope ``deploy:promote`` is not granted.
    """
    scope: Scope = "deploy:promote"
    here.require(scope)
    try:
        ring = here.asked.ring()
        reading = here.look(ring)
        stable = (reading.seq, reading.stage.since) if reading.stage else None
        if past_of(here.asked.root).taken_back(release, stable) is None:
            raise RefusedError("this release was not taken back", found=release)
    except DecisionOSError as fault:
        here.record(
            scope, allowed=False, code=audit.code_of(fault), why=str(fault), release=release
        )
        raise
    here.must_record(scope, code=ACKNOWLEDGED, release=release)
