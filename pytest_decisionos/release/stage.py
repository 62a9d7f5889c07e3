"""The stage: the signed token that a rollout controller obeys, and its only reader and writer.

What keeps it safe, in the order in which a writer works: a lock on a file beside it; the new file
whole or not at all; then the memory of this host, which lies elsewhere and knows the highest number
that it saw. A reader looks the other way round, at the memory first, so that a writer at work never
looks like an old file that was put back.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import os
import secrets
import stat as modes
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from pytest_decisionos.errors import (
    DecisionOSError,
    KeysError,
    SignatureError,
    UnusableInputError,
    UsageError,
    shown,
)
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.validate import faults, first_fault
from pytest_decisionos.release.stage_memory import BadStageError, Memory
from pytest_decisionos.release.stage_model import Reading, Stage, told
from pytest_decisionos.release.transitions import Changes, StageName, after
from pytest_decisionos.trust.files import (
    LOCK_TIMEOUT_SEC,
    is_there,
    locked,
    sync_folder,
    write_atomic,
)
from pytest_decisionos.trust.keys import KeyEntry, KeyRing, canonical, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Unpack

    from pytest_decisionos.model.target import Target

__all__ = ["Changer", "Reading", "Stage", "StageName", "change_stage", "read_stage", "remove_stage"]

FILE: Final = "rollout/stage.json"
MAX_BYTES: Final = 16 * 1024
REMOVE_WAIT_SEC: Final = 5.0
"""How long an abort without a key waits for a writer: what it removes must not come back."""
CLOCKS: Final = timedelta(seconds=5)
"""How far two clocks may differ before a key that signs on one host is too young on another."""


def read_stage(
    root: Path, *, target: Target, ring: KeyRing | None, state_dir: Path | None, now: datetime
) -> Reading:
    """The stage of ``target``; whatever is wrong with its file, it reads as stable with an alarm.

    Args:
        root: root folder of the target.
        target: what is released where; a file about another one is foreign.
        ring: keys that verify; None where none are known, and then nothing can be believed.
        state_dir: where this host remembers what it has seen; None is ``seen.default_folder``.
        now: the time here, for the validity of keys.
    """
    return _read(root / FILE, target, ring, Memory(root, state_dir), now)


def _read(
    path: Path, target: Target, ring: KeyRing | None, memory: Memory, now: datetime
) -> Reading:
    try:
        data = _bytes(path)
        stage = _stage(data, path)
        key = _verify(stage, data, target, ring, now)
        note = memory.check(stage.seq, fingerprint(data))
    except BadStageError as bad:
        said = str(bad)
        removed = bad.alarm == "missing" and memory.last is not None
        if removed and memory.last:
            said += f"; this host has seen number {memory.last[0]}, so it was removed"
        return Reading(None, None, bad.alarm, f"{shown(str(path), 300)}: {said}", removed)
    if key.state != "active" and not note:
        note = (
            f"{key.key_id} signs no more: `dosctl stage reconcile` signs it anew, before that ends"
        )
    return Reading(stage, fingerprint(data), "", note)


def _bytes(path: Path) -> bytes:
    """The bytes of a regular file, of one open descriptor; nothing blocks here."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            kind = os.fstat(descriptor).st_mode
            if modes.S_ISDIR(kind):
                raise BadStageError("folder", "a folder is in its place")
            if not modes.S_ISREG(kind):
                raise BadStageError("not_a_file", "a pipe or a device is in its place")
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                data = stream.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        raise BadStageError("missing", "no such file") from None
    except OSError as fault:
        if fault.errno == errno.ELOOP:
            raise BadStageError("link", "a symbolic link is in its place") from None
        if fault.errno == errno.ENXIO:
            raise BadStageError("not_a_file", "a socket is in its place") from None
        raise BadStageError("unreadable", f"cannot be read: {fault.strerror}") from None
    except ValueError:
        raise BadStageError("missing", "not a file name") from None
    if len(data) > MAX_BYTES:
        raise BadStageError("too_large", f"more than {MAX_BYTES:,} bytes")
    return data


def _stage(data: bytes, path: Path) -> Stage:
    try:
        document = strict_json.loads(data, max_bytes=MAX_BYTES)
    except UnusableInputError as fault:
        # A duplicate key is no accident: two readers would see two stages.
        alarm = "duplicate_key" if fault.what.startswith("duplicate key") else "torn"
        raise BadStageError(alarm, fault.what) from None
    if isinstance(document, dict) and not {"key_id", "mac"} <= document.keys():
        raise BadStageError("unsigned", "it has no MAC")
    try:
        return Stage.model_validate(document)
    except ValidationError as fault:
        unknown = any(one["type"] == "extra_forbidden" for one in fault.errors())
        first = faults(Stage, document, path, data, UnusableInputError)[0]
        where = f"{first.field}: " if first.field else ""
        alarm = "unknown_field" if unknown else "not_a_stage"
        raise BadStageError(alarm, f"{where}{first.what}") from None


