"""Holds what is in S3 against the receipts in the index, version by version; changes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from pytest_decisionos.errors import EvidenceError, RefusedError
from pytest_decisionos.evidence import index_files
from pytest_decisionos.evidence.index_verify import snapshot
from pytest_decisionos.evidence.objectlock import (
    Finding,
    Item,
    Receipt,
    prefix_of,
    read_item,
    receipts_of,
    require_target,
    text_of,
)
from pytest_decisionos.evidence.objectlock_bucket import anchors, listed, shadowed, stranger
from pytest_decisionos.evidence.s3 import S3Error, read_lock, stored_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from types_boto3_s3 import S3Client

    from pytest_decisionos.evidence.config import ObjectLock
    from pytest_decisionos.evidence.s3 import Lock
    from pytest_decisionos.model.target import Target


class Report(NamedTuple):
    """What was found.

    Attributes:
        findings: errors first.
        versions: so many receipts were held against their versions.
        anchored: entries of the newest index in the bucket; 0 if there is none.
    """

    findings: tuple[Finding, ...]
    versions: int
    anchored: int

    @property
    def errors(self) -> int:
        """How many of the findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)


def verify(
    root: Path,
    config: ObjectLock,
    target: Target,
    *,
    client: S3Client,
    now: datetime,
    progress: Callable[[float, str], None] | None = None,
) -> Report:
    """Hold each receipt against its version, and the bucket against all receipts.

    Args:
        root: root folder of the target.
        config: which bucket.
        target: what the root is about.
        client: for the bucket's server.
        now: the time here: a lock that has ended binds nobody.
        progress: told the share of the versions that is done (0 to 1), and the last of them.

    Raises:
        EvidenceError: a folder cannot be used.
        JournalError: an entry of the index is no receipt as we write it.
        RefusedError: the index is about another target.
        S3Error: S3 cannot be reached, or there is no such bucket.
    """
    found = snapshot(root)
    require_target(root, found, target)
    findings = [
        Finding("error", "index", fault.path, "", f"{fault.cause}: {fault.message}")
        for fault in found.faults
    ]
    receipts = receipts_of(found.entries)
    prefix = prefix_of(config, target)
    findings += _never_uploaded(root, receipts, config.bucket, prefix)
    # If one raises, map() takes back what has not begun.
    with ThreadPoolExecutor(config.workers) as pool:
        results = pool.map(lambda receipt: _check(root, client, receipt, now), receipts)
        for number, (receipt, said) in enumerate(zip(receipts, results, strict=True), 1):
            findings += said
            if progress is not None:
                progress(number / len(receipts), receipt.path)
        try:
            stored = listed(client, config.bucket, prefix)
        except S3Error as fault:
            if not fault.denied:
                raise
            words = "not allowed to list versions: others, and the newest index, stay unseen"
            findings.append(Finding("error", "denied", prefix, "", words))
            return _report(findings, receipts, 0)
        findings += shadowed(stored, receipts, config.bucket)
        known = {receipt.version for receipt in receipts}
        others = [
            one
            for one in stored
            if not one.marker and (config.bucket, one.key, one.version_id) not in known
        ]
        findings += pool.map(lambda one: stranger(client, config.bucket, one), others)
    more, anchored = anchors(root, client, config.bucket, prefix, stored)
    return _report(findings + more, receipts, anchored)


def _report(findings: list[Finding], receipts: Sequence[Receipt], anchored: int) -> Report:
    findings.sort(key=lambda finding: (finding.severity, finding.path, finding.cause))
    return Report(tuple(findings), len(receipts), anchored)


def _never_uploaded(
    root: Path, receipts: Iterable[Receipt], bucket: str, prefix: str
) -> list[Finding]:
    files, faults = index_files.scan(root)
    have = {(r.path, r.sha256) for r in receipts if r.bucket == bucket and r.key.startswith(prefix)}
    paths = {path for path, _ in have}
    found = [
        Finding("error", fault.cause, fault.path, "", fault.message)
        for fault in faults
        if index_files.tier_of(fault.path) != "wip"
    ]
    for path, file in files.items():
        if file.tier != "wip" and (path, file.sha256) not in have:
            words = "was uploaded with other bytes" if path in paths else "was never uploaded"
            found.append(Finding("error", "never_uploaded", path, "", words))
    return found


def _check(root: Path, client: S3Client, receipt: Receipt, now: datetime) -> list[Finding]:
    """What is wrong with one version."""
    lock = read_lock(client, *receipt.version)
    if lock.state == "missing":
        return [_gone(receipt, now)]
    found = list(_of_lock(receipt, lock))
    try:
        fault = stored_fault(
            client,
            *receipt.version,
            sha256=receipt.sha256,
            size=receipt.size,
            data=_local(root, receipt),
            part_bytes=receipt.part_bytes,
        )
    except S3Error as error:
        if error.missing:  # some servers tell the lock of what is not there
            return [_gone(receipt, now)]
        if not error.denied:
            raise
        fault = None
        found.append(_wrong(receipt, "denied", "not allowed to read it: its bytes are unseen"))
    if fault is not None:
        found.append(_wrong(receipt, "changed", fault))
    return found


def _wrong(receipt: Receipt, cause: str, message: str) -> Finding:
    return Finding("error", cause, receipt.path, receipt.version_id, message)


def _gone(receipt: Receipt, now: datetime) -> Finding:
    until = text_of(receipt.retain_until)
    if receipt.retain_until < now:
        return _wrong(receipt, "ended", f"is gone, and its lock ended {until}")._replace(
            severity="warning"
        )
    return _wrong(receipt, "missing", f"is not there, and was locked until {until}")


def _of_lock(receipt: Receipt, lock: Lock) -> Iterator[Finding]:
    if lock.state == "denied":
        yield _wrong(receipt, "denied", "not allowed to see its lock: s3:GetObjectRetention")
    elif lock.until is None:
        yield _wrong(receipt, "not_locked", "is there, and not locked")
    else:
        if lock.mode not in {"COMPLIANCE", receipt.mode}:
            yield _wrong(receipt, "mode", f"its lock is {lock.mode}, and was {receipt.mode}")
        if lock.until < receipt.retain_until:
            now, then = text_of(lock.until), text_of(receipt.retain_until)
            yield _wrong(receipt, "shortened", f"is locked until {now}, and was until {then}")


def _local(root: Path, receipt: Receipt) -> bytes | None:
    """The bytes here, if they are those of the receipt: only for what came in parts."""
    if receipt.part_bytes is None or receipt.entries is not None:
        return None
    try:
        return read_item(root, Item(receipt.path, receipt.key, receipt.sha256))
    except (RefusedError, EvidenceError):
        return None  # then the server's bytes are read
