"""What a gate test is given: a judge that votes, a check that must pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from _pytest.outcomes import Failed

from pytest_decisionos.errors import shown
from pytest_decisionos.judge.rules import overlay
from pytest_decisionos.model.outcome import Outcome, Status
from pytest_decisionos.report.terminal import outcome_lines

if TYPE_CHECKING:
    from pytest_decisionos.gate_run import GateRun
    from pytest_decisionos.model.policy import Rule


class GateFailure(Failed):
    """A judged outcome that is no pass; shown as the outcome's own lines, without traceback."""

    __module__ = "builtins"  # as pytest's own outcomes: the short summary names the class alone

    def __init__(self, outcome: Outcome, judge: str | None) -> None:
        super().__init__("\n".join(outcome_lines(outcome, judge)), pytrace=False)
        self.status = outcome.status


class Judge:
    """A judge, as a gate test sees it.

    Attributes:
        id: its name in gate.yaml.
        document: the evidence as this judge sees it: its own numbers laid over the sealed ones.
    """

    def __init__(self, run: GateRun, judge_id: str) -> None:
        self.id = judge_id
        self._run = run
        own = next(j.blocks for j in run.inputs.judges if j.id == judge_id)
        self.document = overlay(run.inputs.blocks, own)

    def __repr__(self) -> str:
        return f"<judge {self.id}>"

    def outcome(self, rule: Rule) -> Outcome | None:
        """What this judge says of ``rule``; None if it abstains on that rule's SLO."""
        return self._run.outcomes.get((self._run.slo_of(rule), rule.id, self.id))

    def vote(self, rule: Rule) -> None:
        """Pass if this judge finds ``rule`` successful; fail with what was found otherwise.

        Skips where the judge abstains, and where the outcome cannot decide (a warning, a waiver).
        """
        outcome = self.outcome(rule)
        if outcome is None:
            pytest.skip(f"abstains: {shown(self._run.abstention(rule, self.id), 300)}")
        if outcome.status is Status.SUCCESSFUL:
            return
        if not outcome.counts:
            note = f"waived {outcome.waived}" if outcome.waived else "warning"
            pytest.skip(shown(f"{note}: {outcome.reason}: {outcome.message}", 400))
        raise GateFailure(outcome, self.id)


class Check:
    """A condition that must pass, without vote."""

    def __init__(self, outcome: Outcome) -> None:
        self.id = outcome.id
        self.outcome = outcome

    def __repr__(self) -> str:
        return f"<check {self.id}>"

    def pass_or_fail(self) -> None:
        """Pass if the condition holds; fail with what was found otherwise."""
        if self.outcome.status is not Status.SUCCESSFUL:
            raise GateFailure(self.outcome, None)
