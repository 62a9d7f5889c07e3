"""in-toto statements: what a judge, or the gate, says about an artifact, ready to be signed.

A verdict is a test-result v0.1, a decision a verification summary v1; what those predicates have no
field for stands in one field of our own, named by a URI as in-toto's parsing rules ask.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError

from pytest_decisionos.errors import UnusableInputError
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.decision import Action, Verdict, Vote
from pytest_decisionos.model.outcome import Outcome, Status
from pytest_decisionos.model.policy import Waiver
from pytest_decisionos.model.target import Target
from pytest_decisionos.model.validate import dotted, first_fault

STATEMENT: Final = "https://in-toto.io/Statement/v1"
TEST_RESULT: Final = "https://in-toto.io/attestation/test-result/v0.1"
SUMMARY: Final = "https://slsa.dev/verification_summary/v1"
VERDICT_CLAIMS: Final = "urn:decisionos:verdict:v1"
DECISION_CLAIMS: Final = "urn:decisionos:decision:v1"
_ADDED: Final = "canary_policy_sha256"
"""Older decisions do not have it, and are spelled as they were."""
VERIFIER: Final = "urn:decisionos:release-gate"

Hex = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1024)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class VerdictClaims(Frozen):
    """What one judge says of one SLO.

    Attributes:
        judge: its name in gate.yaml.
        slo: the SLO's name.
        phase: of the gate.
        target: what the evidence is about.
        evidence_sha256: of the evidence file's bytes.
        slo_sha256: of the SLO file's bytes.
        numbers_sha256: of the bytes of what this judge computed itself.
        recomputed: the blocks that are in those.
        vote: its vote.
        reason: why it abstains or is in error.
        outcomes: one for each rule; none if it abstains.
        as_of: the time of the decision, which ages are counted to and waivers held against.
        judged_at: when, by the judge's own clock.
        nonce: of the request, where it answers one.
    """

    judge: Name
    slo: Name
    phase: Name
    target: Target
    evidence_sha256: Hex
    slo_sha256: Hex
    numbers_sha256: Hex
    recomputed: tuple[Name, ...] = ()
    vote: Vote
    reason: str = ""
    outcomes: tuple[Outcome, ...] = ()
    as_of: AwareDatetime
    judged_at: AwareDatetime
    nonce: Annotated[str, StringConstraints(strict=True, max_length=256)] = ""


class JudgeVotes(Frozen):
    """A judge as the decision counts it: the key that it signs with, and its vote on each SLO.

    A remote judge that gave no verdict has no key here: it is in error by the gate's word alone,
    which can only take a GO away.
    """

    id: Name
    keyid: Hex | None
    votes: dict[str, Vote]


class DecisionClaims(Frozen):
    """What a signed decision is bound to: it authorises this step of this release, and no other.

    Attributes:
        decision_id: its name.
        verdict: GO, NO-GO or HOLD.
        action: proceed, wait or abort.
        phase: of the gate.
        target: what is released where.
        release: the release candidate.
        baseline_release: what it was compared with.
        from_pct: share of traffic that the release has, in percent.
        to_pct: share that it may have next.
        stage_sha256: of the stage file that was there; None if there was none.
        canary_policy_sha256: of the canary policy's bytes; None if there was no canary.
        evidence_sha256: of the evidence file's bytes.
        evidence_window: start and end of the measured time; None (never GO) if it does not say.
        policy_sha256: of gate.yaml and the SLO files together.
        inputs_sha256: of what else the decision was made from (inputs.json).
        tests_sha256: of the decision.json of the pytest run on this evidence; None if none ran.
        k: the least k of its quorums.
        n: the number of judges.
        quorums: ``k/n`` for each SLO.
        judges: who voted, with which key, and how.
        waivers: the waivers of the SLOs, also those that are ignored.
        issued_at: when it was decided.
        expires_at: after this nobody may act on it.
    """

    decision_id: Name
    verdict: Verdict
    action: Action
    phase: Name
    target: Target
    release: Annotated[str, StringConstraints(strict=True, max_length=1024)] | None
    baseline_release: str | None
    from_pct: Percent | None = None
    to_pct: Percent | None = None
    stage_sha256: Hex | None = None
    canary_policy_sha256: Hex | None = None
    evidence_sha256: Hex
    evidence_window: tuple[str, str] | None
    policy_sha256: Hex
    inputs_sha256: Hex
    tests_sha256: Hex | None = None
    k: Annotated[int, Field(strict=True, ge=1, le=99)]
    n: Annotated[int, Field(strict=True, ge=1, le=99)]
    quorums: Annotated[dict[str, str], Field(max_length=1000)]
    judges: Annotated[tuple[JudgeVotes, ...], Field(max_length=99)]
    waivers: tuple[Waiver, ...] = ()
    issued_at: AwareDatetime
    expires_at: AwareDatetime


class Descriptor(Frozen):
    """A resource by name or URI, and its digests by algorithm."""

    name: Name | None = None
    uri: Name | None = None
    digest: dict[str, str]


class Statement(Frozen):
    """An in-toto Statement v1."""

    type_: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")] = STATEMENT
    subject: Annotated[tuple[Descriptor, ...], Field(min_length=1, max_length=100)]
    predicate_type: Annotated[str, Field(alias="predicateType")]
    predicate: dict[str, Any]

    def payload(self) -> bytes:
        """The bytes that are signed."""
        document = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        # A file name that is not UTF-8 brings half surrogates along.
        return strict_json.dumps(document).encode(errors="backslashreplace")


def _statement(subject: Descriptor, predicate_type: str, predicate: dict[str, Any]) -> Statement:
    fields = {"subject": (subject,), "predicateType": predicate_type, "predicate": predicate}
    return Statement.model_validate(fields)


def parse_statement(payload: bytes, predicate_type: str, file: object = None) -> Statement:
    """The statement in ``payload``.

    Raises:
        UnusableInputError: it is none, or not of this type.
    """
    document = strict_json.loads(payload, file=file)
    try:
        made = Statement.model_validate(document)
    except ValidationError as fault:
        raise _unusable(fault, file) from None
    if made.predicate_type != predicate_type:
        raise UnusableInputError(
            "not the type of statement that stands here",
            file=file,
            field="predicateType",
            found=made.predicate_type,
            expected=predicate_type,
        )
    return made


def _unusable(fault: ValidationError, file: object, place: str = "") -> UnusableInputError:
    first = first_fault(fault)
    where = dotted([*([place] if place else []), *first.path])
    return UnusableInputError(first.words, file=file, field=where or None)


def descriptor(data_sha256: str, *, name: str | None = None, uri: str | None = None) -> Descriptor:
    """A resource by the SHA-256 of its bytes."""
    return Descriptor(name=name, uri=uri, digest={"sha256": data_sha256})


# Verdicts


def verdict_statement(claims: VerdictClaims) -> Statement:
    """A judge's verdict as a test-result: one test for each rule."""
    tests: dict[str, list[str]] = {"passedTests": [], "warnedTests": [], "failedTests": []}
    for outcome in claims.outcomes:
        passed = outcome.status is Status.SUCCESSFUL
        kind = "passed" if passed else "failed" if outcome.counts else "warned"
        tests[f"{kind}Tests"].append(outcome.id)
    result = "FAILED" if claims.vote is not Vote.PASS else "PASSED"
    if result == "PASSED" and tests["warnedTests"]:
        result = "WARNED"
    predicate = {
        "result": result,
        "configuration": [{"name": claims.slo, "digest": {"sha256": claims.slo_sha256}}],
        **tests,
        VERDICT_CLAIMS: claims.model_dump(mode="json"),
    }
    return _statement(
        descriptor(claims.evidence_sha256, name="evidence.json"), TEST_RESULT, predicate
    )


