"""Deletes what a plan says, if it still holds: first into the index, then off the disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Final

from pytest_decisionos.errors import RefusedError, UsageError
from pytest_decisionos.evidence import index_files
from pytest_decisionos.evidence.index_files import EVIDENCE, HEAD
from pytest_decisionos.evidence.index_open import opened
from pytest_decisionos.evidence.retention import Item, Plan, by_path, plan_with
from pytest_decisionos.trust.files import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.evidence.config import Retention
    from pytest_decisionos.evidence.index_open import Index
    from pytest_decisionos.model.target import Target
    from pytest_decisionos.trust.ed25519 import PrivateKey
    from pytest_decisionos.trust.trustfile import TrustFile

_BATCH: Final = 200
"""Documents at a time: each is held by a lock, which is an open file."""


def apply(
    root: Path,
    planned: Plan,
    retention: Retention,
    *,
    now: datetime,
    key: PrivateKey | None = None,
    trust: TrustFile | None = None,
    target: Target | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Plan:
    """Delete what ``planned`` says, as far as a plan made now says it too.

    It decides anew with the index locked, so that what was locked, held or decided on meanwhile
    stays. A document goes only if it is the file that was looked at, byte for byte, and nobody
    writes it; and only after the index, with its head, says so. If a crash comes in between, the
    next run finds the file that should be gone, and decides on it as on any other.

    Args:
        root: root folder of the target.
        planned: what may be deleted.
        retention: how long documents are kept.
        now: the time here.
        key: the index key; None leaves the head unsigned, if it is.
        trust: whose signature may stand under the head that is there.
        target: what the index is about; one that is begun here says so for good.
        progress: told the share of the files that is done (0 to 1), and the last of them.

    Returns:
        What was done; its deletions are done.

    Raises:
        EvidenceError: a folder cannot be used.
        RefusedError: the index was changed, may not be written here, is about another target, or
            another writer has it.
        UsageError: the index cannot be written.
    """
    if not planned.deletions:
        return planned
    agreed = {(item.path, item.sha256) for item in planned.deletions}
    with (
        opened(root, now=now, key=key, trust=trust, target=target) as index,
        index_files.folder(root, EVIDENCE) as directory,
    ):
        if key is not None and trust is not None and index.target is None:
            raise RefusedError(
                "nothing says what the new index is about, so nobody could write to it again",
                file=root / HEAD,
                next_step="name gate.yaml with --gate, or begin it with `dosctl evidence index`",
            )
        fresh = plan_with(root, retention, index.state, now=now, progress=progress)
        done = [item for item in fresh.items if item.action == "keep"]
        todo = []
        for item in fresh.deletions:
            if (item.path, item.sha256) in agreed:
                todo.append(item)
            else:
                done.append(_kept(item, "changed", "is not what the plan was about"))
        for start in range(0, len(todo) if directory is not None else 0, _BATCH):
            done += _delete(root, directory or 0, todo[start : start + _BATCH], index, now)
    return Plan(tuple(sorted(done, key=by_path)), fresh.faults, index.keyid)


def _delete(
    root: Path, directory: int, items: Sequence[Item], index: Index, now: datetime
) -> list[Item]:
    """Delete ``items``, or tell of each why it stays."""
    kept: dict[str, Item] = {}
    with contextlib.ExitStack() as held:
        for item in items:
            if item.sha256:
                try:
                    # Not to wait, for whoever has it may be waiting for the index.
                    held.enter_context(locked(root / item.path, timeout_sec=0))
                except (RefusedError, UsageError) as fault:
                    kept[item.path] = _kept(item, "busy", fault.what)
                    continue
            if not _is_same(directory, item):
                kept[item.path] = _kept(item, "busy", "was changed while it was looked at")
        sure = [item for item in items if item.path not in kept]
        index.append([_entry(item) for item in sure if item.sha256 and not item.known], now)
        for item in sure:
            name = item.path.rpartition("/")[2]
            if not _is_same(directory, item):
                kept[item.path] = _kept(item, "busy", "was changed right before it was deleted")
                continue
            try:
                os.unlink(name, dir_fd=directory)
            except OSError as fault:
                kept[item.path] = _kept(item, "busy", f"cannot be deleted: {fault.strerror}")
                continue
            with contextlib.suppress(OSError):  # it is held, so nobody else is about to use it
                os.unlink(f".{name}.lock", dir_fd=directory)
        os.fsync(directory)
    return [kept.get(item.path, item) for item in items]


def _entry(item: Item) -> dict[str, object]:
    return {
        "event": "deleted",
        "path": item.path,
        "sha256": item.sha256,
        "size": item.stat.st_size if item.stat else None,
        "tier": item.tier,
        "release": item.release,
        "why": item.reason,
    }


def _is_same(directory: int, item: Item) -> bool:
    """Whether the name still stands for the file that was looked at, with the same bytes."""
    name, was = item.path.rpartition("/")[2], item.stat
    try:
        data, found = index_files.read_at(directory, name)
    except (OSError, ValueError):
        return False
    same = was is not None and (
        (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        == (was.st_dev, was.st_ino, was.st_size, was.st_mtime_ns)
    )
    return same and (not item.sha256 or hashlib.sha256(data).hexdigest() == item.sha256)


def _kept(item: Item, cause: str, reason: str) -> Item:
    return item._replace(action="keep", cause=cause, reason=reason)
