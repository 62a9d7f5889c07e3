"""The HMAC ring in SSM's Parameter Store: read whole; changed under a lock, as one SecureString.

Read is every parameter below the path. Written is one, ``<path>/ring``: a ring that is written in
one piece can be checked in one piece, so it never has two active keys, not even for a moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pytest_decisionos.errors import KeysError, RefusedError, RemoteError, UnusableInputError
from pytest_decisionos.model import strict_json
from pytest_decisionos.trust.keys import KeyRing, make_ring, ring_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from types_boto3_ssm import SSMClient

    from pytest_decisionos.trust.rotate import Step

MAX_PAGES: Final = 200
"""Of 10 parameters: more than a ring can fill, with many empty pages between."""
MAX_VALUE_BYTES: Final = 8192
"""What an advanced parameter holds (AWS Systems Manager quotas)."""
_PATH: Final = re.compile(r"(/[A-Za-z0-9_.-]+){1,14}/?")
# Standard mode waits a random share of 1, 2, 4 … at most 20 s before it tries again.
_CONFIG: Final = Config(
    retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=3, read_timeout=10
)


class _Found(NamedTuple):
    name: str
    version: int
    entries: list[Any]


def read_ring(path: str, *, region: str | None) -> KeyRing:
    """The ring of every parameter below ``path``, each a JSON entry or a list of them.

    Args:
        path: such as ``/decisionos/judge``.
        region: AWS region; None means what boto3's own configuration says.

    Raises:
        KeysError: nothing is there, or something that is no key, or not a SecureString.
        RemoteError: SSM cannot be reached, or refuses.
    """
    with _client(path, region) as client:
        return _ring(path, _parameters(client, path))


def update_ring(path: str, change: Callable[[KeyRing | None], Step], *, region: str | None) -> Step:
    """Change the ring below ``path`` while nobody else does.

    The lock is the parameter ``<path>.lock``, which only one can make. SSM knows no "write if
    unchanged", so a writer without the lock is not kept out, but found by the version.

    Args:
        path: such as ``/decisionos/judge``.
        change: takes the ring (None if nothing is there) and says what becomes of it.
        region: AWS region; None means what boto3's own configuration says.

    Raises:
        RefusedError: another run has the lock, entries lie in other parameters than
            ``<path>/ring``, or the ring became too large.
        KeysError: as ``read_ring``.
        RemoteError: the same; or a writer without the lock came between.
    """
    name = f"{path.rstrip('/')}/ring"
    with _client(path, region) as client, _only_writer(client, path):
        found = _parameters(client, path)
        others = [one.name for one in found if one.name != name]
        if others:
            raise RefusedError(
                "only a ring in one parameter can be changed in one piece",
                file=f"SSM {path}",
                found=", ".join(others),
                next_step=f"move their entries into {name}",
            )
        step = change(_ring(path, found) if found else None)
        if step.changed:
            _write(client, name, step.ring, found[0].version if found else 0)
        return step


def _ring(path: str, found: list[_Found]) -> KeyRing:
    for one in found:
        make_ring(one.entries, f"SSM {one.name}")  # so that a fault names its own parameter
    if not found:
        raise KeysError(
            "no parameter is there",
            file=f"SSM {path}",
            next_step="make one with `dosctl keys gen --use request --ssm PATH`",
        )
    return make_ring([entry for one in found for entry in one.entries], f"SSM {path}")


def _parameters(client: SSMClient, path: str) -> list[_Found]:
    pages = _pages(
        client.get_parameters_by_path, f"SSM {path}", Path=path, Recursive=True, WithDecryption=True
    )
    with _in_words(f"SSM {path}"):
        return [_found(one) for page in pages for one in page.get("Parameters", ())]


def _pages(call: Callable[..., Any], where: str, **asked: Any) -> Iterator[Any]:
    """Every page. An empty one may have a next one, so only the missing token is the end."""
    for _ in range(MAX_PAGES):
        page = call(**asked)
        yield page
        token = page.get("NextToken")
        if not token:
            return
        asked["NextToken"] = token
    raise RemoteError("the pages have no end", file=where, found=f"{MAX_PAGES} pages")


def _found(parameter: Any) -> _Found:
    name = str(parameter.get("Name"))
    where = f"SSM {name}"
    if parameter.get("Type") != "SecureString":
        raise KeysError(
            "the secret lies open",
            file=where,
            found=parameter.get("Type"),
            expected="SecureString",
            next_step="make a new key in a SecureString; this one may be known",
        )
    try:
        entries = strict_json.loads(str(parameter.get("Value")).encode(), error=KeysError)
    except KeysError:
        # What is wrong with it would tell a part of it.
        expected = "one key, or a list of keys"
        raise KeysError("not JSON, or not decrypted", file=where, expected=expected) from None
    listed = entries if isinstance(entries, list) else [entries]
    return _Found(name, parameter.get("Version", 0), listed)


def _write(client: SSMClient, name: str, ring: KeyRing, version: int) -> None:
    """Write ``ring`` in place of ``version``, which is 0 if nothing is there yet."""
    where = f"SSM {name}"
    value = json.dumps(json.loads(ring_json(ring)), separators=(",", ":"))
    if len(value) > MAX_VALUE_BYTES:
        raise RefusedError(
            "the ring is too large for a parameter",
            file=where,
            found=f"{len(value):,} bytes",
            expected=f"at most {MAX_VALUE_BYTES:,}",
            next_step="remove revoked keys, and retired ones whose evidence is gone",
        )
    more: dict[str, Any] = {}
    if version:
        # Without its name, SSM would go back from a key of yours to the account's default one.
        more = {"Overwrite": True, "KeyId": _kms_key(client, name)}
    with _in_words(where):
        written = client.put_parameter(
            Name=name, Value=value, Type="SecureString", Tier="Intelligent-Tiering", **more
        )
    if written["Version"] != version + 1:
        raise RemoteError(
            "the ring was written, but somebody else wrote without the lock, or an answer was lost",
            file=where,
            found=f"version {written['Version']} after {version}",
            next_step=f"compare with `aws ssm get-parameter-history --name {name}`",
        )


def _kms_key(client: SSMClient, name: str) -> str:
    named = [{"Key": "Name", "Values": [name]}]
    pages = _pages(client.describe_parameters, f"SSM {name}", ParameterFilters=named)
    with _in_words(f"SSM {name}"):
        for page in pages:
            for one in page.get("Parameters", ()):
                return str(one["KeyId"])
    raise RemoteError("SSM does not tell which KMS key encrypts it", file=f"SSM {name}")


@contextlib.contextmanager
def _only_writer(client: SSMClient, path: str) -> Iterator[None]:
    lock = f"{path.rstrip('/')}.lock"
    owner = {
        "who": f"user {os.geteuid()} on {socket.gethostname()}, process {os.getpid()}",
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "id": secrets.token_hex(8),
    }
    mine = json.dumps(owner)
    _take(client, lock, mine)
    try:
        yield
    except BaseException:
        with contextlib.suppress(RemoteError):  # the first fault is the one to tell
            _release(client, lock, mine)
        raise
    _release(client, lock, mine)


def _take(client: SSMClient, lock: str, mine: str) -> None:
    where = f"SSM {lock}"
    with _in_words(where):
        try:
            client.put_parameter(Name=lock, Value=mine, Type="String", Overwrite=False)
        except client.exceptions.ParameterAlreadyExists:
            there = _value(client, lock)
            if there == mine:  # the answer was lost, and the call repeated
                return
        else:
            return
    try:
        owner = strict_json.loads((there or "").encode())
        found = f"{owner['who']}, since {owner['since']}"
    except (UnusableInputError, TypeError, KeyError):
        found = "unknown" if there else "just released"
    raise RefusedError(
        "another run changes this ring",
        file=where,
        found=found,
        next_step=f"try again when it ended; if it died: aws ssm delete-parameter --name {lock}",
    )


def _release(client: SSMClient, lock: str, mine: str) -> None:
    with _in_words(f"SSM {lock}", f"aws ssm delete-parameter --name {lock}"):
        if _value(client, lock) == mine:  # somebody may have removed it and taken their own
            client.delete_parameter(Name=lock)


def _value(client: SSMClient, name: str) -> str | None:
    try:
        return client.get_parameter(Name=name)["Parameter"]["Value"]
    except client.exceptions.ParameterNotFound:
        return None


@contextlib.contextmanager
def _client(path: str, region: str | None) -> Iterator[SSMClient]:
    if not _PATH.fullmatch(path):
        raise KeysError(
            "not a path of SSM", file=f"SSM {path}", expected="such as /decisionos/judge"
        )
    with _in_words(f"SSM {path}"):
        try:
            # Not boto3's default session: threads share that one, and it may not be shared.
            client = boto3.session.Session().client("ssm", region_name=region, config=_CONFIG)
        except ValueError:
            what = "the region, or the endpoint that AWS_ENDPOINT_URL says, is none"
            raise RemoteError(what, file=f"SSM {path}") from None
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def _in_words(where: str, next_step: str | None = None) -> Iterator[None]:
    """Faults of AWS by their code alone: the message of one may repeat what was written."""
    try:
        yield
    except ClientError as fault:
        code = str(fault.response.get("Error", {}).get("Code", "unknown"))
        if code.startswith("AccessDenied"):
            allow = f"allow ssm:{fault.operation_name}, and the use of its KMS key"
            next_step = next_step or allow
        what = f"SSM refuses {fault.operation_name}"
        raise RemoteError(what, file=where, found=code, next_step=next_step) from None
    except BotoCoreError as fault:
        name = type(fault).__name__
        next_step = {
            "NoRegionError": "set AWS_REGION",
            "NoCredentialsError": "give this process credentials of AWS",
        }.get(name, next_step)
        raise RemoteError(
            "SSM cannot be asked", file=where, found=name, next_step=next_step
        ) from None
    except (AttributeError, KeyError, TypeError, ValueError):  # botocore believes what it is sent
        raise RemoteError("SSM's answer is none", file=where) from None
