"""The decision in the terminal: summary of a run, table of a quorum, and a failing test's lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_decisionos.model.decision import Vote
from pytest_decisionos.report.text import (
    COLUMNS,
    amount,
    bad_checks,
    dissent_of,
    labelled,
    more,
    named,
    plain,
    reason_text,
    vote_of,
    votes_of,
    worst_first,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_decisionos.model.decision import Decision, SloDecision
    from pytest_decisionos.model.outcome import Outcome

MAX_SLOS = 50
MAX_REASONS = 10
MAX_OTHERS = 20


def summary_lines(decision: Decision, *, artifacts: Sequence[Path]) -> list[str]:
    """What a run says at its end: plain lines of at most 80 columns, each safe in a CI log.

    Args:
        decision: what to tell.
        artifacts: the files that were written.
    """
    slos = worst_first(decision.slos)
    lines = about_lines(decision)
    for slo in slos[:MAX_SLOS]:
        lines += labelled("slo", slo_text(slo))
    if len(slos) > MAX_SLOS:
        lines += labelled("slo", more(len(slos) - MAX_SLOS, "SLOs"))
    lines += why_lines(decision)
    for path in artifacts:
        lines += labelled("file", plain(path, 4096))
    return lines


def about_lines(decision: Decision, width: int = COLUMNS) -> list[str]:
    """Verdict and action, and what they are about."""
    lines = labelled(
        "verdict", f"{decision.verdict}, action {decision.action} (unsigned: a dry-run)", width
    )
    lines += _some("partial", [plain(why) for why in decision.partial], width, "reasons")
    lines += labelled("target", plain(decision.target), width)
    baseline = decision.baseline_release
    against = "" if baseline is None else f", baseline {plain(baseline, 200)}"
    release = (
        "(the evidence names none)" if decision.release is None else plain(decision.release, 200)
    )
    lines += labelled("release", f"{release}{against}, phase {plain(decision.phase, 60)}", width)
    return lines + labelled("decision", plain(decision.decision_id, 200), width)


def slo_text(slo: SloDecision) -> str:
    """An SLO's verdict with its quorum and votes."""
    passed = f"{slo.votes(Vote.PASS)} of {len(slo.ballots)} pass"
    return f"{plain(slo.slo, 400)}: {slo.verdict}, quorum {slo.quorum}, {passed}: {votes_of(slo)}"


def why_lines(decision: Decision, width: int = COLUMNS) -> list[str]:
    """Checks that did not pass, dissent, top reasons and notes."""
    checks = bad_checks(decision)
    lines = _some("check", [f"{named(c)}: {plain(c.message)}" for c in checks], width, "checks")
    dissent = [
        f"{vote_of(ballot)}, outvoted in {plain(slo.slo, 400)}"
        for slo in decision.slos
        for ballot in dissent_of(slo)
    ]
    lines += _some("dissent", dissent, width, "votes")
    told = {check.reason for check in checks[:MAX_OTHERS]}
    reasons = [reason_text(r) for r in decision.reasons if r.code not in told or r.slos]
    lines += _some("reason", reasons, width, "reasons", MAX_REASONS)
    return lines + _some("note", [plain(note) for note in decision.notes], width, "notes")


def _some(
    label: str, texts: Sequence[str], width: int, what: str, limit: int = MAX_OTHERS
) -> list[str]:
    lines = [line for text in texts[:limit] for line in labelled(label, text, width)]
    return (
        lines + labelled(label, more(len(texts) - limit, what), width) if texts[limit:] else lines
    )


def outcome_lines(outcome: Outcome, judge: str | None) -> list[str]:
    """What a failing test shows instead of a traceback: one fact a line, each with our label.

    Args:
        outcome: of the rule or check.
        judge: who says so; None for a check.
    """
    unit = outcome.unit
    facts: list[tuple[str, str | None]] = [
        ("reason code", plain(outcome.reason)),
        ("status", str(outcome.status) + (", warn only" if outcome.severity == "warn" else "")),
        ("judge", judge and plain(judge, 63)),
        ("message", plain(outcome.message, 2000)),
        ("observed", amount(outcome.observed, unit)),
        ("limit", _known(outcome.limit, unit)),
        ("bound", bound_text(outcome)),
        ("margin", _known(outcome.margin, unit)),
        ("samples", _known(outcome.samples)),
        ("effective", _known(outcome.effective)),
        ("needed", f"about {amount(outcome.needed)} more samples" if outcome.needed else None),
        ("waived", outcome.waived and plain(outcome.waived)),
        ("source", outcome.source and plain(outcome.source, 4096)),
        ("label", outcome.label and plain(outcome.label, 200)),
    ]
    return [f"{name + ':':<12} {fact}" for name, fact in facts if fact]


def _known(value: float | None, unit: str = "") -> str | None:
    return None if value is None else amount(value, unit)


def bound_text(outcome: Outcome) -> str | None:
    """Operator and bound of an outcome; None where it has none."""
    if outcome.bound is None:
        return None
    return f"{plain(outcome.op, 10) if outcome.op else 'is'} {amount(outcome.bound, outcome.unit)}"
