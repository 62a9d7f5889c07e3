"""The exception tree: every way that DecisionOS says no, with its exit code.

    DecisionOSError                exit 4
    ├── UnusableInputError         exit 4   a file that cannot be read as what it should be
    │   ├── EvidenceError          evidence document or block
    │   ├── LogError               request log
    │   ├── PolicyError            SLO file, gate.yaml, evidence.yaml, labels
    │   ├── KeysError              key ring or private key
    │   ├── TrustError             trust file
    │   └── JournalError           index or another hash-chained journal
    ├── UsageError                 exit 4   options that contradict each other or the gate
    ├── RemoteError                exit 4   a service (SSM, S3, a judge) that does not do what was asked
    │   └── ReplayStoreError       exit 4   a replay store that cannot be relied on
    ├── RolloutError               exit 4   traffic that could not be moved
    ├── DeniedError                exit 3   RBAC: a scope is missing
    └── RefusedError               exit 2   a condition does not hold
        └── SignatureError         a signature or MAC that does not verify, or may not

Each error prints as one line: what, where (file, line, field), what was found, what was expected
and what to do next.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """Exit status of ``dosctl``; the design's table."""

    GO = 0
    NO_GO = 2
    DENIED = 3
    UNUSABLE = 4
    HOLD = 10


def shown(value: object, limit: int = 120) -> str:
    """``value`` as one short line that is safe in a terminal and in a CI log: escaped, cut.

    GitHub's runner obeys ``##[command]`` anywhere in a line, so that is escaped too.
    """
    text = (value if isinstance(value, str) else repr(value)).replace("##[", "#\\x23[")
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class DecisionOSError(Exception):
    """Base of every error that DecisionOS raises on purpose.

    Attributes:
        what: the fault, in one clause.
        file: the file it stands in, if any.
        line: its line there, counted from 1, where known.
        field: JSON path or column, if any.
        found: what was there.
        expected: what should have been there.
        next_step: what the reader can do about it.
    """

    exit_code = ExitCode.UNUSABLE

    def __init__(
        self,
        what: str,
        *,
        file: object = None,
        line: int | None = None,
        field: str | None = None,
        found: object = None,
        expected: str | None = None,
        next_step: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.file = None if file is None else str(file)
        self.line = line
        self.field = field
        self.found = found
        self.expected = expected
        self.next_step = next_step

    def __str__(self) -> str:
        where = ""
        if self.file is not None:
            where = shown(self.file, 300) + (f":{self.line}" if self.line else "") + ": "
        if self.field is not None:
            where += f"{shown(self.field)}: "
        parts = [where + shown(self.what, 2000)]
        if self.found is not None:
            parts.append(f"found {shown(self.found)}")
        if self.expected is not None:
            parts.append(f"expected {shown(self.expected, 300)}")
        text = "; ".join(parts)
        return f"{text} → {shown(self.next_step, 300)}" if self.next_step else text


class UnusableInputError(DecisionOSError):
    """A file that cannot be read as what it should be."""


class EvidenceError(UnusableInputError):
    """An evidence document or block that cannot be read."""


class LogError(UnusableInputError):
    """A request log that cannot be harvested."""


class PolicyError(UnusableInputError):
    """An SLO file, gate.yaml or label catalogue that does not compile."""


class KeysError(UnusableInputError):
    """A key ring or private key that cannot be used; never tells a secret."""


class TrustError(UnusableInputError):
    """A trust file that cannot be used: broken, expired, rolled back, not pinned."""


class JournalError(UnusableInputError):
    """A hash-chained journal that is broken."""


class UsageError(DecisionOSError):
    """Options that contradict each other, or that would loosen the gate."""


class DeniedError(DecisionOSError):
    """RBAC: the scope that this needs is not granted."""

    exit_code = ExitCode.DENIED


class RemoteError(DecisionOSError):
    """A service (SSM, S3, a judge) that cannot be reached or does not do what was asked."""


class ReplayStoreError(RemoteError):
    """A replay store that cannot be relied on: who asks it learns nothing, and must refuse."""


class RolloutError(DecisionOSError):
    """Traffic that could not be moved: the rollout's program, proxy or cluster did not do it."""


class RefusedError(DecisionOSError):
    """A condition does not hold, so it is not done."""

    exit_code = ExitCode.NO_GO


class SignatureError(RefusedError):
    """A signature or MAC that does not verify, or whose key may not say this.

    Attributes:
        cause: reason code: ``tampered``, ``unknown_key``, ``wrong_role`` …
    """

    def __init__(self, what: str, *, cause: str, **where: Any) -> None:
        super().__init__(what, **where)
        self.cause = cause
