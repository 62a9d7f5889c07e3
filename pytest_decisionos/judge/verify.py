"""``verify``: a bundle held against the trust file, offline, and judged again from what it holds.

First what was signed, by whom and over what; then, only if all of that holds, the arithmetic of the
quorum and the judging again. Each condition is an outcome with a reason code of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import DecisionOSError, shown
from pytest_decisionos.evidence import bundle
from pytest_decisionos.evidence.digest import digest_fault
from pytest_decisionos.judge.again import claims_faults, quorum_fault, rejudged_faults
from pytest_decisionos.judge.bundled import (
    judge_again,
    parse_inputs,
    policy_digest,
    sha256,
)
from pytest_decisionos.judge.signed_votes import (
    SKEW_SEC,
    Elsewhere,
    elsewhere,
    signed_votes,
    sources_fault,
)
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.model.outcome import Outcome, Status
from pytest_decisionos.model.statement import parse_decision
from pytest_decisionos.trust import dsse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from pytest_decisionos.judge.bundled import Again, BundledInputs
    from pytest_decisionos.model.decision import Decision
    from pytest_decisionos.model.statement import (
        DecisionClaims,
        ParsedDecision,
        VerdictClaims,
    )
    from pytest_decisionos.trust.trustfile import TrustFile

MAX_AGE_SEC: Final = 86_400.0
"""The longest that DECISIONOS_DECISION_MAX_AGE may let a decision be acted on."""


class Report(NamedTuple):
    """What was found.

    Attributes:
        findings: one outcome for each condition, in the order of checking.
        claims: what the decision says; None if it cannot be read.
        again: what its inputs give when they are judged again; None if nobody did, because of what
            was found before.
    """

    findings: list[Outcome]
    claims: DecisionClaims | None
    again: Decision | None = None

    @property
    def ok(self) -> bool:
        """Whether every condition holds."""
        return bool(self.findings) and all(f.status is Status.SUCCESSFUL for f in self.findings)


class _Findings:
    """Outcomes as they come."""

    def __init__(self) -> None:
        self.made: list[Outcome] = []

    def say(self, what: str, fault: tuple[str, str] | None, good: str) -> bool:
        """Note that ``what`` holds, or cause and words of why not; whether it holds."""
        cause, message = fault if fault is not None else (None, good)
        status = Status.SUCCESSFUL if fault is None else Status.FAILED
        self.made.append(Outcome(id=f"bundle.{what}", status=status, cause=cause, message=message))
        return fault is None

    @property
    def clean(self) -> bool:
        return all(one.status is Status.SUCCESSFUL for one in self.made)


def verify_bundle(
    files: Mapping[str, bytes],
    trust: TrustFile,
    *,
    now: datetime,
    target: str | None = None,
    release: str | None = None,
    fresh: bool = False,
) -> Report:
    """Check a bundle.

    Args:
        files: path within the bundle → bytes.
        trust: whose signatures count.
        now: the time here.
        target: ``service/environment/region/tenant`` that it must be about; None accepts any that
            the keys are for.
        release: that it must be about; None accepts any.
        fresh: whether one may still act on it: then it must not have expired.
    """
    found = _Findings()
    try:
        envelope = dsse.parse(files.get(bundle.DECISION, b""), bundle.DECISION)
        parsed = parse_decision(envelope.payload, bundle.DECISION)
        inputs = parse_inputs(files)
    except DecisionOSError as fault:
        found.say("statement", ("unreadable", str(fault)), "")
        return Report(found.made, None)
    claims = parsed.claims
    there = elsewhere(files, inputs, claims)
    found.say("statement", None, f"decision {claims.decision_id} of {claims.target}")
    found.say(
        "files", _files_fault(files, inputs, claims, there), f"{len(files)} files, all expected"
    )
    found.say("signature", _signature_fault(envelope, trust, claims), "by a gate key that may")
    found.say("expiry", _expiry_fault(claims, now, fresh=fresh), _expiry_words(claims, now))
    found.say("target", _expected(str(claims.target), target, "target"), str(claims.target))
    found.say("release", _expected(claims.release, release, "release"), str(claims.release))
    found.say("evidence", _evidence_fault(files, parsed), "the evidence that was decided on")
    found.say("policy", _policy_fault(files, inputs, claims, trust), "the policy, and it may be")
    found.say("inputs", _inputs_fault(files, inputs, claims), "the inputs that were decided on")
    found.say(
        "attestations",
        _attestations_fault(files, parsed),
        f"{len(parsed.attestations)} attestations, all there",
    )
    if tuple(judge.id for judge in claims.judges) != inputs.judges:
        found.say("inputs", ("different", "the decision counts other judges than inputs.json"), "")
    if wrong := sources_fault(files, inputs, there):
        found.say("inputs", wrong, "")
    votes = signed_votes(files, claims, trust)
    for what, cause, words in votes.faults:
        found.say(what, (cause, words), "")
    expected = (len(claims.judges) - len(there.silent)) * len(claims.quorums)
    if len(votes.good) == expected:
        lacking = f"; none of {', '.join(sorted(there.silent))}" if there.silent else ""
        found.say("verdicts", None, f"{expected} verdicts, each by its judge's own key{lacking}")
    again = _judge_again(found, files) if found.clean else None
    if again is not None:
        counted = quorum_fault(again, claims, votes.good, trust, remote=there.remote)
        if found.say("quorum", counted, _quorum_words(claims)):
            _compare(found, again, claims, votes.good)
    return Report(found.made, claims, None if again is None else again.decision)


def _judge_again(found: _Findings, files: Mapping[str, bytes]) -> Again | None:
    try:
        return judge_again(files)
    except (DecisionOSError, ValueError, ArithmeticError) as fault:
        found.say("rejudged", ("unreadable", shown(str(fault), 500)), "")
        return None


def _compare(
    found: _Findings,
    again: Again,
    claims: DecisionClaims,
    good: Mapping[tuple[str, str], VerdictClaims],
) -> None:
    found.say(
        "rejudged",
        rejudged_faults(again, good),
        f"{sum(len(v.outcomes) for v in good.values())} outcomes, the same again",
    )
    found.say("bound", claims_faults(again, claims), f"{claims.verdict} for what it is bound to")


def _files_fault(
    files: Mapping[str, bytes],
    inputs: BundledInputs,
    claims: DecisionClaims,
    there: Elsewhere,
) -> tuple[str, str] | None:
    expected = {bundle.EVIDENCE, bundle.INPUTS, bundle.DECISION, bundle.GATE, bundle.LABELS}
    expected |= set(inputs.slo_files)
    expected |= {bundle.numbers_name(judge) for judge in inputs.judges}
    expected |= {
        bundle.verdict_name(slo, judge.id)
        for judge in claims.judges
        if judge.id not in there.silent
        for slo in claims.quorums
    }
    if missing := sorted(expected - set(files)):
        return "missing", f"{missing[0]} is missing"
    if foreign := sorted(set(files) - expected):
        return "unexpected", f"{shown(foreign[0], 200)} does not belong to it"
    return None


def _signature_fault(
    envelope: dsse.Envelope, trust: TrustFile, claims: DecisionClaims
) -> tuple[str, str] | None:
    if envelope.payload_type != dsse.IN_TOTO:
        return "wrong_payload_type", f"its payload type is {shown(envelope.payload_type, 80)}"
    usable = trust.usable("gate", claims.target, claims.issued_at)
    if dsse.signers(envelope, usable):
        return None
    cause, words = trust.why_not(envelope, "gate", claims.target, claims.issued_at)
    return cause, f"the decision {words}"


def _expiry_fault(claims: DecisionClaims, now: datetime, *, fresh: bool) -> tuple[str, str] | None:
    if (claims.issued_at - now).total_seconds() > SKEW_SEC:
        return "out_of_range", f"it was issued in the future, at {claims.issued_at.isoformat()}"
    if claims.expires_at < claims.issued_at:
        return "out_of_range", "it expires before it was issued"
    end = parse_time(claims.evidence_window[1]) if claims.evidence_window else None
    if end is not None and (claims.expires_at - end).total_seconds() > MAX_AGE_SEC:
        return "out_of_range", "it expires more than a day after its evidence"
    if fresh and now >= claims.expires_at:
        return "expired", f"nobody may act on it since {claims.expires_at.isoformat()}"
    return None


def _expiry_words(claims: DecisionClaims, now: datetime) -> str:
    if now < claims.expires_at:
        return f"may be acted on until {claims.expires_at.isoformat(timespec='seconds')}"
    return f"a record: acting on it ended {claims.expires_at.isoformat(timespec='seconds')}"


def _expected(found: str | None, expected: str | None, what: str) -> tuple[str, str] | None:
    if expected is None or found == expected:
        return None
    cause = "foreign_target" if what == "target" else "other_release"
    return cause, f"it is about {shown(found, 200)}, not about {shown(expected, 200)}"


def _evidence_fault(files: Mapping[str, bytes], parsed: ParsedDecision) -> tuple[str, str] | None:
    """Evidence that is whole, and another, is an old bundle held up for new evidence."""
    data = files.get(bundle.EVIDENCE, b"")
    if sha256(data) == parsed.claims.evidence_sha256:
        return None
    try:
        blocks = strict_json.loads(data, file=bundle.EVIDENCE)
    except DecisionOSError as fault:
        return "tampered", str(fault)
    if isinstance(blocks, dict) and digest_fault(blocks) is None:
        return "other_evidence", "evidence.json is whole, and not the one that was decided on"
    return "tampered", "evidence.json was changed since it was decided on"


def _policy_fault(
    files: Mapping[str, bytes], inputs: BundledInputs, claims: DecisionClaims, trust: TrustFile
) -> tuple[str, str] | None:
    slos = {
        name.rpartition("/")[2].rsplit(".", 1)[0]: sha256(files.get(name, b""))
        for name in inputs.slo_files
    }
    if policy_digest(sha256(files.get(bundle.GATE, b"")), slos) != claims.policy_sha256:
        return "different", "gate.yaml and the SLO files are not those that were decided by"
    if not trust.allows_policy(claims.policy_sha256):
        return (
            "not_allowed",
            f"policy {claims.policy_sha256[:16]}… is not one that the trust file allows",
        )
    return None


def _inputs_fault(
    files: Mapping[str, bytes], inputs: BundledInputs, claims: DecisionClaims
) -> tuple[str, str] | None:
    if sha256(files[bundle.INPUTS]) != claims.inputs_sha256:
        return "different", "inputs.json is not what was decided on"
    if sha256(files.get(bundle.LABELS, b"")) != inputs.labels_sha256:
        return "different", "policy/labels.json is not the one that was there"
    if inputs.seal.state != "valid" and claims.verdict == "GO":
        return "unsealed", "the evidence had no valid MAC when it was decided on"
    return None


def _attestations_fault(
    files: Mapping[str, bytes], parsed: ParsedDecision
) -> tuple[str, str] | None:
    there = {name for name in files if name.startswith("verdicts/")} | {bundle.EVIDENCE}
    if dropped := sorted(there - set(parsed.attestations)):
        return "dropped", f"{shown(dropped[0], 200)} is not among inputAttestations"
    if parsed.attestations[bundle.EVIDENCE] != parsed.claims.evidence_sha256:
        return "different", "other evidence is attested than was decided on"
    for name, digest in sorted(parsed.attestations.items()):
        if name not in there:
            return "missing", f"{shown(name, 200)} is attested, and not there"
        if name != bundle.EVIDENCE and sha256(files[name]) != digest:
            return "different", f"{name} is not the one that the decision was made from"
    return None


def _quorum_words(claims: DecisionClaims) -> str:
    told = ", ".join(f"{slo} {quorum}" for slo, quorum in sorted(claims.quorums.items()))
    return f"by the signed votes alone: {told}"
