"""The files that the index covers, found without following links, each read once and hashed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pytest_decisionos.errors import EvidenceError, shown
from pytest_decisionos.evidence.document import LOCKED_SUFFIX
from pytest_decisionos.model.strict_json import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

Tier = Literal["wip", "locked", "bundle"]

EVIDENCE: Final = "evidence"
BUNDLES: Final = "gate/bundle"
INDEX: Final = "evidence/index.jsonl"
HEAD: Final = "evidence/index.head.json"
MAX_FILES: Final = 1_000_000
MAX_DEPTH: Final = 8
"""Folders within a bundle; as the reader of bundles."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, to open a pipe would be to wait for its writer.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BATCH: Final = 128
"""Files at a time for a thread: to hand over a single one costs more than to hash it."""


class Fault(NamedTuple):
    """What is wrong, and where.

    Attributes:
        cause: ``changed``, ``added``, ``removed``, ``reordered``, ``truncated``, ``uncovered``,
            ``unsigned``, ``link`` …
        path: relative to the root, POSIX.
        line: of the index, counted from 1; None for a fault of a document.
        message: in words.
    """

    cause: str
    path: str
    line: int | None
    message: str


class File(NamedTuple):
    """A file as it was read.

    Attributes:
        path: relative to the root, POSIX.
        tier: ``wip``, ``locked`` or ``bundle``.
        sha256: of its bytes.
        stat: of the open file that was read.
        seen: what ``look`` made of its bytes.
    """

    path: str
    tier: Tier
    sha256: str
    stat: os.stat_result
    seen: Any


@contextlib.contextmanager
def folder(root: Path, *names: str) -> Iterator[int | None]:
    """The folder ``names`` below ``root`` as a descriptor; None if it is not there.

    Only ``root`` itself may be a link: a link below it would lead out.

    Raises:
        EvidenceError: one of them is a link, or no folder.
    """
    with contextlib.ExitStack() as held:
        directory: int | None
        try:
            directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            held.callback(os.close, directory)
            for name in names:
                directory = os.open(name, _FOLDER, dir_fd=directory)
                held.callback(os.close, directory)
        except FileNotFoundError:
            directory = None
        except (OSError, ValueError) as fault:
            why = fault.strerror if isinstance(fault, OSError) else "not a file name"
            raise EvidenceError(
                f"cannot be used as a folder: {why}",
                file=root.joinpath(*names),
                expected="a folder, and no link below the root",
            ) from None
        yield directory


def read_at(directory: int, name: str, limit: int = MAX_BYTES) -> tuple[bytes, os.stat_result]:
    """The bytes of a regular file, and what it is: of one open file, so nobody can swap it.

    Raises:
        OSError: it cannot be opened or read; ELOOP if it is a link.
        ValueError: it is no regular file, or larger than ``limit``.
    """
    descriptor = os.open(name, _FILE, dir_fd=directory)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("not a regular file")
        if found.st_size > limit:
            raise ValueError(f"too large: {found.st_size:,} bytes of at most {limit:,}")
        data = os.read(descriptor, found.st_size + 1)
        while 0 < len(data) < found.st_size and (more := os.read(descriptor, MAX_BYTES)):
            data += more  # such as a network's file system, which gives less than it is asked for
    finally:
        os.close(descriptor)
    if len(data) != found.st_size:
        raise ValueError("changes while it is read")
    return data, found


