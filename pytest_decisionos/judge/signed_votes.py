"""The verdicts in a bundle: whose signature holds, which are missing, and who is on another host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import DecisionOSError, shown
from pytest_decisionos.evidence import bundle
from pytest_decisionos.judge import verdicts
from pytest_decisionos.judge.bundled import bundled_gate, bundled_numbers
from pytest_decisionos.judge.verdicts import RefusedVerdict
from pytest_decisionos.model.evidence import parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_decisionos.judge.bundled import BundledInputs
    from pytest_decisionos.model.statement import DecisionClaims, JudgeVotes, VerdictClaims
    from pytest_decisionos.trust.trustfile import TrustFile

SKEW_SEC: Final = 5.0
"""How far a time may lie ahead of another clock: the design's bound for rows."""
JUDGED_WITHIN_SEC: Final = 300.0
"""How long after the decision's time a verdict may come: as long as a request for it is valid."""


class Elsewhere(NamedTuple):
    """The judges that gate.yaml says are on other hosts.

    Attributes:
        remote: all of them.
        silent: those that gave no verdict, and are counted as in error for it.
    """

    remote: frozenset[str]
    silent: frozenset[str]


class SignedVotes(NamedTuple):
    """What became of the verdicts.

    Attributes:
        good: those whose signature and bindings hold, by SLO and judge.
        faults: of the others: the finding's name, cause and words.
    """

    good: dict[tuple[str, str], VerdictClaims]
    faults: list[tuple[str, str, str]]


def elsewhere(
    files: Mapping[str, bytes], inputs: BundledInputs, claims: DecisionClaims
) -> Elsewhere:
    """Who is on another host, by the gate.yaml of a bundle, and who of them gave no verdict."""
    try:
        gate = bundled_gate(files, inputs)
    except DecisionOSError:
        return Elsewhere(frozenset(), frozenset())  # told when it is judged again
    remote = frozenset(judge.id for judge in gate.spec.judges if judge.url is not None)
    silent = [judge.id for judge in claims.judges if _is_silent(judge, files, remote)]
    return Elsewhere(remote, frozenset(silent))


def _is_silent(judge: JudgeVotes, files: Mapping[str, bytes], remote: frozenset[str]) -> bool:
    if judge.keyid is not None or judge.id not in remote:
        return False
    try:
        return bundled_numbers(files, judge.id).state == "error"
    except DecisionOSError:
        return False  # told when it is judged again


def sources_fault(
    files: Mapping[str, bytes], inputs: BundledInputs, there: Elsewhere
) -> tuple[str, str] | None:
    """A judge that says it is on another host, and is not by gate.yaml; or the other way round."""
    for judge in inputs.judges:
        try:
            numbers = bundled_numbers(files, judge)
        except DecisionOSError:
            continue  # told when it is judged again
        if (numbers.source == "remote") != (judge in there.remote):
            where = "on another host" if judge in there.remote else "here"
            words = f"by gate.yaml {shown(judge, 70)} judges {where}, and its numbers say"
            return "wrong_source", f"{words} {shown(numbers.source, 70)}"
    return None


def signed_votes(
    files: Mapping[str, bytes], claims: DecisionClaims, trust: TrustFile
) -> SignedVotes:
    """The verdicts of a bundle, each held against the decision and the trust file.

    A verdict that is missing is no fault here: the bundle's list of files tells it.
    """
    made = SignedVotes({}, [])
    names: set[str] = set()
    keys: set[str] = set()
    for judge in claims.judges:
        if judge.id in names or judge.keyid in keys:
            words = f"{judge.id} stands twice, or signs with another's key; each counts once"
            made.faults.append(("verdicts", "key_twice", words))
        names.add(judge.id)
        if judge.keyid is not None:
            keys.add(judge.keyid)
        for slo in claims.quorums:
            name = bundle.verdict_name(slo, judge.id)
            if name not in files:
                continue
            what = f"verdict[{slo}@{judge.id}]"
            try:
                made.good[slo, judge.id] = _verdict(files, slo, judge, claims, trust)
            except RefusedVerdict as fault:
                made.faults.append((what, fault.cause, f"{name} {fault.words}"))
            except DecisionOSError as fault:
                made.faults.append((what, "unreadable", str(fault)))
    return made


def _verdict(
    files: Mapping[str, bytes],
    slo: str,
    judge: JudgeVotes,
    claims: DecisionClaims,
    trust: TrustFile,
) -> VerdictClaims:
    name = bundle.verdict_name(slo, judge.id)
    envelope, verdict = verdicts.parse(files[name], name)
    signed = verdicts.checked_signers(envelope, verdict, trust, claims.target, judge.id)
    if judge.keyid not in signed:
        raise RefusedVerdict("other_key", "is not signed by the key that is named for it")
    case = verdicts.Case(
        phase=claims.phase,
        target=claims.target,
        evidence_sha256=claims.evidence_sha256,
        slo=slo,
        slo_sha256="",  # held against the file when it is judged again
        as_of=claims.issued_at,
    )
    numbers = files.get(bundle.numbers_name(judge.id), b"")
    verdicts.check_about(verdict, judge.id, case, numbers)
    if (verdict.judged_at - claims.issued_at).total_seconds() > JUDGED_WITHIN_SEC:
        raise RefusedVerdict("out_of_range", "is younger than the decision")
    end = parse_time(claims.evidence_window[1]) if claims.evidence_window else None
    if end is not None and (end - verdict.judged_at).total_seconds() > SKEW_SEC:
        raise RefusedVerdict("out_of_range", "is older than the evidence")
    return verdict
