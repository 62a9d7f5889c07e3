"""What a remote judge answered, believed only if all of it holds: signature, case, time, outcomes.

The gate judges again from the judge's own numbers. So a judge that signs what its numbers do not
give, or for other evidence, or what it said before, is in error, by name and with what was wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import DecisionOSError, UnusableInputError, shown
from pytest_decisionos.judge import verdicts
from pytest_decisionos.judge.decide import JudgeInput, RemoteVerdicts, ballot_of
from pytest_decisionos.judge.rules import Jury
from pytest_decisionos.judge.verdicts import Case, RefusedVerdict
from pytest_decisionos.judge.wire import MAX_ANSWER, Answer
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.validate import strict_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from pytest_decisionos.judge.client import Exchange
    from pytest_decisionos.model.evidence import Evidence
    from pytest_decisionos.model.policy import Slo
    from pytest_decisionos.model.seal import Seal
    from pytest_decisionos.model.statement import VerdictClaims
    from pytest_decisionos.model.target import Target
    from pytest_decisionos.trust.trustfile import TrustFile

MAX_REASON: Final = 4096
MAX_LOGS: Final = 1000


@dataclass(frozen=True)
class Inquiry:
    """What all judges of one decision are asked about.

    Attributes:
        phase: of the gate.
        target: what the gate is for.
        evidence: what is judged.
        seal: what its MAC proves to the gate.
        slos: what it is judged by.
        as_of: the time of the decision.
        trust: whose signatures count.
        max_skew_sec: how far a judge's clock may be off.
    """

    phase: str
    target: Target
    evidence: Evidence
    seal: Seal
    slos: tuple[Slo, ...]
    as_of: datetime
    trust: TrustFile
    max_skew_sec: float

    def case(self, slo: Slo) -> Case:
        """What a verdict on ``slo`` must be about."""
        return Case(
            phase=self.phase,
            target=self.target,
            evidence_sha256=self.evidence.sha256,
            slo=slo.stem,
            slo_sha256=slo.sha256,
            as_of=self.as_of,
        )


class Heard(NamedTuple):
    """What became of a remote judge.

    Attributes:
        judge: its numbers; or that it is in error, and why.
        signed: its verdicts; None if it is in error by our word.
    """

    judge: JudgeInput
    signed: RemoteVerdicts | None = None


class Words(NamedTuple):
    """An answer of which the signature holds, and that it answers this request.

    Attributes:
        claims: what its verdict says.
        signers: the key ids that signed it, of those that count.
        envelope: text of the verdict, as a bundle keeps it.
        numbers: text of what the judge computed.
    """

    claims: VerdictClaims
    signers: list[str]
    envelope: str
    numbers: str


def failed(judge: str, reason: str) -> Heard:
    """The judge ``judge``, in error because of ``reason``."""
    return Heard(JudgeInput(id=judge, source="remote", state="error", reason=shown(reason, 1000)))


def hear(judge: str, answers: Mapping[str, Exchange], asked: Inquiry) -> Heard:
    """What ``judge`` says, by its answers on every SLO; in error if anything is wrong with one."""
    try:
        return _believed(judge, answers, asked)
    except (RefusedVerdict, DecisionOSError) as fault:
        return failed(judge, str(fault))
    except Exception as fault:  # noqa: BLE001 - whatever a host answers, the gate goes on without it
        return failed(judge, f"its answer cannot be used: {type(fault).__name__}")


def _believed(judge: str, answers: Mapping[str, Exchange], asked: Inquiry) -> Heard:
    said = {slo.stem: words_of(judge, answers[slo.stem], asked, slo) for slo in asked.slos}
    for stem, words in said.items():
        _check_time(words.claims, answers[stem], asked.max_skew_sec, stem)
    texts = {words.numbers for words in said.values()}
    if len(texts) != 1:
        raise RefusedVerdict("other_numbers", "its answers are made from different numbers")
    (numbers,) = texts
    own = _numbers(judge, numbers)
    jury = Jury(asked.evidence.blocks, asked.evidence.file, [own], seal=asked.seal, now=asked.as_of)
    for slo in asked.slos:
        faults = verdicts.ballot_faults(
            said[slo.stem].claims,
            ballot_of(own, jury, slo, asked.as_of),
            slo_sha256=slo.sha256,
            blocks=own.blocks,
        )
        if faults:
            more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
            words_ = f"{'; '.join(faults[:3])}{more}"
            raise RefusedVerdict(
                "different", f"its verdict on {slo.stem} is not judged so: {words_}"
            )
    common = set.intersection(*(set(words.signers) for words in said.values()))
    if not common:
        raise RefusedVerdict("other_key", "its verdicts are signed with different keys")
    signed = RemoteVerdicts(
        keyid=min(common),
        numbers=numbers,
        verdicts={stem: words.envelope for stem, words in said.items()},
    )
    return Heard(own, signed)


def words_of(judge: str, answer: Exchange, asked: Inquiry, slo: Slo) -> Words:
    """The answer of ``judge`` on ``slo``, if it is signed by it, about this, and for this request.

    Raises:
        RefusedVerdict: it is not.
        UnusableInputError: it is no answer.
    """
    name = f"its verdict on {slo.stem}"
    made = strict_model(Answer, answer.body, f"its answer on {slo.stem}", max_bytes=MAX_ANSWER)
    text = strict_json.dumps(made.verdict)
    envelope, claims = verdicts.parse(text.encode(), name)
    try:
        signers = verdicts.checked_signers(envelope, claims, asked.trust, asked.target, judge)
        verdicts.check_about(claims, judge, asked.case(slo), made.numbers.encode())
    except RefusedVerdict as fault:
        raise RefusedVerdict(fault.cause, f"{name} {fault.words}") from None
    if claims.nonce != answer.nonce:
        raise RefusedVerdict("other_request", f"{name} answers another request")
    return Words(claims, signers, text, made.numbers)


def _check_time(claims: VerdictClaims, answer: Exchange, skew_sec: float, slo: str) -> None:
    """The judge's own clock must say that it judged while we waited: else it is wrong, or it is old."""
    skew = timedelta(seconds=skew_sec)
    if not answer.sent - skew <= claims.judged_at <= answer.received + skew:
        late = claims.judged_at > answer.received
        off = claims.judged_at - answer.received if late else answer.sent - claims.judged_at
        words = f"{off.total_seconds():,.3g} s {'after it came' if late else 'before it was asked'}"
        raise RefusedVerdict(
            "stale",
            f"its verdict on {slo} says it was judged {words}: its clock or ours is wrong, or it is old",
        )


def _numbers(judge: str, text: str) -> JudgeInput:
    made = strict_model(JudgeInput, text.encode(), "its numbers", max_bytes=MAX_ANSWER)
    if made.id != judge or made.source != "remote":
        raise UnusableInputError(
            "not those of this judge", file="its numbers", found=f"{made.id}, {made.source}"
        )
    if len(made.reason) > MAX_REASON or len(made.logs) > MAX_LOGS:
        raise UnusableInputError("too long", file="its numbers")
    return made
