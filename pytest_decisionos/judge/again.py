"""What the signed votes add up to, and whether judging again gives the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_decisionos.errors import shown
from pytest_decisionos.judge.admission import counts_copies
from pytest_decisionos.judge.bundled import claims_of
from pytest_decisionos.judge.quorum import tally, vote_of
from pytest_decisionos.judge.reasons import is_tampering
from pytest_decisionos.judge.verdicts import ballot_faults
from pytest_decisionos.model.decision import Verdict, Vote

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pytest_decisionos.judge.bundled import Again
    from pytest_decisionos.model.statement import DecisionClaims, VerdictClaims
    from pytest_decisionos.trust.trustfile import TrustFile

    Verdicts = Mapping[tuple[str, str], VerdictClaims]

STEP = ("from_pct", "to_pct", "stage_sha256", "canary_policy_sha256", "tests_sha256")
"""Fields of a decision that no judging gives: they are bound by the signature alone."""


def quorum_fault(
    again: Again,
    claims: DecisionClaims,
    verdicts: Verdicts,
    trust: TrustFile,
    *,
    remote: Collection[str],
) -> tuple[str, str] | None:
    """Cause and words of why the signed votes do not make the decision; None if they do.

    Args:
        again: gives each SLO's rules and quorum.
        claims: what the decision says.
        verdicts: the votes whose signatures hold.
        trust: the least quorum that counts, and how many of its judges must be remote.
        remote: the judges that gate.yaml says are.
    """
    for (slo, judge), verdict in verdicts.items():
        counted = vote_of(verdict.outcomes)
        # One in error may have rules that stop no vote; it is no pass all the same.
        if verdict.vote not in {Vote.ABSTAIN, Vote.ERROR, counted}:
            return (
                "miscounted",
                f"{judge} votes {verdict.vote} on {slo}, and its rules say {counted}",
            )
    claimed = {
        (slo, judge.id): vote for judge in claims.judges for slo, vote in judge.votes.items()
    }
    signed = {key: verdict.vote for key, verdict in verdicts.items()}
    # Remote judges that gave no verdict; the caller has seen that they may be such.
    silent = {
        (slo, judge.id): Vote.ERROR
        for judge in claims.judges
        if judge.keyid is None
        for slo in claims.quorums
    }
    if claimed != silent | signed:
        return "miscounted", "the decision counts other votes than were signed"
    made: set[Verdict] = set()
    for gated in again.inputs.slos:
        votes = [claimed.get((gated.slo.stem, judge.id), Vote.MISSING) for judge in claims.judges]
        if claims.quorums.get(gated.slo.stem) != str(gated.quorum) or len(votes) != gated.quorum.n:
            return (
                "miscounted",
                f"{gated.slo.stem} needs {gated.quorum}, and the decision says less",
            )
        made.add(tally(votes, gated.quorum, gated.slo.on_inconclusive))
        tampered = [v for v in verdicts.values() if any(map(is_tampering, v.outcomes))]
        if tampered and claims.verdict is Verdict.GO:
            return "tampered", f"{tampered[0].judge} found that the evidence was changed"
    if claims.verdict is not Verdict.GO:
        return None
    if made != {Verdict.GO}:
        return "not_reached", f"the signed votes make {', '.join(sorted(made - {Verdict.GO}))}"
    return _minimum_fault(claims, signed, trust, remote)


def _minimum_fault(
    claims: DecisionClaims,
    signed: Mapping[tuple[str, str], Vote],
    trust: TrustFile,
    remote: Collection[str],
) -> tuple[str, str] | None:
    if claims.k < trust.min_k or claims.n < trust.min_n:
        least = f"{trust.min_k}/{trust.min_n}"
        return "under", f"a quorum of {claims.k}/{claims.n}, and the trust file asks for {least}"
    for slo in sorted(claims.quorums):
        passed = sum(signed.get((slo, judge)) is Vote.PASS for judge in remote)
        if passed < trust.min_remote:
            words = f"{passed} judges on other hosts pass {slo}"
            return "under", f"{words}, and the trust file asks for {trust.min_remote}"
    return None


def rejudged_faults(again: Again, verdicts: Verdicts) -> tuple[str, str] | None:
    """Where judging again gives something else than the signed verdicts; None if nowhere."""
    differing: list[str] = []
    for slo in again.decision.slos:
        for ballot in slo.ballots:
            verdict = verdicts.get((slo.slo, ballot.judge))
            if verdict is None:
                continue
            own = next(judge for judge in again.inputs.judges if judge.id == ballot.judge)
            faults = ballot_faults(verdict, ballot, slo_sha256=slo.sha256, blocks=own.blocks)
            differing += [f"{slo.slo}@{ballot.judge}: {fault}" for fault in faults]
    if not differing:
        return None
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return "different", f"{'; '.join(differing[:3])}{more}"


def claims_faults(again: Again, claims: DecisionClaims) -> tuple[str, str] | None:
    """Which bound field is not what judging again says; None if all are.

    And whether copies of requests speak for a canary that has users, which no judge can know.
    """
    if claims.from_pct and counts_copies(again.inputs.blocks):
        words = f"copies of requests count as the canary's, which has users: {claims.from_pct:g} %"
        return "not_allowed", words
    made = claims_of(
        again,
        inputs_sha256=claims.inputs_sha256,
        keyids={judge.id: judge.keyid for judge in claims.judges},
        step={name: getattr(claims, name) for name in STEP},
        expires_at=claims.expires_at,
    )
    for field in type(claims).model_fields:
        said, found = getattr(claims, field), getattr(made, field)
        if said != found:
            return (
                "different",
                f"{field} says {shown(str(said), 100)}, and is {shown(str(found), 100)}",
            )
    return None
