"""Rules × judges → outcomes: groups spelled out, sealed and own numbers compared, waivers applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_decisionos.errors import shown
from pytest_decisionos.evidence.digest import digest, digest_fault
from pytest_decisionos.judge.admission import integrity_fault, proof_of
from pytest_decisionos.judge.evaluate import evaluate
from pytest_decisionos.judge.view import View
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.outcome import Outcome, Status, quantity
from pytest_decisionos.model.policy import Group, Rule, Waiver
from pytest_decisionos.model.strict_json import MISSING
from pytest_decisionos.slo.waivers import waiver_fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from pytest_decisionos.judge.decide import GatedSlo, JudgeInput
    from pytest_decisionos.model.seal import Seal

MAX_GROUPS = 1000
"""Groups of one dimension that are judged one by one; the harvest writes at most 101."""


def expand(rules: Sequence[Rule], sealed: View) -> list[Rule]:
    """``rules`` with every ``for_each`` rule spelled out for the groups that the evidence names.

    Such a rule becomes one that there are groups at all, under its own id, and one for each group,
    under ``<id>[<group>]``: no group is an error, never a pass.
    """
    concrete: list[Rule] = []
    for rule in rules:
        if rule.for_each is None:
            concrete.append(rule)
            continue
        block = strict_json.block_of(rule.metric)
        names = sorted(name for by, name in sealed.groups(block) if by == rule.for_each)
        concrete.append(
            Rule(
                id=rule.id,
                kind="groups",
                metric=f"/{block}/groups",
                op="<=",
                bound=MAX_GROUPS,
                for_each=rule.for_each,
                severity=rule.severity,
                label=rule.label,
                text=rule.text,
            )
        )
        concrete += [
            rule.model_copy(
                update={"id": f"{rule.id}[{name}]", "group": Group(by=rule.for_each, name=name)}
            )
            for name in names[:MAX_GROUPS]
        ]
    return concrete


class Jury:
    """The judges with what each sees of one evidence document.

    Attributes:
        digest: of the document.
    """

    def __init__(
        self,
        blocks: Mapping[str, Any],
        source: str,
        judges: Iterable[JudgeInput],
        *,
        seal: Seal,
        now: datetime,
    ) -> None:
        judges = list(judges)
        self._seals = {judge.id: judge.seal or seal for judge in judges}
        self.digest = digest(blocks)
        bare = digest_fault(blocks, self.digest)
        faults = {one: integrity_fault(bare, source, one) for one in {seal, *self._seals.values()}}

        def view(document: Mapping[str, Any], origin: str, by: Seal) -> View:
            return View(document, source=origin, integrity=faults[by], proof=proof_of(by), now=now)

        self._sealed_views = {one: view(blocks, source, one) for one in faults}
        self.sealed = self._sealed_views[seal]
        self._own = {j.id: view(j.blocks, j.id, self._seals[j.id]) for j in judges}
        self._views = {
            j.id: view(overlay(blocks, j.blocks), _origin(j), self._seals[j.id])
            for j in judges
            if j.blocks
        }
        self._sealed_outcomes: dict[tuple[str, Seal], tuple[Rule, Outcome]] = {}

    def abstains(self, judge: JudgeInput, rules: Sequence[Rule]) -> str | None:
        """Why ``judge`` has no vote on these rules; None if it votes."""
        if judge.state == "absent":
            return judge.reason
        if (
            judge.state == "ready"
            and judge.source != "evidence"
            and not any(self._feeds(judge, r) for r in rules)
        ):
            return f"{judge.reason or 'its log'} feeds none of these rules"
        return None

    def outcome(self, judge: JudgeInput, rule: Rule) -> Outcome:
        """What ``judge`` says of ``rule``."""
        sealed = self._sealed(rule, self._seals[judge.id])
        if judge.state == "error":
            message = f"judge {judge.id} cannot say: {judge.reason}"
            return sealed.model_copy(
                update={
                    "status": Status.ERROR,
                    "cause": "source_missing",
                    "message": message,
                    "source": judge.id,
                }
                | dict.fromkeys(("observed", "limit", "margin", "samples", "effective", "needed"))
            )
        # Evidence that cannot be read, or lacks its limits, is not made good by somebody else's.
        unproven = (
            rule.level is not None and sealed.limit is None and sealed.status is Status.INCONCLUSIVE
        )
        if sealed.status is Status.ERROR or unproven or not self._feeds(judge, rule):
            return sealed
        own = evaluate(rule, self._views[judge.id])
        if judge.exact and _contradicts(sealed, own):
            message = (
                f"the evidence says {_told(sealed)}, and the log it names says {_told(own)} ({rule.metric}): "
                "it was changed"
            )
            return own.model_copy(
                update={"status": Status.FAILED, "cause": "tampered", "message": message}
            )
        return own

    def _sealed(self, rule: Rule, seal: Seal) -> Outcome:
        known = self._sealed_outcomes.get((rule.id, seal))
        # Rules of two SLOs may share an id and differ in their bound.
        if known is None or known[0] is not rule:
            known = rule, evaluate(rule, self._sealed_views[seal])
            self._sealed_outcomes[rule.id, seal] = known
        return known[1]

    def _feeds(self, judge: JudgeInput, rule: Rule) -> bool:
        """Whether the number that ``rule`` reads is one that ``judge`` computed itself."""
        if not judge.blocks:
            return False
        if rule.group is not None:
            # A group that the judge did not see is what it has to say, not something to pass over.
            return strict_json.block_of(rule.metric) in judge.blocks
        return self._own[judge.id].at(rule, rule.metric) is not MISSING


def overlay(sealed: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """``sealed`` with every number of ``own`` in its place; what ``own`` lacks stays as sealed."""
    return {
        **sealed,
        **{
            key: overlay(sealed[key], value)
            if isinstance(value, dict) and isinstance(sealed.get(key), dict)
            else value
            for key, value in own.items()
        },
    }


def _origin(judge: JudgeInput) -> str:
    """What people are told of where a judge's own numbers come from."""
    files = ", ".join(shown(log.file, 100) for log in judge.logs[:3])
    return f"{files or 'its own source'}, by judge {judge.id}"


