"""Puts LOCKED documents, bundles and the index into S3, each locked, hashed, and with a receipt.

What a crash or a cut connection leaves is found again by the next run: parts by the upload that they
belong to, whole versions by their bytes.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import FIRST_COMPLETED, CancelledError, ThreadPoolExecutor, wait
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import DecisionOSError, EvidenceError, RefusedError
from pytest_decisionos.evidence import index_files
from pytest_decisionos.evidence.index_open import BrokenIndexError
from pytest_decisionos.evidence.index_verify import snapshot
from pytest_decisionos.evidence.objectlock import (
    HEAD_SUFFIX,
    Item,
    Receipt,
    items_of,
    prefix_of,
    read_item,
    receipts_of,
    require_target,
    snapshot_of,
    text_of,
)
from pytest_decisionos.evidence.s3 import (
    S3Error,
    asked,
    head_version,
    put_lock,
    read_lock,
)
from pytest_decisionos.evidence.s3_send import part_size, send
from pytest_decisionos.trust.files import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path
    from typing import Any

    from types_boto3_s3 import S3Client

    from pytest_decisionos.evidence.config import ObjectLock
    from pytest_decisionos.model.target import Target

SLACK: Final = timedelta(hours=1)
"""A lock counts from our clock before the upload, a version's time from the server's after it."""
_RECEIPTS: Final = 100
"""Receipts at a time: each time the index is locked, read and signed."""


class Report(NamedTuple):
    """What was done.

    Attributes:
        uploaded: with a new receipt.
        present: were there already, locked for long enough, with a receipt from before.
        refused: were not uploaded, or not locked as asked; the others were.
    """

    uploaded: tuple[Receipt, ...]
    present: tuple[Receipt, ...]
    refused: tuple[DecisionOSError, ...]


def upload(
    root: Path,
    config: ObjectLock,
    target: Target,
    *,
    client: S3Client,
    record: Callable[[Sequence[Mapping[str, Any]]], None],
    now: datetime,
    progress: Callable[[float, str], None] | None = None,
) -> Report:
    """Upload what is LOCKED and not yet in the bucket; then anchor the index, if it says more.

    Args:
        root: root folder of the target.
        config: where to, and for how long.
        target: what the root is about.
        client: for the bucket's server.
        record: appends entries to the index; durable when it returns. Called with none first, it
            says whether it may.
        now: the time here; locks end ``config.days`` later.
        progress: told the share that is done (0 to 1), and the last of it.

    Raises:
        RefusedError: the index is broken or about another target, or another upload runs.
        EvidenceError: a folder cannot be used.
        S3Error: S3 cannot be reached, or refuses; what was done until then has its receipts.
    """
    prefix = prefix_of(config, target)
    record(())  # what could not be recorded is not uploaded
    with locked(root / index_files.EVIDENCE / "objectlock", timeout_sec=1):
        found = snapshot(root)
        if found.faults:
            raise BrokenIndexError(root, found.faults)
        require_target(root, found, target)
        receipts = receipts_of(found.entries[: found.covered])
        files, faults = index_files.scan(root)
        items, refused = items_of(files, found, prefix)
        refused += [
            RefusedError(fault.message, file=fault.path)
            for fault in faults
            if index_files.tier_of(fault.path) != "wip"
        ]
        work = _Upload(root, config, client, receipts, now)
        done = work.run(items, record, progress)
        if _says_more(root, work.receipts.values(), prefix):
            # One after the other: where a head is, its entries are.
            for item in snapshot_of(root, prefix):
                more = work.run([item], record, progress)
                done = Report(
                    done.uploaded + more.uploaded,
                    done.present + more.present,
                    done.refused + more.refused,
                )
                if more.refused:
                    break
    return done._replace(refused=(*refused, *done.refused))


def _says_more(root: Path, receipts: Iterable[Receipt], prefix: str) -> bool:
    """Whether the index says more than the one anchored last, beside that it was anchored."""
    found = snapshot(root)
    last = max(
        (e["seq"] for e in found.entries[: found.covered] if e.get("event") != "anchored"),
        default=0,
    )
    heads = (r for r in receipts if r.path.endswith(HEAD_SUFFIX) and r.key.startswith(prefix))
    return last > max((r.entries or 0 for r in heads), default=0)


class _Upload:
    """One run: what its threads share."""

    def __init__(
        self,
        root: Path,
        config: ObjectLock,
        client: S3Client,
        receipts: Sequence[Receipt],
        now: datetime,
    ) -> None:
        self.root, self.config, self.client = root, config, client
        # To the second: some servers keep no fractions, and a lock must not look shortened.
        start = now.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
        self.until = start + timedelta(days=config.days)
        self.receipts = {
            (r.path, r.sha256, r.key): r for r in receipts if r.bucket == config.bucket
        }
        self.stopped = threading.Event()

    def run(
        self,
        items: Sequence[Item],
        record: Callable[[Sequence[Mapping[str, Any]]], None],
        progress: Callable[[float, str], None] | None,
    ) -> Report:
        """Upload ``items`` by a bounded pool of threads, and record them."""
        uploaded: list[Receipt] = []
        present: list[Receipt] = []
        refused: list[DecisionOSError] = []
        recorded = 0
        try:
            with ThreadPoolExecutor(self.config.workers) as pool:
                try:
                    waiting = {pool.submit(self._unless_stopped, item): item for item in items}
                    while waiting:
                        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                            item = waiting.pop(future)
                            try:
                                receipt, is_new = future.result()
                                (uploaded if is_new else present).append(receipt)
                            except (RefusedError, EvidenceError) as fault:
                                refused.append(fault)
                            except CancelledError:
                                continue  # the one that failed before it says why
                            if progress is not None:
                                progress(1 - len(waiting) / len(items), item.path)
                        if len(uploaded) - recorded >= _RECEIPTS:
                            record([receipt.event() for receipt in uploaded[recorded:]])
                            recorded = len(uploaded)
                except BaseException:
                    self.stopped.set()
                    pool.shutdown(cancel_futures=True)
                    for future in waiting:  # what was just being sent is there now
                        with contextlib.suppress(Exception):
                            receipt, is_new = future.result()
                            (uploaded if is_new else present).append(receipt)
                    raise
        finally:
            if uploaded[recorded:]:
                record([receipt.event() for receipt in uploaded[recorded:]])
        return Report(tuple(uploaded), tuple(present), tuple(refused))

    def _unless_stopped(self, item: Item) -> tuple[Receipt, bool]:
        if self.stopped.is_set():
            raise CancelledError
        try:
            return self.one(item)
        except (RefusedError, EvidenceError):
            raise  # it is about this item alone
        except BaseException:
            self.stopped.set()
            raise

    def one(self, item: Item) -> tuple[Receipt, bool]:
        """The receipt of an item, and whether it is a new one."""
        known = self.receipts.get((item.path, item.sha256, item.key))
        if known is not None:
            kept = self._kept(known)
            if kept is not None:
                return kept
        data = read_item(self.root, item)
        part_bytes = part_size(len(data), self.config)
        version_id = send(
            self.client, self.config, item, data, until=self.until, stopped=self.stopped.is_set
        )
        receipt = Receipt(
            item.path, item.sha256, len(data), self.config.bucket, item.key, version_id,
            self.config.mode, self.until, part_bytes, item.entries,
        )  # fmt: skip
        return self._locked(receipt), True

    def _kept(self, known: Receipt) -> tuple[Receipt, bool] | None:
        """What became of a version that has a receipt; None if it is gone."""
        try:
            head, lock = head_version(self.client, *known.version)
        except S3Error as fault:
            if fault.missing:
                return None
            raise
        with asked(*known.version[:2]):
            needed = head["LastModified"] + timedelta(days=self.config.days) - SLACK
        if lock.holds(self.config.mode, max(needed, known.retain_until)):
            return known, False
        return self._locked(known._replace(mode=self.config.mode, retain_until=self.until)), True

    def _locked(self, receipt: Receipt) -> Receipt:
        """The receipt of a version whose lock was seen; the lock is put on where it lacks.

        A server may take an upload in parts and forget the lock that it was begun with: Ceph 16.2.
        """
        lock = read_lock(self.client, *receipt.version)
        wanted = receipt.mode, receipt.retain_until - SLACK
        if lock.state in {"none", "locked"} and not lock.holds(*wanted):
            until = max(receipt.retain_until, lock.until or receipt.retain_until)
            mode = "COMPLIANCE" if lock.mode == "COMPLIANCE" else self.config.mode
            try:
                put_lock(self.client, *receipt.version, mode, until)
            except S3Error as fault:
                if not fault.denied:
                    raise
                has = f"{lock.mode} until {text_of(lock.until)}" if lock.until else "no lock"
                raise RefusedError(
                    f"is uploaded, and may not be locked as asked: {fault.what}",
                    file=f"s3://{receipt.bucket}/{receipt.key}",
                    found=has,
                    expected=f"{receipt.mode} until {text_of(receipt.retain_until)}",
                    next_step="allow s3:PutObjectRetention; a default retention of GOVERNANCE"
                    " must go where COMPLIANCE is asked for",
                ) from None
            lock = read_lock(self.client, *receipt.version)
        if lock.state == "denied":
            raise S3Error(
                "is uploaded, and its lock may not be seen",
                file=f"s3://{receipt.bucket}/{receipt.key}",
                code="AccessDenied",
                status=403,
                next_step="allow s3:GetObjectRetention, and run it again",
            )
        if not lock.holds(*wanted) or lock.until is None:
            raise S3Error(
                "is uploaded, and the server did not lock it as asked",
                file=f"s3://{receipt.bucket}/{receipt.key}",
                found=lock.mode or lock.state,
                expected=f"{receipt.mode} until {text_of(receipt.retain_until)}",
            )
        # The date that it has: what verify holds it to.
        return receipt._replace(mode=lock.mode, retain_until=lock.until.replace(microsecond=0))
