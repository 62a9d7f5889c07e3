"""What ``dosctl verify`` found, for people and for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_decisionos.model.outcome import Status
from pytest_decisionos.report.text import COLUMNS, labelled, plain

if TYPE_CHECKING:
    from pytest_decisionos.judge.verify import Report


def report_lines(report: Report) -> list[str]:
    """A line for each condition, folded to 80 columns, and the verdict last."""
    lines: list[str] = []
    for one in report.findings:
        good = one.status is Status.SUCCESSFUL
        what, _, which = one.id.removeprefix("bundle.").partition("[")
        which = f"{which.removesuffix(']')}: " if which else ""
        text = one.message if good else f"{which}{one.cause}: {one.message}"
        lines += labelled(f"{'✓' if good else '✗'} {plain(what):<13}", plain(text), COLUMNS - 7)
    claims = report.claims
    if claims is not None:
        step = "" if claims.to_pct is None else f", {claims.from_pct or 0:g} → {claims.to_pct:g} %"
        release, phase = plain(claims.release or "no release", 200), plain(claims.phase, 64)
        lines.append(f"{claims.verdict} of {release}{step}, {phase}")
    lines.append("verified" if report.ok else "NOT verified")
    return lines


def report_json(report: Report) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "verified": report.ok,
        "findings": [
            {"id": one.id, "status": one.status, "cause": one.cause, "message": one.message}
            for one in report.findings
        ],
        "decision": None if report.claims is None else report.claims.model_dump(mode="json"),
    }
