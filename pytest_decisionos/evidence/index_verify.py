"""Verifies the index: its chain, its head, and every file that it covers; changes nothing."""

from __future__ import annotations

import hashlib
import json
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pytest_decisionos.errors import EvidenceError
from pytest_decisionos.evidence import index_files
from pytest_decisionos.evidence.index_files import EVIDENCE, HEAD, INDEX, Fault, File
from pytest_decisionos.evidence.index_head import (
    MAX_BYTES,
    SignedHead,
    parse_head,
    signature_fault,
)
from pytest_decisionos.trust import journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.model.target import Target
    from pytest_decisionos.trust.trustfile import TrustFile

_ATTEMPTS: Final = 20
_PAUSE_SEC: Final = 0.1
"""A writer needs milliseconds between entry and head; the reader waits for it at most 2 s."""
_DOCUMENT: Final = frozenset({"indexed", "changed", "locked", "removed", "deleted"})
_OTHER: Final = frozenset({"uploaded", "anchored"})
_HEX: Final = re.compile(r"[0-9a-f]{64}").fullmatch
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"
).fullmatch
"""Of one form, so that the order of texts is that of times."""


class Known(NamedTuple):
    """What the index knows of a file, by its last entry.

    Attributes:
        sha256: of its bytes.
        tier: ``wip``, ``locked`` or ``bundle``.
        event: of the last entry.
        at: when the file was first taken up with these bytes.
        retain_until: nobody deletes it before; only of LOCKED documents.
        line: of the last entry.
    """

    sha256: str
    tier: str
    event: str
    at: str
    retain_until: str | None
    line: int

    @property
    def live(self) -> bool:
        """Whether the file should be there."""
        return self.event not in {"removed", "deleted"}


class Snapshot(NamedTuple):
    """Index and head as they were at one time.

    Attributes:
        entries: of the index, up to its first fault.
        signed: the head; None if there is none that can be read.
        state: path → what the entries say.
        covered: so many entries are under the head.
        faults: of index and head.
        rest: of an append that did not end: lines that the head does not cover, or a part of one.
    """

    entries: list[dict[str, Any]]
    signed: SignedHead | None
    state: dict[str, Known]
    covered: int
    faults: list[Fault]
    rest: list[Fault]


class Report(NamedTuple):
    """What was found, and done.

    Attributes:
        faults: everything that is wrong.
        documents: files that the index covers and that are there.
        entries: entries of the index.
        signature: ``signed`` (now, by the key here), ``valid`` (it counts, says the trust file),
            ``unchecked`` (no trust file here), ``unsigned``, or ``refused``.
        keyid: the key that the head says it is signed by.
        added: files taken up, as were changed, and removed, of work in progress.
        redone: entries that no head covered, and that were made again.
    """

    faults: tuple[Fault, ...]
    documents: int
    entries: int
    signature: str
    keyid: str
    added: int = 0
    changed: int = 0
    removed: int = 0
    redone: int = 0


def snapshot(root: Path) -> Snapshot:
    """Read index and head without a lock, so that who may not write can verify.

    A writer appends first and then writes the head: what does not fit is read again until it fits,
    or stays the same.

    Raises:
        EvidenceError: there is no such root, or its evidence folder cannot be used.
    """
    with index_files.folder(root) as directory:
        if directory is None:
            raise EvidenceError("no such folder", file=root, expected="the root of a target")
    last: tuple[object, object] | None = None
    for _ in range(_ATTEMPTS):
        with index_files.folder(root, EVIDENCE) as directory:
            # The head first: an index read earlier could be shorter than it.
            head = _read(directory, HEAD, MAX_BYTES)
            data = _read(directory, INDEX, journal.MAX_BYTES)
        found = _snapshot(head, data)
        if not (found.faults or found.rest) or last == (head, data):
            break
        last = (head, data)
        time.sleep(_PAUSE_SEC)
    return found


def _read(directory: int | None, path: str, limit: int) -> bytes | Fault | None:
    if directory is None:
        return None
    try:
        return index_files.read_at(directory, path.rpartition("/")[2], limit)[0]
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else str(fault)
        return Fault("unreadable", path, None, f"cannot be read: {why}")


