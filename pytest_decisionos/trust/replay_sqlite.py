"""The replay store that needs no server: one SQLite file, for the processes of one host."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import sqlite3
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from pytest_decisionos.errors import DecisionOSError, ReplayStoreError
from pytest_decisionos.trust import files
from pytest_decisionos.trust.replay import Probe, name_of, refusal, too_young

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

BUSY_SEC: Final = 5.0
"""How long a claim waits for another thread or process."""
PURGE_EVERY: Final = 32
PURGE_BATCH: Final = 64
"""Each so many claims, at most so many nonces are forgotten: twice as many as are added."""
RESERVE_BYTES: Final = 64 * 1024
"""Free space without which nothing is claimed: several times what a claim may write."""
VERSION: Final = 1

SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE memory (
    one INTEGER PRIMARY KEY CHECK (one = 1), since INTEGER NOT NULL, inode TEXT NOT NULL
);
CREATE TABLE nonce (name BLOB PRIMARY KEY, created INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX nonce_created ON nonce (created);
PRAGMA user_version = {VERSION};
COMMIT;
"""
BIRTH: Final = """
INSERT INTO memory VALUES (1, :since, :inode) ON CONFLICT (one) DO UPDATE
SET since = max(since, excluded.since), inode = excluded.inode
WHERE inode <> excluded.inode OR :lost
"""
# One statement asks and takes: between two, another process would have its turn.
CLAIM: Final = """
INSERT INTO nonce SELECT :name, :made WHERE :made > (SELECT since FROM memory)
ON CONFLICT DO NOTHING
"""
# Each is a transaction of its own, and the first comes first: what is forgotten is refused already.
RAISE: Final = "UPDATE memory SET since = :until WHERE since < :until"
FORGET: Final = """
DELETE FROM nonce WHERE name IN (
    SELECT name FROM nonce WHERE created <= (SELECT since FROM memory) LIMIT :batch
)
"""


class _Seen(NamedTuple):
    """A file that is in use: its size never shrinks, and the rest never changes."""

    device: int
    inode: int
    mode: int
    owner: int
    size: int


class _Use(NamedTuple):
    """That the store is open here.

    Attributes:
        file: holds the lock that says it.
        first: whether it was open nowhere.
    """

    file: BinaryIO
    first: bool


