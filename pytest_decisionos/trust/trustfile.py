"""The trust file: whose signature counts, for what, where, and how long; and the least quorum."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final, Literal, get_args

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from pytest_decisionos.errors import KeysError
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.trust import dsse, ed25519

if TYPE_CHECKING:
    from datetime import datetime

    from pytest_decisionos.model.target import Target

Role = Literal["gate", "judge", "index", "operator", "deploy-owner"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
Hex = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(strict=True, ge=1, le=99)]
JudgeName = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
# A part: characters that can be seen, and whole classes such as [a-c]. A bracket alone would stand for
# itself, which nobody means, and a line break belongs to the editor, not to the target.
_PLAIN: Final = r"[^/\[\]\x00-\x1f\x7f-\x9f]"
_GLOB: Final = rf"({_PLAIN}|\[!?[^!/\[\]\x00-\x1f\x7f-\x9f]{_PLAIN}*\])+"
TargetGlob = Annotated[
    str, StringConstraints(strict=True, pattern=rf"^{_GLOB}(/{_GLOB}){{3}}$", max_length=600)
]
ANY_POLICY: Final = "*"


class TrustKey(Frozen):
    """One key that is trusted.

    Attributes:
        keyid: SHA-256 of the raw public key, hexadecimal.
        role: what its signatures count for.
        judge: for the role judge: the judge whose key it is; nobody else may use it.
        public_key: SubjectPublicKeyInfo PEM.
        targets: ``service/environment/region/tenant`` with ``*`` for any, at least one.
        not_before: signatures before this do not count.
        not_after: signatures after this do not count.
        revoked: whether none counts at all.
    """

    keyid: Hex
    role: Role
    judge: JudgeName | None = None
    public_key: Annotated[str, StringConstraints(strict=True, max_length=4096)]
    targets: Annotated[tuple[TargetGlob, ...], Field(min_length=1, max_length=100)]
    not_before: AwareDatetime | None = None
    not_after: AwareDatetime | None = None
    revoked: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="after")
    def _consistent(self) -> TrustKey:
        try:
            named = self.public.keyid
        except KeysError as fault:
            raise ValueError(f"public_key: {fault.what}") from None
        if named != self.keyid:
            raise ValueError("keyid is not the digest of public_key")
        if (self.role == "judge") != (self.judge is not None):
            raise ValueError("judge: the name of the judge is for the role judge, and needed there")
        if self.not_before and self.not_after and self.not_before >= self.not_after:
            raise ValueError("not_before is not before not_after")
        return self

    @cached_property
    def public(self) -> ed25519.PublicKey:
        """The key itself."""
        return ed25519.parse_public(self.public_key)

    def covers(self, target: Target) -> bool:
        """Whether its signatures count for ``target``."""
        parts = (target.service, target.environment, target.region, target.tenant)
        # fnmatch lets * match a slash, and a glob is for one part each.
        return not any("/" in part for part in parts) and any(
            all(fnmatchcase(part, glob) for part, glob in zip(parts, globs.split("/"), strict=True))
            for globs in self.targets
        )


class TrustFile(Frozen):
    """A whole trust file.

    Attributes:
        version: rises with every change, and never falls.
        expires: after this the file says nothing.
        keys: whose signatures count; no public key twice.
        policy_sha256: the policies that may be decided by; ``*`` alone allows any.
        min_k: the least k of every quorum.
        min_n: the least n.
        min_remote: at least so many judges must be on other hosts.
    """

    version: Annotated[int, Field(strict=True, ge=1, le=2**53 - 1)]
    expires: AwareDatetime
    keys: Annotated[tuple[TrustKey, ...], Field(max_length=1000)] = ()
    policy_sha256: Annotated[tuple[Hex | Literal["*"], ...], Field(max_length=1000)] = ()
    min_k: Count = 1
    min_n: Count = 1
    min_remote: Annotated[int, Field(strict=True, ge=0, le=99)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> TrustFile:
        ids = [key.keyid for key in self.keys]
        if len(set(ids)) != len(ids):
            raise ValueError("keys: one key stands twice, and would count twice")
        if self.min_k > self.min_n:
            raise ValueError("min_k is more than min_n")
        return self

    def allows_policy(self, sha256: str) -> bool:
        """Whether a policy of this digest may be decided by."""
        return sha256 in self.policy_sha256 or ANY_POLICY in self.policy_sha256

    def key(self, keyid: str) -> TrustKey | None:
        """The key of that name."""
        return next((key for key in self.keys if key.keyid == keyid), None)

    def usable(
        self, role: Role, target: Target, at: datetime, *, judge: str | None = None
    ) -> dict[str, ed25519.PublicKey]:
        """The keys whose signature in ``role`` counts for ``target`` at ``at``, by key id."""
        return {
            key.keyid: key.public
            for key in self.keys
            if refusal(key, role, target, at, judge=judge) is None
        }

    def why_not(
        self,
        envelope: dsse.Envelope,
        role: Role,
        target: Target,
        at: datetime,
        *,
        judge: str | None = None,
    ) -> tuple[str, str]:
        """Cause and words of why no signature of ``envelope`` counts in ``role``.

        Call it when none does: a key that did sign, and may not, is named before a signature that
        does not verify.
        """
        if not envelope.signatures:
            return "unsigned", "has no signature: a dry-run"
        signed = dsse.signers(envelope, {key.keyid: key.public for key in self.keys})
        for keyid in signed:
            key = self.key(keyid)
            fault = refusal(key, role, target, at, judge=judge) if key else None
            if fault is not None:
                cause, words = fault
                return cause, f"is signed by key {keyid[:16]}…, which {words}"
        hinted = [signature.keyid for signature in envelope.signatures]
        if any(self.key(keyid) for keyid in hinted):
            return "bad_signature", "has a signature that does not verify: it was changed"
        return "unknown_key", "is signed by no key of the trust file"


def refusal(
    key: TrustKey, role: Role, target: Target, at: datetime, *, judge: str | None = None
) -> tuple[str, str] | None:
    """Cause and words of why ``key`` does not count in ``role``; None if it does."""
    if key.revoked:
        return "revoked_key", "is revoked"
    if key.role != role:
        return "wrong_role", f"has the role {key.role}, not {role}"
    if judge is not None and key.judge != judge:
        return "wrong_judge", f"is judge {key.judge}'s, not {judge}'s"
    if not key.covers(target):
        return "wrong_target", f"is for {', '.join(key.targets)}, not for {target}"
    if key.not_before is not None and at < key.not_before:
        return "outside_validity", f"is valid only from {key.not_before.isoformat()}"
    if key.not_after is not None and at > key.not_after:
        return "outside_validity", f"was valid only until {key.not_after.isoformat()}"
    return None
