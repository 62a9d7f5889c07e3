"""Log files → the rows that count: each parsed once, checked, filtered."""

from __future__ import annotations

import contextlib
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_decisionos.errors import LogError, UsageError, shown
from pytest_decisionos.harvest import formats
from pytest_decisionos.harvest.engine import Engine, in_words
from pytest_decisionos.harvest.options import Options, split_filter
from pytest_decisionos.harvest.refuse import BadRows, Reject, refuse
from pytest_decisionos.harvest.source import ChangedError, Source, open_source, sample
from pytest_decisionos.harvest.times import time_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FUTURE_MS: Final = 5000
"""How far a row's time may be ahead of ours: clocks differ."""

_SLOT_MS: Final = 900_000
"""Clocks change at whole quarters of an hour of local time; query.sql knows it too."""

_ALWAYS: Final = (0, 1 << 62)
_UNCLEAR: Final = "a local time that the clock change skips or repeats"


@dataclass(frozen=True)
class Given:
    """A log to harvest, and what is known of it before.

    Attributes:
        path: the file.
        bytes: count only this many bytes of it; None means all that are finished lines.
        sha256: the digest that they must have; None means any.
    """

    path: Path
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Loaded:
    """Logs that are parsed, filtered and ready to be measured.

    Attributes:
        engine: its table ``kept`` holds the rows that count, its view ``compared`` also the copies
            that a canary in shadow is measured by.
        sources: the entries of ``witness.sources``.
        first: time of the first row that counts, epoch ms.
        last: time of the last.
        canary_since: time of the first canary row; None where there is none.
        has_variants: whether the rows name control and canary.
        has_signature: whether the rows say if a signature failed.
        releases: variant (empty where there is none) → release.
        names: (``route`` or ``tenant``, code) → name.
    """

    engine: Engine
    sources: list[dict[str, Any]]
    first: int
    last: int
    canary_since: int | None
    has_variants: bool
    has_signature: bool
    releases: dict[str, str]
    names: dict[tuple[str, int], str]


@contextlib.contextmanager
def load(
    given: Sequence[Given],
    *,
    role: str,
    options: Options,
    now: int | None,
    tell: Callable[[float, str], None],
) -> Iterator[Loaded]:
    """Parse logs, and keep what counts while the context lasts.

    Args:
        given: the logs; together they are one stream of requests.
        role: ``reqlog``, ``judgelog`` or ``peer``.
        options: how.
        now: epoch ms; rows from after it are refused. None does not ask.
        tell: is told the share of the work that is done, and what is next.

    Raises:
        LogError: a log cannot be harvested.
        UsageError: the folder for temporary files cannot be used.
    """
    with contextlib.ExitStack() as stack:
        try:
            logs = _read(given, options, tell, stack, copy=False)
        except ChangedError:
            stack.close()
            # A log that grows is read from a copy, which does not.
            logs = _read(given, options, tell, stack, copy=True)
        with in_words():
            made = logs.keep(role, now)
        yield made


def _read(
    given: Sequence[Given],
    options: Options,
    tell: Callable[[float, str], None],
    stack: contextlib.ExitStack,
    *,
    copy: bool,
) -> _Logs:
    try:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harvest-")))
    except OSError as fault:
        raise UsageError(f"no temporary folder: {fault.strerror}", field="TMPDIR") from None
    folder = folder.resolve()
    if re.search(r"[*?\[]", str(folder)):
        raise UsageError("has a sign that DuckDB would expand", field="TMPDIR", found=str(folder))
    engine = Engine(folder)
    stack.callback(engine.con.close)
    sources: list[Source] = []
    for number, one in enumerate(given):
        sources.append(open_source(one.path, folder, number, stated=one.bytes, copy=copy))
        stack.callback(sources[-1].close)
    pool = stack.enter_context(ThreadPoolExecutor(1))
    digests = [pool.submit(source.digest) for source in sources]
    logs = _Logs(engine, sources, options, tell)
    try:
        engine.lock(sources)
        logs.parse()
    finally:
        # Nothing is said of what was read before the bytes are known to be the right ones.
        for one, source, digest in zip(given, sources, digests, strict=True):
            if digest.result() != (one.sha256 or source.sha256):
                raise LogError(
                    "was changed since the evidence was made",
                    file=one.path,
                    field="sha256",
                    found=source.sha256,
                    expected=one.sha256,
                )
            source.check_unchanged()
    return logs