def _snapshot(head: bytes | Fault | None, data: bytes | Fault | None) -> Snapshot:
    faults: list[Fault] = [one for one in (head, data) if isinstance(one, Fault)]
    signed: SignedHead | None = None
    if isinstance(head, bytes):
        parsed = parse_head(head)
        if isinstance(parsed, Fault):
            faults.append(parsed)
        else:
            signed = parsed
    data = data if isinstance(data, bytes) else b""
    found = journal.parse(data)
    state: dict[str, Known] = {}
    if head is None and data:
        faults.append(Fault("removed", HEAD, None, "is not there, and the index is"))
    rest: list[Fault] = []
    if not faults:
        faults, rest = _chain(data, found, journal.EMPTY if signed is None else signed.head)
    faults += fold(state, found.entries)
    covered = min(signed.head.entries, len(found.entries)) if signed else 0
    return Snapshot(found.entries, signed, state, covered, faults, rest)


def _chain(data: bytes, found: journal.Read, head: journal.Head) -> tuple[list[Fault], list[Fault]]:
    """The lines of the index held against each other and the head: faults, and an unfinished rest."""
    count, fault = len(found.entries), found.fault
    torn = fault is not None and fault.cause == "truncated" and head.entries <= count
    if fault is not None and not torn:
        return [_named(data.split(b"\n")[:-1], fault, head)], []
    if head.entries > count:
        message = f"ends after {count:,} entries, and its head covers {head.entries:,}"
        return [Fault("truncated", INDEX, count or None, message)], []
    if not journal.follows(found, head):
        line = head.entries
        message = f"line {line} is not the one that the head covers: one of the two was changed"
        return [Fault("changed", INDEX, line or None, message)], []
    rest = []
    if head.entries < count:
        message = f"entries {head.entries + 1} to {count} came after the head: it covers them not"
        rest.append(Fault("uncovered", INDEX, head.entries + 1, message))
    if fault is not None:
        rest.append(Fault("truncated", INDEX, fault.line, fault.message))
    return [], rest


def _named(lines: list[bytes], fault: journal.Fault, head: journal.Head) -> Fault:
    """The first break of the chain by the name of what makes such a one."""
    if fault.cause == "truncated":
        return Fault("truncated", INDEX, fault.line, fault.message)
    line = fault.line
    seqs = [_field(text, "seq") for text in lines]
    own = seqs[line - 1]
    if fault.cause != "changed":
        return Fault("changed", INDEX, line, fault.message)
    if own == line:  # its prev is wrong, or is right and the line before was changed
        after = _field(lines[line], "prev") if line < len(lines) else head.sha256
        intact = hashlib.sha256(lines[line - 1]).hexdigest() == after
        changed = line - 1 if intact and line > 1 else line
        return Fault("changed", INDEX, changed, f"line {changed} was changed: {fault.message}")
    if own in seqs[: line - 1]:
        return Fault("added", INDEX, line, f"entry {own} is there a second time")
    if line in seqs[line:]:
        message = f"line {line} is entry {own}; entry {line} stands in line {seqs.index(line) + 1}"
        return Fault("reordered", INDEX, line, message)
    follows = line == len(lines) or (isinstance(own, int) and seqs[line] == own + 1)
    if isinstance(own, int) and own > line and follows:
        message = f"line {line} is entry {own}: entries {line} to {own - 1} are missing"
        return Fault("removed", INDEX, line, message)
    return Fault("changed", INDEX, line, fault.message)


def _field(line: bytes, name: str) -> Any:
    with suppress(ValueError, RecursionError):
        entry = json.loads(line)
        if isinstance(entry, dict):
            return entry.get(name)
    return None