def parse_verdict(payload: bytes, file: object = None) -> VerdictClaims:
    """The claims of a verdict; the standard's own fields must say the same.

    Raises:
        UnusableInputError: it is none, or contradicts itself.
    """
    made = parse_statement(payload, TEST_RESULT, file)
    try:
        claims = VerdictClaims.model_validate(made.predicate.get(VERDICT_CLAIMS))
    except ValidationError as fault:
        raise _unusable(fault, file, VERDICT_CLAIMS) from None
    if made != verdict_statement(claims):
        raise UnusableInputError("the test-result and the claims in it differ", file=file)
    return claims


# Decisions


def decision_statement(
    claims: DecisionClaims, attestations: tuple[Descriptor, ...], version: str
) -> Statement:
    """A decision as a verification summary; HOLD and NO-GO are FAILED.

    Args:
        claims: what it is bound to.
        attestations: every verdict and the evidence, each by URI (within the bundle) and digest.
        version: of this software.
    """
    go = claims.verdict is Verdict.GO
    said = claims.model_dump(mode="json")
    if said[_ADDED] is None:
        del said[_ADDED]
    predicate = {
        "verifier": {"id": VERIFIER, "version": {"pytest-decisionos": version}},
        "timeVerified": said["issued_at"],
        "resourceUri": f"{VERIFIER}:{claims.target}:{claims.release}",
        "policy": {"uri": "policy/gate.yaml", "digest": {"sha256": claims.policy_sha256}},
        "inputAttestations": [
            one.model_dump(mode="json", exclude_none=True) for one in attestations
        ],
        "verificationResult": "PASSED" if go else "FAILED",
        "verifiedLevels": ["DECISIONOS_RELEASE_GATE"] if go else ["FAILED"],
        DECISION_CLAIMS: said,
    }
    return _statement(release_subject(claims.release), SUMMARY, predicate)


