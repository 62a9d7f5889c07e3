"""A judge's verdict: built the same by every judge, and held against what it must be about.

The gate that asked for it and the verifier of a bundle, years later, check it by the same functions.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import shown
from pytest_decisionos.model.statement import VerdictClaims, parse_verdict
from pytest_decisionos.trust import dsse

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from pytest_decisionos.judge.decide import JudgeInput
    from pytest_decisionos.model.decision import Ballot
    from pytest_decisionos.model.outcome import Outcome
    from pytest_decisionos.model.target import Target
    from pytest_decisionos.trust.trustfile import TrustFile

COMPARED: Final = (
    *("status", "cause", "observed", "unit", "op", "bound", "limit", "samples", "effective"),
    *("severity", "waived"),
)
"""What an outcome says. Its words may change between versions of this software."""


class Case(NamedTuple):
    """What a verdict is about.

    Attributes:
        phase: of the gate.
        target: what the evidence is about.
        evidence_sha256: of the evidence file's bytes.
        slo: the SLO's name.
        slo_sha256: of the SLO file's bytes.
        as_of: the time of the decision.
    """

    phase: str
    target: Target
    evidence_sha256: str
    slo: str
    slo_sha256: str
    as_of: datetime


class RefusedVerdict(Exception):  # noqa: N818 - a finding, which its catcher tells in its own way
    """A verdict that is not what it must be.

    Attributes:
        cause: reason code: ``bad_signature``, ``wrong_judge``, ``other_evidence`` …
        words: the same in words, as the end of a sentence that names the verdict.
    """

    def __init__(self, cause: str, words: str) -> None:
        super().__init__(words)
        self.cause, self.words = cause, words


def numbers_of(judge: JudgeInput) -> bytes:
    """What a judge computed itself, as it is digested, sent and bundled.

    Raises:
        ValueError: a text in it is no Unicode.
    """
    return judge.model_dump_json(indent=1).encode()


def verdict_claims(
    judge: JudgeInput,
    ballot: Ballot,
    case: Case,
    *,
    numbers: bytes,
    judged_at: datetime,
    nonce: str = "",
) -> VerdictClaims:
    """What ``judge`` says of one SLO.

    Args:
        judge: what it computed itself.
        ballot: its vote, as ``decide.ballot_of`` finds it from that.
        case: what it is about.
        numbers: ``numbers_of(judge)``, as they are kept beside the verdict.
        judged_at: the time by the judge's own clock.
        nonce: of the request that it answers; empty for a local judge.
    """
    return VerdictClaims(
        judge=judge.id,
        **case._asdict(),
        numbers_sha256=_sha256(numbers),
        recomputed=tuple(sorted(judge.blocks)),
        vote=ballot.vote,
        reason=ballot.reason,
        outcomes=ballot.outcomes,
        judged_at=judged_at,
        nonce=nonce,
    )


def checked_signers(
    envelope: dsse.Envelope, claims: VerdictClaims, trust: TrustFile, target: Target, judge: str
) -> list[str]:
    """The key ids that ``envelope`` is signed by, of those that count as ``judge`` for ``target``.

    Raises:
        RefusedVerdict: none does, or it is not an in-toto statement that was signed.
    """
    if envelope.payload_type != dsse.IN_TOTO:
        raise RefusedVerdict("wrong_payload_type", "has another payload type")
    signed = dsse.signers(envelope, trust.usable("judge", target, claims.judged_at, judge=judge))
    if not signed:
        raise RefusedVerdict(
            *trust.why_not(envelope, "judge", target, claims.judged_at, judge=judge)
        )
    return signed


def parse(data: bytes, name: str) -> tuple[dsse.Envelope, VerdictClaims]:
    """The envelope of a verdict and its claims, none of which is believed yet.

    Raises:
        UnusableInputError: it is none.
    """
    envelope = dsse.parse(data, name)
    return envelope, parse_verdict(envelope.payload, name)


def check_about(claims: VerdictClaims, judge: str, case: Case, numbers: bytes) -> None:
    """That a verdict is about ``case``, by ``judge``, made from ``numbers``.

    The SLO's digest is held against the judging again (``ballot_faults``), which has the file.

    Raises:
        RefusedVerdict: ``other_judge``, ``other_slo``, ``other_phase``, ``other_target``,
            ``other_evidence``, ``other_numbers`` or ``other_time``.
    """
    bound = {
        "judge": (claims.judge, judge),
        "slo": (claims.slo, case.slo),
        "phase": (claims.phase, case.phase),
        "target": (str(claims.target), str(case.target)),
        "evidence": (claims.evidence_sha256, case.evidence_sha256),
        "numbers": (claims.numbers_sha256, _sha256(numbers)),
    }
    for what, (said, expected) in bound.items():
        if said != expected:
            raise RefusedVerdict(
                f"other_{what}", f"is about {what} {shown(said, 60)}, not {shown(expected, 60)}"
            )
    if claims.as_of != case.as_of:
        words = f"judges as of {claims.as_of.isoformat()}, not {case.as_of.isoformat()}"
        raise RefusedVerdict("other_time", words)


def ballot_faults(
    claims: VerdictClaims, ballot: Ballot, *, slo_sha256: str, blocks: Iterable[str]
) -> list[str]:
    """Where judging again gives something else than a verdict says, each in words.

    Args:
        claims: of the verdict.
        ballot: the same judge's vote, found again from its numbers.
        slo_sha256: of the SLO file that was judged by again.
        blocks: the blocks that are in its numbers.
    """
    faults: list[str] = []
    if claims.slo_sha256 != slo_sha256:
        faults.append("judged by another SLO file")
    if claims.vote is not ballot.vote:
        faults.append(f"signed {claims.vote}, again {ballot.vote}")
    if claims.recomputed != tuple(sorted(blocks)):
        faults.append("it computed other blocks itself than it says")
    if len(claims.outcomes) != len(ballot.outcomes):
        faults.append(f"signed {len(claims.outcomes)} outcomes, again {len(ballot.outcomes)}")
    return faults + _outcome_faults(claims.outcomes, ballot.outcomes)


def _outcome_faults(signed: tuple[Outcome, ...], again: tuple[Outcome, ...]) -> list[str]:
    then, now = {o.id: o for o in signed}, {o.id: o for o in again}
    faults = [f"{shown(i, 100)} was judged once only" for i in sorted(then.keys() ^ now.keys())]
    for rule in sorted(then.keys() & now.keys()):
        for field in COMPARED:
            before, after = getattr(then[rule], field), getattr(now[rule], field)
            if before != after:
                faults.append(
                    f"{shown(rule, 100)} {field} signed {shown(before, 60)}, again {shown(after, 60)}"
                )
    return faults


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