def _told(outcome: Outcome) -> str:
    """Value, limit and samples, only as far as they are there."""
    text = quantity(outcome.observed, outcome.unit)
    if outcome.limit is not None:
        text += f", limit {quantity(outcome.limit, outcome.unit)}"
    return text if outcome.samples is None else f"{text}, {outcome.samples:,} samples"


def _contradicts(sealed: Outcome, own: Outcome) -> bool:
    """Whether the evidence's numbers are not those of the very log that it names.

    A producer may round: half a unit in the last place that it wrote is no contradiction.
    """
    pairs = (
        (sealed.observed, own.observed),
        (sealed.limit, own.limit),
        (sealed.samples, own.samples),
    )
    for said, found in pairs:
        if (
            isinstance(said, bool)
            or isinstance(found, bool)
            or isinstance(said, str)
            or isinstance(found, str)
        ):
            if said != found:
                return True
        elif said is not None and found is not None:
            slack = 0.5 * 10.0 ** -strict_json.decimals(said) if isinstance(said, float) else 0.5
            if sealed.unit in {"rate", "rel"} and slack >= 0.5:
                slack = 0.0005  # 0 or 1 spelled without decimals is no rounding of any rate
            if abs(said - found) > slack + 1e-9 * abs(found):
                return True
        elif (said is None) != (found is None):
            return True
    return False


def waive(outcomes: list[Outcome], waivers: Sequence[Waiver], now: datetime) -> list[Outcome]:
    """``outcomes`` with every valid waiver noted on what it stands for; errors cannot be waived."""
    valid = {w.rule: w for w in waivers if waiver_fault(w, now) is None}
    if not valid:
        return outcomes
    made: list[Outcome] = []
    for outcome in outcomes:
        waiver = valid.get(outcome.id) or valid.get(outcome.id.partition("[")[0])
        if (
            waiver
            and outcome.status in {Status.FAILED, Status.INCONCLUSIVE}
            and outcome.cause != "tampered"
        ):
            note = f"by {waiver.owner} until {waiver.expires}: {waiver.reason}"
            made.append(outcome.model_copy(update={"waived": note}))
        else:
            made.append(outcome)
    return made


def note_waivers(slos: Iterable[GatedSlo], now: datetime) -> list[str]:
    """What a reader must know of the waivers: those that count, and those that do not."""
    notes: list[str] = []
    for gated in slos:
        for waiver in gated.slo.waivers:
            fault = waiver_fault(waiver, now)
            what = f"waiver of {waiver.rule} in {gated.slo.stem} by {waiver.owner}"
            notes.append(
                f"{what} until {waiver.expires}: {waiver.reason}"
                if fault is None
                else f"{what} is ignored: {fault}"
            )
    return notes
