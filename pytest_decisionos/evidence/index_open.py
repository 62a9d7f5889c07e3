"""The index opened for appending, and asked for what it can vouch for."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from pytest_decisionos.errors import RefusedError
from pytest_decisionos.evidence import index_files
from pytest_decisionos.evidence.index_files import HEAD, INDEX, Fault
from pytest_decisionos.evidence.index_head import (
    SignedHead,
    require_trusted,
    require_writer,
    signature_fault,
    time_text,
    told,
    write_head,
)
from pytest_decisionos.evidence.index_verify import Known, fold, snapshot
from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.trust import journal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.evidence.config import Retention
    from pytest_decisionos.model.target import Target
    from pytest_decisionos.trust.ed25519 import PrivateKey
    from pytest_decisionos.trust.trustfile import TrustFile

TAKEN_UP: Final = frozenset({"indexed", "changed", "locked"})
"""Events that say that a file is there with these bytes."""


class BrokenIndexError(RefusedError):
    """An index to which nothing may be appended.

    Attributes:
        faults: all that is wrong.
    """

    def __init__(self, root: Path, faults: Sequence[Fault]) -> None:
        first = faults[0]
        super().__init__(
            f"{first.cause}: {first.message}",
            file=root / first.path,
            line=first.line,
            next_step="find out who changed it; put the last good copy back",
        )
        self.faults = tuple(faults)


class Index:
    """An index that is locked for writing; ``opened`` gives one.

    Attributes:
        state: path → what the entries say.
        target: what it is about.
        dates: path → SHA-256 and date of LOCKED documents in entries that no head covered.
        redone: the number of those entries, which are taken back.
    """

    def __init__(
        self, root: Path, writer: journal.Writer, signed: SignedHead | None, key: PrivateKey | None
    ) -> None:
        self._root, self._writer, self._key = root, writer, key
        self.state: dict[str, Known] = {}
        self.target = None if signed is None else signed.target
        self.dates: dict[str, tuple[str, str]] = {}
        self.redone = 0

    @property
    def entries(self) -> int:
        """How many there are."""
        return self._writer.head.entries

    @property
    def keyid(self) -> str:
        """The key that signs its head; empty if none does."""
        return self._key.keyid if self._key else ""

    def append(self, payloads: Sequence[Mapping[str, Any]], now: datetime) -> None:
        """Append entries and sign the new head; both are on disk when this returns."""
        if not payloads:
            return
        if self._writer.head == journal.EMPTY:
            # From now on an index without a head, or a head without an index, is a fault: neither
            # a crash before the first head nor a deleted head looks like a new index.
            self._write_head(now)
        before = self.entries
        self._writer.append([{**payload, "at": time_text(now)} for payload in payloads])
        self._write_head(now)
        fold(self.state, self._writer.entries[before:])

    def _write_head(self, now: datetime) -> None:
        write_head(self._root, self._writer.head, target=self.target, now=now, key=self._key)

    def date_of(self, path: str, sha256: str, now: datetime, retention: Retention) -> str:
        """Until when a LOCKED document stays that is taken up now."""
        date = time_text(now + timedelta(days=retention.locked_days))
        known, until = self.dates.get(path, ("", ""))
        # Said by an entry that no head covers: it may only lengthen.
        return max(date, until) if known == sha256 else date

    def take_back(self, covered: int, rest: Sequence[Mapping[str, Any]]) -> None:
        """Remove the entries that came after the head."""
        for entry in rest:
            until = entry.get("retain_until")
            if entry["event"] in TAKEN_UP and until is not None:
                self.dates[entry["path"]] = (entry["sha256"], until)
        self._writer.cut(covered)
        self.redone = len(rest)


@contextlib.contextmanager
def opened(
    root: Path,
    *,
    now: datetime,
    key: PrivateKey | None,
    trust: TrustFile | None = None,
    target: Target | None = None,
) -> Iterator[Index]:
    """Open the index for appending, as its only writer.

    Args:
        root: root folder of the target.
        now: the time here.
        key: the index key; None leaves the head unsigned, if it is.
        trust: whose signature may stand under the head that is there.
        target: what a new index is about; None takes the first target that a document names.

    Raises:
        BrokenIndexError: index or head were changed.
        EvidenceError: a folder cannot be used.
        RefusedError: the head may not be replaced here, or another writer has it for too long.
        UsageError: it cannot be written.
    """
    found = snapshot(root)
    if found.faults:  # before the journal, which would cut off what lost its end
        raise BrokenIndexError(root, found.faults)
    with journal.open_journal(root / INDEX) as writer:
        found = snapshot(root)
        if found.faults:
            raise BrokenIndexError(root, found.faults)
        signed = found.signed
        require_writer(root, signed, key, trust, now=now)
        index = Index(root, writer, signed, key)
        if index.target is None and target is not None:
            index.target = target.model_dump()
        elif target is not None and index.target != target.model_dump():
            raise RefusedError(
                "the index is about another target",
                file=root / HEAD,
                found=told(index.target),
                expected=str(target),
            )
        require_trusted(key, trust, index.target, now)
        # Entries beyond the head: a crash came between append and head, so nobody was told that
        # they are there, and nothing was deleted on their account. Or somebody without the key
        # wrote them. Signing them would vouch for what this process never saw, and for a time that
        # no file can confirm. So they are taken back, and what they said of files that are there is
        # found again, by the time of now, by who looks at the files. Only a LOCKED document or a
        # bundle that is not as they say stops that: then a head was put back, and a file changed.
        rest = found.entries[found.covered :]
        if rest:
            _confirm(root, rest)
            index.take_back(found.covered, rest)
        fold(index.state, writer.entries)
        yield index


def _confirm(root: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    said = {
        entry["path"]: entry["sha256"]
        for entry in entries
        if entry["event"] in {*TAKEN_UP, "deleted"} and entry["tier"] != "wip"
    }
    faults: list[Fault] = []
    files = index_files.hash_files(root, sorted(said), faults)
    for path, sha256 in said.items():
        if path not in files:
            faults.append(Fault("removed", path, None, "an entry tells of it, and it is not there"))
        elif files[path].sha256 != sha256:
            faults.append(Fault("changed", path, None, "is not what an entry says"))
    if faults:
        raise BrokenIndexError(root, faults)


def record(
    root: Path,
    payloads: Sequence[Mapping[str, Any]],
    *,
    now: datetime,
    key: PrivateKey | None = None,
    trust: TrustFile | None = None,
) -> None:
    """Append what was done with documents elsewhere: events ``uploaded`` and ``anchored``.

    Raises:
        RefusedError: the index was changed, or may not be written here.
        UsageError: it cannot be written.
        ValueError: an event is neither of these.
    """
    if any(payload.get("event") not in {"uploaded", "anchored"} for payload in payloads):
        raise ValueError("not an event of the archive")
    with opened(root, now=now, key=key, trust=trust) as index:
        index.append(payloads, now)


def anchored_at(
    root: Path,
    sha256: str,
    *,
    trust: TrustFile | None,
    now: datetime,
    target: Target | None = None,
) -> datetime | None:
    """When the index first took up a file with these bytes; None if nobody can vouch for that.

    Only entries under a head whose signature counts say a time that can be believed, so without a
    trust file there is none.

    Raises:
        EvidenceError: there is no such root, or its evidence folder cannot be used.
    """
    found = snapshot(root)
    if trust is None or found.signed is None or found.faults:
        return None
    if signature_fault(found.signed, trust, now=now, target=target) is not None:
        return None
    for entry in found.entries[: found.covered]:
        if entry["event"] in TAKEN_UP and entry["sha256"] == sha256:
            return parse_time(entry["at"])
    return None


def follows(root: Path, head: journal.Head) -> bool:
    """Whether the index is the one that had ``head`` once, with or without more after it.

    An old index put back together with its old head looks whole. It does not follow a newer head
    that was anchored elsewhere.
    """
    return journal.follows(journal.read(root / INDEX), head)
