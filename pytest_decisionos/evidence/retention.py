"""What may be deleted from the evidence folder: for each document keep or delete, and why."""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pytest_decisionos.errors import EvidenceError
from pytest_decisionos.evidence import index_files
from pytest_decisionos.evidence.index import Facts, facts_of
from pytest_decisionos.evidence.index_files import EVIDENCE, Fault, is_evidence_of_bundle
from pytest_decisionos.evidence.index_head import signature_fault
from pytest_decisionos.evidence.index_verify import fold, snapshot
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.evidence import parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from pytest_decisionos.evidence.config import LegalHold, Retention
    from pytest_decisionos.evidence.index_files import File
    from pytest_decisionos.evidence.index_verify import Known
    from pytest_decisionos.model.target import Target
    from pytest_decisionos.trust.trustfile import TrustFile

Action = Literal["keep", "delete"]

LATEST: Final = f"{EVIDENCE}/latest.json"
_TEMPORARY: Final = re.compile(r"\.[0-9a-f]{16}\.tmp").fullmatch
"""What a writer that was killed leaves behind."""
TEMPORARY_AGE: Final = timedelta(hours=1)


class Item(NamedTuple):
    """What is to be done with one file of the evidence folder.

    Attributes:
        path: relative to the root, POSIX.
        action: ``keep`` or ``delete``.
        cause: why, as a word: ``needed``, ``hold``, ``young``, ``expired`` …
        reason: why, in words.
        tier: ``wip``, ``locked``, ``temporary``, or ``unknown`` for what is no document.
        tenant: that the document names; empty if it names none.
        release: that the document names.
        sha256: of its bytes; empty for what is no document.
        freed: bytes that deleting it gives back.
        stat: of the file that was looked at; None for what is no document.
        known: whether the index says already that it was deleted.
    """

    path: str
    action: Action
    cause: str
    reason: str
    tier: str
    tenant: str = ""
    release: str | None = None
    sha256: str = ""
    freed: int = 0
    stat: os.stat_result | None = None
    known: bool = False


by_path: Final = itemgetter(0)


class Plan(NamedTuple):
    """What is to be done, or was.

    Attributes:
        items: in the order of paths.
        faults: of the index, and LOCKED documents that were changed: somebody should look.
        keyid: the key that the index says it is signed by; empty if it is unsigned.
    """

    items: tuple[Item, ...]
    faults: tuple[Fault, ...]
    keyid: str = ""

    @property
    def deletions(self) -> list[Item]:
        """The items to delete."""
        return [item for item in self.items if item.action == "delete"]


class Needs(NamedTuple):
    """What decisions still need.

    Attributes:
        digests: SHA-256 of evidence that a decision names → which one.
        fault: why that cannot be told, so that everything is needed; empty if it can.
    """

    digests: Mapping[str, str]
    fault: str = ""


