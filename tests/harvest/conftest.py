"""Small logs for the tests of the harvest."""

from __future__ import annotations

import pytest
from harvest_logs import csv_text, rows_of


@pytest.fixture
def write_log(tmp_path):
    """Write a CSV log: of rows, of text, or of bytes."""

    def write(content=None, name="reqlog.csv", **columns):
        path = tmp_path / name
        if content is None:
            content = rows_of(**columns)
        if not isinstance(content, str | bytes):
            content = csv_text(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
