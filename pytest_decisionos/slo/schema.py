"""The SLO file's format: every block and field, as pydantic models (the design's "SLO files").

Numbers are strict: ``"900"`` and ``true`` are not numbers, and nothing non-finite is.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from pytest_decisionos.model.outcome import Severity
from pytest_decisionos.model.policy import GroupBy, OnInconclusive, Quorum, Waiver


class _Block(BaseModel):
    """A block of the file: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Millis = Annotated[float, Field(strict=True, gt=0, le=1e9, allow_inf_nan=False)]
Rate = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, ge=0, le=1e15, allow_inf_nan=False)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=7 * 86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, le=10**12)]
Flag = Annotated[bool, Field(strict=True)]
Word = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200)]
Words = Annotated[tuple[Word, ...], Field(max_length=100)]
RuleId = Annotated[
    str, StringConstraints(strict=True, pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100)
]
Pointer = Annotated[
    str, StringConstraints(strict=True, pattern=r"^(/([^~/]|~[01])+)+$", max_length=500)
]
Bound = (
    Annotated[float, Field(strict=True, ge=-1e15, le=1e15, allow_inf_nan=False)]
    | Flag
    | Word
    | Annotated[tuple[Word, ...], Field(min_length=1, max_length=100)]
)


class Latency(_Block):
    """Latency quantiles of ``perf``, in milliseconds."""

    max_p95_ms: Millis | None = None
    max_p99_ms: Millis | None = None
    min_samples: Count = 0


class ErrorRate(_Block):
    """Error rate of ``perf``: status ≥ 500 or 429, as a share of requests."""

    max_error_rate: Rate | None = None
    min_samples: Count = 0


class Availability(_Block):
    """Share of judge requests that were not answered with status ≥ 500."""

    min_availability: Rate | None = None


class SignatureErrors(_Block):
    """Share of judge requests whose signature was wrong."""

    max_sig_error_rate: Rate | None = None
    min_samples: Count = 0


class JudgeInfra(_Block):
    """The judges' own service, from ``perf_judge``."""

    latency: Latency = Latency()
    availability: Availability = Availability()
    sig: SignatureErrors = SignatureErrors()
    window_sec: Seconds | None = None
    grace_burst: Rate = 0.0


class CanaryThresholds(_Block):
    """How much worse than the control the canary may be."""

    max_p95_rel_increase: Annotated[
        float | None, Field(strict=True, ge=0, le=1000, allow_inf_nan=False)
    ] = None
    max_error_abs_delta: Rate | None = None
    max_sig_error_delta: Rate | None = None


class Canary(_Block):
    """The canary against the control."""

    thresholds: CanaryThresholds = CanaryThresholds()
    min_sample_count: Count = 0
    guardband_minutes: Annotated[
        float | None, Field(strict=True, ge=0, le=1440, allow_inf_nan=False)
    ] = None
    baseline: Literal["required", "none"] = "required"

    @model_validator(mode="after")
    def _baseline_for_thresholds(self) -> Canary:
        if self.baseline == "none" and self.thresholds != CanaryThresholds():
            raise ValueError("thresholds compare with a baseline, and baseline says none")
        return self


class Budget(_Block):
    """The error or cost budget, from elsewhere."""

    allow_levels: Annotated[Words, Field(min_length=1)] | None = None
    max_spent: Positive | None = None


class Quota(_Block):
    """Quota decisions, from elsewhere: the actions that a metric must not be under."""

    forbid_actions: Annotated[
        dict[
            Word,
            Annotated[
                tuple[Literal["allow", "warn", "throttle", "deny"], ...], Field(min_length=1)
            ],
        ],
        Field(max_length=100),
    ] = {}


class Anomaly(_Block):
    """Whether a spike is acceptable."""

    allow_spike: Flag = True


class Witness(_Block):
    """What the evidence must say about the log it came from."""

    require_csv_sha256: Flag = False
    require_signature: Flag = False
    min_rows: Count | None = None


class Integrity(_Block):
    """Whether the evidence must prove that it was not changed."""

    require_signature: Flag = False


