"""Rows that cannot be read: quoted with their line, so that somebody can mend the log."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_decisionos.errors import LogError, shown
from pytest_decisionos.harvest.formats import REJECTS_LIMIT, REQUIRED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_decisionos.harvest.formats import Columns
    from pytest_decisionos.harvest.source import Source

QUOTED: Final = 3
_SEARCHED: Final = 2_000_000
"""Lines of a log that are searched for its bad rows."""

_ANY_LOCAL: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?")

_REJECTED: Final = {
    "CAST": "not a number",
    "MISSING COLUMNS": "columns missing",
    "TOO MANY COLUMNS": "too many columns",
    "UNQUOTED VALUE": "a quote is not closed",
    "LINE SIZE OVER MAXIMUM": "line too long",
    "INVALID ENCODING": "not UTF-8",
    "INVALID UNICODE": "not UTF-8",
}


@dataclass(frozen=True)
class Reject:
    """A line that DuckDB's CSV reader refused: its number, column, kind of error and text."""

    line: int
    column: int | None
    error: str
    text: str


@dataclass
class BadRows:
    """The rows of one log that cannot be read.

    Attributes:
        source: the log.
        columns: its columns.
        rejects: lines that are no rows at all.
        said: of unreadable rows [ts, status, latency_ms, signature_error], or a reason alone.
        strangers: variants that are neither control nor canary.
    """

    source: Source
    columns: Columns
    rejects: Sequence[Reject]
    said: Sequence[Sequence[str | None]]
    strangers: set[str]

    def quotes(self) -> list[tuple[int, str]]:
        """(line, text) of the first of them; line 0 where it is not known."""
        made = [
            (reject.line, f"{self._why_rejected(reject)}: {reject.text.strip()}")
            for reject in self.rejects[:QUOTED]
        ]
        if self.said or self.strangers:
            made += self._located() or [
                *((0, _row_text(said)) for said in self.said[:QUOTED]),
                *((0, _stranger(variant)) for variant in sorted(self.strangers)),
            ]
        return sorted(made, key=lambda quote: quote[0] or _SEARCHED)[:QUOTED]

    def _why_rejected(self, reject: Reject) -> str:
        why = _REJECTED.get(reject.error, reject.error.lower())
        heads = self.columns.heads
        if reject.error == "CAST" and reject.column and reject.column <= len(heads):
            return f"{shown(heads[reject.column - 1].strip(), 40)} is {why}"
        return why

    def _located(self) -> list[tuple[int, str]]:
        """The same found again in the text of the log, for their lines."""
        keys = {(s[0], _number(s[1]), _number(s[2])): s for s in self.said if len(s) == 4}
        made: list[tuple[int, str]] = []
        for line, row in self._rows():
            ts, status, latency = (row.get(name) for name in REQUIRED)
            said = keys.get((ts or None, _number(status), _number(latency)))
            if said is not None:
                made.append((line, _row_text(said)))
            elif (row.get("variant") or "") in self.strangers:
                made.append((line, _stranger(row.get("variant"))))
            if len(made) == QUOTED:
                break
        return made

    def _rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """(line, row) of the log's first rows, as Python reads them."""
        if self.source.kind == "parquet":
            return
        readable = self.source.readable
        with readable.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            if self.source.kind == "json":
                for line, text in enumerate(itertools.islice(stream, _SEARCHED), 1):
                    with contextlib.suppress(ValueError, RecursionError, AttributeError):
                        row = {k.strip().lower(): v for k, v in json.loads(text).items()}
                        ts = row.get("ts")
                        # As the query sees them: "200" in quotes is no status.
                        numbers = {n: row.get(n) for n in REQUIRED[1:]}
                        yield (
                            line,
                            {
                                **row,
                                **{
                                    n: None if isinstance(v, str) else v for n, v in numbers.items()
                                },
                                "ts": None if ts is None else str(ts),
                            },
                        )
                return
            reader = csv.reader(stream)
            with contextlib.suppress(csv.Error):
                for fields in itertools.islice(reader, 1, _SEARCHED):
                    if len(fields) == len(self.columns.heads):
                        yield reader.line_num, {n: fields[i] for n, i in self.columns.index.items()}


def refuse(count: int, allowed: int, logs: Sequence[BadRows]) -> None:
    """Say which rows cannot be read.

    Raises:
        LogError: always.
    """
    quotes = [(log, line, text) for log in logs for line, text in log.quotes()][:QUOTED]
    words = "; ".join(
        (f"{log.source.path.name} " if len(logs) > 1 else "")
        + (f"line {line}: " if line else "")
        + shown(text, 100)
        for log, line, text in quotes
    )
    at_least = "at least " if count >= REJECTS_LIMIT else ""
    raise LogError(
        f"{at_least}{count:,} row{'s' if count != 1 else ''} cannot be read: {words}",
        file=(quotes[0][0] if quotes else logs[0]).source.path,
        line=(quotes[0][1] or None) if quotes else None,
        expected=f"at most {allowed:,} (--max-bad-rows)",
        next_step="name the log's zone, such as --assume-tz Asia/Seoul"
        if _NAIVE in words
        else None,
    )


_NAIVE: Final = "ts has no offset"


def _number(value: object) -> float | None:
    try:
        return None if value is None or isinstance(value, bool) else float(str(value))
    except ValueError:
        return None


def _stranger(variant: object) -> str:
    return f"variant {shown(variant, 40)} is neither control nor canary"


def _row_text(said: Sequence[str | None]) -> str:
    """An unreadable row in words: why, and what it says."""
    if len(said) < 4:
        return str(said[0])
    return f"{_why(said)}: " + ",".join("" if s is None else s for s in said[:3])


def _why(said: Sequence[str | None]) -> str:
    ts, status, latency = said[0] or "", _number(said[1]), _number(said[2])
    if status is None or not 100 <= status <= 599 or status % 1:
        return "status is not a whole number of 100 to 599"
    if latency is None or not 0 <= latency <= 1e9:
        return "latency_ms is not a number of 0 to 1e9"
    if _ANY_LOCAL.fullmatch(ts):
        return _NAIVE
    return "ts is not a time" if said[3] is None else "ts or signature_error cannot be read"
