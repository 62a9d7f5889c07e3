"""What is wrong with an SLO file, all of it at once; and what in it cannot do what it seems to."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pytest_decisionos.errors import PolicyError, UnusableInputError, shown
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.evidence import parse_time, read_evidence
from pytest_decisionos.model.outcome import quantity
from pytest_decisionos.model.policy_text import line_of, read_policy
from pytest_decisionos.model.validate import dotted, faults
from pytest_decisionos.slo.compile import compile_slo
from pytest_decisionos.slo.schema import SloFile
from pytest_decisionos.slo.waivers import expiry, waiver_fault
from pytest_decisionos.stats.samples import smallest_n

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_decisionos.model.policy import Rule, Slo

MAX_FAULTS: Final = 100
"""Faults that are told of one file; a file with more is not an SLO file."""
USUAL_LEVEL: Final = 0.95
"""Level that a floor is held against where the file states no ``confidence``."""
EXPIRES_SOON: Final = timedelta(days=2)

Path_ = tuple[str | int, ...]

_BOUNDS: Final[dict[str, Path_]] = {
    "latency.p95": ("latency", "max_p95_ms"),
    "latency.p99": ("latency", "max_p99_ms"),
    "error.error_rate": ("error", "max_error_rate"),
    "judge_infra.latency.p95": ("judge_infra", "latency", "max_p95_ms"),
    "judge_infra.latency.p99": ("judge_infra", "latency", "max_p99_ms"),
    "judge_infra.availability": ("judge_infra", "availability", "min_availability"),
    "judge_infra.sig.sig_error_rate": ("judge_infra", "sig", "max_sig_error_rate"),
    "canary.thresholds.p95_rel_increase": ("canary", "thresholds", "max_p95_rel_increase"),
    "canary.thresholds.error_abs_delta": ("canary", "thresholds", "max_error_abs_delta"),
    "canary.thresholds.sig_error_delta": ("canary", "thresholds", "max_sig_error_delta"),
}
"""Rules with a sample count → where the file states their bound."""


class Finding(NamedTuple):
    """One thing to know of an SLO file.

    Attributes:
        severity: an ``error`` keeps the file from being used, or a part of it from counting.
        file: the file.
        line: where in it, from 1; None where that is not known.
        field: path in the file, such as ``rules[0].bound``; None for the file as a whole.
        message: what it is.
        hint: what to do about it; None where that is plain.
    """

    severity: Literal["error", "warning"]
    file: str
    line: int | None
    field: str | None
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        place = shown(self.file, 300) + (f":{self.line}" if self.line else "")
        field = f"{shown(self.field)}: " if self.field else ""
        mark = "" if self.severity == "error" else "warning: "
        text = f"{place}: {field}{mark}{shown(self.message, 2000)}"
        return f"{text} → {shown(self.hint, 300)}" if self.hint else text


def lint(
    path: Path, *, requests_per_second: float | None = None, now: datetime | None = None
) -> list[Finding]:
    """Everything that is to say of the SLO file ``path``, in the file's order; never raises.

    Args:
        path: a JSON or YAML file.
        requests_per_second: traffic; with it, a floor is also told as the time that it takes.
        now: the time that waivers are held against, with a zone; None is this clock's.

    Returns:
        Faults that keep the file from compiling, as errors. Of a file that compiles: floors of
        samples that cannot prove their bound (``stats.samples.smallest_n``, its sources there),
        bounds of 0 that no sample proves with ``confidence``, rules that all only warn, and waivers
        that do not count (too long or unreadable is an error, expired a warning) or soon will not.
    """
    try:
        document, data = read_policy(path)
        wrong = faults(SloFile, document, path, data)
        if wrong:
            return [_of_error(fault) for fault in wrong[:MAX_FAULTS]]
        slo = compile_slo(document, data, path)
    except PolicyError as fault:
        return [_of_error(fault)]
    places = _places(document)
    found = [
        Finding("warning", str(path), line_of(data, place), dotted(place), *said)
        for rule in slo.rules
        if rule.counts and (place := places.get(rule.id)) is not None
        for said in _doubts(rule, requests_per_second)
    ]
    if all(rule.severity == "warn" for rule in slo.rules):
        message = "every rule only warns: this file can stop no release"
        found.append(Finding("warning", str(path), line_of(data, ("rules",)), "rules", message))
    found += _waivers(slo, data, now or datetime.now(UTC))
    return sorted(found, key=lambda finding: finding.line or 0)


def traffic_seen(evidence: Path) -> float | None:
    """Requests per second of the evidence's window; None if there is no evidence, or it tells none.

    Raises:
        EvidenceError: the evidence cannot be read.
    """
    if not evidence.exists():
        return None
    blocks = read_evidence(evidence).blocks
    count = strict_json.at(blocks, "/perf/count")
    start, end = (parse_time(strict_json.at(blocks, f"/meta/window/{p}")) for p in ("start", "end"))
    if isinstance(count, bool) or not isinstance(count, int) or not 0 < count <= 10**15:
        return None
    seconds = (end - start).total_seconds() if start and end else 0
    return count / seconds if seconds > 0 else None


def _of_error(fault: UnusableInputError) -> Finding:
    message = fault.what
    if fault.found is not None:
        message += f"; found {shown(fault.found)}"
    if fault.expected is not None:
        message += f"; expected {shown(fault.expected, 300)}"
    return Finding("error", fault.file or "", fault.line, fault.field, message, fault.next_step)


def _places(document: dict[str, Any]) -> dict[str, Path_]:
    """Rule id → path of its bound in the file."""
    custom = document.get("rules", ())
    return _BOUNDS | {f"rules.{r['id']}": ("rules", i, "bound") for i, r in enumerate(custom)}


def _doubts(rule: Rule, rps: float | None) -> Iterator[tuple[str, str]]:
    """Message and hint of what ``rule`` cannot do."""
    if rule.level is not None and _out_of_reach(rule):
        bound = quantity(rule.bound, rule.unit)
        told = (
            f"needs a canary that is proven to be better than the control, not as good: {bound}"
            if "/deltas/" in rule.metric
            else f"no number of samples proves {bound}: at best this is inconclusive"
        )
        yield f"with confidence, {told}", "state the smallest value that matters"
    fewest = _fewest(rule)
    # With confidence, the limits themselves ask for enough: only a floor that is stated misleads.
    if fewest is None or rule.min_samples >= fewest or (rule.level and not rule.min_samples):
        return
    level = rule.level or USUAL_LEVEL
    name = "min_sample_count" if rule.id.startswith("canary.") else "min_samples"
    floor = f"{name} {rule.min_samples:,}" if rule.min_samples else f"no {name}"
    each = f" of each {rule.for_each}" if rule.for_each else ""
    if rule.min_samples:
        enough = f"raise it to {fewest:,}" + ("" if rule.level else ", or state confidence")
    else:
        enough = f"state {name}: {fewest}, or confidence"
    message = (
        f"{floor}: to prove {rule.op} {quantity(rule.bound, rule.unit)} at {level:.0%} takes "
        f"at least {fewest:,} samples{each}{_time(fewest, rps)}"
    )
    yield message, "state confidence" if rule.id == "judge_infra.availability" else enough


def _out_of_reach(rule: Rule) -> bool:
    """Whether the bound lies at the very end of what is possible, where limits hardly come."""
    if rule.op in {">=", ">"}:
        return rule.high is not None and rule.bound == rule.high
    return rule.unit in {"rate", "rel", "ms"} and rule.bound == 0


def _fewest(rule: Rule) -> int | None:
    """The fewest samples that can prove the bound of ``rule``; None where that is not known.

    A ratio of quantiles needs a limit of the canary's own quantile. A difference of rates needs at
    least what the canary's own rate would; with confidence Newcombe's limits know better.
    """
    level = rule.level or USUAL_LEVEL
    quantile = re.search(r"/latency_ms/p(50|95|99)$|/deltas/p(95)_rel$", rule.metric)
    if quantile is not None:
        return smallest_n(1 - int(quantile[1] or quantile[2]) / 100, level)
    if rule.unit != "rate" or not isinstance(rule.bound, int | float):
        return None
    if rule.level is not None and "/deltas/" in rule.metric:
        return None
    rate = 1 - rule.bound if rule.op in {">=", ">"} else rule.bound
    return smallest_n(rate, level) if 0 < rate < 1 else None


def _time(samples: int, rps: float | None) -> str:
    if rps is None:
        return ""
    minutes = math.ceil(samples / rps / 60)
    told = "under 1 min" if samples / rps < 60 else f"about {minutes:,} min"
    return f", {told} at {quantity(round(rps, 3), 'requests/s')}"


def _waivers(slo: Slo, data: bytes, now: datetime) -> Iterator[Finding]:
    for index, waiver in enumerate(slo.waivers):
        place: Path_ = ("waivers", index, "expires")
        line, field = line_of(data, place), dotted(place)
        fault, ends = waiver_fault(waiver, now), expiry(waiver)
        what = f"the waiver of {waiver.rule} by {waiver.owner}"
        if fault is not None:
            expired = ends is not None and ends <= now
            severity: Literal["error", "warning"] = "warning" if expired else "error"
            hint = "remove it, or have it signed for again" if expired else None
            message = f"{what} does not count: {fault}; found {shown(waiver.expires)}"
            yield Finding(severity, slo.file, line, field, message, hint)
        elif ends is not None and ends - now <= EXPIRES_SOON:
            hours = math.floor((ends - now).total_seconds() / 3600)
            message = f"{what} ends in {hours} h" if hours else f"{what} ends within the hour"
            yield Finding("warning", slo.file, line, field, message, "fix what it stands for")
