"""The changes of a stage: conditions → audit → stage → traffic; what cannot be moved is aborted."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_decisionos.errors import DecisionOSError, RefusedError
from pytest_decisionos.release import audit, looks
from pytest_decisionos.release.back import bring_about
from pytest_decisionos.release.conditions import Asking, Judged, finishing, increase
from pytest_decisionos.release.first_step import first_step
from pytest_decisionos.release.here import ConditionsError
from pytest_decisionos.release.past import FINISHED
from pytest_decisionos.release.traffic import traffic_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_decisionos.model.outcome import Outcome
    from pytest_decisionos.release.canary import CanaryVerdict
    from pytest_decisionos.release.here import Here, Scope
    from pytest_decisionos.release.stage import Changer
    from pytest_decisionos.release.stage_model import Reading
    from pytest_decisionos.release.transitions import Changes, StageName
    from pytest_decisionos.trust.keys import KeyRing


class Moved(NamedTuple):
    """A change that was made, or of a dry-run would be.

    Attributes:
        reading: the stage that is there.
        to_pct: per cent of the traffic that it leads to.
        outcomes: every condition.
    """

    reading: Reading
    to_pct: float
    outcomes: tuple[Outcome, ...]


class _Change(NamedTuple):
    """A change that is asked for.

    Attributes:
        scope: that it needs.
        code: what the audit journal calls it.
        to: the stage that it leads to.
        judge: asks its conditions of the stage that is there.
    """

    scope: Scope
    code: str
    to: StageName
    judge: Callable[[Reading, KeyRing], Judged]


def step(
    here: Here,
    asking: Asking,
    to_pct: float | None = None,
    *,
    release: str | None = None,
    baseline: str | None = None,
) -> Moved:
    """Let the canary have more traffic: from stable shadow, then the percentages of the policy.

    Args:
        here: who asks, and where everything lies.
        asking: how it is asked for.
        to_pct: per cent of the traffic; None is the next of the policy.
        release: of the first step: the canary; None is what the evidence names.
        baseline: of the first step: what everybody runs.

    Raises:
        ConditionsError: a condition does not hold.
        AbortedError: traffic could not be moved.
        DecisionOSError: denied, or unusable.
    """

    def judge(reading: Reading, ring: KeyRing) -> Judged:
        if reading.name == "stable" and reading.alarm in {"", "missing"} and not to_pct:
            return first_step(here, reading, ring, asking, release=release, baseline=baseline)
        return increase(here, reading, ring, asking, to_pct=to_pct, promote=False)

    return _move(here, asking, _Change("deploy:promote", "stepped", "canary", judge))


def promote(here: Here, asking: Asking) -> Moved:
    """Let the canary have all traffic; its baseline is kept warm until ``finish``.

    Raises:
        ConditionsError: a condition does not hold.
        AbortedError: traffic could not be moved.
        DecisionOSError: denied, or unusable.
    """

    def judge(reading: Reading, ring: KeyRing) -> Judged:
        return increase(here, reading, ring, asking, to_pct=100.0, promote=True)

    return _move(here, asking, _Change("deploy:promote", "promoted", "promote", judge))


def finish(here: Here, asking: Asking) -> Moved:
    """End a promotion: by a GO of the phase ``post`` its release is what is stable.

    Raises:
        ConditionsError: a condition does not hold.
        DecisionOSError: denied, or unusable; or the baseline could not be let go, which
            ``reconcile`` tries again.
    """

    def judge(reading: Reading, ring: KeyRing) -> Judged:
        return finishing(here, reading, ring, asking)

    return _move(here, asking, _Change("deploy:promote", FINISHED, "stable", judge))


def _move(here: Here, asking: Asking, change: _Change) -> Moved:
    here.require(change.scope)
    before: Reading | None = None
    told: Judged | None = None
    try:
        ring = here.keys()
        ring.signing("stage", here.asked.now)  # a dry-run promises nothing that this would refuse
        if asking.dry_run:
            before = here.look(ring)
            told = change.judge(before, ring)
            told.must_hold()
            return Moved(before, told.to_pct, told.outcomes)
        with here.change(ring) as changer:
            before = changer.reading
            told = change.judge(before, ring)
            try:
                rollout = told.must_hold()
            except ConditionsError:
                if told.look is not None:
                    _count_look(here, changer, ring, told.look)
                raise
            _allow(here, asking, change, before, told)
            written = _write(changer, change, told)
    except DecisionOSError as fault:
        if not asking.dry_run:
            _deny(here, change, fault, before, told)
        raise
    if change.to == "stable":
        rollout.apply(traffic_of(written))  # everybody is there already; only its baseline goes
        return Moved(here.look(ring), told.to_pct, told.outcomes)
    return Moved(bring_about(here, ring, rollout, written), told.to_pct, told.outcomes)


def _count_look(here: Here, changer: Changer, ring: KeyRing, verdict: CanaryVerdict) -> None:
    """Count a look that let nothing pass, before anybody is told what it saw."""
    stage = changer.write(looks=changer.reading.looks + 1)
    if verdict.seen is not None:
        # Not written down, the same numbers cost another look: that lets nothing more pass.
        with contextlib.suppress(DecisionOSError):
            key = ring.signing("stage", here.asked.now)
            looks.remember(here.asked.root, stage, verdict.seen, key)


def _allow(here: Here, asking: Asking, change: _Change, before: Reading, told: Judged) -> None:
    """Tell the journal before anything is done."""
    override = asking.override
    pct = 0.0 if change.to == "stable" else told.to_pct
    if override is not None:
        override.sign(
            here.asked.root,
            target=here.asked.target,
            stage_sha256=before.sha256,
            release=told.release,
            from_pct=before.pct,
            to_pct=pct,
            at=here.asked.now,
        )
    here.must_record(
        change.scope,
        code="override" if override else change.code,
        why=override.reason if override else "every condition holds",
        before=before,
        to=audit.StageAt(stage=change.to, pct=pct, seq=before.seq + 1),
        release=told.release,
        override=override.keyids if override else (),
        **_decision_of(told),
    )


def _decision_of(told: Judged | None) -> dict[str, Any]:
    made = told.decision if told else None
    if made is None:
        return {}
    return {"decision_sha256": made.sha256, "decision_id": made.claims.decision_id}


def _deny(
    here: Here,
    change: _Change,
    fault: DecisionOSError,
    before: Reading | None,
    told: Judged | None,
) -> None:
    code = audit.code_of(fault)
    if isinstance(fault, ConditionsError) and fault.field:
        code = fault.field
    here.record(
        change.scope,
        allowed=False,
        code=code,
        why=str(fault),
        before=before,
        release=told.release if told else None,
        **_decision_of(told),
    )


def _write(changer: Changer, change: _Change, told: Judged) -> Reading:
    changes: Changes = {
        "stage": change.to,
        "decision_sha256": told.decision.sha256 if told.decision else None,
    }
    if change.to == "canary":
        changes |= {
            "pct": told.to_pct,
            "release": told.release,
            "baseline_release": told.baseline,
        }
        if changer.reading.stage is None:  # nothing was there yet: it begins with what is so now
            changer.write(stage="stable", release=told.baseline)
    changer.write(**changes)
    return changer.reading


def pause(here: Here) -> Reading:
    """Let no step go on until ``resume``; an abort always may. Needs the scope ``deploy:abort``.

    Raises:
        RefusedError: there is no stage that can be believed.
        DecisionOSError: denied, or unusable.
    """
    return _set_paused(here, "deploy:abort", paused=True)


def resume(here: Here) -> Reading:
    """Let steps go on again. Needs the scope ``deploy:promote``.

    Raises:
        RefusedError: there is no stage that can be believed.
        DecisionOSError: denied, or unusable.
    """
    return _set_paused(here, "deploy:promote", paused=False)


def _set_paused(here: Here, scope: Scope, *, paused: bool) -> Reading:
    here.require(scope)
    before: Reading | None = None
    try:
        with here.change(here.keys()) as changer:
            before = changer.reading
            if before.stage is None:
                raise RefusedError(
                    f"no stage that can be believed: {before.message}",
                    next_step="dosctl stage reconcile",
                )
            if before.paused != paused:
                changer.write(paused=paused)
            after = changer.reading
    except DecisionOSError as fault:
        code = audit.code_of(fault)
        here.record(scope, allowed=False, code=code, why=str(fault), before=before)
        raise
    code = "paused" if paused else "resumed"
    here.record(
        scope, allowed=True, code=code, before=before, to=audit.at(after), release=after.release
    )
    return after
