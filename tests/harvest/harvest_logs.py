"""Rows and CSV text of small logs, for the tests of the harvest."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def rows_of(n=1200, step_ms=1000, **columns):
    """``n`` healthy rows from 09:00 on; a column is a value, or a function of the row's number."""
    for i in range(n):
        time = START + timedelta(milliseconds=i * step_ms)
        row = {
            "ts": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "status": 200,
            "latency_ms": 100 + i % 50,
        }
        yield row | {k: v(i) if callable(v) else v for k, v in columns.items()}


def csv_text(rows):
    rows = list(rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