def _verify(
    stage: Stage, data: bytes, target: Target, ring: KeyRing | None, now: datetime
) -> KeyEntry:
    if stage.target != target:
        raise BadStageError("foreign_target", f"it is about {stage.target}, not {target}")
    if ring is None:
        said = f"it says {told(stage)}, and no key here can verify that"
        raise BadStageError("unverified", said)
    try:
        # The key must be good now: how old the signature is, nobody can tell.
        made = max(now + CLOCKS, stage.since)
        key = ring.verifying("stage", stage.key_id, made_at=made)
    except SignatureError as fault:
        raise BadStageError(fault.cause, str(fault)) from None
    if not hmac.compare_digest(_mac(stage, key), stage.mac):
        raise BadStageError("tampered", "its MAC is not that of its fields: they were changed")
    if _text(stage) != data:  # each stage has one spelling, or it would have several digests
        raise BadStageError("respelled", "not as `dosctl` writes it")
    return key


def _mac(stage: Stage, key: KeyEntry) -> str:
    fields = stage.model_dump(mode="json", exclude={"mac"})
    return key.mac("stage", canonical({"use": "stage", **fields}))


def _text(stage: Stage) -> bytes:
    return strict_json.dumps(stage.model_dump(mode="json")).encode()


class Changer:
    """A stage that nobody else changes meanwhile; ``change_stage`` gives one.

    Attributes:
        reading: what is there now.
        key_id: the key that signs what is written.
    """

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        path: Path,
        target: Target,
        ring: KeyRing,
        key: KeyEntry,
        memory: Memory,
        now: datetime,
    ) -> None:
        self._path = path
        self._target = target
        self._key = key
        self.key_id = key.key_id
        self._memory = memory
        self._now = now
        self.reading = _read(path, target, ring, memory, now)

    def write(self, **changes: Unpack[Changes]) -> Stage:
        """Write the stage that follows, signed; see ``transitions.after`` for what may follow.

        A bad file is kept aside. An error leaves the old stage or the new one, as a crash would:
        read it again.

        Raises:
            RefusedError: the graph does not lead there.
            UsageError: a value that no stage may have; or it cannot be written or remembered.
            UnusableInputError: what this host remembers is broken, so no number is safe.
        """
        before = self.reading.stage
        try:
            self._memory.must_work()
        except BadStageError as bad:
            raise UnusableInputError(
                str(bad), file=self._path, next_step="mend that, then write again"
            ) from None
        if self.reading.alarm == "memory":
            raise UnusableInputError(self.reading.message)
        fields = after(before.model_dump() if before else None, changes, now=self._now)
        highest = self._memory.last[0] if self._memory.last else 0
        stage = self._signed(fields, highest + 1)
        if self.reading.alarm not in {"", "missing"}:
            _keep_aside(self._path, self._now)
        data = _text(stage)
        write_atomic(self._path, data)
        self.reading = Reading(stage, fingerprint(data), "", "")
        self._memory.remember(stage.seq, fingerprint(data))
        return stage

    def _signed(self, fields: dict[str, Any], seq: int) -> Stage:
        since = fields["since"].astimezone(UTC)
        try:
            stage = Stage.model_validate(
                fields
                | {"target": self._target, "since": since, "seq": seq, "prev": self.reading.sha256}
                | {"key_id": self._key.key_id, "mac": "0" * 64}
            )
        except ValidationError as fault:
            first = first_fault(fault)
            found = first.found if first.field else None
            raise UsageError(first.words, file=self._path, field=first.field, found=found) from None
        return stage.model_copy(update={"mac": _mac(stage, self._key)})


@contextlib.contextmanager
def change_stage(
    root: Path,
    *,
    target: Target,
    ring: KeyRing | None,
    state_dir: Path | None,
    now: datetime,
    wait_sec: float = LOCK_TIMEOUT_SEC,
) -> Iterator[Changer]:
    """Change the stage, as its only writer.

    Args:
        root: root folder of the target.
        target: what is released where.
        ring: keys of the stage, of which one must be active.
        state_dir: where this host remembers what it has seen; None is ``seen.default_folder``.
        now: the time here.
        wait_sec: how long to wait for another writer.

    Raises:
        KeysError: no key signs stages here.
        RefusedError: another writer has it for too long.
        UsageError: its folder cannot be written.
    """
    if ring is None:
        raise KeysError(
            "no key signs stages here",
            file=root / FILE,
            next_step="configure a ring: DECISIONOS_KMS_PARAM_PATH or DECISIONOS_JUDGE_KEYS",
        )
    key = ring.signing("stage", now)
    path = root / FILE
    with locked(path, timeout_sec=wait_sec):
        yield Changer(path, target, ring, key, Memory(root, state_dir), now)


def remove_stage(root: Path, *, wait_sec: float = REMOVE_WAIT_SEC) -> None:
    """Take the stage away, so that it reads as stable: how an abort works without a key.

    A writer at work is waited for, because it would put the file back; one that hangs is not.

    Raises:
        UsageError: it is still there.
    """
    path = root / FILE
    if not is_there(path):
        return
    with contextlib.ExitStack() as held:
        with contextlib.suppress(DecisionOSError):
            held.enter_context(locked(path, timeout_sec=wait_sec))
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError):  # a folder in its place
            _keep_aside(path, datetime.now(UTC))
        with contextlib.suppress(OSError):
            sync_folder(path.parent)


def _keep_aside(path: Path, now: datetime) -> None:
    name = f"{path.name}.bad-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    try:
        path.rename(path.with_name(name))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else "not a file name"
        raise UsageError(f"cannot be moved aside: {why}", file=path) from None
