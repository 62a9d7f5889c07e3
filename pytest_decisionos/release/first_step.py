"""The conditions of the step from stable to shadow, which takes no user anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pytest_decisionos.errors import DecisionOSError, shown
from pytest_decisionos.model.evidence import read_evidence
from pytest_decisionos.model.outcome import Status
from pytest_decisionos.release.conditions import (
    Judged,
    ask_freeze,
    ask_keys,
    ask_override,
    ask_pause,
    ask_serving,
    ask_stage,
    means_of,
)
from pytest_decisionos.release.decisions import Findings
from pytest_decisionos.release.past import past_of
from pytest_decisionos.release.traffic import Traffic

if TYPE_CHECKING:
    from pytest_decisionos.release.canary_policy import CanaryPolicy
    from pytest_decisionos.release.conditions import Asking
    from pytest_decisionos.release.here import Here
    from pytest_decisionos.release.past import Past
    from pytest_decisionos.release.stage_model import Reading
    from pytest_decisionos.trust.keys import KeyRing


def first_step(
    here: Here,
    reading: Reading,
    ring: KeyRing | None,
    asking: Asking,
    *,
    release: str | None,
    baseline: str | None,
) -> Judged:
    """The conditions.

    Args:
        here: who asks, and where everything lies.
        reading: the stage that is there.
        ring: the keys; None where there are none.
        asking: how it is asked for.
        release: the canary; None is what the evidence names.
        baseline: what everybody runs; None is what the stage says, or else the evidence.
    """
    found = Findings()
    ask_keys(found, here, ring)
    past = _past(found, here)
    # Where there has been one, a file that is missing was taken away: that is to be looked into.
    fresh = (
        reading.alarm == "missing" and not reading.removed and past is not None and past.seq is None
    )
    ask_stage(found, reading, "stable", fresh=fresh)
    ask_pause(found, reading)
    named = _named(here)
    release = release or named[0]
    baseline = baseline or reading.release or named[1]
    _releases(found, reading, release, baseline)
    policy, rollout = means_of(found, here)
    if policy is not None and past is not None and release:
        _cooldown(found, here, policy, past, reading, release=release)
    sure = reading.release is not None
    if baseline:
        sure = ask_serving(found, rollout, baseline) or sure
    if baseline and not sure and policy is not None and past is not None:
        # Nobody knows that it is what everybody runs, so it may be what was taken back.
        _cooldown(found, here, policy, past, reading, release=baseline, name="baseline")
    if asking.override is None:
        ask_freeze(found, here)
    else:
        ask_override(found, here, asking.override)
    return Judged(tuple(found.outcomes), 0.0, release, baseline, rollout=rollout)


def _named(here: Here) -> tuple[str | None, str | None]:
    """Release and baseline as the evidence names them."""
    try:
        meta = read_evidence(here.evidence).blocks.get("meta")
    except DecisionOSError:
        return None, None
    meta = meta if isinstance(meta, dict) else {}
    names: list[Any] = [meta.get("release"), meta.get("baseline_release")]
    first, second = (name if isinstance(name, str) else None for name in names)
    return first, second


def _releases(found: Findings, reading: Reading, release: str | None, baseline: str | None) -> None:
    fault = None
    told = f"{shown(release or 'nothing', 200)} against {shown(baseline or 'nothing', 200)}"
    if not release or not baseline:
        fault = "missing", f"{told}: name both with --release and --baseline"
    elif release == baseline:
        fault = "same", f"{told}: everybody runs it already"
    elif reading.release not in {None, baseline}:
        fault = "other_release", f"{told}: everybody runs {shown(reading.release, 200)}"
    else:
        try:
            Traffic(shadow=True, release=release, baseline_release=baseline)
        except ValidationError:
            fault = "not_a_name", f"{told}: not names of releases"
    found.say("release", fault, told)


def _past(found: Findings, here: Here) -> Past | None:
    try:
        return past_of(here.asked.root)
    except DecisionOSError as fault:
        found.cannot("cooldown", fault)
        return None


def _cooldown(
    found: Findings,
    here: Here,
    policy: CanaryPolicy,
    past: Past,
    reading: Reading,
    *,
    release: str,
    name: str = "cooldown",
) -> None:
    """A release that was taken back comes again only after a while, and if somebody knows of it."""
    stable = (reading.stage.seq, reading.stage.since) if reading.stage else None
    aborted = past.taken_back(release, stable)
    sure = aborted == past.aborted.get(release)
    rest = policy.cooldown(aborted, here.asked.now, told=sure)
    wrong = None
    if rest.status is not Status.SUCCESSFUL:
        wrong = "cooldown", rest.message
    elif aborted is not None and not past.known(release, aborted):
        when = aborted.isoformat(timespec="seconds")
        told = f"it was taken back at {when}"
        if not sure:
            told = (
                f"the audit journal does not tell what ended at {when}; it may have been this one"
            )
        wrong = "not_acknowledged", f"{told}: dosctl release acknowledge {shown(release, 200)}"
    found.say(name, wrong, rest.message)
