"""The decision that shall allow a change: which one it is, and whether it holds here and now."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import DecisionOSError, EvidenceError, UsageError, shown
from pytest_decisionos.evidence import bundle
from pytest_decisionos.judge.bundled import policy_digest
from pytest_decisionos.judge.sign import first_fault, veto_of
from pytest_decisionos.judge.verify import verify_bundle
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.decision import Decision, Verdict
from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.model.outcome import Outcome, Status, quantity
from pytest_decisionos.model.statement import parse_decision
from pytest_decisionos.release import audit
from pytest_decisionos.release.approval import approval
from pytest_decisionos.release.canary_policy import load_policy
from pytest_decisionos.release.here import LATEST
from pytest_decisionos.slo.compile import load_slo
from pytest_decisionos.trust import dsse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_decisionos.judge.gate import Gate
    from pytest_decisionos.model.policy import Slo
    from pytest_decisionos.model.statement import DecisionClaims
    from pytest_decisionos.release.here import Here
    from pytest_decisionos.release.stage_model import Reading
    from pytest_decisionos.trust.trustfile import TrustFile

FOLDER: Final = "gate/bundle"
CUTOVER: Final = "cutover"
POST: Final = "post"
_OWN: Final = {"bundle.signature": "signature", "bundle.expiry": "age"}
"""Findings of the verifier that are conditions of their own here."""


class Findings:
    """Conditions as they are asked, each an outcome ``release.<condition>``."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def say(
        self, condition: str, fault: tuple[str, str] | None, good: str, *, unread: bool = False
    ) -> bool:
        """Note a condition: cause and words of why it does not hold, or that it does."""
        cause, message = (None, good) if fault is None else fault
        bad = Status.ERROR if unread else Status.FAILED
        self.outcomes.append(
            Outcome(
                id=f"release.{condition}",
                status=Status.SUCCESSFUL if fault is None else bad,
                cause=cause,
                message=message,
            )
        )
        return fault is None

    def cannot(self, condition: str, fault: DecisionOSError) -> None:
        """Note that a condition could not be asked: that is never a yes."""
        self.say(condition, ("unreadable", str(fault)), "", unread=True)

    @property
    def clean(self) -> bool:
        """Whether all hold so far."""
        return all(one.status is Status.SUCCESSFUL for one in self.outcomes)


class Found(NamedTuple):
    """A decision as its bundle holds it.

    Attributes:
        files: the bundle.
        claims: what it says; nothing of that is believed before it is verified.
        sha256: of the payload that is signed. A signature more makes no other decision.
    """

    files: Mapping[str, bytes]
    claims: DecisionClaims
    sha256: str


class Wanted(NamedTuple):
    """What a decision must be about.

    Attributes:
        phase: of gate.yaml.
        release: the release.
        baseline: the baselines that it may have been compared with.
        from_pct: per cent of the traffic that it has.
        to_pct: per cent that it may have next.
    """

    phase: str
    release: str | None
    baseline: tuple[str | None, ...]
    from_pct: float
    to_pct: float


def read_decision(folder: Path) -> Found:
    """The decision in a bundle.

    Raises:
        DecisionOSError: it is none.
    """
    files = bundle.read_bundle(folder)
    if bundle.DECISION not in files:
        raise EvidenceError("has no decision", file=folder / bundle.DECISION)
    payload = dsse.parse(files[bundle.DECISION], bundle.DECISION).payload
    claims = parse_decision(payload, bundle.DECISION).claims
    return Found(files, claims, hashlib.sha256(payload).hexdigest())


def find(root: Path, name: str, phase: str) -> Path:
    """The bundle that is meant: by path, by decision id, or ``latest``.

    ``latest`` is the newest of this phase, whatever it says: after a NO-GO, the GO before it is not
    looked for. One that cannot be read counts too.

    Raises:
        UsageError: there is none, or the name is none.
    """
    folder = root / FOLDER
    if name != LATEST:
        given = Path(name)
        if not given.name:
            raise UsageError("names no decision", found=name, expected="a folder, an ID, or latest")
        return given if os.path.lexists(given) or given.name != name else folder / name
    for one in sorted(_folders(folder), reverse=True):
        try:
            if read_decision(one).claims.phase != phase:
                continue
        except DecisionOSError:
            pass
        return one
    raise UsageError(
        f"no decision of phase {phase}", file=folder, next_step="sign one: dosctl decision sign"
    )


