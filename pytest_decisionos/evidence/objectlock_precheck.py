"""Tells before an upload whether the bucket, the permissions and the clock allow it; leaves nothing.

What it asks with, and what an answer proves:

- An upload in parts that is begun with the lock and aborted makes no object. It proves the right to
  put, and nothing about the lock: Ceph 16.2 takes any mode and any date there, and forgets them.
- A PUT with the lock and with the MD5 of other bytes is refused when all else was allowed: BadDigest
  proves the right to put, that the bucket locks, and that mode and date are taken. It is sent only
  to a server that has just refused a part for its MD5.
- A version that lies there already proves the right to read its lock. A key that is not there proves
  nothing: Ceph 16.2 answers that it is not there also to who may not ask.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pytest_decisionos.evidence.objectlock import key_of, prefix_of, text_of
from pytest_decisionos.evidence.s3 import (
    Lock,
    Mode,
    S3Error,
    asked,
    head_version,
    md5_base64,
    put_lock,
    read_lock,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from types_boto3_s3 import S3Client

    from pytest_decisionos.evidence.config import ObjectLock
    from pytest_decisionos.model.target import Target

MAX_SKEW_SEC: Final = 60.0
"""Of our clock against the server's: it shifts every lock. S3 itself refuses beyond 900 s."""
_OTHER_MD5: Final = md5_base64(b"something else")

_RIGHTS: Final = {
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "list_multipart_uploads": "s3:ListBucketMultipartUploads",
    "list_parts": "s3:ListMultipartUploadParts",
    "upload_part": "s3:PutObject",
}


class Row(NamedTuple):
    """One thing that was looked at.

    Attributes:
        name: what.
        result: ``ok``, ``no`` (what is asked cannot be done), ``warning``, or ``cannot tell``: it
            cannot be proved without leaving something behind.
        message: in words.
    """

    name: str
    result: Literal["ok", "no", "warning", "cannot tell"]
    message: str


def precheck(config: ObjectLock, target: Target, *, client: S3Client) -> list[Row]:
    """Look at everything that an upload needs.

    Raises:
        S3Error: S3 cannot be reached, or answers otherwise than with a missing permission.
    """
    prefix = prefix_of(config, target)
    rows, there = _bucket(client, config)
    if not there:
        return rows
    probe = key_of(prefix, f"precheck-{secrets.token_hex(8)}")
    try:
        rows += _versioning(client, config)
        rows += _lock(client, config)
        rows += _Probe(client, config, probe).rows()
        rows += _reading(client, config, prefix)
    except S3Error as fault:
        if fault.code != "RequestTimeTooSkewed":
            raise
        rows.append(Row("clock", "no", fault.what))
    return rows


def _bucket(client: S3Client, config: ObjectLock) -> tuple[list[Row], bool]:
    """Whether it is there, and how late it is there."""
    name = config.bucket
    before = datetime.now(UTC)
    try:
        with asked(name):
            answer = client.head_bucket(Bucket=name)
    except S3Error as fault:
        if fault.status == 404:
            return [Row("bucket", "no", f"{name} is not there")], False
        if fault.status in {301, 307}:
            return [Row("bucket", "no", f"{name} is in another region: set AWS_REGION")], False
        if not fault.denied:
            raise
        words = f"{name} is not there, or not allowed to list it: s3:ListBucket"
        return [Row("bucket", "cannot tell", words)], True
    rows = [Row("bucket", "ok", f"{name} is there")]
    headers: Mapping[str, Any] = answer["ResponseMetadata"].get("HTTPHeaders", {})
    return [*rows, _clock(str(headers.get("date", "")), before, datetime.now(UTC))], True


def _clock(stated: str, before: datetime, after: datetime) -> Row:
    try:
        server = parsedate_to_datetime(stated).astimezone(UTC)
    except (ValueError, OverflowError):
        return Row("clock", "cannot tell", "the server does not tell its time")
    # It tells whole seconds, cut off: it may be up to a second later than it says.
    ahead = (server - after).total_seconds()
    behind = (before - server).total_seconds() - 1
    skew = max(ahead, behind, 0.0)
    allowed = f"at most {MAX_SKEW_SEC:g} s are allowed"
    if skew > MAX_SKEW_SEC:
        which = "behind" if ahead > 0 else "ahead of"
        return Row("clock", "no", f"this host is {skew:.0f} s {which} the server; {allowed}")
    return Row("clock", "ok", f"within {skew + 1:.0f} s of the server's; {allowed}")


