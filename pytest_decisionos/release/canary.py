"""May the canary go on? Its windows and its numbers of this step → promote, step, wait or abort."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import ValidationError

from pytest_decisionos.errors import DecisionOSError, shown
from pytest_decisionos.harvest.options import Options
from pytest_decisionos.judge.evaluate import MAX_FUTURE_SEC, evaluate
from pytest_decisionos.judge.view import View
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.model.outcome import Outcome, Status, quantity
from pytest_decisionos.model.strict_json import MISSING, block_of
from pytest_decisionos.model.target import Target
from pytest_decisionos.release.canary_policy import CanaryPolicy, load_policy
from pytest_decisionos.release.canary_windows import Findings, judge_windows, latest
from pytest_decisionos.release.looks import Look
from pytest_decisionos.release.windows import Span, WindowFault, canary_rules, read_spans

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pytest_decisionos.model.policy import Rule
    from pytest_decisionos.release.stage_model import Stage

__all__ = ["CanaryPolicy", "CanaryVerdict", "canary_rules", "judge_canary", "load_policy"]

Action = Literal["promote", "step", "wait", "abort"]

CLOCK_SLACK_SEC: Final = 1.0
"""How far the clocks of the stage's writer and of the log may differ: twice the default SLA."""

_GUARDBAND: Final = "/canary/guardband_minutes"


class CanaryVerdict(Frozen):
    """What may be done with a canary.

    Attributes:
        action: ``promote`` and ``step`` only if every reason is successful; ``abort`` if one failed.
        from_pct: the percentage now.
        to_pct: the percentage that the action leads to.
        look: whether this was one more look at the step's numbers: it has to be counted before
            anything is done with it.
        seen: what a look at this evidence sees; None without a canary window, or without digest.
        reasons: every condition that was asked, with its id ``canary.<condition>``.
    """

    action: Action
    from_pct: float
    to_pct: float
    look: bool
    seen: Look | None
    reasons: tuple[Outcome, ...]


def judge_canary(
    policy: CanaryPolicy,
    stage: Stage,
    blocks: object,
    rules: Sequence[Rule],
    *,
    now: datetime,
    integrity: tuple[str, str] | None,
    last: Look | None = None,
    source: str = "evidence",
) -> CanaryVerdict:
    """Judge a canary by one evidence document. Pure: no file, no clock; and no document raises.

    Worst wins: a condition that failed aborts; one that could not be measured, or does not hold
    yet, waits. Only with all of them successful are the numbers of the whole step looked at.

    Args:
        policy: the policy.
        stage: the valid stage.
        blocks: the evidence, any JSON value.
        rules: what ``canary_rules`` gives of the phase's SLOs.
        now: the time here.
        integrity: cause and message of what is wrong with the evidence's digest or seal
            (``judge.admission.integrity_fault``); None if nothing is.
        last: the last look that ``stage.looks`` counts. None where nobody knows: then every call
            is a new look, which uses them up and lets nothing more pass.
        source: the evidence's file, for messages.
    """
    found = Findings(source)
    case = _Case(found, policy, stage, blocks if isinstance(blocks, dict) else {}, now)
    spans = case.admitted(integrity)
    warm: list[Span] = []
    look = False
    if spans is not None:
        guardband = case.guardband_sec(rules)
        step = [s for s in spans if s.start >= stage.since]
        warm = [s for s in step if (s.start - stage.since).total_seconds() >= guardband]
        if case.is_of_these_releases(any(s.canary for s in step)):
            judge_windows(found, policy, step, warm, rules, pct=stage.pct, now=now)
            look = case.numbers(rules, warm, last)
    to_pct = policy.next_pct(stage.pct)
    action: Action = "promote" if to_pct == 100 else "step"
    if found.status() is Status.FAILED:
        action, to_pct = "abort", 0.0
    elif found.status() is not Status.SUCCESSFUL:
        action, to_pct = "wait", stage.pct
    return CanaryVerdict(
        action=action,
        from_pct=stage.pct,
        to_pct=to_pct,
        look=look,
        seen=case.sees(warm),
        reasons=tuple(found.outcomes),
    )


