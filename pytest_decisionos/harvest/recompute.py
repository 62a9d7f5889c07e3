"""The numbers of an evidence document again, from the logs that it names: what judges do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_decisionos.errors import EvidenceError, LogError
from pytest_decisionos.harvest.blocks import Harvest, combine, harvest
from pytest_decisionos.harvest.load import Given
from pytest_decisionos.harvest.options import MAX_TIME, Options
from pytest_decisionos.harvest.times import to_ms
from pytest_decisionos.harvest.windows import CANARY
from pytest_decisionos.model.evidence import parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MAX_SOURCES = 1000
ROLES = ("reqlog", "judgelog", "peer")


class Recomputed(NamedTuple):
    """What logs say.

    Attributes:
        blocks: ``perf``, ``canary`` and ``anomaly`` from a reqlog (else from a peer log),
            ``perf_judge`` from a judgelog; without those that the logs cannot give.
        sources: the logs as they were read, as in ``witness.sources``.
    """

    blocks: dict[str, Any]
    sources: list[dict[str, Any]]


def recompute(
    sources: Sequence[Mapping[str, Any]],
    folder: Path,
    evidence: Mapping[str, Any],
    *,
    limits: bool,
    exact: bool,
) -> Recomputed:
    """Harvest logs as the evidence says that it was made.

    From the same bytes come the same numbers as the build's, to the last bit.

    Args:
        sources: the logs, as in ``witness.sources``: ``role``, ``name``, ``bytes``, ``sha256``.
        folder: where they are. A name is a plain file name in it; nothing else is opened.
        evidence: the document; read for ``meta.window``, ``witness.harvest`` and
            ``canary.step_start`` only.
        limits: whether to make confidence limits.
        exact: every log must have the digest that its source states. Otherwise one that states
            none is any log of the same traffic, cut to ``meta.window``.

    Raises:
        LogError: a log is missing, was changed, or cannot be harvested.
        EvidenceError: the evidence does not say how to harvest, or names something else than
            plain files.
    """
    if len(sources) > MAX_SOURCES:
        raise EvidenceError("too many sources", field="witness.sources", found=len(sources))
    options = Options.from_block(_part(evidence, "witness", "harvest") or {})
    step_start = _time(_part(evidence, "canary", "step_start"), "canary.step_start")
    by_role: dict[str, list[Given]] = {}
    loose = False
    for source in sources:
        role = source.get("role")
        if role not in ROLES:
            raise EvidenceError("not a role", field="witness.sources.role", found=role)
        by_role.setdefault(role, []).append(_given(source, folder, exact=exact))
        loose = loose or source.get("sha256") is None
    if loose:
        window = _part(evidence, "meta", "window")
        window = window if isinstance(window, dict) else {}
        since, until = (_time(window.get(side), f"meta.window.{side}") for side in ("start", "end"))
        if since is None or until is None or since >= until:
            raise EvidenceError(
                "says no time to compare logs over", field="meta.window", expected="start and end"
            )
        options = replace(options, since=since, until=until)

    def made(role: str) -> Harvest | None:
        given = by_role.get(role)
        if not given:
            return None
        return harvest(given, role=role, options=options, step_start=step_start, limits=limits)

    requests, judges = made("reqlog") or made("peer"), made("judgelog")
    blocks = combine(requests, judges, limits=limits)
    if options.shadow and "reqlog" not in by_role and requests and not _has_canary(requests):
        blocks.pop("canary", None)  # a load balancer does not see what the service mirrors
    if "judgelog" not in by_role:
        _leave_out_signatures(blocks)
    if _part(evidence, "anomaly", "source") != "log":
        blocks.pop("anomaly", None)  # it was given from elsewhere: the logs do not speak of it
    return Recomputed(blocks, [s for log in (requests, judges) if log for s in log.sources])


def _has_canary(log: Harvest) -> bool:
    return log.sides is not None and log.sides[CANARY].count > 0


def _leave_out_signatures(blocks: dict[str, Any]) -> None:
    """A log that does not see signatures says nothing of them: nothing is not a measured null."""
    canary = blocks.get("canary", {})
    if canary.get("deltas", {}).get("sig_error_delta", 0) is None:
        del canary["deltas"]["sig_error_delta"]
        canary.get("limits", {}).pop("sig_error_delta", None)


def _part(evidence: Mapping[str, Any], block: str, name: str) -> Any:
    value = evidence.get(block)
    return value.get(name) if isinstance(value, dict) else None


def _time(value: object, field: str) -> int | None:
    """An ISO-8601 time of the evidence as epoch ms, to the millisecond."""
    if value is None:
        return None
    time = parse_time(value)
    if time is not None and 0 <= (ms := to_ms(time)) < MAX_TIME:
        return ms
    raise EvidenceError("not a time with an offset", field=field, found=value, expected="ISO-8601")


def _given(source: Mapping[str, Any], folder: Path, *, exact: bool) -> Given:
    name, sha256, size = source.get("name"), source.get("sha256"), source.get("bytes")
    where = "witness.sources"
    if (
        not isinstance(name, str)
        or name in {"", ".", ".."}
        or any(sign in name for sign in "/\\\0")
        or len(name) > 255
    ):
        raise EvidenceError(
            "not a plain file name",
            field=f"{where}.name",
            found=name,
            expected="a name without folders",
        )
    path = folder / name
    try:
        inside = path.resolve().parent == folder.resolve()
    except (OSError, RuntimeError):  # a loop of symbolic links
        inside = False
    if not inside:
        raise EvidenceError("leaves the log folder", file=path, field=f"{where}.name")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
        raise EvidenceError("not a length", field=f"{where}.bytes", found=size)
    if sha256 is None:
        if exact:
            raise LogError(
                "the evidence states no digest of it", file=path, field=f"{where}.sha256"
            )
        return Given(path, size)
    if not isinstance(sha256, str):
        raise EvidenceError("not a digest", field=f"{where}.sha256", found=sha256)
    return Given(path, size, sha256)
