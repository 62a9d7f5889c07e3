"""What the bucket holds: versions without receipt, what shadows ours, and every index anchored there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import DecisionOSError
from pytest_decisionos.evidence import index_files
from pytest_decisionos.evidence.index_head import MAX_BYTES as MAX_HEAD_BYTES
from pytest_decisionos.evidence.index_head import parse_head
from pytest_decisionos.evidence.objectlock import HEAD_SUFFIX, INDEX_FOLDER, Finding, Receipt
from pytest_decisionos.evidence.s3 import S3Error, asked, read_lock
from pytest_decisionos.trust import journal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from types_boto3_s3 import S3Client

MAX_VERSIONS: Final = 1_000_000
_HEAD_NAME: Final = re.compile(
    rf"{INDEX_FOLDER}/([0-9]{{6,12}})-([0-9a-f]{{16}}){re.escape(HEAD_SUFFIX)}"
)


class Stored(NamedTuple):
    """A version as the bucket lists it; ``marker`` is a delete marker."""

    key: str
    version_id: str
    latest: bool
    marker: bool


def listed(client: S3Client, bucket: str, prefix: str) -> list[Stored]:
    """Every version and delete marker below ``prefix``."""
    stored: list[Stored] = []
    with asked(bucket, prefix):
        pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            stored += [
                Stored(one["Key"], one["VersionId"], one["IsLatest"], marker=False)
                for one in page.get("Versions", [])
            ]
            stored += [
                Stored(one["Key"], one["VersionId"], one["IsLatest"], marker=True)
                for one in page.get("DeleteMarkers", [])
            ]
            if len(stored) > MAX_VERSIONS:
                raise DecisionOSError(
                    "too many versions",
                    file=f"s3://{bucket}/{prefix}",
                    expected=f"at most {MAX_VERSIONS:,}",
                )
    return stored


def shadowed(stored: Iterable[Stored], receipts: Iterable[Receipt], bucket: str) -> list[Finding]:
    """Keys whose newest version is not ours: who reads by key gets something else."""
    ours: dict[str, str] = {}
    versions: set[tuple[str, str]] = set()
    for receipt in receipts:
        if receipt.bucket == bucket:
            ours[receipt.key] = receipt.path
            versions.add((receipt.key, receipt.version_id))
    found = []
    for one in stored:
        if one.latest and one.key in ours and (one.key, one.version_id) not in versions:
            what = "a delete marker" if one.marker else "a newer version"
            words = f"{what} shadows it; ours is read by its VersionId"
            found.append(Finding("warning", "shadowed", ours[one.key], one.version_id, words))
    return found


def stranger(client: S3Client, bucket: str, one: Stored) -> Finding:
    """What a version is that has no receipt."""
    lock = read_lock(client, bucket, one.key, one.version_id)
    if lock.state == "locked":
        words = "is locked, and has no receipt"
        return Finding("warning", "unknown", one.key, one.version_id, words)
    if lock.state == "denied":
        words = "has no receipt, and not allowed to see its lock: s3:GetObjectRetention"
        return Finding("error", "denied", one.key, one.version_id, words)
    if lock.state == "missing":
        words = "had no receipt, and went away meanwhile"
        return Finding("warning", "unknown", one.key, one.version_id, words)
    words = "was put without a lock, and has no receipt"
    return Finding("error", "not_locked", one.key, one.version_id, words)


def anchors(
    root: Path, client: S3Client, bucket: str, prefix: str, stored: Iterable[Stored]
) -> tuple[list[Finding], int]:
    """Whether the index here follows every one that was anchored; and how far the newest went.

    The name of each tells its entries and its hash, so all are compared; the newest is read too.
    """
    names: dict[str, tuple[int, str]] = {}
    for one in stored:
        match = _HEAD_NAME.fullmatch(one.key.removeprefix(prefix))
        if match and not one.marker and one.key.startswith(prefix):
            names.setdefault(one.key, (int(match[1]), match[2]))
    if not names:
        return [], 0
    here = journal.read(root / index_files.INDEX)
    found = []
    for key, (entries, start) in names.items():
        there = 0 < entries <= len(here.heads)
        if not there or not here.heads[entries - 1].sha256.startswith(start):
            found.append(_rolled_back(key, entries, len(here.heads)))
    newest = max(names, key=lambda key: names[key])
    versions = [one.version_id for one in stored if one.key == newest and not one.marker]
    try:
        if not found and not any(
            _is_head(client, bucket, newest, version_id, here) for version_id in versions
        ):
            words = "no version of the newest head in the bucket is one of the index here"
            found.append(Finding("error", "rolled_back", newest, "", words))
    except S3Error as fault:
        if not fault.denied:
            raise
        words = "not allowed to read it: the newest index in the bucket is unseen"
        found.append(Finding("error", "denied", newest, "", words))
    return found, names[newest][0]


def _rolled_back(key: str, entries: int, here: int) -> Finding:
    words = (
        f"was anchored with {entries:,} entries, and the index here has {here:,}: it was put back"
        if here < entries
        else f"the index here has another entry {entries:,} than the one that was anchored"
    )
    return Finding("error", "rolled_back", key, "", words)


def _is_head(client: S3Client, bucket: str, key: str, version_id: str, here: journal.Read) -> bool:
    with asked(bucket, key):
        body = client.get_object(Bucket=bucket, Key=key, VersionId=version_id)["Body"]
        try:
            data = body.read(MAX_HEAD_BYTES + 1)
        finally:
            body.close()
    signed = parse_head(data)
    return not isinstance(signed, index_files.Fault) and journal.follows(here, signed.head)
