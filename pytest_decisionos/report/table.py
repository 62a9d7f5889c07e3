"""The table of ``dosctl judge quorum``: a row per rule, a column per judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import Box
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from pytest_decisionos.model.outcome import Status
from pytest_decisionos.report.terminal import MAX_REASONS, about_lines, bound_text, why_lines
from pytest_decisionos.report.text import amount, labelled, more, plain, vote_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from pytest_decisionos.model.decision import Decision, SloDecision
    from pytest_decisionos.model.outcome import Outcome, Scalar

# A bar at the left of every line: a folded rule id must not begin one (see text.labelled).
_BOX = Box("    \n|   \n|-- \n|   \n|-- \n|-- \n|   \n    \n", ascii=True)
_MARKS = {
    Status.SUCCESSFUL: ("✓", "+"),
    Status.FAILED: ("✗", "x"),
    Status.INCONCLUSIVE: ("?", "?"),
    Status.ERROR: ("!", "!"),
    None: ("–", "-"),
}
_WORDS = {
    Status.SUCCESSFUL: "pass",
    Status.FAILED: "fail",
    Status.INCONCLUSIVE: "inconclusive",
    Status.ERROR: "error",
    None: "no vote",
}
_STYLES = {"GO": "bold green", "HOLD": "bold yellow", "NO-GO": "bold red"}
_MARK_STYLES = {
    Status.SUCCESSFUL: "green",
    Status.FAILED: "red",
    Status.INCONCLUSIVE: "yellow",
    Status.ERROR: "magenta",
    None: "dim",
}
MAX_DETAILS = 50


class QuorumTable:
    """A rich renderable; in colour on a terminal only, in ASCII where UTF-8 cannot be written."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for item in _Writer(options).items(self.decision):
            if isinstance(item, Text):
                yield item
                continue
            for line in console.render_lines(item, options, pad=False):
                yield from _without_end(line)
                yield Segment.line()


