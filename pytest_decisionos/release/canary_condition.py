"""The canary condition of an increase: what the sealed evidence that is there says of the canary."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from pytest_decisionos.errors import DecisionOSError, EvidenceError
from pytest_decisionos.evidence.digest import digest_fault
from pytest_decisionos.evidence.seal import check
from pytest_decisionos.judge.admission import integrity_fault
from pytest_decisionos.judge.gate import load_gate
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.evidence import parse_evidence
from pytest_decisionos.model.outcome import Status
from pytest_decisionos.release.canary import judge_canary
from pytest_decisionos.release.decisions import CUTOVER, slos_of
from pytest_decisionos.release.looks import last_look
from pytest_decisionos.release.windows import canary_rules

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.model.policy import Rule
    from pytest_decisionos.release.canary import CanaryVerdict
    from pytest_decisionos.release.canary_policy import CanaryPolicy
    from pytest_decisionos.release.decisions import Findings
    from pytest_decisionos.release.here import Here
    from pytest_decisionos.release.looks import Look
    from pytest_decisionos.release.stage_model import Stage
    from pytest_decisionos.trust.keys import KeyRing


def ask_canary(
    found: Findings,
    here: Here,
    stage: Stage,
    ring: KeyRing,
    policy: CanaryPolicy,
    *,
    dry_run: bool,
) -> CanaryVerdict | None:
    """The canary condition, last: a look is taken only if all the rest holds, and then counted.

    Returns:
        The verdict, if it took a look.
    """
    try:
        verdict = canary_verdict(here, stage, ring, policy)
    except DecisionOSError as fault:
        found.cannot("canary", fault)
        return None
    reasons = list(verdict.reasons)
    took = verdict.look and found.clean and not dry_run
    if verdict.look and not took:
        reasons = [one for one in reasons if not one.id.startswith("canary.look[")]
        lacking = (
            None if dry_run else ("not_looked", "not compared while something else is lacking")
        )
        found.say("canary", lacking, "not compared in a dry-run: that would be a look")
    else:
        bad = [one for one in reasons if one.status is not Status.SUCCESSFUL]
        codes = ", ".join(one.reason for one in bad)  # each is told in words after this
        found.say("canary", (verdict.action, codes) if bad else None, verdict.action)
    found.outcomes += [one for one in reasons if one.status is not Status.SUCCESSFUL]
    return verdict if took else None


def canary_verdict(here: Here, stage: Stage, ring: KeyRing, policy: CanaryPolicy) -> CanaryVerdict:
    """What the sealed evidence that is there says of the canary.

    Raises:
        DecisionOSError: the evidence, gate.yaml or an SLO cannot be used.
    """
    data = strict_json.read_bytes(
        here.evidence, error=EvidenceError, next_step="build it with `dosctl evidence build`"
    )
    now = here.asked.now
    rules = canary_rules(slos_of(load_gate(here.gate), CUTOVER), now)
    last = last_look(here.asked.root, stage, ring, now)
    return _judged(data, here.evidence, ring, policy, stage, rules, last, now)


@lru_cache(maxsize=1)  # who asks, and asks again once he holds the lock, mostly finds the same
def _judged(  # noqa: PLR0917 - a cache has no names
    data: bytes,
    file: Path,
    ring: KeyRing,
    policy: CanaryPolicy,
    stage: Stage,
    rules: tuple[Rule, ...],
    last: Look | None,
    now: datetime,
) -> CanaryVerdict:
    evidence = parse_evidence(data, file)
    seal = check(evidence.blocks, ring, now=now)
    return judge_canary(
        policy,
        stage,
        evidence.blocks,
        rules,
        now=now,
        integrity=integrity_fault(digest_fault(evidence.blocks), evidence.file, seal),
        last=last,
        source=evidence.file,
    )