class ParsedDecision(Frozen):
    """A decision's claims, its attestations by URI, and the software that made it."""

    claims: DecisionClaims
    attestations: dict[str, str]
    version: str


def parse_decision(payload: bytes, file: object = None) -> ParsedDecision:
    """The claims of a decision; the standard's own fields must say the same.

    Raises:
        UnusableInputError: it is none, names an attestation twice, or contradicts itself.
    """
    made = parse_statement(payload, SUMMARY, file)
    predicate = made.predicate
    try:
        claims = DecisionClaims.model_validate(predicate.get(DECISION_CLAIMS))
        listed = tuple(Descriptor.model_validate(one) for one in predicate["inputAttestations"])
        version = str(predicate["verifier"]["version"]["pytest-decisionos"])
        found = {str(one.uri): one.digest["sha256"] for one in listed}
    except ValidationError as fault:
        raise _unusable(fault, file) from None
    except (KeyError, TypeError):
        raise UnusableInputError("not a decision of this gate", file=file) from None
    if len(found) != len(listed):
        raise UnusableInputError("an attestation is named twice", file=file)
    if made != decision_statement(claims, listed, version):
        raise UnusableInputError("the summary and the claims in it differ", file=file)
    return ParsedDecision(claims=claims, attestations=found, version=version)


def release_subject(release: str | None) -> Descriptor:
    """The release as the subject of a decision.

    A name that ends in an OCI digest (``…@sha256:<hex>`` or the digest alone), or is a Git commit,
    is its own digest. Of another name the digest is that of its text, and says so.
    """
    name = release or "unnamed"
    prefix, _, digest = name.rpartition("sha256:")
    if len(digest) == 64 and not set(digest) - set("0123456789abcdef") and prefix[-1:] in {"", "@"}:
        return Descriptor(name=name, digest={"sha256": digest})
    if len(name) == 40 and not set(name) - set("0123456789abcdef"):
        return Descriptor(name=name, digest={"gitCommit": name})
    return Descriptor(name=name, digest={"nameSha256": hashlib.sha256(name.encode()).hexdigest()})
