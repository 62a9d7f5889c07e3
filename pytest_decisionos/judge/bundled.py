"""A decision as a bundle holds it: what it was made from, and the judging again from that alone."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import AwareDatetime

from pytest_decisionos.errors import EvidenceError, PolicyError, UsageError
from pytest_decisionos.evidence import bundle
from pytest_decisionos.judge.decide import GatedSlo, GateInputs, JudgeInput, decide
from pytest_decisionos.judge.gate import LabelFile, make_gate
from pytest_decisionos.judge.gather import assemble, quorum_of
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.evidence import Evidence
from pytest_decisionos.model.outcome import Outcome
from pytest_decisionos.model.policy_text import parse_policy
from pytest_decisionos.model.seal import Seal
from pytest_decisionos.model.statement import DecisionClaims, Hex, JudgeVotes
from pytest_decisionos.model.validate import strict_model, validate
from pytest_decisionos.slo.compile import compile_slo
from pytest_decisionos.trust.keys import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from pytest_decisionos.judge.gate import Gate
    from pytest_decisionos.model.decision import Decision


class BundledInputs(Frozen):
    """inputs.json: what a decision was made from, beside the files that the bundle holds.

    Attributes:
        version: of this format.
        phase: of the gate.
        now: the time of the decision.
        evidence_file: the name that the evidence had, which outcomes tell.
        gate_file: the name that gate.yaml had.
        slo_files: the name that each SLO file had, by its path below ``policy/``.
        labels_sha256: of labels.json, which no verdict depends on.
        seal: what the evidence's MAC proved to the signer.
        checks: outcomes of the phase's checks.
        notes: what a reader should know besides.
        judges: the judges, in their order.
    """

    version: Literal["1"] = "1"
    phase: str
    now: AwareDatetime
    evidence_file: str
    gate_file: str
    slo_files: dict[str, str]
    labels_sha256: Hex
    seal: Seal
    checks: tuple[Outcome, ...] = ()
    notes: tuple[str, ...] = ()
    judges: tuple[str, ...]


class Again(NamedTuple):
    """A decision made again from its bundle."""

    inputs: GateInputs
    decision: Decision


def sha256(data: bytes) -> str:
    """SHA-256 of ``data``, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def slo_path(file: str) -> str:
    """Where the SLO file that gate.yaml names ``file`` stands in a bundle.

    Raises:
        UsageError: it does not lie below gate.yaml's folder.
    """
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or "\\" in file:
        raise UsageError(
            "cannot be bundled",
            field="slos",
            found=file,
            expected="a file below gate.yaml's folder",
            next_step="move it there",
        )
    return f"policy/{path}"


def policy_digest(gate_sha256: str, slos: Mapping[str, str]) -> str:
    """``policy_sha256``: SHA-256 over the RFC 8785 form of {gate, slos: {name: digest}}.

    Args:
        gate_sha256: of gate.yaml's bytes.
        slos: of each SLO file's bytes, by the SLO's name.
    """
    return sha256(canonical({"gate": gate_sha256, "slos": dict(slos)}))


def parse_inputs(files: Mapping[str, bytes]) -> BundledInputs:
    """inputs.json of a bundle.

    Raises:
        EvidenceError: it is not what it should be.
    """
    return strict_model(BundledInputs, _file(files, bundle.INPUTS), bundle.INPUTS, EvidenceError)


