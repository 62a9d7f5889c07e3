"""What comes next for a stage, and what it lacks: asked without changing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_decisionos.errors import DecisionOSError, UsageError
from pytest_decisionos.judge.sign import Step
from pytest_decisionos.release.canary_policy import load_policy
from pytest_decisionos.release.conditions import finishing, increase, next_pct
from pytest_decisionos.release.first_step import first_step
from pytest_decisionos.release.rollout import load_rollout

if TYPE_CHECKING:
    from pytest_decisionos.release.conditions import Asking, Judged
    from pytest_decisionos.release.here import Here
    from pytest_decisionos.release.stage_model import Reading
    from pytest_decisionos.trust.keys import KeyRing


def next_step(here: Here, reading: Reading) -> tuple[float, float] | None:
    """Percentages of what a decision can allow next: from, and to. None if none can.

    A promoted release stays at 100 %: that is what a decision of the phase ``post`` is about.

    Raises:
        DecisionOSError: the canary policy or rollout.yaml cannot be used.
    """
    if reading.name == "promote":
        return 100.0, 100.0
    if reading.name != "canary":
        return None
    asked = here.asked
    policy = load_policy(here.policy_file)
    rollout = load_rollout(here.rollout_file, root=asked.root, target=asked.target)
    return reading.pct, next_pct(policy, rollout.strategy, reading.pct)


def bound_to(
    here: Here, ring: KeyRing | None, from_pct: float | None, to_pct: float | None
) -> Step:
    """The step that a decision is bound to that is signed now.

    Args:
        here: who signs, and where everything lies.
        ring: the keys; without them no stage can be believed, and no digest of it is given.
        from_pct: as somebody says; None is the stage's.
        to_pct: as somebody says; None is the next of the policy.

    Raises:
        UsageError: ``from_pct`` is not the stage's, or ``to_pct`` is less.
        DecisionOSError: the canary policy or rollout.yaml cannot be used.
    """
    reading = here.look(ring)
    if reading.stage is None:
        return Step(from_pct, to_pct)
    pct = reading.pct
    if from_pct is not None and from_pct != pct:
        raise UsageError(
            "not what the stage says",
            field="--from-pct",
            found=f"{from_pct:g}",
            expected=f"{pct:g}",
        )
    if to_pct is not None and to_pct < pct:
        raise UsageError(
            "less than it has", field="--to-pct", found=f"{to_pct:g}", expected=f"{pct:g} or more"
        )
    step = next_step(here, reading) if to_pct is None else (pct, to_pct)
    policy = load_policy(here.policy_file).sha256 if reading.name == "canary" else None
    low, high = step or (None, None)
    return Step(low, high, reading.sha256, policy)


def outlook(
    here: Here, reading: Reading, ring: KeyRing | None, asking: Asking
) -> tuple[str, Judged | None]:
    """The command that comes next, and its conditions as far as they can be asked."""
    if reading.alarm not in {"", "missing"}:
        return "dosctl release abort, or reconcile: the stage cannot be believed", None
    if reading.name == "stable":
        judged = first_step(here, reading, ring, asking, release=None, baseline=None)
        return "dosctl release step, to shadow", judged
    if reading.name == "abort" or ring is None:
        return "dosctl release abort: it was cut off", None
    if reading.name == "promote":
        return "dosctl release finish", finishing(here, reading, ring, asking)
    try:
        step = next_step(here, reading)
    except DecisionOSError:
        step = None  # the conditions tell why
    to_pct = None if step is None else step[1]
    promote = to_pct == 100
    judged = increase(here, reading, ring, asking, to_pct=to_pct, promote=promote)
    name = "promote" if promote else f"step, to {judged.to_pct:g} %"
    return f"dosctl release {name}", judged
