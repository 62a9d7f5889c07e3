"""gate.yaml: per phase its SLOs, quorum, checks and required blocks; the judges; the target."""

from __future__ import annotations

import hashlib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from pytest_decisionos.errors import PolicyError, UsageError
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.policy import Quorum
from pytest_decisionos.model.policy_text import read_policy
from pytest_decisionos.model.target import Target
from pytest_decisionos.model.validate import validate

Name = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


def _no_null(text: str) -> str:
    if "\0" in text:
        raise ValueError("has a null character, which no name of a file has")
    return text


FileName = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=4096), AfterValidator(_no_null)
]
KofN = Annotated[str, StringConstraints(strict=True, pattern=r"^[1-9][0-9]?/[1-9][0-9]?$")]


class JudgeConfig(Frozen):
    """A judge: its name, and the source that it looks at, or where it is asked.

    Attributes:
        id: its name.
        source: ``evidence`` (the sealed numbers), ``log`` (recomputed), or the name of a source
            that another package adds.
        path: for ``log``: a log of the same traffic, relative to the root folder; without it the
            judge reads the very log that the evidence names.
        params: for another package's source.
        url: of a judge on another host, which has a source of its own: ``https://judge-1:8443``,
            to which ``/judge`` is added. Its public key stands in the trust file.
        timeout_sec: how long a remote judge may take to answer all that it is asked.
    """

    id: Name
    source: Name = "log"
    path: FileName | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    url: (
        Annotated[
            str,
            StringConstraints(
                strict=True,
                pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?$",
                max_length=2048,
            ),
        ]
        | None
    ) = None
    timeout_sec: Annotated[float, Field(strict=True, gt=0, le=120, allow_inf_nan=False)] = 10.0

    @model_validator(mode="after")
    def _either_here_or_there(self) -> JudgeConfig:
        if self.url is not None and self.model_fields_set & {"source", "path", "params"}:
            raise ValueError("url: a remote judge has its own source; give url alone")
        return self


class PhaseSlo(Frozen):
    """An SLO of a phase, and the quorum that the phase asks for."""

    file: FileName
    quorum: KofN | None = None


class CheckConfig(Frozen):
    """A check of a phase, with its parameters."""

    name: Name
    params: dict[str, Any] = Field(default_factory=dict)


class Approval(Frozen):
    """Steps that people have to approve.

    Attributes:
        from_pct: steps to this share of traffic or more, in percent; 100 is promote.
        count: so many deploy owners, each with a key of their own.
    """

    from_pct: Annotated[float, Field(strict=True, ge=0, le=100, allow_inf_nan=False)] = 25.0
    count: Annotated[int, Field(strict=True, ge=1, le=10)] = 1


class Phase(Frozen):
    """What one phase of a release must pass; with ``approval``, who must agree besides."""

    slos: Annotated[tuple[FileName | PhaseSlo, ...], Field(min_length=1, max_length=1000)]
    checks: Annotated[tuple[CheckConfig | Name, ...], Field(max_length=100)] = ()
    require_blocks: Annotated[tuple[Name, ...], Field(max_length=100)] = (
        "meta",
        "perf",
        "integrity",
    )
    approval: Approval | None = None

    def slo_files(self) -> list[PhaseSlo]:
        """The SLOs, each spelled out."""
        return [PhaseSlo(file=slo) if isinstance(slo, str) else slo for slo in self.slos]

    def check_list(self) -> list[CheckConfig]:
        """The checks, each spelled out."""
        return [CheckConfig(name=c) if isinstance(c, str) else c for c in self.checks]


DEFAULT_JUDGES = (
    JudgeConfig(id="evidence", source="evidence"),
    JudgeConfig(id="witness"),
    JudgeConfig(id="peer", path="log/lb.csv"),
)


class HarvestLimits(Frozen):
    """What evidence may leave out of a log.

    Attributes:
        filters: ``COLUMN=GLOB`` texts allowed beside the ones that leave out health checks and
            mirrored requests.
        max_bad_rows: unreadable rows tolerated in each log.
    """

    filters: Annotated[tuple[FileName, ...], Field(max_length=100)] = ()
    max_bad_rows: Annotated[int, Field(strict=True, ge=0, le=100_000)] = 0


