"""Which stage may follow which: the allowed graph, as one pure function.

    stable ─▶ canary ─▶ canary ─▶ promote ─▶ stable
       └─────────┴────────┴──────────┴─▶ abort ─▶ stable

A stage may also follow itself, to count a look, to pause, or to be signed anew. What reads as stable
because nothing valid is there leads to ``stable`` and ``abort`` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from pytest_decisionos.errors import RefusedError

if TYPE_CHECKING:
    from datetime import datetime

StageName = Literal["stable", "canary", "promote", "abort"]

_NEXT: Final[dict[StageName, tuple[StageName, ...]]] = {
    "stable": ("stable", "canary", "abort"),
    "canary": ("canary", "promote", "abort"),
    "promote": ("promote", "stable", "abort"),
    "abort": ("abort", "stable"),
}
_REPAIRS: Final[tuple[StageName, ...]] = ("stable", "abort")
_WEIGHT: Final[dict[StageName, float]] = {
    "stable": 0.0,
    "canary": 0.0,
    "promote": 100.0,
    "abort": 0.0,
}


class Changes(TypedDict, total=False):
    """What is to be different; see ``stage.Stage``."""

    stage: StageName
    pct: float
    release: str | None
    baseline_release: str | None
    since: datetime
    paused: bool
    looks: int
    decision_sha256: str | None


def after(current: dict[str, Any] | None, changes: Changes, *, now: datetime) -> dict[str, Any]:
    """The fields of the stage that follows.

    What belongs to a step (since, looks, paused, decision) begins anew when stage, percentage or
    release change, and else stays; each may be given. Releases follow from the way that is gone:
    the canary that is promoted is the one that was looked at, and an abort goes back to its baseline.

    Args:
        current: the fields of the valid stage that is there; None if there is none.
        changes: what is to be different.
        now: the time of the change.

    Raises:
        RefusedError: the graph does not lead there, or not with these releases.
    """
    before = current["stage"] if current else None
    name = changes.get("stage", before or "stable")
    allowed = _NEXT[current["stage"]] if current else _REPAIRS
    if name not in allowed:
        raise RefusedError(
            f"{before or 'a stage that cannot be believed'} does not lead to {name}",
            field="stage",
            found=name,
            expected=" or ".join(allowed),
            next_step=None if current else "repair it with `dosctl stage reconcile`",
        )
    made: dict[str, Any] = {"stage": name}
    settled = _settled(current, name)
    for field in ("release", "baseline_release"):
        made[field] = changes.get(field, settled.get(field))
        if made[field] != settled.get(field, made[field]):
            raise RefusedError(
                f"not the {field} that {before or 'nothing'} leads to {name} with",
                field=field,
                found=str(made[field]),
                expected=str(settled[field]),
            )
    stays = current if current and name == before else None
    made["pct"] = changes.get("pct", stays["pct"] if stays else _WEIGHT[name])
    moved = stays is None or any(made[field] != stays[field] for field in ("pct", "release"))
    fresh = {"since": now, "paused": False, "looks": 0, "decision_sha256": None}
    for field, new in fresh.items():
        made[field] = changes.get(field, new if moved or stays is None else stays[field])
    return made


def _settled(current: dict[str, Any] | None, name: StageName) -> dict[str, str | None]:
    """The releases that nobody may choose on the way from ``current`` to ``name``."""
    before = current["stage"] if current else None
    here = current["release"] if current else None
    base = current["baseline_release"] if current else None
    if name == "stable":
        kept = base if before == "abort" else here
        # Where nobody knows yet what everybody runs, that may be said.
        return {"baseline_release": None} | ({"release": kept} if kept is not None else {})
    if before == "stable" and name == "canary":
        return {"baseline_release": here} if here is not None else {}
    if before == "stable":
        return {"release": None, "baseline_release": here}
    return {"release": here, "baseline_release": base} if current else {}
