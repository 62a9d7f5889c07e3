"""Foreign text made safe for a line that people and CI runners read, and folded to a width."""

from __future__ import annotations

import itertools
import math
import unicodedata
from typing import TYPE_CHECKING

from pytest_decisionos.errors import shown
from pytest_decisionos.model.outcome import Scalar, Status, quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_decisionos.model.decision import Ballot, Decision, Reason, SloDecision
    from pytest_decisionos.model.outcome import Outcome

COLUMNS = 80
_LABEL = 9


def plain(text: object, limit: int = 600) -> str:
    """``text`` as one line of printable characters, at most ``limit`` of them before escaping.

    Control characters, lone surrogates and direction marks are shown as escapes. ``##[`` is
    broken, because GitHub's runner obeys ``##[command]`` anywhere in a line (actions/runner,
    ``ActionCommand.TryParse``). What is not text at all reads ``(nothing)``.
    """
    line = str(text)
    if len(line) > limit or not line.isprintable():
        line = shown(line, limit)
    line = line.replace("##[", r"#\x23[").strip()
    return line or "(nothing)"


def cells(text: str) -> int:
    """Terminal columns of ``text``, never too few: wide characters (UAX #11) take 2."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def fold(text: str, width: int) -> list[str]:
    """``text`` broken into lines of at most ``width`` columns: between words, else inside them."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        if line and cells(line) + 1 + cells(word) <= width:
            line += f" {word}"
            continue
        if line:
            lines.append(line)
        rest = word
        while cells(rest) > width:
            end = _fitting(rest, width)
            lines.append(rest[:end])
            rest = rest[end:]
        line = rest
    return [*lines, line] if line or not lines else lines


def _fitting(text: str, width: int) -> int:
    """How many characters of ``text``, which is wider than ``width``, fit it; at least one."""
    count, used = 0, cells(text[0])
    while used <= width:
        count += 1
        used += cells(text[count])
    return max(1, count)


def labelled(label: str, text: str, width: int = COLUMNS) -> list[str]:
    """``label  text``, folded to ``width`` columns.

    Every line starts with our label or with a bar, never with foreign text, not even behind
    spaces: GitHub's runner trims them before it looks for a ``::command`` (actions/runner,
    ``ActionCommand.TryParseV2``).
    """
    first, *more = fold(text, max(width - _LABEL - 1, 2))
    return [f"{label:<{_LABEL}} {first}", *map(_barred, more)]


def below(text: str, width: int = COLUMNS) -> list[str]:
    """``text`` folded to ``width`` columns, to stand below a line of ours, as ``labelled`` goes on."""
    return [_barred(line) for line in fold(text, max(width - _LABEL - 1, 2))]


def _barred(line: str) -> str:
    return f"{'|':>{_LABEL}} {line}"


def row(texts: Sequence[str], widths: Sequence[int]) -> list[str]:
    """A row of a table, each text folded to the columns of its cell.

    What goes on in a further line does so behind a bar, for the reason that ``labelled`` has.
    """
    folded = [fold(text, width) for text, width in zip(texts, widths, strict=True)]
    if len(folded[0]) > 1:
        folded[0] = fold(texts[0], max(widths[0] - 1, 2))  # the bar takes one
    lines = []
    for number, line in enumerate(itertools.zip_longest(*folded, fillvalue="")):
        head, *rest = line
        padded = map(_padded, (f"|{head}" if number else head, *rest), widths)
        lines.append("  ".join(padded).rstrip())
    return lines


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cells(text))


def amount(value: Scalar, unit: str = "") -> str:
    """``value`` with its unit; also for the numbers that no rule accepts."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, int) and abs(value) > 10**18:
        return "beyond 1e18"
    return plain(quantity(value, unit), 200)


def more(count: int, what: str) -> str:
    """What stands in for ``count`` entries that are not listed."""
    return f"... and {count:,} more {what}"


def named(outcome: Outcome) -> str:
    """Reason code and status of an outcome, and why it may not count."""
    mark = "warn, " if outcome.severity == "warn" else ""
    return f"{plain(outcome.reason)} ({mark}{outcome.status})"


def vote_of(ballot: Ballot) -> str:
    """A judge and its vote, with the reason where it has no outcomes to tell it."""
    told = f"{plain(ballot.judge, 63)} {ballot.vote}"
    return (
        f"{told} ({plain(ballot.reason, 120)})" if ballot.reason and not ballot.outcomes else told
    )


def votes_of(slo: SloDecision) -> str:
    """Every judge's vote on an SLO."""
    return ", ".join(vote_of(ballot) for ballot in slo.ballots) or "no judge voted"


def bad_checks(decision: Decision) -> list[Outcome]:
    """The checks that are not successful."""
    return [check for check in decision.checks if check.status is not Status.SUCCESSFUL]


def worst_first(slos: Sequence[SloDecision]) -> list[SloDecision]:
    """``slos`` with those that are not GO in front, so that a cut never hides them."""
    return sorted(slos, key=lambda slo: slo.verdict == "GO")


def reason_text(reason: Reason) -> str:
    """A reason in one line: count, code, label, who says so, and why."""
    who = plain(", ".join(reason.judges), 300) if reason.judges else "check"
    aside = " (outvoted)" if reason.outvoted else ""
    code, label = plain(reason.code), plain(reason.label, 100)
    return f"{reason.count}x {code}{aside} [{label}] {who}: {plain(reason.message)}"


def dissent_of(slo: SloDecision) -> list[Ballot]:
    """The ballots that the quorum outvoted."""
    return [ballot for ballot in slo.ballots if ballot.judge in slo.dissent]
