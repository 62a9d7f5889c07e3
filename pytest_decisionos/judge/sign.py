"""``decision sign``: a decision that was judged from files alone → its bundle, signed if it is GO."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest_decisionos
from pytest_decisionos.errors import EvidenceError, KeysError, RefusedError, UsageError, shown
from pytest_decisionos.evidence import bundle
from pytest_decisionos.judge.bundled import (
    Again,
    BundledInputs,
    claims_of,
    sha256,
    slo_path,
)
from pytest_decisionos.judge.verdicts import Case, verdict_claims
from pytest_decisionos.judge.verify import verify_bundle
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.decision import Decision, Verdict
from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.model.outcome import Outcome, Status
from pytest_decisionos.model.statement import decision_statement, descriptor, verdict_statement
from pytest_decisionos.trust import dsse
from pytest_decisionos.trust.ed25519 import load_private
from pytest_decisionos.trust.files import is_there

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pytest_decisionos.judge.decide import GateInputs, JudgeInput
    from pytest_decisionos.model.base import Frozen
    from pytest_decisionos.model.decision import SloDecision
    from pytest_decisionos.model.statement import DecisionClaims, VerdictClaims
    from pytest_decisionos.trust.ed25519 import PrivateKey
    from pytest_decisionos.trust.trustfile import TrustFile


class Step(NamedTuple):
    """The step that a decision is about, which no judge sees.

    Attributes:
        from_pct: share of traffic that the release has, in percent.
        to_pct: share that it may have next, in percent.
        stage_sha256: of the stage file that is there; None if there is none.
        canary_policy_sha256: of the canary policy that a step goes by; None if there is no canary.
        tests_sha256: of the decision.json of the pytest run on this evidence; None if none ran.
    """

    from_pct: float | None = None
    to_pct: float | None = None
    stage_sha256: str | None = None
    canary_policy_sha256: str | None = None
    tests_sha256: str | None = None


class SigningKeys(NamedTuple):
    """The private keys of one signing: the gate's, and each judge's."""

    gate: PrivateKey
    judges: Mapping[str, PrivateKey]


class Signed(NamedTuple):
    """A bundle that was written.

    Attributes:
        folder: where.
        claims: what it says.
        signed: whether the gate signed it: only a GO is.
    """

    folder: Path
    claims: DecisionClaims
    signed: bool


def load_keys(folder: Path, judges: Sequence[str]) -> SigningKeys:
    """``gate.key``, and ``judge-<id>.key`` for each of ``judges``.

    Raises:
        KeysError: one is missing, or others may read it.
    """
    return SigningKeys(
        load_private(folder / "gate.key"),
        {judge: load_private(folder / f"judge-{judge}.key") for judge in judges},
    )


def veto_of(path: Path, decision: Decision) -> tuple[str | None, str]:
    """What the last pytest run says about this evidence: the digest of its decision.json, and why not.

    Args:
        path: ``gate/decision.json``, which every whole run writes and every partial one takes away.
        decision: on the same evidence, by the files alone.

    Returns:
        (digest, ""), if a whole run on the same evidence, policy and phase came to GO; (None, why)
        if there is none such; (digest, veto) if there is one and it says no.
    """
    try:
        document, data = strict_json.read(path, error=EvidenceError)
        found = Decision.model_validate(document)
    except EvidenceError as fault:
        missing = not is_there(path)
        return (None, "no whole pytest run left a decision") if missing else ("", str(fault))
    except ValueError:
        return "", f"{path} is no decision"
    same = (
        found.evidence.sha256 == decision.evidence.sha256
        and found.phase == decision.phase
        and found.gate.sha256 == decision.gate.sha256
        and {slo.slo: slo.sha256 for slo in decision.slos}.items()
        <= {slo.slo: slo.sha256 for slo in found.slos}.items()
    )
    no = found.verdict is not Verdict.GO or found.partial
    if not same and no and _about(found) == _about(decision):
        # Spelled or sealed anew, or held against an edited policy, it is the same evidence.
        return sha256(data), f"the last pytest run on this window says {found.verdict}"
    if not same:
        return None, "the last pytest run was on other evidence, or by another policy"
    if found.verdict is not Verdict.GO or found.partial:
        first = next((reason.code for reason in found.reasons if not reason.outvoted), "")
        return sha256(data), f"the pytest run on this evidence says {found.verdict} ({first})"
    return sha256(data), ""


def _about(decision: Decision) -> tuple[object, ...]:
    return decision.target, decision.phase, decision.release, decision.evidence_window


def sign(
    inputs: GateInputs,
    decision: Decision,
    policy: Path,
    keys: SigningKeys,
    trust: TrustFile,
    *,
    step: Step,
    max_age_sec: float,
    bundles: Path,
) -> Signed:
    """Write the bundle of ``decision``; the gate signs it if it is GO and would verify.

    Args:
        inputs: what was judged.
        decision: ``decide(inputs)``.
        policy: folder of gate.yaml.
        keys: whose signatures it gets.
        trust: what a verifier will hold it against.
        step: what it is about.
        max_age_sec: how long after the evidence's window it may be acted on.
        bundles: folder of the bundles.

    Raises:
        RefusedError: it is GO, and its evidence is not sealed, or too old to act on, or the
            signature would not verify.
        UsageError: a file changed meanwhile, or the bundle cannot be written.
    """
    go = decision.verdict is Verdict.GO
    if go and inputs.seal.state != "valid":
        raise RefusedError(
            "only sealed evidence makes authority",
            file=inputs.evidence.file,
            found="no MAC was checked, because no keys are configured",
            next_step="configure the keys, then `dosctl evidence seal`",
        )
    if go and not decision.release:
        raise RefusedError(
            "a decision authorises one release, and the evidence names none",
            file=inputs.evidence.file,
            field="/meta/release",
            next_step="build it with its release",
        )
    expires = _expiry(decision, inputs.now, max_age_sec) if go else inputs.now
    files = _input_files(inputs, policy)
    files |= _verdicts(inputs, decision, files, keys.judges)
    claims = claims_of(
        Again(inputs, decision),
        inputs_sha256=sha256(files[bundle.INPUTS]),
        keyids={
            **{judge.id: None for judge in inputs.judges if judge.source == "remote"},
            **{judge: heard.keyid for judge, heard in inputs.remote.items()},
            **{judge: key.keyid for judge, key in keys.judges.items()},
        },
        step=step._asdict(),
        expires_at=expires,
    )
    attested = [bundle.EVIDENCE, *sorted(name for name in files if name.startswith("verdicts/"))]
    statement = decision_statement(
        claims,
        tuple(descriptor(sha256(files[name]), uri=name) for name in attested),
        pytest_decisionos.__version__,
    )
    files[bundle.DECISION] = dsse.sign(statement.payload(), [keys.gate] if go else [])
    if go:
        fault = first_fault(verify_bundle(files, trust, now=inputs.now, fresh=True).findings)
        if fault is not None:
            raise RefusedError(
                f"not signed, because it would not verify: {fault.message}",
                field=fault.reason,
                next_step="see docs/verify.md",
            )
    folder = bundles / claims.decision_id
    bundle.write_bundle(folder, files)
    return Signed(folder, claims, go)


def first_fault(findings: Sequence[Outcome]) -> Outcome | None:
    """The first finding that is not successful."""
    return next((one for one in findings if one.status is not Status.SUCCESSFUL), None)


def _expiry(decision: Decision, now: datetime, max_age_sec: float) -> datetime:
    end = parse_time(decision.evidence_window[1]) if decision.evidence_window else None
    expires = end + timedelta(seconds=max_age_sec) if end else now
    if expires <= now:
        raise RefusedError(
            "the evidence is too old to act on",
            field="/meta/window/end",
            found=shown(str(decision.evidence_window)),
            expected=f"at most {max_age_sec:g} s ago",
            next_step="build it again",
        )
    return expires


def _input_files(inputs: GateInputs, policy: Path) -> dict[str, bytes]:
    """Everything that the decision was made from, by its name in the bundle."""
    files = {
        bundle.EVIDENCE: _same(inputs.evidence.file, inputs.evidence.sha256),
        bundle.GATE: _same(inputs.gate.file, inputs.gate.sha256),
        bundle.LABELS: strict_json.read_bytes(policy / "labels.json", error=EvidenceError),
    }
    names: dict[str, str] = {}
    for gated in inputs.slos:
        # As gate.yaml names it, which is relative to its own folder.
        name = slo_path(_below(policy, gated.slo.file))
        files[name] = _same(gated.slo.file, gated.slo.sha256)
        names[name] = gated.slo.file
    for judge in inputs.judges:
        heard = inputs.remote.get(judge.id)
        numbers = _json(judge) if heard is None else heard.numbers.encode()
        files[bundle.numbers_name(judge.id)] = numbers
    made = BundledInputs(
        phase=inputs.phase,
        now=inputs.now,
        evidence_file=inputs.evidence.file,
        gate_file=inputs.gate.file,
        slo_files=names,
        labels_sha256=sha256(files[bundle.LABELS]),
        seal=inputs.seal,
        checks=inputs.checks,
        notes=inputs.notes,
        judges=tuple(judge.id for judge in inputs.judges),
    )
    files[bundle.INPUTS] = _json(made)
    return files


def _json(model: Frozen) -> bytes:
    try:
        return model.model_dump_json(indent=1).encode()
    except ValueError:  # half a surrogate pair
        raise UsageError("cannot be bundled: a file name is not UTF-8") from None


def _below(policy: Path, file: str) -> str:
    prefix = f"{policy}/" if str(policy) != "." else ""
    return file.removeprefix(prefix)


def _same(file: str, digest: str) -> bytes:
    """The bytes that were judged; they are read again, so they must still be the same."""
    data = strict_json.read_bytes(Path(file), error=EvidenceError)
    if sha256(data) != digest:
        raise UsageError("was changed while it was judged", file=file, next_step="sign again")
    return data


def _verdicts(
    inputs: GateInputs,
    decision: Decision,
    files: Mapping[str, bytes],
    keys: Mapping[str, PrivateKey],
) -> dict[str, bytes]:
    """Each judge's verdict on each SLO: signed here with its own key, or as it came from elsewhere."""
    made: dict[str, bytes] = {}
    for judge in inputs.judges:
        if judge.source == "remote":
            heard = inputs.remote.get(judge.id)
            for slo_name, text in heard.verdicts.items() if heard else ():
                made[bundle.verdict_name(slo_name, judge.id)] = text.encode()
            continue
        if judge.id not in keys:
            raise KeysError("a judge has no key", field="judges", found=judge.id)
        numbers = files[bundle.numbers_name(judge.id)]
        for slo in decision.slos:
            payload = verdict_statement(_verdict(inputs, slo, judge, numbers)).payload()
            made[bundle.verdict_name(slo.slo, judge.id)] = dsse.sign(payload, [keys[judge.id]])
    return made


def _verdict(
    inputs: GateInputs, slo: SloDecision, judge: JudgeInput, numbers: bytes
) -> VerdictClaims:
    case = Case(
        phase=inputs.phase,
        target=inputs.target,
        evidence_sha256=inputs.evidence.sha256,
        slo=slo.slo,
        slo_sha256=slo.sha256,
        as_of=inputs.now,
    )
    ballot = next(one for one in slo.ballots if one.judge == judge.id)
    return verdict_claims(judge, ballot, case, numbers=numbers, judged_at=inputs.now)