class SqliteStore:
    """A replay store in one file, in a folder that only its owner enters.

    It is in use by any number of threads and processes of one host; not over a network file system,
    which SQLite's WAL does not work on. Each claim that is accepted is on the disk
    (``synchronous=FULL``) before it is.

    While nobody has it open, anybody may put an older copy in its place, and no file tells. So who
    opens it first makes it refuse what was made before; ``.<name>.open``, which everybody locks who
    has it open, says who is first.

    Once a file was found deleted, replaced, cut, read-only or corrupt, or could not be written,
    nothing is accepted any more until the store is opened again.
    """

    def __init__(
        self,
        path: Path,
        *,
        life_sec: float,
        skew_sec: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the file, or make it.

        Args:
            path: the file; ``-wal`` and ``-shm`` stand beside it.
            life_sec: as ``replay.open_store``.
            skew_sec: as ``replay.open_store``.
            clock: seconds since 1970.

        Raises:
            ReplayStoreError: it cannot be made or read, is no replay store, or others may write it.
        """
        self._path = path
        self._paths = [path, Path(f"{path}-wal"), Path(f"{path}-shm")]
        self._life = math.ceil(life_sec)
        self._skew = skew_sec
        self._clock = clock
        self._lock = threading.Lock()
        self._turn = 0
        self._broken = ""
        self._seen: dict[Path, _Seen] = {}
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = path.parent.stat()
            if files.others_may_write(folder):
                raise self._error(
                    "others may write in its folder",
                    found=f"{stat.filemode(folder.st_mode)}, user {folder.st_uid}",
                    expected="mode 0700, and yours",
                )
            with files.locked(path, timeout_sec=BUSY_SEC):
                self._use = _use(path)
                try:
                    self._connection = self._open()
                except BaseException:
                    self._use.file.close()
                    raise
        except ReplayStoreError:
            raise
        except DecisionOSError as fault:  # of the lock
            raise self._error(fault.what) from None
        except OSError as fault:
            raise self._error(f"cannot be opened: {fault.strerror}") from None
        except sqlite3.OperationalError as fault:  # busy, or the disk's fault
            raise self._error(f"cannot be opened: {fault}") from None
        except sqlite3.Error as fault:
            raise self._error(
                f"cannot be opened: {fault}",
                next_step="move it away: a new one refuses what is older than itself",
            ) from None
        except ValueError:
            raise self._error("not a file name") from None
        self._probe = Probe(self._ask)

    def claim(self, key_id: str, nonce: str, *, created: datetime) -> None:
        """As ``ReplayStore.claim``."""
        made = math.floor(created.timestamp())
        row = {"name": name_of(key_id, nonce), "made": made}
        with self._in_use() as connection:
            if self._turn == 0:
                connection.execute(RAISE, {"until": made - self._life})
                connection.execute(FORGET, {"batch": PURGE_BATCH})
            self._turn = (self._turn + 1) % PURGE_EVERY
            if connection.execute(CLAIM, row).rowcount == 1:
                return
            since = self._since(connection)
        raise refusal(key_id, nonce, made, since)

    def fault(self) -> str | None:
        """As ``ReplayStore.fault``."""
        try:
            self._see()
        except ReplayStoreError as fault:
            return str(fault)
        return self._probe()

    def close(self) -> None:
        """As ``ReplayStore.close``; the nonces stay."""
        with self._lock, contextlib.suppress(DecisionOSError):
            self._broken = self._broken or "it was closed"
            with files.locked(self._path, timeout_sec=BUSY_SEC):
                self._connection.close()
        self._connection.close()
        self._use.file.close()

    def _ask(self) -> str | None:
        """The fault that only writing can show."""
        with self._in_use() as connection:
            connection.execute("UPDATE memory SET since = since")
            since = self._since(connection)
        return too_young(since, self._clock(), self._skew)

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread, with files that are there.

        Looking at them before is enough. If one is replaced right after, the new one is born later
        than the request was verified, and refuses it.
        """
        if not self._lock.acquire(timeout=BUSY_SEC):
            raise self._error(f"busy for more than {BUSY_SEC:g} s")
        try:
            self._see()
            yield self._connection
        except sqlite3.Error as fault:
            code = getattr(fault, "sqlite_errorcode", 0) & 0xFF
            if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:  # nothing was written
                raise self._error(f"busy for more than {BUSY_SEC:g} s") from None
            raise self._break(str(fault)) from None
        finally:
            self._lock.release()

    @staticmethod
    def _since(connection: sqlite3.Connection) -> int:
        ((since,),) = connection.execute("SELECT since FROM memory").fetchall() or [(None,)]
        if not isinstance(since, int):
            raise sqlite3.DatabaseError("it does not say since when it remembers")
        return since

    # The files

    def _open(self) -> sqlite3.Connection:
        wal = self._paths[1]
        # Others who have it open keep a WAL that is not empty: the first of them has written.
        lost = self._use.first or not files.is_there(wal) or not _look(wal).size
        if not files.is_there(self._path):
            for beside in self._paths[1:]:  # of a file that was deleted
                beside.unlink(missing_ok=True)
            # SQLite would heed the umask. An older file is not opened here: closing it would
            # drop the locks that this process has on it (fcntl(2)).
            _make(self._path)
            files.sync_folder(self._path.parent)
        found = _look(self._path)
        if found.mode != stat.S_IFREG | 0o600 or found.owner != os.geteuid():
            raise self._error(
                "not a file that is yours alone",
                found=f"{stat.filemode(found.mode)}, user {found.owner}",
                expected=f"{stat.filemode(stat.S_IFREG | 0o600)}, user {os.geteuid()}",
            )
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SEC,
            isolation_level=None, check_same_thread=False,
        )  # fmt: skip
        try:
            self._prepare(connection, lost=lost)
            self._seen = {path: _look(path) for path in self._paths} | {self._path: found}
            self._see()
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection, *, lost: bool) -> None:
        """Make it a replay store if it is empty; say since when it remembers if it cannot tell."""
        ((mode,),) = connection.execute("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise self._error("its file system does not let SQLite keep a WAL", found=mode)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: past the drive's own cache
        ((version,),) = connection.execute("PRAGMA user_version")
        ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema")
        if (version, tables) == (0, 0):
            connection.executescript(SCHEMA)
        elif version != VERSION:
            raise self._error("not a replay store", found=f"version {version}, {tables} tables")
        ((state,),) = connection.execute("PRAGMA integrity_check(1)")
        if state != "ok":
            raise sqlite3.DatabaseError(state)
        # Another inode: it was copied, or restored from a backup.
        born = math.floor(self._clock() + self._skew)
        inode = str(_look(self._path).inode)
        connection.execute(BIRTH, {"since": born, "inode": inode, "lost": lost})
        if (version, tables) == (0, 0):  # that its size tells whether it was cut
            connection.execute("PRAGMA wal_checkpoint").fetchall()

    def _see(self) -> None:
        """Look whether everything is there as it was, and whether there is room for more.

        Raises:
            ReplayStoreError: it is not.
        """
        if self._broken:
            raise self._error(self._broken)
        for path, seen in self._seen.items():
            try:
                now = _look(path)
            except OSError as fault:
                raise self._break(f"{path.name}: {fault.strerror}") from None
            if now[:4] != seen[:4]:
                raise self._break(f"{path.name} was replaced, or its mode changed")
            if now.size < seen.size:
                raise self._break(f"{path.name} was cut")
            self._seen[path] = now
        disk = os.statvfs(self._path.parent)
        if disk.f_blocks and disk.f_bavail * disk.f_frsize < RESERVE_BYTES:
            raise self._error("the disk is full", expected=f"{RESERVE_BYTES:,} bytes free")

    def _break(self, why: str) -> ReplayStoreError:
        self._broken = self._broken or why
        return self._error(self._broken)

    def _error(self, what: str, **where: Any) -> ReplayStoreError:
        if what == self._broken:
            where["next_step"] = "put it right, and start the judge again"
        return ReplayStoreError(
            f"the replay store cannot be used: {what}", file=self._path, **where
        )


def _look(path: Path) -> _Seen:
    found = os.lstat(path)
    return _Seen(found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_size)


def _make(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))


def _use(path: Path) -> _Use:
    """Say that ``path`` is open here, until the file is closed or the process ends, however it ends."""
    beside = path.with_name(f".{path.name}.open")
    file = os.fdopen(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "rb")
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            first = True
        except BlockingIOError:
            first = False
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return _Use(file, first)