def plan(
    root: Path,
    retention: Retention,
    *,
    now: datetime,
    trust: TrustFile | None = None,
    target: Target | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Plan:
    """Decide for each file of the evidence folder; changes nothing.

    Args:
        root: root folder of the target.
        retention: how long documents are kept.
        now: the time here.
        trust: demand that the index is signed by a key of role index; None checks no signature.
        target: what the index must be about; None takes its word. Only with ``trust``.
        progress: told the share of the files that are done (0 to 1), and the last of them.

    Raises:
        EvidenceError: a folder cannot be used.
    """
    found = snapshot(root)
    faults = list(found.faults)
    if trust is not None and found.signed is not None:
        fault = signature_fault(found.signed, trust, now=now, target=target)
        faults += [] if fault is None else [fault]
    state: dict[str, Known] = {}
    fold(state, found.entries[: found.covered])  # what the head does not cover says nothing
    made = plan_with(root, retention, state, faults, now=now, progress=progress)
    return made._replace(keyid=found.signed.keyid if found.signed else "")


def plan_with(
    root: Path,
    retention: Retention,
    state: Mapping[str, Known],
    faults: Sequence[Fault] = (),
    *,
    now: datetime,
    progress: Callable[[float, str], None] | None = None,
) -> Plan:
    """``plan`` with what the index says, and what is wrong with it."""

    def look(path: str, _sha256: str, data: bytes) -> Facts | None:
        return facts_of(data) if path.startswith(f"{EVIDENCE}/") else None

    files, odd = index_files.scan(root, look, progress)
    documents = [file for file in files.values() if file.tier != "bundle"]
    bundles = [file for file in files.values() if file.tier == "bundle"]
    needs = _needs(root, bundles, odd)
    fault = faults[0] if faults else None
    items = decide(documents, retention, state=state, needs=needs, now=now, fault=fault)
    items += [
        Item(fault.path, "keep", fault.cause, fault.message, "unknown")
        for fault in odd
        if fault.path.startswith(f"{EVIDENCE}/")
    ]
    items += _temporary(root, now)
    changed = [
        Fault("changed", item.path, None, item.reason) for item in items if item.cause == "changed"
    ]
    return Plan(tuple(sorted(items, key=by_path)), (*faults, *changed))


def decide(
    documents: Sequence[File],
    retention: Retention,
    *,
    state: Mapping[str, Known],
    needs: Needs,
    now: datetime,
    fault: Fault | None = None,
) -> list[Item]:
    """Keep or delete, for each document.

    Args:
        documents: with their ``Facts``.
        retention: how long documents are kept.
        state: what the index says.
        needs: what decisions need.
        now: the time here.
        fault: what is wrong with the index; None if nothing is.
    """
    newest = _newest(documents, retention.keep_per_tenant, state)
    items = []
    for file in documents:
        facts: Facts = file.seen
        known = state.get(file.path)
        deleted = known is not None and known.event == "deleted" and known.sha256 == file.sha256
        why: tuple[str, str] | None
        if fault is not None:
            why = ("index", f"the index does not verify: {fault.message}")
        elif file.tier == "locked" and (why := _not_as_indexed(file, known)) is not None:
            pass
        else:
            why = _needed(file, facts, retention, needs, now)
            why = why or _young(file, known, retention, now)
        if why is None and file.path in newest:
            why = ("newest", f"one of the {retention.keep_per_tenant} newest of its tenant")
        if deleted:
            gone = "the index says that it was deleted"
        elif file.tier == "locked" and known is not None:
            gone = f"LOCKED until {known.retain_until}"
        else:
            gone = f"not changed for {retention.wip_days} days"
        items.append(
            Item(
                path=file.path,
                action="delete" if why is None else "keep",
                cause="expired" if why is None else why[0],
                reason=gone if why is None else why[1],
                tier=file.tier,
                tenant=facts.tenant,
                release=facts.release,
                sha256=file.sha256,
                # The bytes of a file with another name stay on the disk.
                freed=file.stat.st_size if file.stat.st_nlink == 1 else 0,
                stat=file.stat,
                known=deleted,
            )
        )
    return items


def _not_as_indexed(file: File, known: Known | None) -> tuple[str, str] | None:
    if known is None or known.event == "removed" or known.retain_until is None:
        return "unindexed", "LOCKED, and the index does not know until when"
    if known.sha256 != file.sha256:
        return "changed", "LOCKED, and was changed since it was indexed"
    return None


def _needed(
    file: File, facts: Facts, retention: Retention, needs: Needs, now: datetime
) -> tuple[str, str] | None:
    """Why the document stays however old it is."""
    name = file.path.rpartition("/")[2]
    if needs.fault:
        return "needed", f"what decisions need cannot be told: {needs.fault}"
    if file.path == LATEST:
        return "needed", "the next decision is made from it"
    if file.sha256 in needs.digests:
        return "needed", f"{needs.digests[file.sha256]} was made from it"
    if facts.fault:
        return "unreadable", f"nobody can tell whose it is: {facts.fault}"
    if any(fnmatchcase(name, glob) for glob in retention.exclude):
        return "excluded", "its name is excluded"
    for hold in retention.legal_holds:
        if _holds(hold, name, facts, now):
            until = "" if hold.until is None else f" until {hold.until.isoformat()}"
            return "hold", f"legal hold of {hold.owner}{until}: {hold.reason}"
    return None


def _young(
    file: File, known: Known | None, retention: Retention, now: datetime
) -> tuple[str, str] | None:
    """Why the document is not old enough."""
    if file.tier == "wip":
        age = now.timestamp() - file.stat.st_mtime
        if age < 0:
            return "future", "was changed in the future, says its time"
        if age < timedelta(days=retention.wip_days).total_seconds():
            return "young", f"was changed less than {retention.wip_days} days ago"
        return None
    until = parse_time(known.retain_until) if known is not None else None
    taken = parse_time(known.at) if known is not None else None
    if until is None or taken is None:
        return "unindexed", "LOCKED, and the index has no time for it"
    # The date was fixed when it was locked. What evidence.yaml says today can only lengthen it.
    until = max(until, _later(taken, retention.locked_days))
    if now < until:
        return "locked", f"LOCKED until {until.isoformat(timespec='seconds')}"
    return None


def _later(time: datetime, days: int) -> datetime:
    try:
        return time + timedelta(days=days)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _holds(hold: LegalHold, name: str, facts: Facts, now: datetime) -> bool:
    if hold.until is not None and now > hold.until:
        return False
    kind, colon, value = hold.match.partition(":")
    if colon and kind == "tenant":
        return facts.tenant == value
    if colon and kind == "release":
        return facts.release == value
    return fnmatchcase(name, hold.match)


def _newest(documents: Iterable[File], count: int, state: Mapping[str, Known]) -> set[str]:
    """The paths of the ``count`` newest documents of each tenant."""
    tenants: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for file in documents:
        known = state.get(file.path)
        # A LOCKED document is as old as its lock; a copy of it has a newer time.
        taken = parse_time(known.at) if known is not None and file.tier == "locked" else None
        time = file.stat.st_mtime if taken is None else taken.timestamp()
        if not file.seen.fault:
            tenants[file.seen.tenant].append((time, file.path))
    return {path for one in tenants.values() for _, path in sorted(one, reverse=True)[:count]}


def _needs(root: Path, bundles: Iterable[File], odd: Iterable[Fault]) -> Needs:
    """The evidence that the last decision and every bundle were made from."""
    for fault in odd:
        if not fault.path.startswith(f"{EVIDENCE}/"):
            return Needs({}, f"{fault.path}: {fault.message}")
    digests = {
        file.sha256: f"bundle {file.path.split('/')[2]}"
        for file in bundles
        if is_evidence_of_bundle(file.path)
    }
    with index_files.folder(root, "gate") as directory:
        try:
            if directory is not None:
                data, _ = index_files.read_at(directory, "decision.json")
                decision: Any = strict_json.loads(data, error=EvidenceError)
                digests[str(decision["evidence"]["sha256"])] = "the last decision"
        except FileNotFoundError:
            pass
        except (OSError, ValueError, EvidenceError, KeyError, TypeError):
            return Needs({}, "gate/decision.json cannot be read as a decision")
    return Needs(digests)


def _temporary(root: Path, now: datetime) -> list[Item]:
    """What writers that were killed left in the evidence folder."""
    items = []
    with index_files.folder(root, EVIDENCE) as directory:
        listed = [] if directory is None else os.listdir(directory)  # noqa: PTH208 - of a descriptor
        for name in filter(_TEMPORARY, listed):
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue  # it was one of a writer that lives
            age = now.timestamp() - found.st_mtime
            if stat.S_ISREG(found.st_mode) and age >= TEMPORARY_AGE.total_seconds():
                freed = found.st_size if found.st_nlink == 1 else 0
                words = "left behind by a writer that ended"
                path = f"{EVIDENCE}/{name}"
                items.append(
                    Item(path, "delete", "temporary", words, "temporary", freed=freed, stat=found)
                )
    return items
