"""configs/evidence.yaml: what may not be in evidence, how long it is kept, and where it is locked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints

from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.policy_text import read_policy
from pytest_decisionos.model.validate import validate
from pytest_decisionos.trust.files import is_there

if TYPE_CHECKING:
    from pathlib import Path

Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1024)]
Pointer = Annotated[str, StringConstraints(strict=True, pattern=r"^(/[^/]+)+$", max_length=1024)]
Days = Annotated[int, Field(strict=True, ge=1, le=36_500)]

SECRET_KEYS: Final = (
    "*token",
    "*tokens",
    "*password",
    "*passwords",
    "*passwd",
    "*pwd",
    "*passphrase",
    "*secret",
    "*secrets",
    "*api_key",
    "*apikey",
    "*access_key",
    "*private_key",
    "*secret_key",
    "*signing_key",
    "*hmac_key",
    "*credential",
    "*credentials",
    "*authorization",
    "*bearer",
    "*jwt",
    "auth",
    "basic_auth",
    "cookie",
    "cookies",
    "set_cookie",
    "session_id",
)
"""Names of fields that hold secrets. Names are compared in snake_case: ``X-API-Key`` is x_api_key."""


class Privacy(Frozen):
    """What may not be sealed.

    Attributes:
        refuse_keys: globs of field names whose values are refused, beside ``SECRET_KEYS``.
        allow: JSON Pointers, ``*`` for any one step, where such a value is meant and no secret.
        mask: JSON Pointers, ``*`` for any one step, whose values are replaced before sealing.
    """

    refuse_keys: Annotated[tuple[Text, ...], Field(max_length=200)] = ()
    allow: Annotated[tuple[Pointer, ...], Field(max_length=200)] = ()
    mask: Annotated[tuple[Pointer, ...], Field(max_length=200)] = ()


class LegalHold(Frozen):
    """Documents that nobody deletes.

    Attributes:
        match: glob of file names in the evidence folder, or ``tenant:NAME`` or ``release:NAME``.
        owner: who asked for it.
        reason: why.
        until: when it ends; None is until it is taken out.
    """

    match: Text
    owner: Text
    reason: Text
    until: AwareDatetime | None = None


class Retention(Frozen):
    """How long documents are kept.

    Attributes:
        wip_days: work in progress, from its last change.
        locked_days: LOCKED documents, from the day they were locked.
        keep_per_tenant: the newest documents of each tenant that stay, however old.
        exclude: globs of file names that are never deleted.
        legal_holds: documents that nobody deletes.
    """

    wip_days: Days = 30
    locked_days: Days = 365
    keep_per_tenant: Annotated[int, Field(strict=True, ge=0, le=100_000)] = 3
    exclude: Annotated[tuple[Text, ...], Field(max_length=200)] = ()
    legal_holds: Annotated[tuple[LegalHold, ...], Field(max_length=1000)] = ()


def _no_way_up(prefix: str) -> str:
    """S3 knows no folders, but what copies from it to a disk does."""
    if {".", ".."} & set(prefix.split("/")):
        raise ValueError("a part of it is . or .., which leads out of a folder")
    return prefix


class ObjectLock(Frozen):
    """Where documents are locked in S3, and how.

    Attributes:
        bucket: its name; it must have been made with Object Lock.
        prefix: what every key begins with.
        mode: ``COMPLIANCE`` (nobody can shorten it) or ``GOVERNANCE``.
        days: how long, from the upload.
        endpoint_url: of a server that is not AWS; None is AWS.
        multipart_mb: files of more MiB go up in parts of this size.
        workers: uploads at once.
    """

    bucket: Annotated[
        str, StringConstraints(strict=True, pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    ]
    prefix: Annotated[
        str,
        StringConstraints(strict=True, pattern=r"^[A-Za-z0-9._/-]*$", max_length=512),
        AfterValidator(_no_way_up),
    ] = ""
    mode: Literal["COMPLIANCE", "GOVERNANCE"] = "COMPLIANCE"
    days: Days = 365
    endpoint_url: Text | None = None
    multipart_mb: Annotated[int, Field(strict=True, ge=5, le=5000)] = 64
    workers: Annotated[int, Field(strict=True, ge=1, le=64)] = 4


class EvidenceFile(Frozen):
    """A whole evidence.yaml."""

    version: Literal[1] = 1
    privacy: Privacy = Privacy()
    retention: Retention = Retention()
    object_lock: ObjectLock | None = None


def load_config(path: Path) -> EvidenceFile:
    """Read evidence.yaml; a missing file is one that states nothing: the defaults.

    Raises:
        PolicyError: it is not what it should be.
    """
    if not is_there(path):
        return EvidenceFile()
    document, data = read_policy(path)
    return validate(EvidenceFile, document, path, data)