def _versioning(client: S3Client, config: ObjectLock) -> Iterator[Row]:
    try:
        with asked(config.bucket):
            found = client.get_bucket_versioning(Bucket=config.bucket)
    except S3Error as fault:
        yield _unseen("versioning", fault, "s3:GetBucketVersioning")
        return
    status = str(found.get("Status", "never enabled")).lower()
    yield Row("versioning", "ok" if status == "enabled" else "no", status)


def _lock(client: S3Client, config: ObjectLock) -> Iterator[Row]:
    """Object Lock of the bucket, and what it does by itself."""
    try:
        with asked(config.bucket):
            answer = client.get_object_lock_configuration(Bucket=config.bucket)
        found = answer.get("ObjectLockConfiguration", {})
    except S3Error as fault:
        if fault.code not in {"ObjectLockConfigurationNotFoundError", "InvalidRequest"}:
            yield _unseen("object lock", fault, "s3:GetBucketObjectLockConfiguration")
            return
        found = {}
    if found.get("ObjectLockEnabled") != "Enabled":
        yield Row("object lock", "no", "the bucket was made without it")
        return
    yield Row("object lock", "ok", "enabled")
    default = found.get("Rule", {}).get("DefaultRetention", {})
    mode, days = default.get("Mode"), default.get("Days", 0) + 365 * default.get("Years", 0)
    name = "default retention"
    if mode is None:
        yield Row(name, "warning", "none: what others put is not locked; each of ours is")
    elif mode == "GOVERNANCE" and config.mode == "COMPLIANCE":
        words = (
            "is GOVERNANCE; a server that forgets the lock of an upload in parts leaves it at that"
        )
        yield Row(name, "warning", words)
    elif days < config.days:
        yield Row(name, "warning", f"{mode}, {days} days; each of ours gets {config.days}")
    else:
        yield Row(name, "ok", f"{mode}, {days} days")


def _unseen(name: str, fault: S3Error, permission: str) -> Row:
    """The row of what may not be seen.

    Raises:
        S3Error: it is another error.
    """
    if not fault.denied:
        raise fault
    return Row(name, "cannot tell", f"not allowed to see: {permission}")


class _Probe:
    """Asks to put a locked object, so that none is put."""

    def __init__(self, client: S3Client, config: ObjectLock, key: str) -> None:
        self.client, self.config, self.key = client, config, key
        self.place: dict[str, Any] = {"Bucket": config.bucket, "Key": key}
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=config.days)
        self.asks = f"{config.mode} for {config.days} days"
        self.lock: dict[str, Any] = {
            "ObjectLockMode": config.mode,
            "ObjectLockRetainUntilDate": until,
        }

    def rows(self) -> Iterator[Row]:
        """Whether one may put with a lock, and whether that lock is taken."""
        may_abort = self._refused("abort_multipart_upload", UploadId="0", expect={"NoSuchUpload"})
        if may_abort is not None:
            words = f"{may_abort}; what is begun would stay, so nothing is begun"
            yield Row("uploads in parts", "no", words)
            yield Row("put with lock", "cannot tell", "would have to begin an upload in parts")
            return
        begun = self._begin()
        if isinstance(begun, Row):
            yield begun
            return
        try:
            listing = self._refused("list_parts", UploadId=begun)
            uploads = self._refused("list_multipart_uploads", Prefix=self.key, without_key=True)
            checks_md5 = self._refused(
                "upload_part",
                UploadId=begun,
                PartNumber=1,
                Body=b"decisionos precheck",
                ContentMD5=_OTHER_MD5,
                expect={"BadDigest"},
            )
        finally:
            with asked(self.config.bucket, self.key):
                self.client.abort_multipart_upload(**self.place, UploadId=begun)
        denied = listing or uploads
        words = f"{denied}; one that breaks off cannot be gone on with"
        yield (
            Row("uploads in parts", "ok", "begun, listed, aborted")
            if denied is None
            else Row("uploads in parts", "no", words)
        )
        if checks_md5 is not None:
            words = "the server does not check MD5; to put would be to leave something behind"
            yield Row("put with lock", "cannot tell", words)
            return
        yield self._put()

    def _begin(self) -> str | Row:
        try:
            with asked(self.config.bucket, self.key):
                return self.client.create_multipart_upload(**self.place, **self.lock)["UploadId"]
        except S3Error as fault:
            return self._as_row(fault)

    def _put(self) -> Row:
        try:
            with asked(self.config.bucket, self.key):
                made = self.client.put_object(
                    **self.place, **self.lock, Body=b"decisionos precheck", ContentMD5=_OTHER_MD5
                )
        except S3Error as fault:
            if fault.code == "BadDigest":
                words = f"{self.asks} is taken, tried with bytes that were not"
                return Row("put with lock", "ok", words)
            return self._as_row(fault)
        words = f"the server took bytes of another MD5: {self.key} is there now, {self.asks}"
        return Row("put with lock", "no", f"{words}, version {made.get('VersionId')}")

    def _as_row(self, fault: S3Error) -> Row:
        if fault.denied:
            words = "not allowed: s3:PutObject, s3:PutObjectRetention, or a limit of the days"
            return Row("put with lock", "no", words)
        if fault.status == 400:
            return Row("put with lock", "no", f"{self.asks} is refused: {fault.what}")
        raise fault

    def _refused(
        self,
        operation: str,
        *,
        expect: frozenset[str] | set[str] = frozenset(),
        without_key: bool = False,
        **arguments: Any,
    ) -> str | None:
        """Why ``operation`` does not do as it should; None if it does.

        Args:
            operation: method of the client.
            expect: error codes that are the right answer; empty: the answer is no error.
            without_key: it is about the bucket.
            arguments: of the method.
        """
        place = {"Bucket": self.config.bucket} if without_key else self.place
        try:
            with asked(self.config.bucket, self.key):
                getattr(self.client, operation)(**place, **arguments)
        except S3Error as fault:
            if fault.code in expect:
                return None
            if fault.denied:
                return f"not allowed: {_RIGHTS[operation]}"
            if fault.status >= 500 or not fault.status:
                raise
            return fault.what
        return "not refused" if expect else None