def fold(state: dict[str, Known], entries: Iterable[Mapping[str, Any]]) -> list[Fault]:
    """Take ``entries`` into ``state``; faults where one says what this index never does."""
    faults = []
    for entry in entries:
        event = entry.get("event")
        if isinstance(event, str) and event in _OTHER:
            continue
        line: int = entry["seq"]
        path, sha256, tier = entry.get("path"), entry.get("sha256"), entry.get("tier")
        at, until = entry.get("at"), entry.get("retain_until")
        if not (
            isinstance(event, str)
            and event in _DOCUMENT
            and isinstance(path, str)
            and isinstance(sha256, str)
            and _HEX(sha256)
            and tier == index_files.tier_of(path)
            and isinstance(at, str)
            and _TIME(at)
            and (until is None or (isinstance(until, str) and _TIME(until)))
        ):
            faults.append(Fault("unreadable", INDEX, line, f"line {line} is no entry of an index"))
            continue
        before = state.get(path)
        words = None if before is None or tier == "wip" else _forbidden(before, entry)
        if words is not None:
            faults.append(Fault("changed", path, line, f"line {line} {words}"))
            continue
        taken = at
        if before is not None and before.sha256 == sha256:
            taken = before.at  # the same bytes: known since the first time
            if before.live:  # and kept until the latest date
                until = max((u for u in (until, before.retain_until) if u), default=None)
        state[path] = Known(sha256, tier, event, taken, until, line)
    return faults


def _forbidden(before: Known, entry: Mapping[str, Any]) -> str | None:
    """What no entry may say of a LOCKED document or a bundle."""
    event = entry["event"]
    if event in {"changed", "removed"}:
        return f"says of a LOCKED document or a bundle that it was {event}"
    if before.live and entry["sha256"] != before.sha256:
        return "gives a LOCKED document or a bundle other bytes"
    if event == "deleted" and (before.retain_until is None or entry["at"] < before.retain_until):
        return "deletes before its date"
    return None


def verify(
    root: Path,
    trust: TrustFile | None = None,
    *,
    now: datetime,
    target: Target | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Report:
    """Hold index, head and files against each other; every difference is a fault.

    Args:
        root: root folder of the target.
        trust: demand that the head is signed by a key of role index; None checks no signature.
        now: the time here.
        target: what the index must be about; None takes its word. Only with ``trust``.
        progress: told the share of the files that are done (0 to 1), and the last of them.

    Raises:
        EvidenceError: a folder cannot be used.
    """
    found = snapshot(root)
    files, faults = index_files.scan(root, progress=progress)
    faults = [*found.faults, *found.rest, *faults]
    if found.signed is None and not found.entries and not found.faults:
        faults.insert(0, Fault("missing", INDEX, None, "there is no index"))
    signature = "unsigned"
    if found.signed is not None and found.signed.envelope.signatures:
        signature = "unchecked"
    if trust is not None:
        fault = (
            Fault("unsigned", HEAD, None, "there is no head, and the trust file asks for one")
            if found.signed is None
            else signature_fault(found.signed, trust, now=now, target=target)
        )
        signature = "valid" if fault is None else "refused"
        if fault is not None:
            faults.append(fault)
    broken = any(fault.path == INDEX for fault in found.faults)
    faults += _differences(files, found.state, {f.path for f in faults}, chain_broken=broken)
    return Report(
        tuple(faults),
        len(files),
        len(found.entries),
        signature,
        found.signed.keyid if found.signed else "",
    )


def _differences(
    files: Mapping[str, File], state: Mapping[str, Known], told: set[str], *, chain_broken: bool
) -> list[Fault]:
    faults = []
    for path, file in files.items():
        known = state.get(path)
        if known is None or known.event == "removed":
            if not chain_broken:  # else the entry may be one of those that cannot be read
                faults.append(Fault("added", path, None, "is not in the index"))
        elif known.event == "deleted":
            words = "is there, and the index says that it was deleted"
            faults.append(Fault("added", path, known.line, words))
        elif known.sha256 != file.sha256:
            words = "was changed since it was indexed"
            faults.append(Fault("changed", path, known.line, words))
    for path, known in state.items():
        if known.live and path not in files and path not in told:
            faults.append(Fault("removed", path, known.line, "is in the index, and not there"))
    return faults