class _Writer:
    """Writes for one console: its width, and the characters that it can show."""

    def __init__(self, options: ConsoleOptions) -> None:
        self._width = options.max_width
        self._encoding = options.encoding if options.ascii_only else "utf-8"
        self._ascii = options.ascii_only

    def items(self, decision: Decision) -> Iterator[Table | Text]:
        told = {reason.code for reason in decision.reasons[:MAX_REASONS]}
        for slo in decision.slos:
            head = f"{plain(slo.slo, 400)}: {slo.verdict}, quorum {slo.quorum}"
            for line in labelled("slo", head, self._width):
                yield self._line(line, _STYLES[slo.verdict])
            yield self._table(slo)
            votes = [f"{number} {vote_of(ballot)}" for number, ballot in enumerate(slo.ballots, 1)]
            yield from self._lines(labelled("votes", ", ".join(votes), self._width))
            for line in self._details(slo, told):
                yield from self._lines(labelled("rule", line, self._width))
        if any(ballot.outcomes for slo in decision.slos for ballot in slo.ballots):
            legend = ", ".join(f"{self._mark(status)} {word}" for status, word in _WORDS.items())
            legend += "; the numbers are those of the worst vote"
            yield from self._lines(labelled("legend", legend, self._width))
        yield from self._lines(why_lines(decision, self._width))
        first, *rest = about_lines(decision, self._width)
        yield from self._lines(rest)
        yield self._line(first, _STYLES[decision.verdict])

    def _table(self, slo: SloDecision) -> Table:
        table = Table(box=_BOX, padding=0, pad_edge=False, header_style="bold")
        table.add_column("rule", overflow="fold", ratio=1, min_width=12)
        for name, most in (("observed", 16), ("limit", 11), ("bound", 14), ("margin", 11)):
            table.add_column(name, overflow="fold", justify="right", max_width=most)
        # As many columns as judges would not fit for n = 99: one that folds between them.
        judges = [f"{number:<2}" for number in range(1, len(slo.ballots) + 1)]
        table.add_column(" ".join(judges).rstrip(), max_width=23)
        for outcomes in _by_rule(slo):
            speaker = max(filter(None, outcomes), key=lambda outcome: outcome.status.badness)
            table.add_row(
                self._text(plain(speaker.id, 1000) + _marks_of(speaker)),
                self._amount(speaker.observed, speaker.unit),
                self._amount(speaker.limit, speaker.unit),
                self._text(bound_text(speaker) or ""),
                self._amount(speaker.margin, speaker.unit),
                self._votes(outcomes),
            )
        return table

    def _votes(self, outcomes: list[Outcome | None]) -> Text:
        row = Text()
        for outcome in outcomes:
            status = outcome.status if outcome else None
            row.append(f"{self._mark(status):<3}", _MARK_STYLES[status])
        row.rstrip()
        return row

    def _details(self, slo: SloDecision, told: set[str]) -> Iterator[str]:
        """What was said of each rule that is not successful and no reason tells, each once."""
        said: dict[str, list[str]] = {}
        for ballot in slo.ballots:
            for outcome in ballot.outcomes:
                counted = outcome.counts and outcome.reason in told
                if outcome.status is not Status.SUCCESSFUL and not counted:
                    said.setdefault(_detail(outcome), []).append(ballot.judge)
        for text, judges in list(said.items())[:MAX_DETAILS]:
            yield f"{plain(', '.join(judges), 300)}: {text}"
        if len(said) > MAX_DETAILS:
            yield more(len(said) - MAX_DETAILS, "that are not successful")

    def _amount(self, value: Scalar, unit: str) -> Text:
        return self._text("" if value is None else amount(value, unit))

    def _mark(self, status: Status | None) -> str:
        return _MARKS[status][self._ascii]

    def _text(self, text: str) -> Text:
        if self._ascii:
            data = text.replace("…", "...").encode(self._encoding, "backslashreplace")
            return Text(data.decode(self._encoding))
        return Text(text)

    def _line(self, text: str, style: str = "") -> Text:
        line = self._text(text)
        line.stylize(style)
        line.no_wrap, line.overflow = True, "ignore"  # folded already, behind a label
        return line

    def _lines(self, lines: list[str]) -> Iterator[Text]:
        for line in lines:
            yield self._line(line)


def _without_end(line: Sequence[Segment]) -> list[Segment]:
    """``line`` without the blanks that fill the last column."""
    left = list(line)
    while left and not left[-1].text.rstrip():
        left.pop()
    return [*left[:-1], Segment(left[-1].text.rstrip(), left[-1].style)] if left else []


def _by_rule(slo: SloDecision) -> list[list[Outcome | None]]:
    """Per rule, what each judge says of it."""
    ids = dict.fromkeys(outcome.id for ballot in slo.ballots for outcome in ballot.outcomes)
    said = [{outcome.id: outcome for outcome in ballot.outcomes} for ballot in slo.ballots]
    return [[outcomes.get(rule) for outcomes in said] for rule in ids]


def _marks_of(outcome: Outcome) -> str:
    marks = ["warn"] * (outcome.severity == "warn") + ["waived"] * (outcome.waived is not None)
    return f" ({', '.join(marks)})" if marks else ""


def _detail(outcome: Outcome) -> str:
    counts = [] if outcome.samples is None else [f"{amount(outcome.samples)} samples"]
    if outcome.effective is not None:
        counts.append(f"{amount(outcome.effective)} effective")
    if outcome.needed:
        counts.append(f"about {amount(outcome.needed)} more are needed")
    if outcome.waived is not None:
        counts.append(f"waived {plain(outcome.waived, 300)}")
    aside = f" ({', '.join(counts)})" if counts else ""
    return f"{plain(outcome.reason, 1000)}{_marks_of(outcome)}: {plain(outcome.message)}{aside}"
