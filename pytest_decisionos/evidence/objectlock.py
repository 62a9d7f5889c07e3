"""What is locked in S3: which files, under which keys, and the receipts of what was uploaded."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pytest_decisionos.errors import EvidenceError, JournalError, RefusedError
from pytest_decisionos.evidence import index_files
from pytest_decisionos.evidence.index_head import MAX_BYTES as MAX_HEAD_BYTES
from pytest_decisionos.evidence.index_head import parse_head, told
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.evidence import parse_time
from pytest_decisionos.trust import journal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.evidence.config import ObjectLock
    from pytest_decisionos.evidence.index_verify import Snapshot
    from pytest_decisionos.model.target import Target

MAX_KEY_BYTES: Final = 1024
"""Amazon S3 User Guide, "Naming Amazon S3 objects"."""
INDEX_FOLDER: Final = "index"
HEAD_SUFFIX: Final = ".head.json"
_PLAIN: Final = frozenset("-_.@")
_HEX: Final = re.compile(r"[0-9a-f]{64}").fullmatch


class Item(NamedTuple):
    """Something to upload.

    Attributes:
        path: relative to the root, POSIX; of a snapshot of the index, its name below the prefix.
        key: in the bucket.
        sha256: that its bytes must have: what the index says.
        data: the bytes; None means that they are read from ``path``.
        entries: of a snapshot of the index: how many entries it has; else None.
    """

    path: str
    key: str
    sha256: str
    data: bytes | None = None
    entries: int | None = None


class Finding(NamedTuple):
    """Something that is not as the receipts say.

    Attributes:
        severity: ``error``, or ``warning``: worth a look, and no promise is broken.
        cause: ``missing``, ``not_locked``, ``denied`` (not allowed to see), ``mode``, ``shortened``,
            ``changed``, ``never_uploaded``, ``rolled_back``, ``index``, ``shadowed``, ``unknown``
            (locked, and without a receipt), ``ended`` (its lock is over).
        path: of the file here, or the key where there is none.
        version_id: of the version; empty if it is about none.
        message: in words.
    """

    severity: Literal["error", "warning"]
    cause: str
    path: str
    version_id: str
    message: str


class Receipt(NamedTuple):
    """One version that was uploaded and whose lock was seen, as the index keeps it.

    Attributes:
        path: of the item.
        sha256: of its bytes.
        size: bytes.
        bucket: where it is.
        key: its key there.
        version_id: the version.
        mode: of its lock.
        retain_until: until when it is locked at least.
        part_bytes: the size of the parts in which it came; None if it came whole.
        entries: of a snapshot of the index: how many entries it has; else None.
    """

    path: str
    sha256: str
    size: int
    bucket: str
    key: str
    version_id: str
    mode: str
    retain_until: datetime
    part_bytes: int | None
    entries: int | None = None

    @property
    def version(self) -> tuple[str, str, str]:
        """Bucket, key and VersionId."""
        return self.bucket, self.key, self.version_id

    def event(self) -> dict[str, Any]:
        """The entry of the index."""
        fields = self._asdict() | {"retain_until": text_of(self.retain_until)}
        if self.entries is None:
            del fields["entries"]
        return {"event": "uploaded" if self.entries is None else "anchored", **fields}


def text_of(time: datetime) -> str:
    """``time`` to the second, UTC."""
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def receipts_of(entries: Iterable[Mapping[str, Any]]) -> list[Receipt]:
    """The receipts among the entries of an index; of one version the latest.

    Raises:
        JournalError: one of them is not as we write it.
    """
    made: dict[tuple[str, str, str], Receipt] = {}
    for entry in entries:
        if entry.get("event") not in {"uploaded", "anchored"}:
            continue
        receipt = _receipt(entry)
        if receipt is None:
            raise JournalError(
                "not the receipt of an upload", file=index_files.INDEX, line=entry.get("seq")
            )
        made[receipt.version] = receipt
    return list(made.values())


def _receipt(entry: Mapping[str, Any]) -> Receipt | None:
    until = parse_time(entry.get("retain_until"))
    texts = [entry.get(name) for name in ("path", "bucket", "key", "version_id", "mode")]
    numbers = [entry.get(name) for name in ("part_bytes", "entries")]
    size, sha256 = entry.get("size"), entry.get("sha256")
    fits = (
        all(isinstance(text, str) and text for text in texts)
        and all(n is None or (type(n) is int and n > 0) for n in numbers)
        and (entry["event"] == "anchored") == (numbers[1] is not None)
        and type(size) is int
        and size >= 0
        and isinstance(sha256, str)
        and _HEX(sha256)
        and entry.get("mode") in {"COMPLIANCE", "GOVERNANCE"}
    )
    if not fits or until is None:
        return None
    fields = {name: entry.get(name) for name in Receipt._fields}
    return Receipt(**fields | {"retain_until": until.astimezone(UTC)})  # type: ignore[arg-type] # looked at above


def prefix_of(config: ObjectLock, target: Target) -> str:
    """What all keys of ``target`` begin with; ends in ``/``."""
    parts = (target.service, target.environment, target.region, target.tenant)
    return "/".join([*filter(None, config.prefix.split("/")), *map(_encoded, parts), ""])


def key_of(prefix: str, path: str) -> str:
    """The key of a file.

    Each part keeps letters and digits of any script and ``-_.@``; all else, and the dots of a part
    of dots alone, becomes ``%XX`` of its UTF-8, so two files never share a key.

    Raises:
        RefusedError: it would be longer than S3 takes.
    """
    key = prefix + "/".join(map(_encoded, path.split("/")))
    if len(key.encode()) > MAX_KEY_BYTES:
        raise RefusedError(
            "its key in S3 would be too long",
            file=path,
            found=f"{len(key.encode()):,} bytes",
            expected=f"at most {MAX_KEY_BYTES:,}",
            next_step="shorten object_lock.prefix, or the name of the file",
        )
    return key


def _encoded(part: str) -> str:
    if not part.strip("."):
        return "%2E" * len(part)
    return "".join(
        c if c.isalnum() or c in _PLAIN else "".join(f"%{b:02X}" for b in c.encode()) for c in part
    )


def require_target(root: Path, found: Snapshot, target: Target) -> None:
    """Refuse the files of another target.

    Raises:
        RefusedError: the index is about another target.
    """
    stated = None if found.signed is None else found.signed.target
    if stated is not None and stated != target.model_dump():
        raise RefusedError(
            "the index is about another target",
            file=root / index_files.HEAD,
            found=told(stated),
            expected=str(target),
            next_step="name the root of this target with --root, or its gate.yaml with --gate",
        )


def read_item(root: Path, item: Item) -> bytes:
    """The bytes of an item, which are those that the index knows.

    Raises:
        RefusedError: they are not, or change while they are read.
        EvidenceError: they cannot be read.
    """
    data = item.data
    if data is None:
        folder, _, name = item.path.rpartition("/")
        with index_files.folder(root, *folder.split("/")) as directory:
            data = _read(root / item.path, directory, name, strict_json.MAX_BYTES)
    found = hashlib.sha256(data).hexdigest()
    if found != item.sha256:
        raise RefusedError(
            "is not what the index says",
            file=item.path,
            found=f"SHA-256 {found}",
            expected=item.sha256,
            next_step="find out who changed it: `dosctl evidence index --verify`",
        )
    return data


def _read(path: Path, directory: int | None, name: str, limit: int) -> bytes:
    try:
        if directory is None:
            raise FileNotFoundError(2, "No such file or directory")
        return index_files.read_at(directory, name, limit)[0]
    except (OSError, ValueError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else str(fault)
        raise EvidenceError(f"cannot be read: {why}", file=path) from None


def items_of(
    files: Mapping[str, index_files.File], found: Snapshot, prefix: str
) -> tuple[list[Item], list[RefusedError]]:
    """LOCKED documents and the files of bundles, as the index knows them; and what it does not."""
    items: list[Item] = []
    refused: list[RefusedError] = []
    for path, file in files.items():
        if file.tier == "wip":
            continue
        known = found.state.get(path)
        if known is None or not known.live:
            step = "run `dosctl evidence index`"
            refused.append(RefusedError("is not in the index", file=path, next_step=step))
            continue
        try:
            items.append(Item(path, key_of(prefix, path), known.sha256))
        except RefusedError as fault:
            refused.append(fault)
    return items, refused


def snapshot_of(root: Path, prefix: str) -> list[Item]:
    """The index and its head, to be anchored: as far as the head covers it.

    Raises:
        EvidenceError: they cannot be read, or do not belong together.
    """
    with index_files.folder(root, index_files.EVIDENCE) as directory:
        # The head first: entries that come meanwhile are beyond it.
        head, data = (
            _read(root / path, directory, path.rpartition("/")[2], limit)
            for path, limit in (
                (index_files.HEAD, MAX_HEAD_BYTES),
                (index_files.INDEX, journal.MAX_BYTES),
            )
        )
    signed = parse_head(head)
    if isinstance(signed, index_files.Fault):
        raise EvidenceError(signed.message, file=root / index_files.HEAD)
    entries, sha256 = signed.head
    lines = data.split(b"\n", entries)[:entries]
    covered = b"".join(line + b"\n" for line in lines)
    if not journal.follows(journal.parse(covered), signed.head):
        raise EvidenceError("does not cover the index", file=root / index_files.HEAD)
    name = f"{INDEX_FOLDER}/{entries:06d}-{sha256[:16]}"
    return [
        Item(path, key_of(prefix, path), hashlib.sha256(content).hexdigest(), content, entries)
        # The head last: where it is, the entries are.
        for path, content in ((f"{name}.jsonl", covered), (name + HEAD_SUFFIX, head))
    ]