class _Case:
    """One judgement: whether the evidence is about this step, and its numbers of the whole step."""

    def __init__(
        self,
        found: Findings,
        policy: CanaryPolicy,
        stage: Stage,
        blocks: Mapping[str, Any],
        now: datetime,
    ) -> None:
        self._found, self._policy, self._stage = found, policy, stage
        self._blocks, self._now = blocks, now
        self._say = found.say

    def _at(self, pointer: str) -> Any:
        """What ``pointer`` names in the evidence; None if there is nothing."""
        value = strict_json.at(self._blocks, pointer)
        return None if value is MISSING else value

    # Is the evidence about this step?

    def admitted(self, integrity: tuple[str, str] | None) -> list[Span] | None:
        """The windows, of whatever step; None where the evidence says nothing that could be judged."""
        stage = self._stage
        if not self._say(
            "stage",
            None if stage.stage == "canary" else (Status.ERROR, "different"),
            f"the stage is {stage.stage}",
        ):
            return None
        paused = (Status.INCONCLUSIVE, "set") if stage.paused else None
        self._say("paused", paused, f"the step is{'' if stage.paused else ' not'} paused")
        self._duration()
        if not (self._integrity(integrity) and self._target()):
            return None
        return self._windows()

    def _duration(self) -> None:
        at_least = self._policy.min_duration_sec(self._stage.pct)
        past = round((self._now - self._stage.since).total_seconds(), 1)
        fault = None if past >= at_least else (Status.INCONCLUSIVE, "under")
        self._say(
            "duration",
            (Status.ERROR, "out_of_range") if past < -MAX_FUTURE_SEC else fault,
            f"{self._stage.pct:g} % for {quantity(past, 's')}, at least {quantity(at_least, 's')}",
            observed=past,
            op=">=",
            bound=at_least,
            unit="s",
        )

    def _integrity(self, fault: tuple[str, str] | None) -> bool:
        if fault is None:
            return self._say("integrity", None, "unchanged")
        cause, why = fault
        status = Status.FAILED if cause == "tampered" else Status.ERROR
        return self._say("integrity", (status, cause), why)

    def _target(self) -> bool:
        stated, ours = self._at("/meta/target"), self._stage.target
        try:
            target = Target.model_validate(stated)
        except ValidationError:
            cause = "missing" if stated is None else "wrong_type"
            why = f"/meta/target is {shown(stated, 80)}, not {ours}"
            return self._say("target", (Status.ERROR, cause), why)
        same = target == ours
        why = f"is about {shown(str(target), 300)}" + ("" if same else f", not {ours}")
        return self._say("target", None if same else (Status.ERROR, "foreign_target"), why)

    def _windows(self) -> list[Span] | None:
        stated = self._at("/witness/harvest")
        try:
            options = Options.from_block(stated)
        except DecisionOSError as fault:
            cause = "missing" if stated is None else "wrong_type"
            self._say("harvest", (Status.ERROR, cause), str(fault))
            return None
        lax = [
            f"{name} {getattr(options, name):g}, at most {getattr(self._policy, name):g}"
            for name in ("burst_threshold", "ewma_tolerance")
            if getattr(options, name) > getattr(self._policy, name)
        ]
        if options.shadow and self._stage.pct:
            why = f"mirrored requests count as the canary's, at {self._stage.pct:g} %: build it with --no-shadow"
            self._say("harvest", (Status.ERROR, "not_allowed"), why)
            return None
        why = "bursts were looked for as the policy says"
        if lax:
            why = f"bursts were looked for with {' and '.join(lax)}: build it with the policy"
        self._say("harvest", (Status.ERROR, "over") if lax else None, why)
        spans = read_spans(self._at("/canary/windows"), options.window_sec)
        if not isinstance(spans, WindowFault):
            if not spans or (spans[-1].end - self._now).total_seconds() <= MAX_FUTURE_SEC:
                return spans
            spans = WindowFault("out_of_range", "end in the future")
        self._say("windows", (Status.ERROR, spans.cause), f"/canary/windows {spans.what}")
        return None

    def guardband_sec(self, rules: Sequence[Rule]) -> float:
        """The warm-up of the step: what the SLOs ask for, or more if the evidence left out more."""
        asked = [r.bound for r in rules if r.metric == _GUARDBAND and r.op in {">=", ">"}]
        left_out = self._at("/witness/harvest/guardband_minutes")
        minutes = [m for m in (*asked, left_out) if isinstance(m, int | float)]
        return 60.0 * max(minutes, default=Options.guardband_minutes)

    def is_of_these_releases(self, has_canary: bool) -> bool:
        """Whether the numbers are of the releases that the stage names.

        A log without any canary row cannot name the canary's release; its share tells of that.
        """
        stage = self._stage
        wanted = stage.release, stage.baseline_release
        stated = self._at("/meta/release"), self._at("/meta/baseline_release")
        nameless = not has_canary and stated[0] == stage.baseline_release
        same = stated == wanted or nameless
        told, ours = (" against ".join(shown(one, 80) for one in two) for two in (stated, wanted))
        why = f"is about release {told}" + ("" if same else f", not {ours}")
        return self._say("release", None if same else (Status.ERROR, "different"), why)

    # What do the numbers of the whole step say?

    def numbers(self, rules: Sequence[Rule], warm: Sequence[Span], last: Look | None) -> bool:
        """Judge the rules over the step's numbers; returns whether that was one more look.

        Rules on numbers that have confidence limits are judged by them, at the level of a look, and
        told only in a look, or where they prove the canary bad: that lets nothing pass. A look that
        could not have passed, because there is too little to measure, is none.
        """
        if not self._step_start():
            return False
        view = View(self._blocks, source=self._found.source, integrity=None, now=self._now)
        limited: list[Outcome] = []
        for rule in rules:
            if block_of(rule.metric) != "canary":
                continue
            if rule.limits is not None and rule.op != "==":
                level = max(rule.level or 0.0, self._policy.level)
                outcome = evaluate(rule.model_copy(update={"level": level}), view)
                limited.append(outcome.model_copy(update={"id": f"canary.look[{rule.id}]"}))
                continue
            outcome = evaluate(rule, view)
            changes: dict[str, Any] = {"id": f"canary.rule[{rule.id}]"}
            if rule.metric == _GUARDBAND and outcome.status is Status.FAILED:
                changes["status"] = Status.ERROR  # the build's fault, not the canary's
            self._found.outcomes.append(outcome.model_copy(update=changes))
        if not limited:
            why = "no SLO of this phase compares the canary over the step: state canary.thresholds"
            self._say("looks", (Status.ERROR, "missing"), why)
        failed = [outcome for outcome in limited if outcome.status is Status.FAILED]
        if failed or self._found.status() is not Status.SUCCESSFUL:
            self._found.outcomes += failed
            return False
        new = self._may_look(warm, last)
        if self._found.status() is not Status.SUCCESSFUL:
            return False
        self._found.outcomes += limited
        return new and all(
            o.limit is not None and o.cause != "samples_insufficient" for o in limited
        )

    def _step_start(self) -> bool:
        """Whether the numbers are of this step: an earlier start would dilute it, a later one choose."""
        stated, since = self._at("/canary/step_start"), self._stage.since
        start = parse_time(stated)
        why = f"/canary/step_start is {shown(stated, 40)}"
        if start is None:
            cause = "missing" if stated is None else "wrong_type"
            return self._say("step_start", (Status.ERROR, cause), f"{why}, not a time")
        latest_start = max(CLOCK_SLACK_SEC, self._policy.max_window_gap_sec)
        same = -CLOCK_SLACK_SEC <= (start - since).total_seconds() <= latest_start
        if not same:
            began = since.isoformat(timespec="milliseconds")
            why += f" and the step began at {began}: build the evidence with --step-start {began}"
        return self._say("step_start", None if same else (Status.ERROR, "different"), why)

    def sees(self, warm: Sequence[Span]) -> Look | None:
        """What a look at this evidence sees."""
        until, digest = latest(warm), self._at("/integrity/signature_sha256")
        if until is None or not isinstance(digest, str):
            return None
        return Look(until, digest)

    def _may_look(self, warm: Sequence[Span], last: Look | None) -> bool:
        """Whether a look is due: N windows that none has seen, and K at most.

        Returns:
            Whether it is a new one; the last one again, at the very document it saw, is not.
        """
        used, most = self._stage.looks, self._policy.max_looks
        seen = last.until if used and last is not None else None
        told = f"{used} of {most} looks used"
        if seen is not None and self.sees(warm) == last:
            self._say("looks", None, f"{told}: the last one again")
            return False
        if used >= most:
            why = f"{told}, and none showed that the canary is good enough"
            self._say("looks", (Status.FAILED, "over"), why)
            return False
        n = self._policy.consecutive_passes
        fresh = sum(seen is None or span.end > seen for span in warm if span.canary)
        if fresh < n:
            why = f"{told}; the next needs {n} new windows, not {fresh}"
            self._say("looks", (Status.INCONCLUSIVE, "samples_insufficient"), why)
            return False
        return self._say("looks", None, f"{told}: one more, at {self._policy.level:g}")