class Drift(_Block):
    """Distance of the canary's answers from the control's, from elsewhere."""

    source: Word | None = None
    max_abs_diff: Positive | None = None
    max_kl: Positive | None = None
    forbid_severity: (
        Annotated[
            tuple[Literal["none", "low", "medium", "high", "critical"], ...],
            Field(min_length=1, max_length=5),
        ]
        | None
    ) = None


class Saturation(_Block):
    """How full the machines may be, from ``usage``."""

    max_cpu_percent: Annotated[
        float | None, Field(strict=True, ge=0, le=100, allow_inf_nan=False)
    ] = None
    max_mem_percent: Annotated[
        float | None, Field(strict=True, ge=0, le=100, allow_inf_nan=False)
    ] = None
    max_qps: Positive | None = None
    fail_closed: Flag = True


class CustomRule(_Block):
    """A rule of one's own on any number, word or flag of the evidence.

    There is no ``!=`` and no ``not in``: they pass on every value that nobody thought of.
    """

    id: RuleId
    metric: Pointer
    op: Literal["<=", "<", ">=", ">", "==", "in"]
    bound: Bound
    min_samples: Count = 0
    for_each: GroupBy | None = None
    severity: Severity = "block"
    label: Word | None = None

    @model_validator(mode="after")
    def _bound_fits_operator(self) -> CustomRule:
        number = isinstance(self.bound, float | int) and not isinstance(self.bound, bool)
        if self.op in {"<=", "<", ">=", ">"} and not number:
            raise ValueError(f"bound must be a number for {self.op}")
        if (self.op == "in") != isinstance(self.bound, tuple):
            raise ValueError("bound must be a list of words for in, and only there")
        return self


class Freshness(_Block):
    """How old the evidence may be; its age counts from the end of its window."""

    max_age_sec: Seconds = 900.0


def _a_level(value: float) -> float:
    if value not in LEVELS:
        raise ValueError("the evidence has limits at 0.90, 0.95 and 0.99 only")
    return value


LEVELS = (0.90, 0.95, 0.99)
Level = Annotated[
    float, Field(strict=True, json_schema_extra={"enum": list(LEVELS)}), AfterValidator(_a_level)
]


class Confidence(_Block):
    """Judge by one-sided confidence limits at this level instead of the point estimate."""

    level: Level


class SloFile(_Block):
    """A whole SLO file."""

    version: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=64)] = "v1"
    description: Annotated[str, StringConstraints(strict=True, max_length=2000)] = ""
    latency: Latency = Latency()
    error: ErrorRate = ErrorRate()
    judge_infra: JudgeInfra = JudgeInfra()
    canary: Canary | None = None
    budget: Budget = Budget()
    quota: Quota = Quota()
    anomaly: Anomaly = Anomaly()
    witness: Witness = Witness()
    integrity: Integrity = Integrity()
    quorum: Quorum | None = None
    drift: Drift = Drift()
    saturation: Saturation = Saturation()
    rules: Annotated[tuple[CustomRule, ...], Field(max_length=10_000)] = ()
    freshness: Freshness | None = None
    confidence: Confidence | None = None
    on_inconclusive: OnInconclusive = "no-go"
    max_wait_sec: Annotated[float, Field(strict=True, ge=0, le=86_400, allow_inf_nan=False)] = (
        1800.0
    )
    waivers: Annotated[tuple[Waiver, ...], Field(max_length=100)] = ()

    @field_validator("quorum")
    @classmethod
    def _k_of_n(cls, quorum: Quorum | None) -> Quorum | None:
        if quorum is not None and quorum.k > quorum.n:
            raise ValueError(f"k={quorum.k} is more than n={quorum.n}")
        return quorum

    @field_validator("rules")
    @classmethod
    def _ids_once(cls, rules: tuple[CustomRule, ...]) -> tuple[CustomRule, ...]:
        seen: set[str] = set()
        for rule in rules:
            if rule.id in seen:
                raise ValueError(f"the id {rule.id!r} stands twice")
            seen.add(rule.id)
        return rules
