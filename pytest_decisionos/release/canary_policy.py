"""The canary policy: when a canary may take a step, how large a one, and when it has to go."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from pytest_decisionos.errors import PolicyError
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.outcome import Outcome, Status, quantity
from pytest_decisionos.model.validate import validate
from pytest_decisionos.slo.schema import LEVELS

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

STEP_ALPHA: Final = 0.05
"""How likely a canary that is not good enough may pass the comparison of a step, over all its looks
(Bonferroni: each of K looks at 1 − 0.05/K)."""

MAX_BYTES: Final = 1024 * 1024


def _a_number_of_looks(looks: int) -> int:
    if not 1 <= looks <= 5:
        raise ValueError(
            f"{looks} looks: from 1 to 5, because each is judged at 1 − 0.05/max_looks and evidence"
            " has no limits beyond 0.99"
        )
    return looks


Pct = Annotated[float, Field(strict=True, ge=0, lt=100, allow_inf_nan=False)]
Seconds = Annotated[float, Field(strict=True, ge=0, le=7 * 86_400, allow_inf_nan=False)]
Excess = Annotated[float, Field(strict=True, gt=0, le=100, allow_inf_nan=False)]
Windows = Annotated[int, Field(strict=True, ge=1, le=100)]
Looks = Annotated[
    int,
    Field(strict=True, json_schema_extra={"minimum": 1, "maximum": 5}),
    AfterValidator(_a_number_of_looks),
]
# nginx's variable of a cookie has no hyphen, and the others know none better.
SplitKey = Annotated[
    str,
    StringConstraints(
        strict=True, pattern=r"^(ip|cookie:[A-Za-z0-9_]{1,64}|header:[A-Za-z0-9-]{1,64})$"
    ),
]


class ScheduledStep(Frozen):
    """A step of the schedule.

    Attributes:
        pct: per cent of the traffic that the canary has in it; 0 is copies of requests only.
        min_duration_sec: how long it lasts at least.
    """

    pct: Pct
    min_duration_sec: Seconds


class PolicyFile(Frozen):
    """A whole policy file.

    Attributes:
        consecutive_passes: N, the latest windows that must all pass.
        consecutive_failures: so many failing windows at the end abort.
        grace_burst: sub-buckets of a window that may burst; one more aborts.
        burst_threshold: relative excess of a burst over the control in the same span, at least.
        ewma_tolerance: the same over the windows before, where there is no control.
        max_step_pct: largest increase of the weight in a step, in percentage points. The last step
            to 100 (promote) is exempt.
        holdback_pct_min: per cent of the traffic that the baseline keeps until promote.
        min_share: the canary must have got at least this part of its percentage.
        stickiness: what users are told apart by: ``ip``, ``cookie:NAME`` or ``header:NAME``.
        max_looks: K, how often the numbers of one step may be looked at.
        max_window_gap_sec: longest time between two windows that still follow each other.
        max_age_sec: how old the end of the latest window may be.
        cooldown_sec: how long an aborted release stays away at least.
        step_schedule: the percentages one after another; after the last comes promote.
    """

    consecutive_passes: Windows
    consecutive_failures: Windows = 3
    grace_burst: Annotated[int, Field(strict=True, ge=0, le=10_000)]
    burst_threshold: Excess
    ewma_tolerance: Excess
    max_step_pct: Annotated[float, Field(strict=True, gt=0, le=100, allow_inf_nan=False)]
    holdback_pct_min: Pct
    min_share: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)] = 0.5
    stickiness: SplitKey
    max_looks: Looks = 5
    max_window_gap_sec: Seconds = 60.0
    max_age_sec: Annotated[Seconds, Field(gt=0)] = 900.0
    cooldown_sec: Seconds
    step_schedule: Annotated[tuple[ScheduledStep, ...], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _steps_that_may_be_taken(self) -> PolicyFile:
        before = 0.0
        for index, step in enumerate(self.step_schedule):
            where = f"step_schedule[{index}]: {step.pct:g} %"
            if index and step.pct <= before:
                raise ValueError(f"{where} is not more than the {before:g} % before it")
            if step.pct - before > self.max_step_pct:
                raise ValueError(
                    f"{where} is more than max_step_pct, {self.max_step_pct:g}, above {before:g} %"
                )
            if step.pct > 100 - self.holdback_pct_min:
                raise ValueError(
                    f"{where} leaves the baseline less than holdback_pct_min,"
                    f" {self.holdback_pct_min:g} %"
                )
            before = step.pct
        return self


class CanaryPolicy(PolicyFile):
    """The policy as read.

    Attributes:
        file: where it was read from.
        sha256: of the file's bytes.
    """

    file: str
    sha256: str

    def next_pct(self, pct: float) -> float:
        """The percentage that follows ``pct`` in the schedule; after the last 100, which is promote."""
        return next((step.pct for step in self.step_schedule if step.pct > pct), 100.0)

    def min_duration_sec(self, pct: float) -> float:
        """How long a step at ``pct`` lasts at least, in seconds.

        A percentage that is not in the schedule lasts as long as the next one that is.
        """
        ahead = (step for step in self.step_schedule if step.pct >= pct)
        return next(ahead, self.step_schedule[-1]).min_duration_sec

    @property
    def level(self) -> float:
        """The confidence level of each look: the least that evidence has at 1 − 0.05/K or above."""
        return next(v for v in LEVELS if v >= 1 - STEP_ALPHA / self.max_looks - 1e-9)

    def step(self, from_pct: float, to_pct: float) -> Outcome:
        """Whether the weight may go from ``from_pct`` to ``to_pct`` at once: ``canary.step``.

        Whether it may now is another question: ``canary.judge_canary``.
        """
        last = self.step_schedule[-1].pct
        most = 100 - self.holdback_pct_min
        cause, why = None, f"from {from_pct:g} % to {to_pct:g} %"
        if not from_pct < to_pct <= 100:  # also NaN
            cause, why = "under", f"{why} is no increase"
        elif to_pct == 100 and from_pct < last:
            cause, why = "over", f"{why}: promote follows {last:g} %, the last step of the schedule"
        elif to_pct < 100 and to_pct - from_pct > self.max_step_pct:
            cause, why = "over", f"{why} is more than max_step_pct, {self.max_step_pct:g}, at once"
        elif most < to_pct < 100:
            cause, why = "over", f"{why}: the baseline keeps {self.holdback_pct_min:g} %"
        return Outcome(
            id="canary.step",
            status=Status.ERROR if cause else Status.SUCCESSFUL,
            cause=cause,
            message=f"{why} ({self.file})",
            unit="%",
            source=self.file,
        )

    def cooldown(self, aborted_at: datetime | None, now: datetime, *, told: bool = True) -> Outcome:
        """Whether a release that was aborted has stayed away long enough: ``canary.cooldown``.

        Args:
            aborted_at: when this very release was last aborted; None if it never was.
            now: the time here.
            told: whether the audit journal says so; else it does not tell what ended then.
        """
        past = None if aborted_at is None else (now - aborted_at).total_seconds()
        ok = past is None or past >= self.cooldown_sec
        why = "this release was never aborted"
        if past is not None:
            ago, away = quantity(round(past, 1), "s"), quantity(self.cooldown_sec, "s")
            why = f"this release was aborted {ago} ago; it stays away {away}"
            if not told:
                why = (
                    f"the audit journal does not tell what ended {ago} ago; it may have been this"
                    f" release, which stays away {away}"
                )
        return Outcome(
            id="canary.cooldown",
            status=Status.SUCCESSFUL if ok else Status.INCONCLUSIVE,
            cause=None if ok else "under",
            message=f"{why} ({self.file})",
            observed=past,
            unit="s",
            op=">=",
            bound=self.cooldown_sec,
            source=self.file,
        )


def load_policy(path: Path) -> CanaryPolicy:
    """Read a canary policy.

    Raises:
        PolicyError: it is missing, or not what it should be.
    """
    document, data = strict_json.read(path, error=PolicyError, max_bytes=MAX_BYTES)
    spec = validate(PolicyFile, document, path, data)
    return CanaryPolicy(
        **spec.model_dump(), file=str(path), sha256=hashlib.sha256(data).hexdigest()
    )