def scan(
    root: Path,
    look: Callable[[str, str, bytes], Any] | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> tuple[dict[str, File], list[Fault]]:
    """Every file that the index covers, by path, in the order of paths; and what is none.

    Covered are ``evidence/*.json`` and all files of ``gate/bundle/<decision_id>/``; not hidden
    files and the head of the index.

    Args:
        root: root folder of the target.
        look: makes of path, SHA-256 and bytes what the caller needs to know of a document.
        progress: told the share of the files that are done (0 to 1), and the last of them.

    Raises:
        EvidenceError: a folder cannot be used, or holds too much.
    """
    faults: list[Fault] = []
    with folder(root, EVIDENCE) as directory:
        names = [] if directory is None else _documents(directory, faults)
    with folder(root, *BUNDLES.split("/")) as directory:
        if directory is not None:
            names += _bundles(directory, faults)
    if len(names) > MAX_FILES:
        raise EvidenceError("too many files", file=root, expected=f"at most {MAX_FILES:,}")
    files = hash_files(root, sorted(names), faults, look, progress)
    return files, faults


def hash_files(
    root: Path,
    names: Sequence[str],
    faults: list[Fault],
    look: Callable[[str, str, bytes], Any] | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, File]:
    """The files of ``names`` (relative to ``root``), hashed by several threads; missing ones left out.

    Threads help because Python reads and hashes without its global lock.
    """
    files: dict[str, File] = {}
    with folder(root) as directory:
        if directory is None or not names:
            return files

        def work(batch: Sequence[str]) -> list[File | Fault]:
            return list(_hashed(directory, batch, look))

        batches = [names[i : i + _BATCH] for i in range(0, len(names), _BATCH)]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1, len(batches))) as pool:
            for number, results in enumerate(pool.map(work, batches), 1):
                for result in results:
                    if isinstance(result, Fault):
                        faults.append(result)
                    else:
                        files[result.path] = result
                if progress is not None:
                    progress(number / len(batches), results[-1].path if results else "")
    return files


def tier_of(path: str) -> Tier:
    """The tier that a path says."""
    if path.startswith(f"{BUNDLES}/"):
        return "bundle"
    return "locked" if path.endswith(LOCKED_SUFFIX) else "wip"


def is_evidence_of_bundle(path: str) -> bool:
    """Whether it is the evidence that a bundle's decision was made from."""
    parts = path.split("/")
    return len(parts) == 4 and path.startswith(BUNDLES) and parts[3] == "evidence.json"


def _hashed(
    directory: int, names: Iterable[str], look: Callable[[str, str, bytes], Any] | None
) -> Iterator[File | Fault]:
    for name in names:
        try:
            data, found = read_at(directory, name)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as fault:
            why = fault.strerror if isinstance(fault, OSError) else str(fault)
            yield Fault("unreadable", name, None, f"cannot be read: {why}")
            continue
        sha256 = hashlib.sha256(data).hexdigest()
        seen = None if look is None else look(name, sha256, data)
        yield File(name, tier_of(name), sha256, found, seen)


def _documents(directory: int, faults: list[Fault]) -> list[str]:
    names = []
    with os.scandir(directory) as entries:
        for entry in entries:
            path = f"{EVIDENCE}/{entry.name}"
            if entry.name.startswith(".") or path == HEAD:
                continue
            if entry.is_symlink():
                faults.append(Fault("link", path, None, "a link, which is never followed"))
            elif entry.name.endswith(".json") and _usable(entry, path, faults):
                names.append(path)
    return names


def _bundles(directory: int, faults: list[Fault]) -> list[str]:
    names: list[str] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            path = f"{BUNDLES}/{entry.name}"
            if entry.name.startswith("."):
                continue  # a bundle that is being written
            if entry.is_symlink():
                faults.append(Fault("link", path, None, "a link, which is never followed"))
            elif entry.is_dir(follow_symlinks=False):
                _walk(directory, path, names, faults)
    return names


def _walk(parent: int, path: str, names: list[str], faults: list[Fault]) -> None:
    """Add the files of the folder ``path``, which stands in ``parent``."""
    if path.count("/") - BUNDLES.count("/") > MAX_DEPTH or len(names) > MAX_FILES:
        faults.append(Fault("too_large", path, None, "nested too deep, or too many files"))
        return
    try:
        directory = os.open(path.rpartition("/")[2], _FOLDER, dir_fd=parent)
    except OSError as fault:
        faults.append(Fault("unreadable", path, None, f"cannot be read: {fault.strerror}"))
        return
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                inner = f"{path}/{entry.name}"
                if entry.is_symlink():
                    faults.append(Fault("link", inner, None, "a link, which is never followed"))
                elif entry.is_dir(follow_symlinks=False):
                    _walk(directory, inner, names, faults)
                elif _usable(entry, inner, faults):
                    names.append(inner)
    finally:
        os.close(directory)


def _usable(entry: os.DirEntry[str], path: str, faults: list[Fault]) -> bool:
    if not entry.is_file(follow_symlinks=False):
        faults.append(Fault("not_a_file", path, None, "not a regular file"))
        return False
    try:
        path.encode()
    except UnicodeEncodeError:
        faults.append(Fault("name", shown(path, 300), None, "its name is not UTF-8"))
        return False
    return True
