"""Changes to a trust file, each a new version, and what is doubtful about one."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from pytest_decisionos.errors import RefusedError, UsageError
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.validate import first_fault
from pytest_decisionos.trust.ed25519 import NO_JUDGE_NAME
from pytest_decisionos.trust.files import locked, write_atomic, write_new
from pytest_decisionos.trust.trust_load import Loaded, parse_trust, read_trust
from pytest_decisionos.trust.trustfile import ANY_POLICY, ROLES, TrustFile, TrustKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.trust.ed25519 import PublicKey

EXPIRES_SOON: Final = timedelta(days=30)
ANY_TARGET: Final = "*/*/*/*"
_OPTIONS: Final = {
    "role": ("--role", "no such role", ", ".join(ROLES)),
    "judge": ("--judge", *NO_JUDGE_NAME),
    "targets": ("--target", "not globs of service/environment/region/tenant", None),
}
"""Fields of a key → the option that states them, what is wrong, and what is expected."""
MIN_PREFIX: Final = 8
"""So many digits of a key id name a key, if no other begins so."""


def new_key(public: PublicKey, role: str, targets: Sequence[str], **more: Any) -> TrustKey:
    """An entry for a trust file; ``more`` are the other fields of ``TrustKey``.

    Raises:
        UsageError: a field is not what it should be.
    """
    fields = {"keyid": public.keyid, "public_key": public.pem, "role": role, "targets": targets}
    try:
        return TrustKey.model_validate({**fields, "targets": tuple(targets), **more})
    except ValidationError as fault:
        first = first_fault(fault)
        if not first.path:
            raise UsageError(first.words) from None
        name = str(first.path[0])
        option, what, expected = _OPTIONS.get(name, (name, first.words, None))
        raise UsageError(what, field=option, found=first.found, expected=expected) from None


def with_key(trust: TrustFile, key: TrustKey) -> TrustFile:
    """``trust`` and one key more.

    Raises:
        UsageError: it is in there already, perhaps revoked.
    """
    there = trust.key(key.keyid)
    if there is not None:
        raise UsageError(
            "is in the trust file already" + (", revoked" if there.revoked else ""),
            field=f"key {key.keyid[:12]}…",
            found=f"role {there.role}" + (f" {there.judge}" if there.judge else ""),
            next_step="make another key for another role: one key is one voice",
        )
    return trust.model_copy(update={"keys": (*trust.keys, key)})


def with_policy(trust: TrustFile, sha256: str) -> TrustFile:
    """``trust`` and one policy more that may be decided by; ``ANY_POLICY`` is any.

    Raises:
        UsageError: it is in there already.
    """
    if sha256 in trust.policy_sha256:
        raise UsageError("is in the trust file already", field="--policy", found=sha256)
    return trust.model_copy(update={"policy_sha256": (*trust.policy_sha256, sha256)})


def without_key(trust: TrustFile, prefix: str) -> TrustFile:
    """``trust`` with the key whose id begins with ``prefix`` revoked: it stays, and says so.

    Raises:
        UsageError: no key or several begin so, or it is revoked already.
    """
    found = [key for key in trust.keys if key.keyid.startswith(prefix)]
    if len(prefix) < MIN_PREFIX or len(found) != 1:
        expected = f"at least {MIN_PREFIX} digits that begin one of its key ids"
        what = "no such key" if not found else "several keys" if len(found) > 1 else "too short"
        raise UsageError(what, field="--key", found=prefix, expected=expected)
    (key,) = found
    if key.revoked:
        raise UsageError("is revoked already", field="--key", found=prefix)
    revoked = key.model_copy(update={"revoked": True})
    return trust.model_copy(
        update={"keys": tuple(revoked if one is key else one for one in trust.keys)}
    )


def without_policy(trust: TrustFile, sha256: str) -> TrustFile:
    """``trust`` without a policy.

    Raises:
        UsageError: it is not in there.
    """
    if sha256 not in trust.policy_sha256:
        raise UsageError("is not in the trust file", field="--policy", found=sha256)
    left = tuple(one for one in trust.policy_sha256 if one != sha256)
    return trust.model_copy(update={"policy_sha256": left})


def first(expires: datetime, **floors: int) -> TrustFile:
    """A trust file of version 1 in which no key counts yet; ``floors`` are its least quorum.

    It is checked when it is written.
    """
    return TrustFile(version=1, expires=expires).model_copy(update=floors)


def write_first(path: Path, trust: TrustFile) -> Loaded:
    """Write a new trust file; one that is there is never overwritten.

    Raises:
        TrustError: it would be no trust file.
        UsageError: something is there already, or it cannot be written.
    """
    data = _bytes(trust)
    made = parse_trust(data, path)
    if not write_new(path, data):
        raise UsageError(
            "is there already: a trust file is never overwritten",
            file=path,
            next_step="change it with `dosctl trust add`, or name another file",
        )
    return made


def write_next(path: Path, trust: TrustFile, *, replaces: str) -> Loaded:
    """Write ``trust`` as the next version of the file that it was made from.

    Args:
        path: the file.
        trust: what it shall say; its version is the one that it was read with.
        replaces: SHA-256 of the bytes that it was read from.

    Raises:
        TrustError: it would be no trust file.
        RefusedError: the file was changed meanwhile, or another writer has it.
        UsageError: it is a link, or cannot be written.
    """
    data = _bytes(trust.model_copy(update={"version": trust.version + 1}))
    made = parse_trust(data, path)
    with locked(path):
        if path.is_symlink():  # writing would replace the link, and leave the file
            raise UsageError("is a link", file=path, next_step="name the file that it leads to")
        if read_trust(path).sha256 != replaces:
            raise RefusedError("was changed meanwhile", file=path, next_step="run it again")
        write_atomic(path, data)
    return made


def _bytes(trust: TrustFile) -> bytes:
    return strict_json.dumps(trust.model_dump(mode="json", exclude_none=True)).encode()


def doubts(trust: TrustFile, now: datetime) -> Iterator[str]:
    """What a careful owner would want to know of a trust file that may be believed, in words."""
    if trust.expires - now < EXPIRES_SOON:
        yield f"expires in {max((trust.expires - now).days, 0)} days: renew it"
    counting = [key for key in trust.keys if _counts(key, now)]
    for role in ROLES:
        if not any(key.role == role for key in counting):
            yield f"no key that counts now has the role {role}"
    judges = {key.judge for key in counting if key.role == "judge"}
    if len(judges) < trust.min_n:
        yield f"judges with a key: {len(judges)}, and min_n asks for {trust.min_n}"
    if not trust.policy_sha256:
        yield "no policy is allowed: nothing can be decided"
    if ANY_POLICY in trust.policy_sha256:
        yield "any policy is allowed: whoever writes SLO files decides"
    for key in counting:
        if ANY_TARGET in key.targets:
            yield f"key {key.keyid[:12]}… ({key.judge or key.role}) counts for every target"


def _counts(key: TrustKey, now: datetime) -> bool:
    return (
        not key.revoked
        and (key.not_before is None or now >= key.not_before)
        and (key.not_after is None or now <= key.not_after)
    )
