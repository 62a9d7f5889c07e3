"""Sends bytes to S3 as one locked version, whole or in parts; what was begun before is gone on with."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final

from pytest_decisionos.errors import RefusedError
from pytest_decisionos.evidence.s3 import (
    S3Error,
    asked,
    md5,
    md5_base64,
    sha256_base64,
    stored_fault,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef, PartTypeDef

    from pytest_decisionos.evidence.config import ObjectLock
    from pytest_decisionos.evidence.objectlock import Item

MIB: Final = 1024 * 1024
MAX_PARTS: Final = 10_000
"""Amazon S3 User Guide, "Amazon S3 multipart upload limits"."""
CANDIDATES: Final = 10
"""Versions, or uploads not completed, of one key that are looked at: more are somebody's mischief."""


def part_size(size: int, config: ObjectLock) -> int | None:
    """The size of the parts in which so many bytes go up; None if they go up whole."""
    least = config.multipart_mb * MIB
    return None if size <= least else max(least, -(-size // MAX_PARTS))


def send(
    client: S3Client,
    config: ObjectLock,
    item: Item,
    data: bytes,
    *,
    until: datetime,
    stopped: Callable[[], bool],
) -> str:
    """The VersionId of a version with these bytes: one that is there, or a new one.

    Args:
        client: the client.
        config: bucket, mode, and the size of parts.
        item: what it is.
        data: its bytes.
        until: when the lock is to end.
        stopped: asked before each part, whether to leave the rest.

    Raises:
        RefusedError: the bucket keeps no versions.
        S3Error: S3 cannot be reached, or refuses.
        CancelledError: it was stopped.
    """
    part_bytes = part_size(len(data), config)
    version_id = _found(client, config.bucket, item, data, part_bytes)
    if version_id is None:
        common = {
            "Bucket": config.bucket,
            "Key": item.key,
            "ObjectLockMode": config.mode,
            "ObjectLockRetainUntilDate": until,
            "Metadata": {"sha256": item.sha256},
        }
        if part_bytes is None:
            version_id = _whole(client, common, data)
        else:
            version_id = _in_parts(client, common, data, part_bytes, stopped)
            # Answered a second time, as the first answer was lost, it comes without the version.
            version_id = version_id or _found(client, config.bucket, item, data, part_bytes)
    if not version_id or version_id == "null":
        raise RefusedError(
            "the bucket keeps no versions, so nothing in it is locked",
            file=f"s3://{config.bucket}/{item.key}",
            next_step="`dosctl evidence objectlock --precheck` tells what is wrong with it",
        )
    return version_id


def _found(
    client: S3Client, bucket: str, item: Item, data: bytes, part_bytes: int | None
) -> str | None:
    """A version of these bytes: a crash came before its receipt."""
    with asked(bucket, item.key):
        page = client.list_object_versions(Bucket=bucket, Prefix=item.key, MaxKeys=100)
        versions = [
            version["VersionId"]
            for version in page.get("Versions", [])
            if version["Key"] == item.key
            and version["Size"] == len(data)
            and version["VersionId"] != "null"
        ]
    for version_id in versions[:CANDIDATES]:
        fault = stored_fault(
            client, bucket, item.key, version_id,
            sha256=item.sha256, size=len(data), data=data, part_bytes=part_bytes,
        )  # fmt: skip
        if fault is None:
            return version_id
    return None


def _whole(client: S3Client, common: Mapping[str, Any], data: bytes) -> str | None:
    with asked(common["Bucket"], common["Key"]):
        return client.put_object(
            **common,
            Body=data,
            ContentMD5=md5_base64(data),
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256=sha256_base64(data),
        ).get("VersionId")


def _in_parts(
    client: S3Client,
    common: Mapping[str, Any],
    data: bytes,
    part_bytes: int,
    stopped: Callable[[], bool],
) -> str | None:
    bucket, key = common["Bucket"], common["Key"]
    starts = range(0, len(data), part_bytes)
    parts = {n: data[start : start + part_bytes] for n, start in enumerate(starts, 1)}
    upload_id, sent = _begun(client, bucket, key, parts)
    if upload_id is None:
        with asked(bucket, key):
            upload_id = client.create_multipart_upload(**common, ChecksumAlgorithm="SHA256")[
                "UploadId"
            ]
    done: list[CompletedPartTypeDef] = []
    for number, part in parts.items():
        if stopped():
            raise CancelledError
        sha256 = sha256_base64(part)
        if number not in sent:
            with asked(bucket, key):
                sent[number] = client.upload_part(
                    Bucket=bucket,
                    Key=key,
                    UploadId=upload_id,
                    PartNumber=number,
                    Body=part,
                    ContentMD5=md5_base64(part),
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=sha256,
                )["ETag"]
        done.append({"PartNumber": number, "ETag": sent[number], "ChecksumSHA256": sha256})
    with asked(bucket, key):
        return client.complete_multipart_upload(
            Bucket=bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": done}
        ).get("VersionId")


def _begun(
    client: S3Client, bucket: str, key: str, parts: Mapping[int, bytes]
) -> tuple[str | None, dict[int, str]]:
    """An upload of these parts that was not completed, and the ETags of those that it has.

    Only one whose every part is one of ours, by MD5 and, where the server has it, by SHA-256.
    """
    with asked(bucket, key):
        page = client.list_multipart_uploads(Bucket=bucket, Prefix=key, MaxUploads=100)
        uploads = [found["UploadId"] for found in page.get("Uploads", []) if found["Key"] == key]
    for upload_id in uploads[-CANDIDATES:]:
        try:
            with asked(bucket, key):
                pages = client.get_paginator("list_parts").paginate(
                    Bucket=bucket, Key=key, UploadId=upload_id
                )
                sent = {p["PartNumber"]: p for page in pages for p in page.get("Parts", [])}
        except S3Error as fault:
            if fault.missing:  # completed or aborted meanwhile
                continue
            raise
        if sent and all(_is_ours(part, parts) for part in sent.values()):
            return upload_id, {number: part["ETag"] for number, part in sent.items()}
    return None, {}


def _is_ours(found: PartTypeDef, parts: Mapping[int, bytes]) -> bool:
    ours = parts.get(found.get("PartNumber", 0))
    if ours is None or found.get("Size") != len(ours):
        return False
    told = found.get("ChecksumSHA256")
    if told:
        return told == sha256_base64(ours)
    return found.get("ETag", "").strip('"') == md5(ours).hex()
