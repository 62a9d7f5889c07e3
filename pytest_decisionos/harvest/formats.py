"""The formats of a log: each becomes the view ``source`` that the one query text reads."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_decisionos.errors import LogError, shown

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

    from pytest_decisionos.harvest.source import Source

REQUIRED: Final = ("ts", "status", "latency_ms")
NAMES: Final = ("route", "tenant", "variant", "release")
KNOWN: Final = (*REQUIRED, "signature_error", *NAMES)
_NUMBERS: Final = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "U",
    "FLOAT",
    "DOUBLE",
    "DECIMAL",
    "VARCHAR",
)
MAX_COLUMNS: Final = 1000
REJECTS_LIMIT: Final = 100_001
"""One more than the most bad rows that anybody may tolerate (``options.MAX_BAD_ROWS``)."""


@dataclass(frozen=True)
class Columns:
    """What a log's columns are called.

    Attributes:
        heads: every column, as spelled in the file.
        types: its DuckDB type, for Parquet.
        index: known name → which column.
    """

    heads: list[str]
    types: list[str]
    index: dict[str, int]


def columns(source: Source, con: duckdb.DuckDBPyConnection) -> Columns:
    """The columns of a log. Names are stripped and compared without case.

    Raises:
        LogError: a required column is missing, a known one stands there twice, the first line
            cannot be read, or a Parquet column cannot hold what it should.
    """
    types: list[str] = []
    if source.kind == "parquet":
        described = con.execute(
            f"DESCRIBE SELECT * FROM read_parquet({_literal(source.readable)})"  # noqa: S608
        ).fetchall()
        heads, types = [str(row[0]) for row in described], [str(row[1]) for row in described]
    else:
        heads = _first_keys(source) if source.kind == "json" else _header(source)
    plain = [head.strip().lower() for head in heads]
    twice = sorted({name for name in plain if plain.count(name) > 1} & set(KNOWN))
    if twice:
        raise LogError("a column twice", file=source.path, line=1, found=", ".join(twice))
    missing = [name for name in REQUIRED if name not in plain]
    if missing:
        raise LogError(
            f"missing column{'s' if missing[1:] else ''} {', '.join(missing)}",
            file=source.path,
            line=1,
            found=", ".join(shown(head, 40) for head in heads[:12]) or "no column",
            expected=f"columns {', '.join(REQUIRED)}; optional {', '.join(KNOWN[3:])}",
        )
    index: dict[str, int] = {name: plain.index(name) for name in KNOWN if name in plain}
    for name in ("status", "latency_ms"):
        if types and not types[index[name]].startswith(_NUMBERS):
            raise LogError(
                "not a column of numbers", file=source.path, field=name, found=types[index[name]]
            )
    return Columns(heads, types, index)


def view(source: Source, found: Columns, readable: Path) -> str:
    """The SQL that makes ``source`` a view of the log.

    Args:
        source: the log.
        found: its columns.
        readable: the file to read: the log itself, or a sample of it.
    """
    if source.kind == "json":
        texts = {name: f"({_quoted(found.heads[i])} ->> '$')" for name, i in found.index.items()}
        for name in ("status", "latency_ms"):
            column = _quoted(found.heads[found.index[name]])
            texts[name] = (
                f"CASE WHEN json_type({column}) IN ('UBIGINT', 'BIGINT', 'DOUBLE')"
                f" THEN TRY_CAST({column} AS DOUBLE) END"
            )
        relation = _json_relation(found, readable)
    elif source.kind == "parquet":
        texts = {name: _quoted(found.heads[i]) for name, i in found.index.items()}
        if found.types[found.index["ts"]] == "TIMESTAMP WITH TIME ZONE":
            texts["ts"] = f"epoch_ms({texts['ts']})"
        relation = f"read_parquet({_literal(readable)})"
    else:
        texts = {name: f"c{i}" for name, i in found.index.items()}
        relation = _csv_relation(found, readable)
    names = ", ".join(
        f"coalesce(CAST({texts.get(name, 'NULL')} AS VARCHAR), '') AS {name}" for name in NAMES
    )
    return (
        f"CREATE OR REPLACE VIEW source AS SELECT CAST({texts['ts']} AS VARCHAR) AS ts,"  # noqa: S608
        f" TRY_CAST({texts['status']} AS DOUBLE) AS status,"
        f" TRY_CAST({texts['latency_ms']} AS DOUBLE) AS latency,"
        f" CAST({texts.get('signature_error', 'NULL')} AS VARCHAR) AS signature, {names}"
        f" FROM {relation}"
    )


def _literal(value: object) -> str:
    """``value`` as an SQL string."""
    return "'" + str(value).replace("'", "''") + "'"


def _quoted(name: str) -> str:
    """``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _text(source: Source) -> str:
    try:
        text = source.first_line().decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise LogError(
            "not UTF-8",
            file=source.path,
            line=1,
            found=f"byte 0x{fault.object[fault.start]:02x} at {fault.start}",
        ) from None
    if "\0" in text:
        raise LogError("not a text file", file=source.path, line=1, found="a null character")
    return text


def _header(source: Source) -> list[str]:
    text = _text(source)
    try:
        heads = next(csv.reader(io.StringIO(text), strict=True), [])
    except csv.Error as fault:
        raise LogError(f"not a CSV header: {fault}", file=source.path, line=1) from None
    if len(heads) > MAX_COLUMNS:
        raise LogError("too many columns", file=source.path, line=1, found=len(heads))
    return heads


def _first_keys(source: Source) -> list[str]:
    try:
        pairs = json.loads(_text(source), object_pairs_hook=lambda pairs: [k for k, _ in pairs])
    except (ValueError, RecursionError):
        pairs = None
    if not isinstance(pairs, list) or not all(isinstance(key, str) for key in pairs):
        raise LogError(
            "the first line is not a JSON object", file=source.path, line=1, expected="JSON lines"
        )
    return pairs


def _json_relation(found: Columns, readable: Path) -> str:
    # ``JSON`` keeps each value's own spelling: true is no latency, "200" is no status.
    fields = ", ".join(f"{_literal(found.heads[i])}: 'JSON'" for i in found.index.values())
    return (
        f"read_json({_literal(readable)}, format = 'newline_delimited', compression = 'uncompressed',"
        f" ignore_errors = true, columns = {{{fields}}})"
    )


def _csv_relation(found: Columns, readable: Path) -> str:
    numbers = {found.index["status"], found.index["latency_ms"]}
    fields = ", ".join(
        f"'c{i}': '{'DOUBLE' if i in numbers else 'VARCHAR'}'" for i in range(len(found.heads))
    )
    return (
        f"read_csv({_literal(readable)}, auto_detect = false, header = false, skip = 1,"
        " delim = ',', quote = '\"', escape = '\"', compression = 'none', ignore_errors = true,"
        f" store_rejects = true, rejects_limit = {REJECTS_LIMIT}, columns = {{{fields}}})"
    )


def rejects(
    con: duckdb.DuckDBPyConnection, source: Source
) -> list[tuple[int, int | None, str, str]]:
    """(line, column from 1, error, text) of each line that the last scan refused as no CSV row."""
    if source.kind != "csv":
        return []
    rows = con.execute(
        "SELECT line, min(column_idx), min(CAST(error_type AS VARCHAR)), any_value(csv_line)"
        " FROM reject_errors GROUP BY line ORDER BY line"
    ).fetchall()
    con.execute("DROP TABLE reject_errors")
    con.execute("DROP TABLE reject_scans")
    return rows
