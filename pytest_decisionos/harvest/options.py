"""How a log is harvested: everything that the numbers depend on besides the log's own bytes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pytest_decisionos.errors import EvidenceError, UsageError, shown
from pytest_decisionos.stats.burst import MIN_RELATIVE

if TYPE_CHECKING:
    from collections.abc import Mapping

FILTER_COLUMNS: Final = ("route", "tenant", "variant")

_PROBES: Final = ("/healthz", "/readyz", "/livez", "/metrics", "/ping")
DEFAULT_FILTERS: Final = (
    *(f"route={path}{tail}" for path in _PROBES for tail in ("", "/*")),
    "variant=shadow",
    "variant=mirror",
)
"""Probes of the platform and mirrored requests: traffic that no user waits for."""

MAX_TIME: Final = 32_503_680_000_000
"""The year 3000 in epoch ms: what is later is a wrong unit."""

MAX_FILTERS: Final = 100
MAX_BAD_ROWS: Final = 100_000

_RANGES: Final = {
    "window_sec": (10, 86_400),
    "bucket_sec": (1, 86_400),
    "lag_sec": (0, 3600),
    "guardband_minutes": (0, 1440),
    "max_bad_rows": (0, MAX_BAD_ROWS),
    "burst_threshold": (0, 100),
    "ewma_tolerance": (0, 100),
    "since": (0, MAX_TIME),
    "until": (0, MAX_TIME),
}
_FRACTIONS: Final = ("guardband_minutes", "burst_threshold", "ewma_tolerance")


@dataclass(frozen=True)
class Options:
    """What a harvest depends on; it is written into the evidence, so that others can repeat it.

    Attributes:
        window_sec: length of a window in seconds.
        bucket_sec: length of a burst sub-bucket in seconds; divides ``window_sec``.
        lag_sec: seconds that rows may come late: a window closes this long after its end.
        guardband_minutes: warm-up at the start of the step that the canary comparison leaves out.
        assume_tz: IANA zone of times without an offset; None refuses them.
        max_bad_rows: unreadable rows that are tolerated.
        filters: ``COLUMN=GLOB`` texts; a row that matches one is left out and counted.
        burst_threshold: least relative excess of a burst over the control in the same span: 0.6 =
            at least 1.6 times the expected events (``stats.burst``).
        ewma_tolerance: the same where the reference is the windows before.
        since: first instant covered, epoch ms; None means the log's first row.
        until: first instant no longer covered, epoch ms; None means just after its last row.
        shadow: whether the canary is measured by the copies of requests that it answers (variant
            ``shadow``), which only a step at 0 % may do. No number of the whole service counts
            them. Copies to the baseline (variant ``mirror``) are nobody's.
    """

    window_sec: int = 300
    bucket_sec: int = 10
    lag_sec: int = 5
    guardband_minutes: float = 10
    assume_tz: str | None = None
    max_bad_rows: int = 0
    filters: tuple[str, ...] = DEFAULT_FILTERS
    burst_threshold: float = MIN_RELATIVE
    ewma_tolerance: float = MIN_RELATIVE
    since: int | None = None
    until: int | None = None
    shadow: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name in {"since", "until"}:
                continue
            whole = name not in _FRACTIONS
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                expected = "a whole number" if whole else "a number"
                raise UsageError("wrong type", field=name, found=value, expected=expected)
            if not low <= value <= high:  # also NaN
                raise UsageError(
                    "out of range", field=name, found=value, expected=f"{low:,} to {high:,}"
                )
        if not isinstance(self.shadow, bool):
            raise UsageError(
                "wrong type", field="shadow", found=self.shadow, expected="true or false"
            )
        if self.window_sec % self.bucket_sec:
            raise UsageError(
                "a window is not a whole number of sub-buckets",
                field="window_sec",
                found=self.window_sec,
                expected=f"a multiple of {self.bucket_sec}",
            )
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise UsageError("since is not before until")
        if self.assume_tz is not None:
            _zone(self.assume_tz)
        if len(self.filters) > MAX_FILTERS:
            raise UsageError("too many filters", expected=f"at most {MAX_FILTERS}")
        for text in self.filters:
            split_filter(text)

    @property
    def guardband_ms(self) -> int:
        """The guardband in milliseconds."""
        return round(self.guardband_minutes * 60_000)

    def zone(self) -> ZoneInfo | None:
        """The zone of times without an offset."""
        return None if self.assume_tz is None else _zone(self.assume_tz)

    def as_block(self) -> dict[str, Any]:
        """``witness.harvest`` of the evidence; ``from_block`` reads it."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {
            "filters": list(self.filters)
        }

    @classmethod
    def from_block(cls, block: Mapping[str, Any]) -> Options:
        """The options that an evidence document states.

        Raises:
            EvidenceError: a field is unknown, or has a wrong type or an impossible value.
        """
        if not isinstance(block, dict):
            raise EvidenceError("not an object", field="witness.harvest", found=block)
        unknown = set(block) - {f.name for f in fields(cls)}
        filters = block.get("filters", list(DEFAULT_FILTERS))
        if unknown or not isinstance(filters, list):
            found = sorted(unknown) if unknown else filters
            raise EvidenceError("unknown harvest options", field="witness.harvest", found=found)
        try:
            return cls(**{**block, "filters": tuple(filters)})
        except UsageError as fault:
            raise EvidenceError(fault.what, field=f"witness.harvest.{fault.field}") from None


def split_filter(text: object) -> tuple[str, str]:
    """``COLUMN=GLOB`` as (column, glob).

    Raises:
        UsageError: not of this form, or a column that filters do not know.
    """
    column, sign, glob = text.partition("=") if isinstance(text, str) else ("", "", "")
    if not sign or not glob or len(glob) > 500 or column not in FILTER_COLUMNS:
        expected = f"COLUMN=GLOB with a column of {', '.join(FILTER_COLUMNS)}"
        raise UsageError("not a filter", field="filters", found=text, expected=expected)
    return column, glob


def _zone(name: object) -> ZoneInfo:
    try:
        if isinstance(name, str) and len(name) <= 64:
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise UsageError(
        "unknown time zone",
        field="assume_tz",
        found=shown(name),
        expected="an IANA name such as Asia/Seoul",
    )
