"""A private in-memory database that runs the query text, and can read the given logs only."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import duckdb

from pytest_decisionos.errors import LogError, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_decisionos.harvest.source import Source

MEMORY_MB: Final = 700
"""DuckDB's memory for up to ten million rows: the process stays under 1 GB."""

_BYTES_PER_ROW: Final = 70
"""Of a larger log, what a row needs: 26 in a table, and twice 8 in each quantile that runs."""


_QUIET: Final = "SET enable_progress_bar = false"
"""DuckDB would draw a bar on standard output after two seconds, terminal or not."""


class Engine:
    """The database.

    Attributes:
        folder: private folder; holds what it may read, and what does not fit into memory.
        salt: makes the hashes of this run unguessable: no request can be crafted to share the hash
            of another kind of request.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.salt = secrets.randbits(63)
        self._parts = query_parts()
        self.con = duckdb.connect(
            config={
                "memory_limit": f"{MEMORY_MB}MB",
                "preserve_insertion_order": "false",
                "temp_directory": str(folder / "spill"),
                "threads": str(min(os.cpu_count() or 1, 16)),
            }
        )
        self.con.execute(_QUIET)

    def lock(self, sources: Sequence[Source]) -> None:
        """From now on let it read these files and nothing else."""
        own = [str(source.readable) for source in sources]
        # DuckDB compares real paths: a link needs both of its ends.
        theirs = [str(source.path.resolve()) for source in sources if source.in_place]
        self.con.execute("SET allowed_paths = $paths", {"paths": [*own, *theirs]})
        self.con.execute("SET allowed_directories = $paths", {"paths": [str(self.folder)]})
        self.con.execute("SET enable_external_access = false")
        self.con.execute(self._parts["setup"])

    def make_room(self, rows: int) -> None:
        """Allow the memory that this many rows need."""
        megabytes = max(MEMORY_MB, rows * _BYTES_PER_ROW // 1_000_000)
        self.con.execute(f"SET memory_limit = '{megabytes}MB'")

    def run(self, part: str, **parameters: object) -> list[tuple[Any, ...]]:
        """Run a part of the query text, and fetch what it gives."""
        return self.con.execute(self._parts[part], parameters or None).fetchall()

    def run_all(self, jobs: Sequence[tuple[str, dict[str, Any]]]) -> list[list[tuple[Any, ...]]]:
        """Run parts that do not depend on each other; what each gives, in their order.

        They run two at a time: a quantile ends in a selection that uses one processor only.
        """

        def one(job: tuple[str, dict[str, Any]]) -> list[tuple[Any, ...]]:
            part, parameters = job
            with self.con.cursor() as cursor:
                cursor.execute(_QUIET)
                return cursor.execute(self._parts[part], parameters or None).fetchall()

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, jobs))

    def fill(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Append rows to a small table."""
        if rows:
            lists = {f"c{i}": list(column) for i, column in enumerate(zip(*rows, strict=True))}
            given = ", ".join(f"unnest(${name})" for name in lists)
            self.con.execute(f"INSERT INTO {table} SELECT {given}", lists)


def query_parts() -> dict[str, str]:
    """The parts of query.sql by name."""
    text = (files("pytest_decisionos.harvest") / "query.sql").read_text("utf-8")
    _, *found = re.split(r"^-- :(\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(found[::2], found[1::2], strict=True))


@contextlib.contextmanager
def in_words(source: Source | None = None) -> Iterator[None]:
    """DuckDB's errors as one line of ours.

    Raises:
        LogError: it had one.
    """
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise LogError(
            "too large for the memory",
            file=source.path if source else None,
            next_step="harvest a shorter time with --since, or make room in TMPDIR",
        ) from None
    except duckdb.Error as fault:
        text = str(fault).partition("\n")[0]
        if source is not None:
            text = text.replace(str(source.readable), source.path.name)
        raise LogError(
            f"cannot be read: {shown(text, 300)}", file=source.path if source else None
        ) from None