def _reading(client: S3Client, config: ObjectLock, prefix: str) -> Iterator[Row]:
    """What verify needs, tried on a version that is there."""
    bucket = config.bucket
    try:
        with asked(bucket, prefix):
            page = client.list_object_versions(Bucket=bucket, Prefix=prefix, MaxKeys=1)
            versions = [(one["Key"], one["VersionId"]) for one in page.get("Versions", [])]
    except S3Error as fault:
        yield _unseen("list versions", fault, "s3:ListBucketVersions")._replace(result="no")
        versions = []
    else:
        yield Row("list versions", "ok", "allowed")
    if not versions:
        for name in ("read lock", "add lock", "read objects"):
            yield Row(name, "cannot tell", "nothing is there yet to try it on")
        return
    key, version_id = versions[0]
    lock = read_lock(client, bucket, key, version_id)
    if lock.state == "denied":
        yield Row("read lock", "no", "not allowed: s3:GetObjectRetention")
    else:
        yield Row("read lock", "ok", f"tried on {key}")
    yield _adding(client, config, key, version_id, lock)
    try:
        head, _ = head_version(client, bucket, key, version_id)
    except S3Error as fault:
        yield _unseen("read objects", fault, "s3:GetObjectVersion")._replace(result="no")
    else:
        told = "ChecksumSHA256" in head
        words = "with SHA-256" if told else "without SHA-256: verify reads them whole"
        yield Row("read objects", "ok", f"allowed; the server has them {words}")


def _adding(client: S3Client, config: ObjectLock, key: str, version_id: str, lock: Lock) -> Row:
    """The right to lock a version that is there, tried with the very lock that it has."""
    if lock.until is None or lock.until <= datetime.now(UTC):
        return Row("add lock", "cannot tell", f"{key}, on which it is tried, is not locked")
    mode: Mode = "COMPLIANCE" if lock.mode == "COMPLIANCE" else "GOVERNANCE"
    try:
        put_lock(client, config.bucket, key, version_id, mode, lock.until)
    except S3Error as fault:
        if not fault.denied:
            raise
        words = "not allowed (s3:PutObjectRetention): a server that forgets the lock of an upload"
        return Row("add lock", "warning", f"{words} in parts leaves it without")
    return Row("add lock", "ok", f"tried with the lock it has, until {text_of(lock.until)}")
