"""The decision as a comment on a pull request: Markdown that says only what we mean it to say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlsplit

from pytest_decisionos.model.decision import Verdict, Vote
from pytest_decisionos.report.text import (
    bad_checks,
    dissent_of,
    named,
    plain,
    vote_of,
    votes_of,
    worst_first,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_decisionos.model.decision import Ballot, Decision, Reason, SloDecision
    from pytest_decisionos.model.outcome import Outcome

Entry = TypeVar("Entry")

MARKER = "<!--DECISIONOS:PR:RELEASE_GATE-->"
MAX_BYTES = 60_000
"""GitHub takes 65,536 characters. What follows adds up to less: a character of foreign text takes
at most 14 bytes (``\\U000e0001`` with its backslash escaped), and every text and section is cut."""
_GATES, _CHECKS, _REASONS, _DISSENT, _NOTES = 14_000, 6_000, 12_000, 3_000, 5_000
_ICONS = {Verdict.GO: "✅", Verdict.HOLD: "⏸️", Verdict.NO_GO: "⛔"}

_ENTITIES = {ord(c): f"&#{ord(c)};" for c in "&<>\"'`*|[]!~$\\"}
# Behind @ a zero-width space: GitHub looks for mentions and e-mail addresses in the rendered text.
_ENTITIES[ord("@")] = "&#64;&#8203;"
_WWW = re.compile(r"(www)[.]", re.IGNORECASE)
_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def code(text: object, limit: int = 200) -> str:
    """Foreign ``text`` as inline code: no Markdown, HTML, link, mention or table cell comes of it.

    ``<code>`` instead of backticks, because character references cannot act as Markdown (CommonMark
    0.31 §2.5) and GitHub makes no references of what stands in code; ``://`` and ``www.``, which
    GFM §6.9 links anywhere, are broken by references too.
    """
    safe = plain(text, limit).translate(_ENTITIES)
    safe = _UNDERSCORE.sub("&#95;", safe).replace("://", "&#58;//")
    safe = _WWW.sub(r"\1&#46;", safe)
    return f"<code>{safe}</code>"


def comment_markdown(decision: Decision, *, evidence_url: str | None = None) -> str:
    """``decision`` as Markdown of at most 60,000 bytes, the marker first.

    Args:
        decision: what to tell.
        evidence_url: where the evidence can be read; anything but http(s) is shown, not linked.
    """
    lines = [*_head(decision), "", "### Gates", "", *_gates(decision)]
    dissent = [(slo, ballot) for slo in decision.slos for ballot in dissent_of(slo)]
    lines += _section("Checks that did not pass", bad_checks(decision), _check, _CHECKS)
    lines += _section("Reasons", decision.reasons, _reason, _REASONS)
    lines += _section("Dissent", dissent, _dissent, _DISSENT)
    lines += _section(
        "Waivers and notes", decision.notes, lambda note: f"- {code(note, 300)}", _NOTES
    )
    lines += ["", "### Evidence", "", *_evidence(decision, evidence_url)]
    return "\n".join(lines) + "\n"


def _head(decision: Decision) -> list[str]:
    verdict = decision.verdict
    release = "no release named" if decision.release is None else code(decision.release, 120)
    if decision.baseline_release is not None:
        release += f" (baseline {code(decision.baseline_release, 120)})"
    about = f"Release {release} to {code(decision.target, 300)}, phase {code(decision.phase, 40)}."
    lines = [
        MARKER,
        f"## {_ICONS[verdict]} {verdict}, action: {decision.action}",
        "",
        f"{about} Unsigned: a dry-run, no authority.",
    ]
    if decision.partial:
        why = code("; ".join(decision.partial[:5]), 120)
        lines += ["", f"**Partial run, which cannot decide**: {why}"]
    return lines


def _gates(decision: Decision) -> list[str]:
    head = ["| gate | verdict | quorum | votes |", "|---|---|---|---|"]
    return head + _within(worst_first(decision.slos), _gate, _GATES)


def _gate(slo: SloDecision) -> str:
    quorum = f"{slo.votes(Vote.PASS)} pass, needs {slo.quorum}"
    return f"| {code(slo.slo, 100)} | {slo.verdict} | {quorum} | {code(votes_of(slo), 300)} |"


def _check(check: Outcome) -> str:
    return f"- {code(named(check))}: {code(check.message)}"


def _reason(reason: Reason) -> str:
    who = code(", ".join(reason.judges), 100) if reason.judges else "a check"
    aside = ", outvoted" if reason.outvoted else ""
    head = f"- **{reason.count}×** {code(reason.code)} {code(reason.label, 60)} ({who}{aside})"
    return f"{head}: {code(reason.message, 300)}"


def _dissent(said: tuple[SloDecision, Ballot]) -> str:
    slo, ballot = said
    return f"- {code(vote_of(ballot), 100)}, outvoted in {code(slo.slo, 100)}"


def _evidence(decision: Decision, url: str | None) -> list[str]:
    file = decision.evidence
    window = (
        "unknown"
        if decision.evidence_window is None
        else code(" to ".join(decision.evidence_window), 90)
    )
    return [
        f"- evidence: {_link(url) if url else code(file.file)}, SHA-256 {code(file.sha256, 64)}",
        f"- digest of its blocks: {code(decision.evidence_digest, 64)}; window: {window}",
        f"- decision: {code(decision.decision_id, 80)} at {code(decision.decided_at, 40)}",
    ]


def _link(where: str) -> str:
    """A link for an http(s) URL with a host; anything else as text."""
    try:
        parts = urlsplit(where)
        linked = parts.scheme in {"http", "https"} and parts.hostname and len(where) <= 1000
    except ValueError:
        linked = False
    if not linked:
        return code(where, 200)
    # What quote lets through cannot end a link destination (CommonMark 0.31 §6.3) or a table cell.
    return f"[open]({quote(where, safe='/:?&=%#+,;.~-', errors='replace')})"


def _section(
    title: str, entries: Sequence[Entry], row: Callable[[Entry], str], budget: int
) -> list[str]:
    return ["", f"### {title}", "", *_within(entries, row, budget)] if entries else []


def _within(entries: Sequence[Entry], row: Callable[[Entry], str], budget: int) -> list[str]:
    """A whole row for each entry within ``budget`` bytes, and a paragraph on those left out."""
    rows: list[str] = []
    for entry in entries:
        made = row(entry)
        budget -= len(made.encode()) + 1
        if budget < 0:
            return [*rows, "", f"… and {len(entries) - len(rows):,} more"]
        rows.append(made)
    return rows