def _folders(folder: Path) -> Iterator[Path]:
    try:
        yield from (path for path in folder.iterdir() if not path.name.startswith("."))
    except (OSError, ValueError):
        return


def slos_of(gate: Gate, phase: str) -> list[Slo]:
    """The SLOs of a phase, as they lie on disk.

    Raises:
        DecisionOSError: one cannot be used, or gate.yaml has no such phase.
    """
    folder = Path(gate.file).parent
    return [load_slo(folder / one.file) for one in gate.phase(phase).slo_files()]


def ask_decision(
    found: Findings, here: Here, reading: Reading, gate: Gate, *, name: str, wanted: Wanted
) -> Found | None:
    """Ask every condition on the decision; returns it if it could be read.

    Args:
        found: where the outcomes go.
        here: who asks, and where everything lies.
        reading: the stage that is there.
        gate: gate.yaml as it is on disk.
        name: of the bundle; see ``find``.
        wanted: what the decision must be about.
    """
    try:
        trust = here.trust()
    except DecisionOSError as fault:
        found.cannot("trust", fault)
        return None
    try:
        made = read_decision(find(here.asked.root, name, wanted.phase))
    except UsageError as fault:
        found.say("decision", ("missing", fault.what), "")
        return None
    except DecisionOSError as fault:
        found.cannot("decision", fault)
        return None
    again = _verified(found, here, made, trust)
    _bound(found, here, reading, made, wanted)
    _unused(found, here, reading, made)
    _policy(found, here, gate, made.claims, wanted.phase)
    if again is not None:
        _veto(found, here.asked.root, made.claims, again)
    wants = gate.phase(wanted.phase).approval
    root, now = here.asked.root, here.asked.now
    found.outcomes.append(approval(root, wants, made.claims, made.sha256, trust, now=now))
    return made


def _verified(found: Findings, here: Here, made: Found, trust: TrustFile) -> Decision | None:
    """The decision as its bundle gives it again, if what the bundle holds is what was decided."""
    claims, now = made.claims, here.asked.now
    report = verify_bundle(made.files, trust, now=now, fresh=True)
    own = {one.id: one for one in report.findings if one.id in _OWN}
    rest = first_fault([one for one in report.findings if one.id not in _OWN])
    found.say(
        "decision",
        None if rest is None else (rest.cause or "", f"{rest.reason}: {rest.message}"),
        f"{claims.decision_id}, verified and judged again",
    )
    signature = own.get("bundle.signature")
    fault = "unsigned", "nobody looked at its signature"
    if signature is not None:
        fault = signature.cause or "unsigned", signature.message
    signed = signature is not None and signature.status is Status.SUCCESSFUL
    found.say("signature", None if signed else fault, "by a gate key of the trust file")
    go = claims.verdict is Verdict.GO
    word = claims.verdict.lower().replace("-", "_")
    found.say("verdict", None if go else (word, f"the decision is {claims.verdict}"), "GO")
    _age(found, here, claims, own.get("bundle.expiry"))
    return report.again if signed and rest is None else None


def _age(found: Findings, here: Here, claims: DecisionClaims, expiry: Outcome | None) -> None:
    end = parse_time(claims.evidence_window[1]) if claims.evidence_window else None
    age = None if end is None else round((here.asked.now - end).total_seconds(), 1)
    most = here.max_age_sec
    told = f"its evidence ended {quantity(age, 's')} ago, at most {quantity(most, 's')}"
    fault = None
    if age is None:
        fault = "missing", "it does not say when its evidence ended"
    elif age > most:
        fault = "expired", told
    elif expiry is not None and expiry.status is not Status.SUCCESSFUL:
        fault = expiry.cause or "expired", expiry.message
    found.say("age", fault, told)


