"""Auto-promotion: what the sealed evidence and the stage say now → promote, step, wait or abort; once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from pytest_decisionos.errors import DecisionOSError, DeniedError, EvidenceError, RefusedError
from pytest_decisionos.model.outcome import Outcome, Status
from pytest_decisionos.release import change
from pytest_decisionos.release.back import drive_back
from pytest_decisionos.release.canary_condition import canary_verdict
from pytest_decisionos.release.canary_policy import load_policy
from pytest_decisionos.release.conditions import Asking, next_pct
from pytest_decisionos.release.decisions import CUTOVER, find, read_decision
from pytest_decisionos.release.here import LATEST, AbortedError, ConditionsError
from pytest_decisionos.release.rollout import load_rollout
from pytest_decisionos.trust import rbac

if TYPE_CHECKING:
    from pytest_decisionos.release.here import Here
    from pytest_decisionos.release.stage_model import Reading, Stage
    from pytest_decisionos.trust.keys import KeyRing

AutoAction = Literal["promote", "step", "wait", "abort"]


class AutoDone(NamedTuple):
    """What was done, or of a dry-run would be.

    Attributes:
        action: ``wait`` leaves everything as it is.
        from_pct: per cent of the traffic before.
        to_pct: per cent of it that the action leads to.
        reasons: what decided it: the conditions that do not hold, or everything that was asked.
        reading: the stage that is there.
        faults: what failed of an abort.
    """

    action: AutoAction
    from_pct: float
    to_pct: float
    reasons: tuple[Outcome, ...]
    reading: Reading
    faults: tuple[str, ...] = ()


def auto(here: Here, *, dry_run: bool = False) -> AutoDone:
    """Do what is due now, if anything is.

    Twice is the same as once: every step needs a decision that was signed on the stage before it,
    and a look at the same numbers counts once. So it may run from cron, and twice at once.

    Raises:
        DeniedError: the scope of what is due is not granted: ``deploy:promote`` or
            ``deploy:abort``; one of them is needed even to wait.
        RefusedError: the stage cannot be believed.
        DecisionOSError: unusable.
    """
    if not any(rbac.allows(here.asked.scopes, s) for s in ("deploy:promote", "deploy:abort")):
        here.require("deploy:promote")
    ring = here.keys()
    reading = here.look(ring)
    if reading.stage is None or reading.name in {"stable", "promote"}:
        return _idle(reading)
    if reading.name == "abort":
        return _abort(here, reading, (_said("stage", "abort", "an abort was cut off"),), dry_run)
    return _judged(here, ring, reading, reading.stage, dry_run=dry_run)


def _idle(reading: Reading) -> AutoDone:
    """Nothing is due: no canary; or a promoted release, which waits for its post-verification."""
    if reading.alarm not in {"", "missing"}:
        raise RefusedError(
            f"the stage cannot be believed: {reading.message}",
            field=f"release.stage:{reading.alarm}",
            next_step="dosctl release abort, which drives traffic back and repairs the stage",
        )
    why = f"the stage is {reading.name}: there is no canary to judge"
    reasons = (_said("stage", "different", why, Status.INCONCLUSIVE),)
    return AutoDone("wait", reading.pct, reading.pct, reasons, reading)


def _judged(
    here: Here, ring: KeyRing, reading: Reading, stage: Stage, *, dry_run: bool
) -> AutoDone:
    policy = load_policy(here.policy_file)
    try:
        verdict = canary_verdict(here, stage, ring, policy)
    except EvidenceError as fault:  # not there yet, or nobody can read it: nothing is known
        reasons = (_said("evidence", "unreadable", str(fault), Status.ERROR),)
        return AutoDone("wait", stage.pct, stage.pct, reasons, reading)
    bad = tuple(one for one in verdict.reasons if one.status is not Status.SUCCESSFUL)
    if verdict.action == "abort":
        return _abort(here, reading, bad, dry_run)
    waiting = AutoDone("wait", stage.pct, stage.pct, bad, reading)
    if bad and not verdict.look:
        return waiting
    # What a look would see is told by the change that takes it, if all the rest holds.
    asked = here.asked
    rollout = load_rollout(here.rollout_file, root=asked.root, target=asked.target)
    to_pct = next_pct(policy, rollout.strategy, stage.pct)
    lacking = _decision_fault(here, reading)
    if lacking is not None:
        return waiting._replace(reasons=(lacking,))
    action: AutoAction = "promote" if to_pct == 100 else "step"
    asking = Asking(dry_run=dry_run)
    try:
        promote = action == "promote"
        done = change.promote(here, asking) if promote else change.step(here, asking, to_pct)
    except ConditionsError as fault:
        bad = tuple(one for one in fault.outcomes if one.status is not Status.SUCCESSFUL)
        return waiting._replace(reasons=bad, reading=here.look(ring))
    except (AbortedError, DeniedError):
        raise
    except RefusedError as fault:  # another run is at it
        return waiting._replace(reasons=(_said("stage", "busy", str(fault)),))
    return AutoDone(action, stage.pct, done.to_pct, done.outcomes, done.reading)


def _decision_fault(here: Here, reading: Reading) -> Outcome | None:
    """Why there is not even a decision to ask conditions of, so that nothing has to be refused."""
    try:
        made = read_decision(find(here.asked.root, LATEST, CUTOVER))
    except DecisionOSError as fault:
        return _said("decision", "missing", str(fault), Status.INCONCLUSIVE)
    if made.claims.stage_sha256 != reading.sha256:
        why = f"{made.claims.decision_id} is not for the stage as it is: sign a new decision"
        return _said("used", "used_up", why, Status.INCONCLUSIVE)
    return None


def _abort(here: Here, reading: Reading, reasons: tuple[Outcome, ...], dry_run: bool) -> AutoDone:
    if not dry_run:
        here.require("deploy:abort")
        why = "; ".join(f"{one.reason}: {one.message}" for one in reasons[:3])
        back = drive_back(here, why, scope="deploy:abort")
        return AutoDone("abort", reading.pct, 0.0, reasons, back.after, back.faults)
    return AutoDone("abort", reading.pct, 0.0, reasons, reading)


def _said(condition: str, cause: str, why: str, status: Status = Status.FAILED) -> Outcome:
    return Outcome(id=f"release.{condition}", status=status, cause=cause, message=why)
