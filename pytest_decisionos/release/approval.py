"""Signatures of people: a deploy owner's approval of one decision, and two operators' override of all."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError

from pytest_decisionos.errors import DecisionOSError, RefusedError, UnusableInputError, shown
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.outcome import Outcome, Status
from pytest_decisionos.model.statement import Hex, Statement, descriptor, parse_statement
from pytest_decisionos.model.target import Target
from pytest_decisionos.model.validate import first_fault
from pytest_decisionos.release.here import CLOCKS
from pytest_decisionos.trust import dsse
from pytest_decisionos.trust.files import write_new
from pytest_decisionos.trust.trustfile import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.judge.gate import Approval
    from pytest_decisionos.model.statement import DecisionClaims
    from pytest_decisionos.trust.ed25519 import PrivateKey
    from pytest_decisionos.trust.trustfile import Role, TrustFile

FOLDER: Final = "gate/approval"
OVERRIDES: Final = "gate/override"
APPROVAL: Final = "urn:decisionos:approval:v1"
OVERRIDE: Final = "urn:decisionos:override:v1"
MAX_FILES: Final = 100
MAX_BYTES: Final = 64 * 1024
Reason = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1000)]


class ApprovalClaims(Frozen):
    """What a deploy owner signs; the decision's digest is the statement's subject.

    Attributes:
        decision_id: the decision's name.
        target: what is released where.
        release: the release.
        from_pct: per cent of the traffic that it has.
        to_pct: per cent that it may have next.
        approved_at: when, by the clock of who signed.
    """

    decision_id: str
    target: Target
    release: str | None
    from_pct: float | None
    to_pct: float | None
    approved_at: AwareDatetime


class OverrideClaims(Frozen):
    """What two operators sign: that this change is made without a GO.

    Attributes:
        target: what is released where.
        stage_sha256: of the stage that is changed; None where there is none.
        release: the release.
        from_pct: per cent of the traffic that it has.
        to_pct: per cent that it gets.
        reason: why, in their words.
        at: when.
    """

    target: Target
    stage_sha256: Hex | None
    release: str | None
    from_pct: float
    to_pct: Annotated[float, Field(ge=0, le=100)]
    reason: Reason
    at: AwareDatetime


def _payload(digest: str, name: str, kind: str, claims: Frozen) -> bytes:
    return Statement.model_validate(
        {
            "subject": (descriptor(digest, name=name),),
            "predicateType": kind,
            "predicate": claims.model_dump(mode="json"),
        }
    ).payload()


def approve(
    root: Path,
    claims: DecisionClaims,
    decision_sha256: str,
    key: PrivateKey,
    trust: TrustFile,
    *,
    now: datetime,
) -> Path:
    """Write a deploy owner's approval of a decision, beside its bundle.

    Raises:
        RefusedError: the key is not a deploy owner's for this target now, or has approved already.
        UsageError: it cannot be written.
    """
    fault = _refusal(trust, key.keyid, "deploy-owner", claims.target, now)
    if fault is not None:
        raise RefusedError(
            f"not an approval that would count: the key {fault[1]}",
            field=f"release.approval:{fault[0]}",
            found=key.keyid,
        )
    said = ApprovalClaims(
        decision_id=claims.decision_id,
        target=claims.target,
        release=claims.release,
        from_pct=claims.from_pct,
        to_pct=claims.to_pct,
        approved_at=now,
    )
    payload = _payload(decision_sha256, claims.decision_id, APPROVAL, said)
    path = root / FOLDER / f"{claims.decision_id}.{key.keyid[:16]}.dsse.json"
    if not write_new(path, dsse.sign(payload, [key])):
        raise RefusedError("this key has approved this decision already", file=path)
    return path


def approval(
    root: Path,
    wanted: Approval | None,
    claims: DecisionClaims,
    decision_sha256: str,
    trust: TrustFile,
    *,
    now: datetime,
) -> Outcome:
    """Whether those approved the decision whom gate.yaml asks for: ``release.approval``."""
    to_pct = 100.0 if claims.to_pct is None else claims.to_pct
    if wanted is None or to_pct < wanted.from_pct:
        return _say(None, "gate.yaml asks for none of this step")
    good: set[str] = set()
    wrong: list[tuple[str, str]] = []
    for path in _files(root / FOLDER, claims.decision_id):
        signers, fault = _signers(path, claims, decision_sha256, trust, now)
        good.update(signers)
        wrong += [fault] if fault else []
    told = f"{len(good)} of {wanted.count} deploy owners approved it"
    if len(good) >= wanted.count:
        return _say(None, told)
    if wrong:
        return _say(wrong[0][0], f"{told}; {wrong[0][1]}")
    return _say("missing", f"{told}: dosctl release approve {claims.decision_id} --key FILE")


def _say(cause: str | None, message: str) -> Outcome:
    status = Status.SUCCESSFUL if cause is None else Status.FAILED
    return Outcome(id="release.approval", status=status, cause=cause, message=message)


def _files(folder: Path, decision_id: str) -> Iterator[Path]:
    try:
        found = sorted(path for path in folder.iterdir() if path.name.startswith(f"{decision_id}."))
    except (OSError, ValueError):
        return
    yield from found[:MAX_FILES]


def _signers(
    path: Path, claims: DecisionClaims, decision_sha256: str, trust: TrustFile, now: datetime
) -> tuple[list[str], tuple[str, str] | None]:
    """Who approves by the file at ``path``; or cause and words of why it counts for nothing."""
    name = shown(path.name, 200)
    try:
        data = strict_json.read_bytes(path, max_bytes=MAX_BYTES)
        envelope = dsse.parse(data, path)
        statement = parse_statement(envelope.payload, APPROVAL, path)
        said = ApprovalClaims.model_validate(statement.predicate)
    except (DecisionOSError, ValidationError) as fault:
        return [], ("unreadable", f"{name}: {shown(str(fault), 300)}")
    about = [one.digest.get("sha256") for one in statement.subject]
    if about != [decision_sha256] or envelope.payload_type != dsse.IN_TOTO:
        return [], ("other_decision", f"{name} is about another decision")
    if said.approved_at > now + CLOCKS:
        return [], ("out_of_range", f"{name} is of the future")
    usable = trust.usable("deploy-owner", claims.target, now)
    signers = dsse.signers(envelope, usable)
    if signers:
        return signers, None
    cause, words = trust.why_not(envelope, "deploy-owner", claims.target, now)
    return [], (cause, f"{name} {words}")


def _refusal(
    trust: TrustFile, keyid: str, role: Role, target: Target, now: datetime
) -> tuple[str, str] | None:
    key = trust.key(keyid)
    if key is None:
        return "unknown_key", "is not in the trust file"
    return refusal(key, role, target, now)


class Override(NamedTuple):
    """Two operators who let a change pass without a GO, and why.

    Attributes:
        keys: theirs.
        reason: in their words.
    """

    keys: tuple[PrivateKey, ...]
    reason: str

    def outcome(self, trust: TrustFile, target: Target, now: datetime) -> Outcome:
        """Whether they may: ``release.override``."""

        def say(cause: str | None, message: str) -> Outcome:
            status = Status.SUCCESSFUL if cause is None else Status.FAILED
            return Outcome(id="release.override", status=status, cause=cause, message=message)

        for key in self.keys:
            fault = _refusal(trust, key.keyid, "operator", target, now)
            if fault is not None:
                return say(fault[0], f"the key {key.keyid[:16]}… {fault[1]}")
        if len({key.keyid for key in self.keys}) < 2:
            return say("too_few", "two operators must agree, each with a key of their own")
        return say(None, f"by two operators, instead of a GO: {self.reason}")

    @property
    def keyids(self) -> tuple[str, ...]:
        """Who they are."""
        return tuple(key.keyid for key in self.keys)

    def sign(self, root: Path, **claims: Any) -> Path:
        """Write down what they sign.

        Args:
            root: root folder of the target.
            claims: of ``OverrideClaims``, without the reason.

        Raises:
            UsageError: it cannot be written.
            UnusableInputError: the reason is none that can be written.
        """
        try:
            said = OverrideClaims.model_validate({**claims, "reason": self.reason})
        except ValidationError as fault:
            raise UnusableInputError(first_fault(fault).words, field="--reason") from None
        name = f"{said.at.astimezone(UTC):%Y%m%dT%H%M%S%fZ}.dsse.json"
        digest = said.stage_sha256 or "0" * 64
        payload = _payload(digest, "rollout/stage.json", OVERRIDE, said)
        path = root / OVERRIDES / name
        if not write_new(path, dsse.sign(payload, self.keys)):
            raise RefusedError("an override of this very moment is there", file=path)
        return path