class _Logs:
    """All logs of a harvest, before and after it is settled which of their rows count."""

    def __init__(
        self,
        engine: Engine,
        sources: Sequence[Source],
        options: Options,
        tell: Callable[[float, str], None],
    ) -> None:
        self.engine = engine
        self.sources = sources
        self.options = options
        self.tell = tell
        self.columns: list[formats.Columns] = []
        self.rejects: list[list[Reject]] = []
        self.bad: list[int] = []
        since, until = options.since, options.until
        self.span = {
            "since": _ALWAYS[0] if since is None else since,
            "until": _ALWAYS[1] if until is None else until,
        }

    def parse(self) -> None:
        """Read every log into the table ``rows``."""
        total, done = sum(source.size for source in self.sources), 0
        filters = [(i, *split_filter(text)) for i, text in enumerate(self.options.filters)]
        self.engine.fill("filters", filters)
        for number, source in enumerate(self.sources):
            self.tell(0.6 * done / total, f"reading {source.path.name}")
            with in_words(source):
                self._parse(number, source)
            done += source.size
        with in_words():
            self._settle_local_times()

    def _parse(self, number: int, source: Source) -> None:
        engine = self.engine
        found = formats.columns(source, engine.con)
        self.columns.append(found)
        small = sample(source, engine.folder)
        if small is not None:
            engine.con.execute(formats.view(source, found, small))
            engine.run("known", salt=engine.salt)
            formats.rejects(engine.con, source)
        engine.con.execute(formats.view(source, found, source.readable))
        engine.run(
            "load",
            salt=engine.salt,
            file=number,
            zone_known=self.options.assume_tz is not None,
            has_signature="signature_error" in found.index,
        )
        self.rejects.append([Reject(*row) for row in formats.rejects(engine.con, source)])

    def _settle_local_times(self) -> None:
        zone = self.options.zone()
        if zone is None:
            return
        shifts: list[tuple[int, int | None]] = []
        for (slot,) in self.engine.run("naive_slots"):
            local = datetime.fromtimestamp(slot * _SLOT_MS / 1000, UTC).replace(tzinfo=zone)
            early, late = (local.replace(fold=fold).utcoffset() for fold in (0, 1))
            # They differ exactly where the local time does not exist or exists twice (PEP 495).
            shift = early if early == late else None
            shifts.append((slot, None if shift is None else round(shift.total_seconds() * 1000)))
        self.engine.fill("zone", shifts)
        if shifts:
            self.engine.run("zone", unclear=_UNCLEAR)

    def keep(self, role: str, now: int | None) -> Loaded:
        """Settle which rows count, into the table ``kept``."""
        engine, files = self.engine, range(len(self.sources))
        self.tell(0.6, "counting")
        readable = self._check_rows(now)
        engine.make_room(sum(readable))
        engine.run("counts", **self.span)
        engine.run("kinds", shadow=self.options.shadow)
        variants = engine.run("variants")
        has_variants = any(variant for copy, variant, *_ in variants if not copy)
        kept, releases = self._check_variants(variants, has_variants=has_variants)
        filtered = {(file, i): n for file, i, n in engine.run("filtered")}
        engine.run("codes", has_variants=has_variants)
        engine.run("kept", **self.span)
        if self.options.shadow:
            engine.run("copies", **self.span)
        engine.run("compared")
        engine.run("drop")
        self.tell(0.7, "measuring")
        [(count, first, last, canary_since)] = engine.run("span")
        if not count:
            raise LogError(
                "no row is left to measure",
                file=self.sources[0].path,
                found=f"{sum(readable):,} rows, all of them filtered or outside the time asked for",
            )
        return Loaded(
            engine=engine,
            sources=[
                {
                    "role": role,
                    "name": self.sources[i].path.name,
                    "bytes": self.sources[i].size,
                    "sha256": self.sources[i].sha256,
                    "rows": kept[i],
                    "bad_rows": self.bad[i],
                    "unterminated": self.sources[i].unterminated,
                    "filters": [
                        {"text": text, "rows": filtered.get((i, number), 0)}
                        for number, text in enumerate(self.options.filters)
                    ],
                }
                for i in files
            ],
            first=first,
            last=last,
            canary_since=canary_since,
            has_variants=has_variants,
            has_signature=all("signature_error" in c.index for c in self.columns),
            releases=releases,
            names={(by, code): name for by, code, name in engine.run("names")},
        )

    def _check_rows(self, now: int | None) -> list[int]:
        """Refuse unreadable, missing and future rows; how many are readable, by file."""
        readable = [0] * len(self.sources)
        self.bad = [len(rejected) for rejected in self.rejects]
        for file, rows, good, last in self.engine.run("seen"):
            readable[file] = good
            self.bad[file] += rows - good
            if now is not None and last is not None and last > now + FUTURE_MS:
                raise LogError(
                    "rows from the future",
                    file=self.sources[file].path,
                    field="ts",
                    found=time_text(last),
                    expected=f"at most {time_text(now)}, the time here",
                    next_step="check both clocks, and the unit and zone of ts",
                )
        self._check_bad({})
        for good, source in zip(readable, self.sources, strict=True):
            if not good:
                raise LogError("has no rows", file=source.path, expected="rows below the header")
        return readable

    def _check_variants(
        self, variants: Sequence[tuple[bool, str, str, int, int]], *, has_variants: bool
    ) -> tuple[list[int], dict[str, str]]:
        """Refuse mixed releases, and more unknown variants than tolerated.

        Returns:
            Rows kept by file, and releases by variant.
        """
        kept = [0] * len(self.sources)
        releases: dict[str, str] = {}
        strangers: dict[int, set[str]] = {}
        for copy, named, release, file, n in variants:
            variant = "canary" if copy else named
            if has_variants and variant not in {"control", "canary"}:
                self.bad[file] += n
                strangers.setdefault(file, set()).add(variant)
                continue
            kept[file] += 0 if copy else n
            if release and releases.setdefault(variant, release) != release:
                raise LogError(
                    "two releases in one variant",
                    file=self.sources[file].path,
                    field="release",
                    found=f"{shown(releases[variant], 60)} and {shown(release, 60)}"
                    + (f" in {variant}" if variant else ""),
                    expected="one: the numbers of a mixture judge neither",
                    next_step="cut the log with --since, or log each request's variant",
                )
        self._check_bad(strangers)
        return kept, releases

    def _check_bad(self, strangers: dict[int, set[str]]) -> None:
        if sum(self.bad) <= self.options.max_bad_rows:
            return
        said = self.engine.run("unreadable")
        refuse(
            sum(self.bad),
            self.options.max_bad_rows,
            [
                BadRows(
                    source,
                    self.columns[i],
                    self.rejects[i],
                    [values for file, values in said if file == i],
                    strangers.get(i, set()),
                )
                for i, source in enumerate(self.sources)
            ],
        )
