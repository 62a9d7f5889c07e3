"""S3 as Object Lock needs it: a client with bounds, each error in one line, and the lock of a version."""

from __future__ import annotations

import contextlib
import hashlib
from base64 import b64encode
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

import boto3
from botocore import exceptions as boto
from botocore.config import Config
from botocore.parsers import ResponseParserError

from pytest_decisionos.errors import RemoteError, UsageError, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import HeadObjectOutputTypeDef

    from pytest_decisionos.evidence.config import ObjectLock

Mode = Literal["COMPLIANCE", "GOVERNANCE"]

CONNECT_SEC: Final = 5
READ_SEC: Final = 60
ATTEMPTS: Final = 4
"""Of each request; standard mode waits a random share of 1, 2, 4 … s in between."""
CHUNK: Final = 1024 * 1024
_NO_LOCK: Final = frozenset(
    # AWS, and Ceph 16.2, which has one name for both; the last is that of a bucket without lock.
    {"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "InvalidRequest"}
)
_NEXT: Final = {
    "NoSuchBucket": "make the bucket with Object Lock, or correct object_lock.bucket",
    "AccessDenied": "`dosctl evidence objectlock --precheck` tells which permission is missing",
    "InvalidAccessKeyId": "check the credentials that boto3 finds",
    "SignatureDoesNotMatch": "check the credentials that boto3 finds, and AWS_REGION",
    "ExpiredToken": "get new credentials",
    "RequestTimeTooSkewed": "set this host's clock right",
}


class S3Error(RemoteError):
    """What S3 answered, or that it did not.

    Attributes:
        code: S3's error code, such as ``AccessDenied``; the HTTP status as text where an answer has
            no body; empty if there was no answer.
        status: HTTP status; 0 if there was no answer.
    """

    def __init__(self, what: str, *, code: str = "", status: int = 0, **where: Any) -> None:
        super().__init__(what, **where)
        self.code = code
        self.status = status

    @property
    def denied(self) -> bool:
        """Whether a permission is missing, and not the bucket or the clock."""
        return self.status == 403 and self.code in {"AccessDenied", "403", "AllAccessDisabled"}

    @property
    def missing(self) -> bool:
        """Whether what was asked for is not there."""
        return self.status == 404 or self.code == "NoSuchVersion"


class Lock(NamedTuple):
    """The lock of one version, as far as one may see it.

    Attributes:
        state: ``locked``, ``none`` (it has none), ``denied`` (not allowed to see), ``missing`` (the
            version is not there).
        mode: ``COMPLIANCE`` or ``GOVERNANCE``; empty if it is not ``locked``.
        until: when it ends; None if it is not ``locked``.
    """

    state: Literal["locked", "none", "denied", "missing"]
    mode: str = ""
    until: datetime | None = None

    def holds(self, mode: str, until: datetime) -> bool:
        """Whether it is at least as strong and as long as that."""
        strong = self.mode in {mode, "COMPLIANCE"}
        return self.state == "locked" and strong and self.until is not None and self.until >= until


@contextlib.contextmanager
def open_s3(config: ObjectLock, *, region: str | None) -> Iterator[S3Client]:
    """A client for the server of ``config``; credentials come by boto3's own chain.

    Checksums are sent where we name them and nowhere else: what boto3 adds by itself since 1.36
    (a CRC in a trailer) is stored as part of the object by servers that do not know it.

    Raises:
        S3Error: boto3 cannot make a client of what it finds in its configuration.
        UsageError: the endpoint is no URL.
    """
    settings = Config(
        connect_timeout=CONNECT_SEC,
        read_timeout=READ_SEC,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=config.workers,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        signature_version="s3v4",
        # Servers of one's own rarely have a name for each bucket.
        s3={"addressing_style": "path" if config.endpoint_url else "auto"},
    )
    if config.endpoint_url is not None:
        _check_endpoint(config.endpoint_url)
    with asked(config.bucket), _as_endpoint():
        client: S3Client = boto3.session.Session().client(
            "s3",
            region_name=region or ("us-east-1" if config.endpoint_url else None),
            endpoint_url=config.endpoint_url,
            config=settings,
        )
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def _as_endpoint() -> Iterator[None]:
    try:
        yield
    except ValueError:
        raise UsageError(  # not told what it is: it may hold a password
            "not an endpoint",
            field="object_lock.endpoint_url",
            expected="https://HOST[:PORT], without credentials",
        ) from None


def _check_endpoint(url: str) -> None:
    with _as_endpoint():
        parts = urlsplit(url)
        more = parts.username or parts.password or parts.query or parts.fragment or parts.port == 0
        if parts.scheme not in {"http", "https"} or not parts.hostname or more:
            raise ValueError(url)


@contextlib.contextmanager
def asked(bucket: str, key: str | None = None) -> Iterator[None]:
    """Whatever S3 or the way to it says inside becomes one line.

    Raises:
        S3Error: it says no, or does not answer.
    """
    place = f"s3://{bucket}" + (f"/{key}" if key is not None else "")
    try:
        yield
    except boto.ClientError as fault:
        error = fault.response.get("Error", {})
        code = str(error.get("Code", ""))
        status = int(fault.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        words = str(error.get("Message") or "")
        said = f": {shown(words, 200)}" if words and words != "None" else ""
        raise S3Error(
            f"{fault.operation_name} is answered with {shown(code or str(status), 60)}{said}",
            file=place,
            code=code,
            status=status,
            next_step=_NEXT.get("AccessDenied" if code == "403" else code),
        ) from None
    except (boto.NoCredentialsError, boto.PartialCredentialsError):
        raise S3Error(
            "boto3 finds no credentials",
            file=place,
            next_step="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role",
        ) from None
    except (boto.ConnectionError, boto.HTTPClientError) as fault:
        # The class says what happened; the text would repeat the whole URL.
        raise S3Error(
            f"no whole answer ({type(fault).__name__})",
            file=place,
            next_step="check object_lock.endpoint_url and the network; then run it again",
        ) from None
    except boto.BotoCoreError as fault:
        raise S3Error(f"cannot be asked ({type(fault).__name__})", file=place) from None
    except (ResponseParserError, KeyError, ValueError, OverflowError) as fault:
        raise S3Error(
            f"the answer is not as S3 answers ({type(fault).__name__})",
            file=place,
            next_step="check that object_lock.endpoint_url is an S3 server",
        ) from None


def read_lock(client: S3Client, bucket: str, key: str, version_id: str) -> Lock:
    """The lock of a version: ``denied`` is something else than ``none``.

    Raises:
        S3Error: S3 does not tell, for another reason than a missing permission.
    """
    try:
        with asked(bucket, key):
            found = client.get_object_retention(Bucket=bucket, Key=key, VersionId=version_id)
            retention = found.get("Retention", {})
            return _lock(retention.get("Mode"), retention.get("RetainUntilDate"))
    except S3Error as fault:
        if fault.denied:
            return Lock("denied")
        if fault.code in _NO_LOCK:
            return Lock("none")
        # An id that is no id on this server: so there is no such version.
        if fault.code != "NoSuchBucket" and (fault.missing or fault.code == "InvalidArgument"):
            return Lock("missing")
        raise


def head_version(
    client: S3Client, bucket: str, key: str, version_id: str
) -> tuple[HeadObjectOutputTypeDef, Lock]:
    """HEAD of a version with its checksum, and its lock.

    HEAD leaves the fields of the lock out for who may not see them, and where there are none: then
    the lock is asked for by itself.

    Raises:
        S3Error: there is no such version, or it may not be read.
    """
    with asked(bucket, key):
        head = client.head_object(
            Bucket=bucket, Key=key, VersionId=version_id, ChecksumMode="ENABLED"
        )
        lock = _lock(head.get("ObjectLockMode"), head.get("ObjectLockRetainUntilDate"))
    return head, lock if lock.state == "locked" else read_lock(client, bucket, key, version_id)


def _lock(mode: str | None, until: datetime | None) -> Lock:
    if not mode or until is None:
        return Lock("none")
    return Lock("locked", mode, until.astimezone(UTC))


def put_lock(  # noqa: PLR0917 - what S3 takes, in its order
    client: S3Client, bucket: str, key: str, version_id: str, mode: Mode, until: datetime
) -> None:
    """Lock a version, or lengthen its lock; a governance lock is never bypassed.

    Raises:
        S3Error: it is refused.
    """
    with asked(bucket, key):
        client.put_object_retention(
            Bucket=bucket,
            Key=key,
            VersionId=version_id,
            Retention={"Mode": mode, "RetainUntilDate": until},
        )


def sha256_base64(data: bytes) -> str:
    """SHA-256 as S3 writes it."""
    return b64encode(hashlib.sha256(data).digest()).decode()


def md5(data: bytes) -> bytes:
    """MD5, against faults on the way only: what servers without better check."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def md5_base64(data: bytes) -> str:
    """MD5 as S3 wants it in ``Content-MD5``."""
    return b64encode(md5(data)).decode()


def composite(data: bytes, part_bytes: int) -> str:
    """The SHA-256 that S3 gives an object that came in parts: that of the parts' digests, and ``-N``.

    Source: Amazon S3 User Guide, "Checking object integrity", composite checksums.
    """
    parts = [
        hashlib.sha256(data[start : start + part_bytes]).digest()
        for start in range(0, len(data), part_bytes)
    ]
    return f"{sha256_base64(b''.join(parts))}-{len(parts)}"


def stored_fault(
    client: S3Client,
    bucket: str,
    key: str,
    version_id: str,
    *,
    sha256: str,
    size: int,
    data: bytes | None = None,
    part_bytes: int | None = None,
) -> str | None:
    """What is wrong with the bytes of a version; None if they are those.

    The server's own SHA-256 is taken if it gives one; else the version is read, and hashed here.

    Args:
        client: the client.
        bucket: of the version.
        key: of the version.
        version_id: of the version.
        sha256: that its bytes should have, hexadecimal.
        size: that it should have.
        data: its bytes, if they are at hand: for the checksum of an object that came in parts.
        part_bytes: the size of those parts.

    Raises:
        S3Error: it cannot be read.
    """
    with asked(bucket, key):
        head = client.head_object(
            Bucket=bucket, Key=key, VersionId=version_id, ChecksumMode="ENABLED"
        )
        length, told = head["ContentLength"], head.get("ChecksumSHA256", "")
    if length != size:
        return f"has {length:,} bytes, and was uploaded with {size:,}"
    if told and "-" not in told:
        same = told == b64encode(bytes.fromhex(sha256)).decode()
        return None if same else "the server's SHA-256 of it is another"
    if told and data is not None and part_bytes is not None:
        same = told == composite(data, part_bytes)
        return None if same else "the server's SHA-256 of its parts is another"
    if _read_and_hash(client, bucket, key, version_id, size) != sha256:
        return "its bytes have another SHA-256"
    return None


def _read_and_hash(client: S3Client, bucket: str, key: str, version_id: str, size: int) -> str:
    made = hashlib.sha256()
    with asked(bucket, key):
        body = client.get_object(Bucket=bucket, Key=key, VersionId=version_id)["Body"]
        with contextlib.closing(body):
            rest = size + 1
            while chunk := body.read(min(CHUNK, rest)):  # reading 0 bytes gives none
                made.update(chunk)
                rest -= len(chunk)
    return made.hexdigest()
