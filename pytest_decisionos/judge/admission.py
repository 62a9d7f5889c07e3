"""Whether the evidence may be judged at all: whole, unchanged, fresh, and about this target.

And whether it left out of its logs only what gate.yaml allows: a judge that recomputes a log does
it as the evidence says, so a filter too many would hide the same rows from everyone.

These are conditions on the document itself, so they belong to the decision: nobody votes on them
and nothing waives them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pytest_decisionos.errors import shown
from pytest_decisionos.harvest.options import DEFAULT_FILTERS
from pytest_decisionos.judge.evaluate import evaluate
from pytest_decisionos.judge.view import View
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.outcome import Outcome, Status
from pytest_decisionos.model.policy import Rule
from pytest_decisionos.model.strict_json import MISSING
from pytest_decisionos.model.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pytest_decisionos.judge.gate import HarvestLimits
    from pytest_decisionos.model.seal import Seal


def integrity_fault(
    fault: tuple[str, str] | None, source: str, seal: Seal
) -> tuple[str, str] | None:
    """Cause and message of what is wrong with the evidence's digest or seal; None if nothing is.

    Args:
        fault: what ``digest_fault`` says of the evidence.
        source: its file.
        seal: what those who have the keys found of its MAC.
    """
    if fault is None and seal.state == "refused":
        fault = seal.cause, seal.message
    return None if fault is None else (fault[0], f"{source}: {fault[1]}")


def counts_copies(blocks: Mapping[str, Any]) -> bool:
    """Whether the evidence measures its canary by copies of requests, as only shadow may."""
    harvest = strict_json.at(blocks, "/witness/harvest/shadow")
    return harvest is not MISSING and harvest is not False


def proof_of(seal: Seal) -> str:
    """What a right digest, and a MAC if there are keys, prove; in words."""
    if seal.state == "valid":
        return f"right digest, and MAC of key {seal.key_id} of {seal.created}"
    return "right digest, unsigned: no keys are configured, so nobody knows who made it"


def admission(
    blocks: Mapping[str, Any],
    *,
    source: str,
    integrity: tuple[str, str] | None,
    seal: Seal,
    target: Target,
    max_age_sec: float,
    require_blocks: Sequence[str],
    harvest: HarvestLimits,
    now: datetime,
) -> list[Outcome]:
    """The conditions: integrity, freshness, blocks, target and harvest."""
    age = Rule(
        id="evidence.freshness",
        kind="age",
        metric="/meta/window/end",
        op="<=",
        bound=max_age_sec,
        unit="s",
        waivable=False,
    )
    return [
        _integrity(integrity, source, seal),
        evaluate(
            age, View(blocks, source=source, integrity=integrity, proof=proof_of(seal), now=now)
        ),
        _blocks(blocks, source, require_blocks),
        _target(blocks, source, target),
        _harvest(blocks, source, harvest),
    ]


def _say(
    check: str, source: str, status: Status, message: str, cause: str | None = None
) -> Outcome:
    return Outcome(id=check, status=status, cause=cause, message=message, source=source)


def _integrity(fault: tuple[str, str] | None, source: str, seal: Seal) -> Outcome:
    if fault is None:
        message = f"{source}: {proof_of(seal)}"
        return _say("evidence.integrity", source, Status.SUCCESSFUL, message)
    cause, message = fault
    status = Status.FAILED if cause == "tampered" else Status.ERROR
    return _say("evidence.integrity", source, status, message, cause)


def _blocks(blocks: Mapping[str, Any], source: str, required: Sequence[str]) -> Outcome:
    lacking = [name for name in required if blocks.get(name) is None]
    wrong = [
        name for name in required if name not in lacking and not isinstance(blocks[name], dict)
    ]
    if lacking or wrong:
        cause = "missing" if lacking else "wrong_type"
        faults = [f"{name} is missing" for name in lacking] + [
            f"{name} is not an object" for name in wrong
        ]
        message = f"{', '.join(faults)} in {source}; gate.yaml requires {', '.join(required)}"
        return _say("evidence.blocks", source, Status.ERROR, message, cause)
    message = f"{source} has {', '.join(required) or 'every block that is required: none'}"
    return _say("evidence.blocks", source, Status.SUCCESSFUL, message)


def _target(blocks: Mapping[str, Any], source: str, target: Target) -> Outcome:
    meta = blocks.get("meta")
    stated = meta.get("target") if isinstance(meta, dict) else None
    if stated is None:
        message = f"/meta/target is missing in {source}; this gate is for {target}"
        return _say("evidence.target", source, Status.ERROR, message, "missing")
    try:
        found = Target.model_validate(stated)
    except ValidationError:
        message = (
            f"/meta/target is {shown(stated)} in {source}, not a target; this gate is for {target}"
        )
        return _say("evidence.target", source, Status.ERROR, message, "wrong_type")
    if found != target:
        message = f"{source} is about {shown(str(found), 300)}; this gate is for {target}"
        return _say("evidence.target", source, Status.ERROR, message, "foreign_target")
    return _say("evidence.target", source, Status.SUCCESSFUL, f"{source} is about {target}")


def _harvest(blocks: Mapping[str, Any], source: str, limits: HarvestLimits) -> Outcome:
    def say(status: Status, cause: str | None, message: str) -> Outcome:
        return _say("evidence.harvest", source, status, message, cause)

    witness = blocks.get("witness")
    stated = witness if isinstance(witness, dict) else {}
    sources, options = stated.get("sources", []), stated.get("harvest", {})
    if (
        not isinstance(options, dict)
        or not isinstance(sources, list)
        or not all(isinstance(s, dict) for s in sources)
    ):
        return say(Status.ERROR, "wrong_type", f"/witness does not say how {source} was harvested")
    filters = options.get("filters", [])
    listed = [s.get("filters", []) for s in sources]
    if not isinstance(filters, list) or not all(isinstance(one, list) for one in listed):
        return say(
            Status.ERROR, "wrong_type", f"/witness does not say what was filtered out of {source}"
        )
    texts = [
        *filters,
        *(f.get("text") if isinstance(f, dict) else f for one in listed for f in one),
    ]
    foreign = [text for text in texts if text not in (*DEFAULT_FILTERS, *limits.filters)]
    if foreign:
        message = f"{source} leaves out {shown(foreign[0], 80)}, which gate.yaml does not list under harvest.filters"
        return say(Status.ERROR, "not_allowed", message)
    for log in sources:
        bad = log.get("bad_rows", 0)
        if isinstance(bad, bool) or not isinstance(bad, int) or not 0 <= bad <= limits.max_bad_rows:
            name, rows = shown(log.get("name"), 60), shown(bad, 20)
            message = f"{name} of {source} has {rows} unreadable rows, and {limits.max_bad_rows} are allowed"
            return say(Status.ERROR, "over", message)
    return say(Status.SUCCESSFUL, None, f"{source} leaves out only what may be left out")