def _bound(found: Findings, here: Here, reading: Reading, made: Found, wanted: Wanted) -> None:
    claims, target = made.claims, here.asked.target

    def say(condition: str, cause: str, is_: object, must: object, *, same: bool) -> None:
        told = f"it is about {shown(str(is_), 200)}"
        fault = None if same else (cause, f"{told}, not {shown(str(must), 200)}")
        found.say(condition, fault, told)

    say("target", "foreign_target", claims.target, target, same=claims.target == target)
    say("phase", "other_phase", claims.phase, wanted.phase, same=claims.phase == wanted.phase)
    baseline = next((one for one in wanted.baseline if one is not None), None)
    say(
        "release",
        "other_release",
        f"{claims.release} against {claims.baseline_release}",
        f"{wanted.release} against {baseline}",
        same=claims.release == wanted.release is not None
        and claims.baseline_release in wanted.baseline,
    )
    ours = wanted.from_pct, wanted.to_pct
    theirs = claims.from_pct, claims.to_pct
    told = [
        "no step" if None in step else f"{step[0]:g} → {step[1]:g} %" for step in (theirs, ours)
    ]
    say("percentage", "other_pct", *told, same=theirs == ours and ours[0] == reading.pct)


def _unused(found: Findings, here: Here, reading: Reading, made: Found) -> None:
    """A decision is for the very stage that was there when it was signed, and for one change."""
    theirs = made.claims.stage_sha256
    fault = None
    if theirs is None:
        fault = "no_stage", "it was signed where no valid stage was, and allows nothing"
    elif theirs != reading.sha256:
        fault = "used_up", "the stage has changed since it was signed: any change uses it up"
    try:
        if fault is None and audit.used(here.asked.root, made.sha256):
            fault = "used_up", "an earlier change was allowed by it"
    except DecisionOSError as broken:
        found.cannot("used", broken)
        return
    found.say("used", fault, "for the stage as it is, and not used yet")


def _policy(found: Findings, here: Here, gate: Gate, claims: DecisionClaims, phase: str) -> None:
    try:
        slos = {slo.stem: slo.sha256 for slo in slos_of(gate, phase)}
        canary = load_policy(here.policy_file) if phase == CUTOVER else None
    except DecisionOSError as fault:
        found.cannot("policy", fault)
        return
    now = policy_digest(gate.sha256, slos)
    changed = ""
    if now != claims.policy_sha256:
        changed = f"gate.yaml or an SLO of {phase} has changed since: it is {now[:16]}… now"
    elif canary is not None and claims.canary_policy_sha256 is None:
        changed = "it was signed without a canary policy: sign it anew"
    elif canary is not None and canary.sha256 != claims.canary_policy_sha256:
        changed = f"{canary.file} has changed since: it is {canary.sha256[:16]}… now"
    found.say("policy", ("changed", changed) if changed else None, "the policy on disk")


def _veto(found: Findings, root: Path, claims: DecisionClaims, again: Decision) -> None:
    """A pytest run that says no: on this window, or on a later one of this release."""
    path = root / "gate/decision.json"
    try:
        digest, why = veto_of(path, again)
    except DecisionOSError as fault:
        found.say("veto", ("unreadable", shown(str(fault), 300)), "", unread=True)
        return
    if not (digest is not None and why) and (later := _later_no(path, claims)):
        digest, why = "", later
    vetoed = digest is not None and why
    found.say("veto", ("vetoed", why) if vetoed else None, "no pytest run says no")


def _later_no(path: Path, claims: DecisionClaims) -> str:
    try:
        document, _ = strict_json.read(path)
        run = Decision.model_validate(document)
    except (DecisionOSError, ValueError):
        return ""  # none is there: what cannot be read, veto_of has told
    when = parse_time(run.decided_at)
    about = run.target, run.phase, run.release
    if about != (claims.target, claims.phase, claims.release) or run.verdict is Verdict.GO:
        return ""
    if when is None or when <= claims.issued_at:
        return ""
    return f"a later pytest run on this release says {run.verdict}"