def judge_again(files: Mapping[str, bytes]) -> Again:
    """Decide from the files of a bundle alone.

    Raises:
        DecisionOSError: a file is missing or not what it should be.
    """
    made = parse_inputs(files)
    gate = bundled_gate(files, made)
    labels = _file(files, bundle.LABELS)
    evidence = _file(files, bundle.EVIDENCE)
    blocks = strict_json.loads(evidence, file=bundle.EVIDENCE, error=EvidenceError)
    if not isinstance(blocks, dict):
        raise EvidenceError("not an evidence document", file=bundle.EVIDENCE)
    document = strict_json.loads(labels, file=bundle.LABELS, error=PolicyError)
    inputs = assemble(
        gate,
        made.phase,
        _slos(files, made, gate),
        validate(LabelFile, document, Path(bundle.LABELS), labels),
        Evidence(made.evidence_file, sha256(evidence), blocks),
        seal=made.seal,
        judges=[bundled_numbers(files, judge) for judge in made.judges],
        now=made.now,
        checks=made.checks,
        notes=made.notes,
    )
    if tuple(judge.id for judge in inputs.judges) != made.judges:
        raise EvidenceError("a judge's numbers stand under another's name", file=bundle.INPUTS)
    if not {judge.id for judge in gate.spec.judges} <= set(made.judges):
        raise EvidenceError("a judge of gate.yaml is missing", file=bundle.INPUTS, field="judges")
    if len(set(made.judges)) != len(made.judges):
        raise EvidenceError("a judge stands twice", file=bundle.INPUTS, field="judges")
    asked = [f"check.{check.name}" for check in gate.phase(made.phase).check_list()]
    if [check.id for check in made.checks] != asked or any(not c.counts for c in made.checks):
        raise EvidenceError(
            "not the outcomes of the checks that gate.yaml asks for",
            file=bundle.INPUTS,
            field="checks",
        )
    return Again(inputs, decide(inputs))


def bundled_gate(files: Mapping[str, bytes], made: BundledInputs) -> Gate:
    """gate.yaml of a bundle.

    Raises:
        DecisionOSError: it is missing, or not what it should be.
    """
    path, data = Path(made.gate_file), _file(files, bundle.GATE)
    return make_gate(parse_policy(data, path), data, path)


def bundled_numbers(files: Mapping[str, bytes], judge: str) -> JudgeInput:
    """What ``judge`` computed itself, as a bundle holds it.

    Raises:
        EvidenceError: it is missing, or not what it should be.
    """
    name = bundle.numbers_name(judge)
    return strict_model(JudgeInput, _file(files, name), name, EvidenceError)


def _slos(files: Mapping[str, bytes], made: BundledInputs, gate: Gate) -> list[GatedSlo]:
    gated: list[GatedSlo] = []
    for listed in gate.phase(made.phase).slo_files():
        name = slo_path(listed.file)
        data = _file(files, name)
        path = Path(made.slo_files.get(name, name))
        slo = compile_slo(parse_policy(data, path), data, path)
        quorum = quorum_of(slo, listed, gate, len(made.judges))
        gated.append(GatedSlo(slo=slo, quorum=quorum))
    if len({one.slo.stem for one in gated}) != len(gated):
        raise PolicyError("two SLO files have one name", file=bundle.GATE, field="slos")
    return sorted(gated, key=lambda one: one.slo.stem)


def claims_of(
    again: Again,
    *,
    inputs_sha256: str,
    keyids: Mapping[str, str | None],
    step: Mapping[str, Any],
    expires_at: datetime,
) -> DecisionClaims:
    """What a decision is bound to.

    Args:
        again: the decision, and what it was made from.
        inputs_sha256: of inputs.json.
        keyids: the key of each judge; None of a remote one that gave no verdict.
        step: the fields of ``sign.Step``, which no judge sees.
        expires_at: after this nobody may act on it.
    """
    inputs, decision = again
    return DecisionClaims(
        decision_id=decision.decision_id,
        verdict=decision.verdict,
        action=decision.action,
        phase=decision.phase,
        target=decision.target,
        release=decision.release,
        baseline_release=decision.baseline_release,
        evidence_sha256=decision.evidence.sha256,
        evidence_window=decision.evidence_window,
        policy_sha256=policy_digest(
            decision.gate.sha256, {slo.slo: slo.sha256 for slo in decision.slos}
        ),
        inputs_sha256=inputs_sha256,
        k=min(slo.quorum.k for slo in decision.slos),
        n=len(inputs.judges),
        quorums={slo.slo: str(slo.quorum) for slo in decision.slos},
        judges=tuple(
            JudgeVotes(
                id=judge.id,
                keyid=keyids[judge.id],
                votes={
                    slo.slo: ballot.vote
                    for slo in decision.slos
                    for ballot in slo.ballots
                    if ballot.judge == judge.id
                },
            )
            for judge in inputs.judges
        ),
        waivers=tuple(waiver for slo in decision.slos for waiver in slo.waivers),
        issued_at=inputs.now,
        expires_at=expires_at,
        **step,
    )


def _file(files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        raise EvidenceError("is missing in the bundle", file=name)
    return files[name]