class GateFile(Frozen):
    """A whole gate.yaml.

    Attributes:
        version: of this format.
        target: what is released where.
        max_evidence_age_sec: how old evidence may be, seconds from the end of its window.
        harvest: what it may leave out of its logs.
        quorum: ``k/n`` for every SLO at least.
        judges: who votes.
        judges_timeout_sec: how long all remote judges together may take, seconds. A verifier takes no
            verdict that came more than 300 s after the decision's time.
        phases: what each phase must pass.
    """

    version: Literal[1] = 1
    target: Target
    max_evidence_age_sec: Annotated[
        float, Field(strict=True, gt=0, le=7 * 86_400, allow_inf_nan=False)
    ] = 900.0
    harvest: HarvestLimits = HarvestLimits()
    quorum: KofN | None = None
    judges: Annotated[tuple[JudgeConfig, ...], Field(min_length=1, max_length=99)] = DEFAULT_JUDGES
    judges_timeout_sec: Annotated[float, Field(strict=True, gt=0, le=240, allow_inf_nan=False)] = (
        30.0
    )
    phases: Annotated[
        dict[Literal["preflight", "cutover", "post", "drill"], Phase], Field(min_length=1)
    ]

    @model_validator(mode="after")
    def _names_once(self) -> GateFile:
        ids = [judge.id for judge in self.judges]
        if len(set(ids)) != len(ids):
            raise ValueError("judges: each needs an id of its own")
        for judge in self.judges:
            if judge.url is None and judge.source == "remote":
                raise ValueError(f"judges: {judge.id} is remote, and has no url")
            if judge.path is not None and (
                Path(judge.path).is_absolute() or ".." in Path(judge.path).parts
            ):
                raise ValueError(f"judges: the log of {judge.id} must lie under the root folder")
        return self


class Gate(Frozen):
    """gate.yaml as read: its content, where it lies, and the digest of its bytes."""

    file: str
    sha256: str
    spec: GateFile

    @property
    def target(self) -> Target:
        """What this gate is for."""
        return self.spec.target

    def phase(self, name: str) -> Phase:
        """The phase ``name``.

        Raises:
            UsageError: gate.yaml has no such phase.
        """
        for known, phase in self.spec.phases.items():
            if known == name:
                return phase
        known_names = ", ".join(self.spec.phases)
        raise UsageError(
            "no such phase", file=self.file, field="phases", found=name, expected=known_names
        )


def load_gate(path: Path) -> Gate:
    """Read gate.yaml.

    Raises:
        PolicyError: it is missing, or not what it should be.
    """
    document, data = read_policy(
        path, next_step="write one with `dosctl init`, or name it with --gate"
    )
    return make_gate(document, data, path)


def make_gate(document: object, data: bytes, path: Path) -> Gate:
    """gate.yaml that was read already.

    Args:
        document: its value.
        data: its bytes; for the digest, and for the lines that errors name.
        path: where it was read from.

    Raises:
        PolicyError: it is not what it should be.
    """
    spec = validate(GateFile, document, path, data)
    return Gate(file=str(path), sha256=hashlib.sha256(data).hexdigest(), spec=spec)


def parse_quorum(text: str) -> tuple[int, int]:
    """``k/n`` as numbers.

    Raises:
        UsageError: it is not of that form, or k is more than n.
    """
    k, slash, n = text.partition("/")
    digits = k.isascii() and n.isascii() and k.isdigit() and n.isdigit() and len(text) <= 5
    if not slash or not digits or not 1 <= int(k) <= int(n) <= 99:
        raise UsageError(
            "not a quorum", found=text, expected="k/n with 1 <= k <= n <= 99, such as 2/3"
        )
    return int(k), int(n)


def strictest(stated: list[tuple[str, Quorum]], judges: int) -> Quorum:
    """The quorum that satisfies everyone who states one; 2/3 of the judges where nobody does.

    Args:
        stated: who says so (for the error) and what.
        judges: how many judges are configured.

    Raises:
        UsageError: somebody's n is not the number of judges.
    """
    for who, quorum in stated:
        if quorum.n != judges:
            raise UsageError(
                f"{who} asks for a quorum of {quorum}, and {judges} judges are configured",
                field="quorum",
                expected=f"n = {judges}",
                next_step="list the judges in gate.yaml",
            )
    # Two thirds, rounded up: the runbook's 2/3, for any n.
    k = max((quorum.k for _, quorum in stated), default=-(-2 * judges // 3))
    return Quorum(
        k=k, n=judges, fail_closed_on_degrade=any(q.fail_closed_on_degrade for _, q in stated)
    )


class _Label(Frozen):
    group: str
    color: str
    description: str


class _LabelGroup(Frozen):
    weight: Annotated[float, Field(ge=0, le=1)]
    color: str
    description: str


class LabelFile(Frozen):
    """labels.json: the labels, and which reason codes get which (glob → label, first match)."""

    version: str
    groups: dict[str, _LabelGroup]
    labels: dict[str, _Label]
    reasons: dict[str, str]

    @model_validator(mode="after")
    def _known(self) -> LabelFile:
        for pattern, label in self.reasons.items():
            if label not in self.labels:
                raise ValueError(f"reasons: {pattern} maps to {label}, which is not a label")
        if "*" not in self.reasons:
            raise ValueError(
                "reasons: a last pattern * is needed, so that every reason has a label"
            )
        return self

    def label_of(self, code: str) -> str:
        """The label of reason code ``code``."""
        return next(label for pattern, label in self.reasons.items() if fnmatchcase(code, pattern))


def load_labels(path: Path) -> LabelFile:
    """Read labels.json.

    Raises:
        PolicyError: it is missing, or not what it should be.
    """
    document, data = strict_json.read(path, error=PolicyError, max_bytes=1024 * 1024)
    return validate(LabelFile, document, path, data)
