"""Logs and blocks → one sealed evidence document."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pytest_decisionos.errors import UsageError
from pytest_decisionos.evidence.config import Privacy
from pytest_decisionos.evidence.document import read_block, write_evidence
from pytest_decisionos.evidence.privacy import masked, refuse_secrets
from pytest_decisionos.evidence.seal import sealed
from pytest_decisionos.harvest.blocks import Harvest, combine, harvest
from pytest_decisionos.harvest.options import Options
from pytest_decisionos.harvest.source import find
from pytest_decisionos.harvest.times import time_text, to_ms
from pytest_decisionos.model.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_decisionos.trust.keys import KeyRing

VERSION: Final = "1"


@dataclass(frozen=True)
class Inputs:
    """What evidence is built from.

    Attributes:
        reqlog: request logs of the service, or globs of rotated ones.
        judgelog: request logs of the judge.
        peer: logs of the same traffic seen from elsewhere.
        blocks: block name → file.
        target: what is released where; None leaves it out.
        release: the release judged; None takes what the log says of the canary.
        baseline_release: the release before; None takes what the log says of the control.
        step_start: when the canary step began; None means its first row.
        options: how to harvest.
    """

    reqlog: tuple[str | Path, ...] = ()
    judgelog: tuple[str | Path, ...] = ()
    peer: tuple[str | Path, ...] = ()
    blocks: Mapping[str, Path] = field(default_factory=dict)
    target: Target | None = None
    release: str | None = None
    baseline_release: str | None = None
    step_start: datetime | None = None
    options: Options = field(default_factory=Options)


def build_evidence(
    inputs: Inputs,
    *,
    now: datetime,
    ring: KeyRing | None = None,
    privacy: Privacy = Privacy(),  # noqa: B008 - it is frozen
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, Any]:
    """Build the evidence document.

    Args:
        inputs: what from.
        now: the time here; rows from after it are refused, and it becomes ``generated_at``.
        ring: the keys whose active one for evidence makes the MAC; None seals with the digest only.
        privacy: what is masked, and what is refused.
        progress: told the share of the work that is done (0 to 1) and what is next.

    Raises:
        LogError: a log cannot be harvested.
        EvidenceError: a block file cannot be used, or holds what looks like a secret.
        KeysError: no key is active for evidence.
        UsageError: the inputs contradict each other.
    """
    tell = progress or (lambda _share, _text: None)
    if ring is not None:
        ring.signing("evidence", now)  # before the work, not after it
    extra = {name: read_block(name, path) for name, path in inputs.blocks.items()}
    options, start = inputs.options, None if inputs.step_start is None else to_ms(inputs.step_start)
    roles = {
        "reqlog": inputs.reqlog,
        "judgelog": inputs.judgelog,
        "peer": inputs.peer,
    }
    files = {
        role: [path for given in paths for path in find(given)] for role, paths in roles.items()
    }
    _check_names(files)
    logs: dict[str, Harvest] = {}
    for i, (role, paths) in enumerate(files.items()):
        if not paths:
            continue

        def part(share: float, text: str, i: int = i) -> None:
            tell((i + share) / len(files), text)

        if role == "peer" and (first := logs.get("reqlog")) is not None:
            # What it is judged over: the same window.
            options = replace(options, since=first.since, until=first.until)
        logs[role] = harvest(
            paths,
            role=role,
            options=options,
            step_start=start,
            limits=role != "peer",
            now=to_ms(now),
            progress=part,
        )
        start = start if start is not None else logs[role].step_start
    blocks = _document(logs, inputs, now)
    # What is given wins over what is computed: only ``anomaly`` can be both.
    blocks = masked(blocks | extra, privacy)
    refuse_secrets(blocks, privacy)
    return sealed(blocks, ring, now=now)


def harvest_block(
    paths: Sequence[str | Path],
    *,
    role: str,
    options: Options,
    step_start: datetime | None = None,
    now: datetime,
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, Any]:
    """One log's blocks, and in ``witness`` which bytes they were made from.

    Args:
        paths: the logs, or globs.
        role: ``reqlog`` or ``judgelog``.
        options: how to harvest.
        step_start: when the canary step began; None means its first row.
        now: the time here; rows from after it are refused.
        progress: told the share of the work that is done (0 to 1) and what is next.

    Raises:
        LogError: a log cannot be harvested.
    """
    start = None if step_start is None else to_ms(step_start)
    log = harvest(
        paths, role=role, options=options, step_start=start, now=to_ms(now), progress=progress
    )
    logs = (None, log) if role == "judgelog" else (log, None)
    return combine(*logs) | {"witness": _witness([log], options)}


def _witness(logs: Sequence[Harvest], options: Options) -> dict[str, Any]:
    """The block ``witness``; the first log is the one that old readers know."""
    first = logs[0].sources
    return {
        "csv_path": first[0]["name"],
        "csv_sha256": first[0]["sha256"],
        "rows": sum(source["rows"] for source in first),
        "sources": [source for log in logs for source in log.sources],
        "harvest": options.as_block(),
    }


def _document(logs: Mapping[str, Harvest], inputs: Inputs, now: datetime) -> dict[str, Any]:
    main = logs.get("reqlog") or logs.get("judgelog")
    if main is None:
        raise UsageError(
            "nothing to build from",
            expected="a reqlog or a judgelog",
            next_step="name one with --reqlog, or try with `dosctl sample`",
        )
    release, baseline = _releases(main, inputs)
    return {
        "meta": {
            "version": VERSION,
            "generated_at": time_text(to_ms(now)),
            "target": None if inputs.target is None else inputs.target.model_dump(),
            "release": release,
            "baseline_release": baseline,
            "window": {"start": time_text(main.since), "end": time_text(main.until)},
        },
        **combine(logs.get("reqlog"), logs.get("judgelog")),
        "witness": _witness(list(logs.values()), inputs.options),
    }


def _releases(log: Harvest, inputs: Inputs) -> tuple[str | None, str | None]:
    """(release, baseline): as given; else as the log says. Both must agree."""
    # Without a canary the one release that serves is the one judged.
    in_log = {
        "release": log.releases.get("canary") or log.releases.get(""),
        "baseline_release": log.releases.get("control"),
    }
    if "canary" not in log.releases and "" not in log.releases and inputs.release is None:
        in_log["release"] = log.releases.get("control")
        in_log["baseline_release"] = None
    made = []
    for name, logged in in_log.items():
        given = getattr(inputs, name)
        if given is not None and logged is not None and given != logged:
            raise UsageError(
                "is not the release that the log is of",
                field=f"--{name.replace('_', '-')}",
                found=given,
                expected=logged,
            )
        made.append(given if given is not None else logged)
    return made[0], made[1]


def _check_names(files: Mapping[str, Sequence[Path]]) -> None:
    """Evidence names its logs by plain file names: two of one name could not be told apart."""
    seen: dict[str, Path] = {}
    for path in (path for paths in files.values() for path in paths):
        if path.name in seen:
            raise UsageError(
                "two logs of one name",
                file=path,
                found=str(seen[path.name]),
                next_step="rename one: evidence names its logs without folders",
            )
        seen[path.name] = path


def forge_sample(log_dir: Path, *, now: datetime | None = None) -> Path:
    """Write ``forged-evidence.json`` beside sample logs: what a cheat would hand in.

    It is built from the logs, then every number of ``perf``, ``perf_judge`` and ``canary`` is
    replaced by a healthy one, and the digest made good again: only a judge that reads the log
    itself can tell.
    """
    document = build_evidence(
        Inputs(
            reqlog=(log_dir / "reqlog.csv",),
            judgelog=(log_dir / "judgelog.csv",),
            blocks={name: log_dir / f"{name}.json" for name in ("budget", "quota", "usage")},
            target=Target(service="checkout", environment="production", region="eu-1"),
        ),
        now=now or datetime.now(UTC),
    )
    for name in ("perf", "perf_judge", "canary"):
        document[name] = _embellished(document[name])
    document["anomaly"] |= {"is_spike": False, "ewma": 380.0, "ratio": 1.0}
    path = log_dir / "forged-evidence.json"
    write_evidence(path, sealed(document))
    return path


_LIES: Final[dict[str, Any]] = {
    "p50": 100.0,
    "p95": 380.0,
    "p99": 700.0,
    "error_rate": 0.002,
    "availability": 0.9999,
    "signature_error_rate": 0.0,
    "p95_rel": 0.01,
    "error_delta": 0.0,
    "sig_error_delta": 0.0,
    "burst": 0,
}


def _embellished(value: Any, lie: float | None = None) -> Any:
    """``value`` with every judged number, and its limits, made healthy."""
    if isinstance(value, list):
        return [_embellished(item) for item in value]
    if not isinstance(value, dict):
        return value
    made = {}
    for name, item in value.items():
        told = _LIES.get(name.removeprefix("latency_ms."))
        if isinstance(item, dict):
            made[name] = _embellished(item, lie if told is None else told)
        elif name in {"0.90", "0.95", "0.99"} and lie is not None:
            made[name] = lie
        elif name == "errors":
            made[name] = round(0.002 * value["count"])
        else:
            made[name] = _embellished(item) if told is None or item is None else told
    return made
