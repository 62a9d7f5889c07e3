"""Files → ``GateInputs``: the gate, the evidence, the SLOs, and what each judge's source says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from os.path import realpath
from typing import TYPE_CHECKING, Any

from pytest_decisionos.errors import UsageError, shown
from pytest_decisionos.hookspecs import SourceRequest, added, answers
from pytest_decisionos.judge.decide import GatedSlo, GateInputs, JudgeInput
from pytest_decisionos.judge.gate import (
    Gate,
    JudgeConfig,
    PhaseSlo,
    load_gate,
    load_labels,
    parse_quorum,
    strictest,
)
from pytest_decisionos.judge.logs import ask_log
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.decision import InputFile
from pytest_decisionos.model.evidence import read_evidence
from pytest_decisionos.model.policy import Quorum
from pytest_decisionos.model.seal import Seal
from pytest_decisionos.slo.compile import expand_globs, load_slo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.judge.decide import RemoteVerdicts
    from pytest_decisionos.judge.gate import LabelFile
    from pytest_decisionos.judge.heard import Heard
    from pytest_decisionos.model.evidence import Evidence
    from pytest_decisionos.model.outcome import Outcome
    from pytest_decisionos.model.policy import Rule, Slo
    from pytest_decisionos.settings import Settings
    from pytest_decisionos.trust.keys import KeyRing


@dataclass(frozen=True)
class Request:
    """What is to be judged.

    Attributes:
        root: root folder of the target.
        gate: gate.yaml.
        phase: its phase.
        evidence: evidence document; None means ``<root>/evidence/latest.json``.
        more_slos: SLO files or globs beside the phase's.
        only_slo: judge this SLO alone (``dosctl judge quorum``).
        judges: the judges to ask; the others abstain. Empty means all.
        quorum: ``k/n`` to demand at least; empty means what the files say.
        ring: the HMAC keys; None where none are configured.
        settings: the trust file, keys and certificates that remote judges are asked with; None
            means what the environment says.
        now: the time of the decision.
    """

    root: Path
    gate: Path
    phase: str
    now: datetime
    evidence: Path | None = None
    more_slos: tuple[str, ...] = ()
    only_slo: Path | None = None
    judges: tuple[str, ...] = ()
    quorum: str = ""
    ring: KeyRing | None = None
    settings: Settings | None = None

    @property
    def evidence_file(self) -> Path:
        """The evidence document that is judged."""
        return self.evidence or self.root / "evidence" / "latest.json"

    @cached_property
    def loaded_gate(self) -> Gate:
        """gate.yaml, read once: whoever asks during one judging sees the same file.

        Raises:
            PolicyError: it cannot be used.
        """
        return load_gate(self.gate)


def gather(request: Request, *, progress: Callable[[float, str], None] | None = None) -> GateInputs:
    """Read everything that the decision needs, and let each judge compute its own numbers.

    Args:
        request: what is to be judged.
        progress: is told how far the remote judges are: a share of 1, and in words.

    Raises:
        DecisionOSError: gate.yaml, labels.json, an SLO file or the evidence cannot be used, or the
            options contradict the gate; or a judge is remote, and no trust file or no key for
            requests is configured. A judge whose source fails, or that cannot be reached or
            believed, is in error, by name, and raises nothing.
    """
    gate = request.loaded_gate
    judges = [*gate.spec.judges, *_added_judges()]
    _check_judges(request, judges, gate)
    slos = _slos(request, gate, len(judges))
    labels = load_labels(request.gate.parent / "labels.json")
    evidence = read_evidence(request.evidence_file)
    rules = [rule for gated in slos for rule in gated.slo.rules]
    seal = _seal(evidence.blocks, request)
    remote = [judge for judge in judges if judge.url is not None and _is_asked(judge, request)]
    heard: dict[str, Heard] = {}
    if remote:
        from pytest_decisionos.judge.remote import ask_judges  # noqa: PLC0415 - loads urllib3

        compiled = [gated.slo for gated in slos]
        heard = ask_judges(remote, request, evidence, compiled, seal, progress=progress)
    return assemble(
        gate,
        request.phase,
        slos,
        labels,
        evidence,
        seal=seal,
        judges=[
            heard[judge.id].judge
            if judge.id in heard
            else _ask(judge, request, evidence.blocks, rules)
            for judge in judges
        ],
        remote={judge: one.signed for judge, one in heard.items() if one.signed is not None},
        now=request.now,
        notes=(
            "unsigned, a dry-run until it is signed"
            + (
                ": digests are checked, no MAC and no signature"
                if seal.state == "unchecked"
                else ""
            ),
        ),
    )


def assemble(
    gate: Gate,
    phase: str,
    slos: Sequence[GatedSlo],
    labels: LabelFile,
    evidence: Evidence,
    *,
    seal: Seal,
    judges: Sequence[JudgeInput],
    now: datetime,
    remote: Mapping[str, RemoteVerdicts] | None = None,
    checks: Sequence[Outcome] = (),
    notes: Sequence[str] = (),
) -> GateInputs:
    """What was read, and what others found, as the inputs of one decision.

    Raises:
        UsageError: gate.yaml has no such phase.
    """
    return GateInputs(
        phase=phase,
        target=gate.target,
        gate=InputFile(file=gate.file, sha256=gate.sha256),
        evidence=InputFile(file=evidence.file, sha256=evidence.sha256),
        blocks=evidence.blocks,
        seal=seal,
        max_evidence_age_sec=gate.spec.max_evidence_age_sec,
        require_blocks=gate.phase(phase).require_blocks,
        harvest=gate.spec.harvest,
        slos=tuple(slos),
        judges=tuple(judges),
        remote=dict(remote or {}),
        checks=tuple(checks),
        labels=labels,
        now=now,
        notes=tuple(notes),
    )


def _seal(blocks: Mapping[str, Any], request: Request) -> Seal:
    """What the MAC proves here: nothing where no key serves evidence.

    So a host that runs pytest may be given a ring with a key for requests alone, which can seal
    nothing; the judges check the MAC with theirs, and only the signer makes authority.
    """
    if request.ring is None or not request.ring.of("evidence"):
        return Seal()
    from pytest_decisionos.evidence.seal import check  # noqa: PLC0415 - only with keys

    return check(blocks, request.ring, now=request.now)


def _added_judges() -> list[JudgeConfig]:
    made: list[JudgeConfig] = []
    for who, answer in answers("decisionos_judges"):
        if not isinstance(answer, list) or not all(isinstance(j, JudgeConfig) for j in answer):
            what = f"decisionos_judges of {who} is wrong"
            raise UsageError(what, found=answer, expected="a list of JudgeConfig")
        made += answer
    return made


def _check_judges(request: Request, judges: Sequence[JudgeConfig], gate: Gate) -> None:
    ids = [judge.id for judge in judges]
    twice = {i for i in ids if ids.count(i) > 1}
    if twice:
        raise UsageError("two judges have one id", file=gate.file, field="judges", found=min(twice))
    for name in request.judges:
        if name not in ids:
            raise UsageError(
                "no such judge", file=gate.file, field="judges", found=name, expected=", ".join(ids)
            )
    known = {"evidence", "log", *added("decisionos_sources")} - {"remote"}
    for judge in judges:
        if judge.url is not None and judge not in gate.spec.judges:
            # A verifier knows from gate.yaml alone which judges are on other hosts.
            raise UsageError(
                "a judge on another host must stand in gate.yaml, not be added by a package",
                file=gate.file,
                field="judges",
                found=judge.id,
            )
        if judge.source not in known:
            raise UsageError(
                f"judge {judge.id} has a source that no installed package adds",
                file=gate.file,
                field="judges",
                found=judge.source,
                expected=", ".join(sorted(known)),
            )


def _slos(request: Request, gate: Gate, judges: int) -> list[GatedSlo]:
    """The SLOs to judge, each with the strictest quorum that anyone states for it."""
    folder = request.gate.parent
    # Not Path.resolve, which raises at a link that leads to itself; to read it says what is wrong.
    listed = {realpath(folder / slo.file): slo for slo in gate.phase(request.phase).slo_files()}
    if request.only_slo is not None:
        files = [request.only_slo]
    else:
        files = [folder / slo.file for slo in listed.values()]
        files += [path for path in expand_globs(request.more_slos) if realpath(path) not in listed]
    stems: dict[str, Path] = {}
    made: list[GatedSlo] = []
    for path in files:
        slo = load_slo(path)
        if slo.stem in stems:
            raise UsageError(
                "two SLO files have one name", found=slo.stem, field=f"{stems[slo.stem]}, {path}"
            )
        stems[slo.stem] = path
        made.append(
            GatedSlo(
                slo=slo,
                quorum=quorum_of(
                    slo, listed.get(realpath(path)), gate, judges, asked=request.quorum
                ),
            )
        )
    return sorted(made, key=lambda gated: gated.slo.stem)


def quorum_of(
    slo: Slo, listed: PhaseSlo | None, gate: Gate, judges: int, *, asked: str = ""
) -> Quorum:
    """The strictest quorum that anyone states for ``slo``.

    Args:
        slo: may state one.
        listed: its entry in the phase, which may state one.
        gate: may state one for all.
        judges: how many there are.
        asked: ``k/n`` of a flag, which may only tighten it.

    Raises:
        UsageError: somebody's n is not the number of judges, or ``asked`` loosens it.
    """
    stated: list[tuple[str, Quorum]] = []
    for who, text in (
        (f"{gate.file}: quorum", gate.spec.quorum),
        (f"{gate.file}: {slo.stem}", listed.quorum if listed else None),
    ):
        if text is not None:
            k, n = parse_quorum(text)
            stated.append((who, Quorum(k=k, n=n)))
    if slo.quorum is not None:
        stated.append((slo.file, slo.quorum))
    if asked:
        k, n = parse_quorum(asked)
        floor = max((quorum.k for _, quorum in stated), default=1)
        if k < floor:
            raise UsageError(
                f"the quorum of {slo.stem} may only be tightened",
                field="--quorum",
                found=asked,
                expected=f"at least {floor}/{judges}",
            )
        stated.append(("--quorum", Quorum(k=k, n=n)))
    return strictest(stated, judges)


def _is_asked(judge: JudgeConfig, request: Request) -> bool:
    return not request.judges or judge.id in request.judges


def _ask(
    judge: JudgeConfig, request: Request, blocks: Mapping[str, Any], rules: Sequence[Rule]
) -> JudgeInput:
    """Let one judge look at its source."""
    if not _is_asked(judge, request):
        source = judge.source if judge.url is None else "remote"
        return JudgeInput(
            id=judge.id, source=source, state="absent", reason="was not asked (--judges)"
        )
    if judge.source == "evidence":
        return JudgeInput(id=judge.id, source=judge.source)
    if judge.source == "log":
        return ask_log(judge, request.root, blocks, rules)
    try:
        ask = added("decisionos_sources")[judge.source]
        own = ask(SourceRequest(judge.id, judge.params, request.root, blocks))
        # Read as strictly as the evidence: what is no JSON value would not reach every worker.
        own = own if own is None else strict_json.loads(json.dumps(own).encode())
        made = JudgeInput(id=judge.id, source=judge.source, blocks={} if own is None else own)
    except KeyboardInterrupt:
        raise
    except BaseException as fault:  # noqa: BLE001 - another package's code; even SystemExit is an error vote
        reason = (
            f"its source {judge.source} raised {type(fault).__name__}: {shown(str(fault), 200)}"
        )
        return JudgeInput(id=judge.id, source=judge.source, state="error", reason=reason)
    if own is None:
        return JudgeInput(
            id=judge.id,
            source=judge.source,
            state="absent",
            reason="its source has nothing to look at",
        )
    return made
