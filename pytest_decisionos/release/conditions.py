"""What must hold before a stage may change: every condition is asked, and all of them are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import DecisionOSError, RefusedError, shown
from pytest_decisionos.judge.gate import load_gate
from pytest_decisionos.model.outcome import Outcome, Status
from pytest_decisionos.release.canary_condition import ask_canary
from pytest_decisionos.release.canary_policy import load_policy
from pytest_decisionos.release.decisions import (
    CUTOVER,
    POST,
    Findings,
    Wanted,
    ask_decision,
)
from pytest_decisionos.release.freeze import load_freeze
from pytest_decisionos.release.here import LATEST, ConditionsError, Here
from pytest_decisionos.release.past import past_of
from pytest_decisionos.release.rollout import load_rollout

if TYPE_CHECKING:
    from pytest_decisionos.release.approval import Override
    from pytest_decisionos.release.canary import CanaryVerdict
    from pytest_decisionos.release.canary_policy import CanaryPolicy
    from pytest_decisionos.release.decisions import Found
    from pytest_decisionos.release.stage_model import Reading, Stage
    from pytest_decisionos.release.traffic import Rollout, Traffic
    from pytest_decisionos.release.transitions import StageName
    from pytest_decisionos.trust.keys import KeyRing

_CANNOT_TELL: Final = frozenset({"none", "command"})
"""Adapters that may have nobody to ask what is running."""
_NEXT: Final = {
    "release.stage": "dosctl stage show, which says how to go on",
    "release.pause": "dosctl release resume",
    "release.decision": "dosctl decision sign",
    "release.used": "sign a new decision: dosctl decision sign",
    "release.age": "build the evidence, and sign a new decision",
    "release.veto": "see gate/comment.md of the pytest run",
    "release.approval": "dosctl release approve latest --key FILE",
}


class Asking(NamedTuple):
    """How a change is asked for.

    Attributes:
        bundle: the decision's; see ``decisions.find``.
        override: operators who let it pass without a GO; None is the rule.
        dry_run: only told, so that no look at a step's numbers may be had by it.
    """

    bundle: str = LATEST
    override: Override | None = None
    dry_run: bool = False


class Judged(NamedTuple):
    """Every condition of a change, and what came up on the way.

    Attributes:
        outcomes: the conditions.
        to_pct: per cent of the traffic that the change leads to.
        release: the release that it is about.
        baseline: its baseline.
        decision: what allows it; None if it needs none.
        rollout: what moves traffic.
        look: the verdict on the canary, if it took a look that has to be counted.
    """

    outcomes: tuple[Outcome, ...]
    to_pct: float
    release: str | None
    baseline: str | None
    decision: Found | None = None
    rollout: Rollout | None = None
    look: CanaryVerdict | None = None

    @property
    def bad(self) -> list[Outcome]:
        """The conditions that do not hold."""
        return [one for one in self.outcomes if one.status is not Status.SUCCESSFUL]

    def must_hold(self) -> Rollout:
        """What moves traffic, if every condition holds.

        Raises:
            ConditionsError: one does not; the first is told.
        """
        bad = self.bad
        if not bad and self.rollout is not None:
            return self.rollout
        missing = Outcome(id="release.running", status=Status.ERROR, cause="missing")
        first = bad[0] if bad else missing
        what = first.message or first.reason
        if first.id == "release.canary":  # which names only the codes of its reasons
            reasons = [one for one in bad if one.id.startswith("canary.")]
            what = next((f"{one.reason}: {one.message}" for one in reasons), what)
        raise ConditionsError(
            what, outcomes=self.outcomes, field=first.reason, next_step=_NEXT.get(first.id)
        )


def next_pct(policy: CanaryPolicy, strategy: str, pct: float) -> float:
    """The percentage that follows ``pct``: blue-green has nothing between shadow and all."""
    return 100.0 if strategy == "blue-green" else policy.next_pct(pct)


def increase(
    here: Here,
    reading: Reading,
    ring: KeyRing,
    asking: Asking,
    *,
    to_pct: float | None,
    promote: bool,
) -> Judged:
    """The conditions of an increase of the canary's weight.

    Args:
        here: who asks, and where everything lies.
        reading: the stage that is there.
        ring: the keys.
        asking: how it is asked for.
        to_pct: per cent of the traffic; None is the next of the policy.
        promote: whether it shall go to 100 %, and only then may it.
    """
    found = Findings()
    ask_keys(found, here, ring)
    stage = reading.stage
    if not ask_stage(found, reading, "canary") or stage is None:
        ask_freeze(found, here)
        return Judged(tuple(found.outcomes), 0.0, reading.release, reading.baseline_release)
    _ask_over(found, here, reading)
    ask_pause(found, reading)
    policy, rollout = means_of(found, here)
    if promote:
        to_pct = 100.0
    elif to_pct is None and policy is not None and rollout is not None:
        to_pct = next_pct(policy, rollout.strategy, stage.pct)
    goal = stage.pct if to_pct is None else to_pct
    if policy is not None and rollout is not None:
        _size(found, policy, rollout.strategy, stage.pct, goal, promote=promote)
    decision = None
    if asking.override is None:
        ask_freeze(found, here)
        decision = _decision(found, here, reading, asking, phase=CUTOVER, to_pct=goal)
    else:
        ask_override(found, here, asking.override)
    _running(found, rollout, stage)
    look = None
    if asking.override is None and policy is not None:
        look = ask_canary(found, here, stage, ring, policy, dry_run=asking.dry_run)
    return Judged(
        tuple(found.outcomes),
        goal,
        stage.release,
        stage.baseline_release,
        decision,
        rollout,
        look,
    )


def finishing(here: Here, reading: Reading, ring: KeyRing | None, asking: Asking) -> Judged:
    """The conditions of the end: a promoted release becomes what is stable."""
    found = Findings()
    ask_keys(found, here, ring)
    rollout = None
    decision = None
    if ask_stage(found, reading, "promote") and reading.stage is not None:
        _ask_over(found, here, reading)
        _, rollout = means_of(found, here, policy=False)
        decision = _decision(found, here, reading, asking, phase=POST, to_pct=100.0)
        _running(found, rollout, reading.stage)
    return Judged(
        tuple(found.outcomes), 100.0, reading.release, reading.baseline_release, decision, rollout
    )


def ask_keys(found: Findings, here: Here, ring: KeyRing | None) -> None:
    """Whether a key signs stages here: without one nothing can change, whatever else holds."""
    lacking, good = "no keys, so no stage can be believed or written", ""
    if ring is not None:
        try:
            lacking, good = "", f"{ring.signing('stage', here.asked.now).key_id} signs stages"
        except DecisionOSError as fault:
            lacking = str(fault)
    found.say("keys", ("missing", lacking) if lacking else None, good, unread=True)


def ask_stage(found: Findings, reading: Reading, must: StageName, *, fresh: bool = False) -> bool:
    """Whether the stage can be believed, and is the one that this leads on from."""
    fault = None
    if reading.alarm and not fresh:
        fault = reading.alarm, f"{reading.message}: it reads as stable"
    elif reading.name != must:
        fault = "different", f"the stage is {reading.name}, and this is for {must}"
        if (reading.name, must) == ("stable", "canary"):
            fault = "different", "the stage is stable: the first step is shadow, without PCT"
    return found.say(
        "stage", fault, f"{reading.name}, and its file is {'new' if fresh else 'valid'}"
    )


def _ask_over(found: Findings, here: Here, reading: Reading) -> None:
    """Whether the audit journal knows of no end of this canary; told only if it does."""
    try:
        past_of(here.asked.root).must_not_be_over(reading)
    except RefusedError as fault:
        found.say("stage", ("rolled_back", fault.what), "")
    except DecisionOSError as fault:
        found.cannot("stage", fault)


def ask_pause(found: Findings, reading: Reading) -> None:
    """Whether nobody paused it."""
    found.say("pause", ("paused", "somebody paused it") if reading.paused else None, "not paused")


def means_of(
    found: Findings, here: Here, *, policy: bool = True
) -> tuple[CanaryPolicy | None, Rollout | None]:
    """The canary policy, and what moves traffic; that they can be had is a condition too."""
    stated: CanaryPolicy | None = None
    try:
        stated = load_policy(here.policy_file) if policy else None
    except DecisionOSError as fault:
        found.cannot("step", fault)
    try:
        return stated, load_rollout(
            here.rollout_file,
            root=here.asked.root,
            target=here.asked.target,
            stickiness=None if stated is None else stated.stickiness,
        )
    except DecisionOSError as fault:
        found.cannot("rollout", fault)
        return stated, None


def _size(
    found: Findings, policy: CanaryPolicy, strategy: str, pct: float, goal: float, *, promote: bool
) -> None:
    fault = None
    outcome = policy.step(pct, goal)
    told = f"from {pct:g} % to {goal:g} %"
    if goal == 100 and not promote:
        fault = "promote", f"{told} is promote: dosctl release promote"
    elif strategy == "blue-green":
        if goal != 100:
            fault = "blue_green", f"{told}: blue-green has nothing between shadow and all"
    elif outcome.status is not Status.SUCCESSFUL:
        fault = outcome.cause or "over", outcome.message
    found.say("step", fault, told)


def _decision(
    found: Findings, here: Here, reading: Reading, asking: Asking, *, phase: str, to_pct: float
) -> Found | None:
    try:
        gate = load_gate(here.gate)
        gate.phase(phase)
    except DecisionOSError as fault:
        found.cannot("policy", fault)
        return None
    # After promote nobody runs the baseline, so evidence of then need not name it.
    baseline = (reading.baseline_release, *([None] if phase == POST else []))
    wanted = Wanted(phase, reading.release, baseline, reading.pct, to_pct)
    return ask_decision(found, here, reading, gate, name=asking.bundle, wanted=wanted)


def ask_freeze(found: Findings, here: Here) -> None:
    """Whether no freeze holds; a file that cannot be read unfreezes nothing."""
    try:
        reason = load_freeze(here.freeze_file).reason(here.asked.now)
    except DecisionOSError as fault:
        found.cannot("freeze", fault)
        return
    found.say("freeze", ("frozen", reason) if reason else None, "no freeze now")


def ask_override(found: Findings, here: Here, override: Override) -> None:
    """Two operators instead of GO, approval, canary condition and freeze; of nothing else."""
    try:
        outcome = override.outcome(here.trust(), here.asked.target, here.asked.now)
    except DecisionOSError as fault:
        found.cannot("override", fault)
        return
    found.outcomes.append(outcome)


def _running(found: Findings, rollout: Rollout | None, stage: Stage) -> None:
    """What carries the traffic must run the very release that the stage and the decision name."""
    told = _told(found, rollout)
    if told is not None and rollout is not None:
        same = told.release == stage.release
        is_ = f"{rollout.name} runs {shown(told.release or 'nothing', 200)}"
        found.say("running", None if same else ("different", f"{is_}, not {stage.release}"), is_)


def ask_serving(found: Findings, rollout: Rollout | None, baseline: str) -> bool:
    """Everybody must be on the baseline that is named: a first step that names another moves them all.

    Returns:
        Whether what carries the traffic says so.
    """
    told = _told(found, rollout)
    if told is None or rollout is None:
        return False
    serving = told.serving
    part = "everybody" if told.pct in {0, 100} else f"all but {told.pct:g} %"
    is_ = f"{rollout.name} has {part} on {shown(serving or 'nothing', 200)}"
    wrong = ("different", f"{is_}, not on {shown(baseline, 200)}")
    return found.say("running", None if serving == baseline else wrong, is_)


def _told(found: Findings, rollout: Rollout | None) -> Traffic | None:
    """What carries the traffic says of it; what it does not say is noted."""
    if rollout is None:
        return None
    try:
        told = rollout.running()
    except DecisionOSError as fault:
        found.cannot("running", fault)
        return None
    if told is None:
        silent = rollout.name in _CANNOT_TELL
        lacking = None if silent else ("missing", f"{rollout.name} does not answer")
        told_nothing = f"adapter {rollout.name}: cannot tell what runs"
        found.say("running", lacking, told_nothing, unread=True)
    return told
