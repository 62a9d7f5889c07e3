"""The SQLite store: what happens to its file never makes it accept a nonce twice."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from replay_cases import (
    LIFE_SEC,
    SKEW_SEC,
    START,
    Clock,
    all_claim,
    await_fault,
    await_ready,
    outcome,
    refused,
)

from pytest_decisionos.errors import ReplayStoreError
from pytest_decisionos.trust import replay, replay_sqlite
from pytest_decisionos.trust.replay_sqlite import SqliteStore

MADE = int(START) + 10
READY = START + 5
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "판사/judge ?#%.sqlite"


@pytest.fixture
def opened(path):
    """A function that opens the store; each is closed in the end."""
    clock, stores = Clock(), []

    def open_it(where=path):
        stores.append(SqliteStore(where, life_sec=LIFE_SEC, skew_sec=SKEW_SEC, clock=clock))
        return stores[-1]

    open_it.clock = clock
    yield open_it
    for store in stores:
        store.close()


def beside(path, ending):
    return Path(f"{path}{ending}")


def rows(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM nonce").fetchone()[0]


# Its files


def test_only_its_owner_enters(path, opened):
    before = os.umask(0)
    try:
        opened().claim("k", "n", created=replay.datetime.fromtimestamp(MADE, replay.UTC))
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir()} == dict.fromkeys(
        [path.name, *(f"{path.name}-{end}" for end in ("wal", "shm"))]
        + [f".{path.name}.{end}" for end in ("lock", "open")],
        0o600,
    )


def test_each_accepted_claim_is_on_the_disk(opened):
    store = opened()
    ((level,),) = store._connection.execute("PRAGMA synchronous")
    ((mode,),) = store._connection.execute("PRAGMA journal_mode")
    assert (level, mode) == (2, "wal")


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from replay_cases import *
from pathlib import Path
from pytest_decisionos.trust.replay_sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[2]), life_sec=LIFE_SEC, skew_sec=SKEW_SEC, clock=Clock())
assert outcome(store, "n", START + 10) == "accepted"
os.kill(os.getpid(), 9)
"""


def killed(path):
    """A process accepts the nonce ``n`` and is killed."""
    command = [sys.executable, "-c", KILLED, Path(__file__).parent, path]
    assert subprocess.run(command, check=False).returncode == -9


@pytest.mark.slow
def test_a_killed_process_forgets_nothing(path, opened):
    killed(path)
    opened.clock.now = START + 5
    store = opened()
    assert outcome(store, "n", MADE) == "replayed"
    assert outcome(store, "m", MADE) == "accepted"


@pytest.mark.slow
def test_a_killed_process_has_it_open_no_more(path, opened):
    killed(path)
    opened.clock.now = START + 60
    store = opened()
    assert [outcome(store, name, MADE) for name in "nm"] == ["older_than_store"] * 2
    assert outcome(store, "m", START + 61) == "accepted"


@pytest.mark.slow
def test_a_killed_process_whose_wal_is_removed_is_not_believed(path, opened):
    killed(path)
    beside(path, "-wal").unlink()
    opened.clock.now = START + 60
    store = opened()
    assert outcome(store, "n", MADE) == "older_than_store"
    assert outcome(store, "m", START + 61) == "accepted"


def gone(path):
    path.unlink()


def all_gone(path):
    for one in (path, beside(path, "-wal"), beside(path, "-shm")):
        one.unlink()


def folder_gone(path):
    shutil.rmtree(path.parent)


def replaced_by_its_copy(path):
    shutil.copy(path, beside(path, ".copy"))
    beside(path, ".copy").chmod(0o600)
    beside(path, ".copy").rename(path)


def replaced_by_a_folder(path):
    path.unlink()
    path.mkdir()


def replaced_by_a_link(path):
    path.rename(beside(path, ".moved"))
    path.symlink_to(beside(path, ".moved"))


def emptied(path):
    os.truncate(path, 0)


def cut_by_a_page(path):
    os.truncate(path, path.stat().st_size - 4096)


def cut_by_a_byte(path):
    os.truncate(path, path.stat().st_size - 1)


def wal_gone(path):
    beside(path, "-wal").unlink()


def wal_emptied(path):
    os.truncate(beside(path, "-wal"), 0)


def wal_replaced(path):
    shutil.copy(beside(path, "-wal"), beside(path, ".copy"))
    beside(path, ".copy").rename(beside(path, "-wal"))


def shm_gone(path):
    beside(path, "-shm").unlink()


def read_only(path):
    path.chmod(0o400)


def open_to_all(path):
    path.chmod(0o666)


DAMAGES = [
    gone, all_gone, folder_gone, replaced_by_its_copy, replaced_by_a_folder, replaced_by_a_link,
    emptied, cut_by_a_page, cut_by_a_byte, wal_gone, wal_emptied, wal_replaced, shm_gone, read_only,
    open_to_all,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_after_damage_nothing_is_accepted_until_it_is_opened_again(path, opened, damage):
    store = opened()
    opened.clock.now = MADE
    assert outcome(store, "n", MADE) == "accepted"
    assert store.fault() is None
    damage(path)
    assert store.fault() is not None
    assert "start the judge again" in store.fault()
    assert [outcome(store, name, MADE) for name in ("n", "m")] == ["error", "error"]
    store.close()
    assert outcome(store, "m", MADE) == "error"
    # Whatever there is now: what was accepted before is not accepted again.
    with contextlib.suppress(ReplayStoreError):
        assert outcome(opened(), "n", MADE) in {"replayed", "older_than_store"}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_after_damage_two_stores_do_not_accept_it_twice(path, opened, damage):
    store = opened()
    assert outcome(store, "n", MADE) == "accepted"
    damage(path)
    opened.clock.now = MADE
    again = None
    with contextlib.suppress(ReplayStoreError):
        again = opened()
    assert outcome(store, "n", MADE) in {"error", "older_than_store"}
    if again is not None:
        assert outcome(again, "n", MADE) in {"error", "replayed", "older_than_store"}
    assert outcome(store, "n", MADE) in {"error", "older_than_store"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_claim_finds_damage_by_itself(path, opened, damage):
    store = opened()
    assert outcome(store, "n", MADE) == "accepted"
    damage(path)
    assert [outcome(store, name, MADE) for name in ("n", "m")] == ["error", "error"]


def test_what_was_put_back_is_not_believed_without_opening(path, opened):
    store = opened()
    path.rename(beside(path, ".away"))
    assert outcome(store, "n", MADE) == "error"
    beside(path, ".away").rename(path)
    assert outcome(store, "n", MADE) == "error"
    assert store.fault() is not None
    store.close()
    assert outcome(opened(), "n", MADE) == "accepted"


def put_back(path, kept):
    """What ``cp`` does: other bytes in the same files."""
    for name, data in kept.items():
        path.with_name(name).write_bytes(data)


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("way", ["copied over", "moved over", "elsewhere"])
def test_a_copy_does_not_remember_what_came_after_it(path, opened, way, running):
    store = opened()
    if not running:  # else the copy has a WAL too
        store.close()
    kept = {one.name: one.read_bytes() for one in path.parent.glob(f"{path.name}*")}
    inode = path.stat().st_ino
    store.close()
    store = opened()
    assert outcome(store, "n", MADE) == "accepted"
    store.close()
    opened.clock.now = START + 60
    if way == "copied over":
        put_back(path, kept)
    else:
        copy = path.parent / "copy.sqlite"
        copy.write_bytes(kept[path.name])
        copy.chmod(0o600)
        if way == "moved over":
            copy.rename(path)
        else:
            path = copy
    assert (path.stat().st_ino == inode) is (way == "copied over")
    store = opened(path)
    assert outcome(store, "n", MADE) == "older_than_store"
    assert outcome(store, "m", START + 61) == "accepted"


def test_only_who_opens_it_first_refuses_what_was_made_before(path, opened):
    """So workers that start, or start again, refuse nothing that another one would accept."""
    first = opened()
    for later in (10, 20, 30):
        opened.clock.now = START + later
        other = opened()
        assert outcome(other, f"n{later}", MADE) == "accepted"
        assert outcome(other, f"n{later - 10}", MADE) == ("replayed" if later > 10 else "accepted")
        first.close()
        first = other
    first.close()
    store = opened()
    assert outcome(store, "m", MADE) == "older_than_store"
    assert "too young" in store.fault()
    opened.clock.now += 2
    await_ready(store)


@pytest.mark.parametrize("offset", range(0, 4 * 4096, 512))
def test_garbage_in_the_file_never_makes_it_accept_twice(path, opened, offset):
    store = opened()
    names = [f"n{number}" for number in range(40)]
    assert [outcome(store, name, MADE) for name in names] == ["accepted"] * 40
    store.close()
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(os.urandom(512))
    try:
        again = opened()
    except ReplayStoreError as fault:
        assert "cannot be used" in str(fault)
    else:  # the page, or its part, is not in use
        assert "accepted" not in [outcome(again, name, MADE) for name in names]


def test_a_name_that_changed_in_the_file_is_found(path, opened):
    store = opened()
    assert outcome(store, "n", MADE) == "accepted"
    store.close()
    data, name = path.read_bytes(), replay.name_of("k1", "n")
    assert data.count(name) == 2  # in the table and in the index
    path.write_bytes(data.replace(name, b"\0" * 32, 1))
    assert "move it away" in refused(opened)


def test_garbage_that_comes_while_it_is_open_stops_it(path, opened):
    store = opened()
    names = [f"n{number}" for number in range(400)]
    assert {outcome(store, name, MADE) for name in names} == {"accepted"}
    store._connection.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
    with path.open("r+b") as stream:
        stream.write(b"\xa5" * path.stat().st_size)
    store._connection.execute("PRAGMA shrink_memory").fetchall()  # it does not live by its cache
    said = {outcome(store, name, MADE) for name in names}
    assert "error" in said
    assert "accepted" not in said
    assert outcome(store, "m", MADE) == "error"
    assert store.fault() is not None


# What it does not open


def no_database(path):
    path.write_bytes(b"x" * 8192)


def another_database(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name)")


def a_later_version(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")


def a_folder(path):
    path.mkdir()


def a_link(path):
    path.symlink_to(path.parent / "elsewhere")


def a_pipe(path):
    os.mkfifo(path, 0o600)


def one_that_others_read(path):
    path.write_bytes(b"")
    path.chmod(0o644)


def in_a_folder_that_others_write(path):
    path.parent.chmod(0o770)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_database, "not a database → move it away"),
        (another_database, "not a replay store; found version 0, 1 tables"),
        (a_later_version, "not a replay store; found version 2, 0 tables"),
        (a_folder, "not a file that is yours alone; found drw"),
        (a_link, "not a file that is yours alone; found l"),
        (a_pipe, "not a file that is yours alone; found p"),
        (one_that_others_read, "not a file that is yours alone; found -rw-r--r--"),
        (in_a_folder_that_others_write, "others may write in its folder; found drwxrwx---"),
    ],
)
def test_what_is_no_store_of_its_own_is_not_opened(tmp_path, make, words):
    path = tmp_path / "own/replay.sqlite"
    path.parent.mkdir(mode=0o700)
    path.parent.chmod(0o700)
    make(path)
    if path.is_file() and make is not one_that_others_read:
        path.chmod(0o600)
    assert words in refused(lambda: SqliteStore(path, life_sec=LIFE_SEC, skew_sec=SKEW_SEC))


@pytest.mark.parametrize("name", ["a\0b", "/", "x" * 300, "file/replay.sqlite", "/proc/replay"])
def test_where_no_file_can_be_there_is_no_store(tmp_path, name):
    (tmp_path / "file").write_text("")
    text = refused(lambda: SqliteStore(tmp_path / name, life_sec=LIFE_SEC, skew_sec=SKEW_SEC))
    assert "the replay store cannot be used" in text


def test_without_a_wal_there_is_no_store(path, monkeypatch):
    real = sqlite3.connect
    # SQLite keeps no WAL in memory: as on a file system that cannot share it.
    monkeypatch.setattr(sqlite3, "connect", lambda name, **kind: real("file::memory:", **kind))
    text = refused(lambda: SqliteStore(path, life_sec=LIFE_SEC, skew_sec=SKEW_SEC))
    assert "does not let SQLite keep a WAL; found memory" in text


def test_a_store_that_does_not_know_its_birth_accepts_nothing(path, opened):
    store = opened()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM memory")
    assert outcome(store, "n", MADE) == "error"
    assert "since when" in store.fault()


# Others who use it


def hold(path):
    """Somebody who writes and does not come to an end."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def test_a_busy_file_is_an_error_and_no_damage(path, opened, monkeypatch):
    monkeypatch.setattr(replay_sqlite, "BUSY_SEC", 0.1)
    store = opened()
    opened.clock.now = READY
    with contextlib.closing(hold(path)):
        assert outcome(store, "n", MADE) == "error"
        await_fault(store, "busy for more than 0.1 s")
        assert "database is locked" in refused(opened)
    assert outcome(store, "n", MADE) == "accepted"
    await_ready(store)


def test_a_claim_that_hangs_holds_up_the_others_only_so_long(opened, monkeypatch):
    store = opened()
    monkeypatch.setattr(replay_sqlite, "BUSY_SEC", 0.1)
    with store._lock:
        assert outcome(store, "n", MADE) == "error"
        await_fault(store, "busy")
    assert outcome(store, "n", MADE) == "accepted"


def test_who_cannot_have_the_lock_does_not_open(path, opened, monkeypatch):
    opened()
    monkeypatch.setattr(replay_sqlite, "BUSY_SEC", 0.1)
    with replay_sqlite.files.locked(path):
        assert "another writer has it" in refused(opened)


@pytest.mark.untraced
def test_of_eight_processes_one_is_accepted(tmp_path):
    url = str(tmp_path / "replay.sqlite")
    assert all_claim(url, processes=8, claims=5000, nonces=1000) == {
        "accepted": 1000, "replayed": 39_000
    }  # fmt: skip
    assert rows(url) == 1000


def test_it_forgets_a_few_at_a_time(path, opened):
    store = opened()
    for number in range(200):
        assert outcome(store, f"old-{number}", MADE) == "accepted"
    left, later = [rows(path)], MADE + int(LIFE_SEC)
    for number in range(8 * replay_sqlite.PURGE_EVERY):
        assert outcome(store, f"new-{number}", later) == "accepted"
        left.append(rows(path))
    gone = [one - other + 1 for one, other in zip(left, left[1:], strict=False)]
    assert max(gone) <= replay_sqlite.PURGE_BATCH
    assert sum(gone) == 200


# The disk


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "none", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder):
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as stream:
        while stream.write(b"x" * 4096) == 4096:
            pass


@as_root
def test_on_a_full_disk_nothing_is_accepted(small_disk, opened):
    path = small_disk / "replay.sqlite"
    store = opened(path)
    opened.clock.now = READY
    assert outcome(store, "n", MADE) == "accepted"
    await_ready(store)
    fill(small_disk)
    assert "the disk is full" in store.fault()
    assert [outcome(store, name, MADE) for name in ("m", "n")] == ["error", "error"]
    assert "cannot be" in refused(lambda: opened(path))
    (small_disk / "filler").unlink()  # nothing was written, so nothing is lost
    assert store.fault() is None
    assert [outcome(store, name, MADE) for name in ("m", "n")] == ["accepted", "replayed"]


@as_root
def test_a_disk_that_says_nothing_of_being_full_stops_the_store(small_disk, opened, monkeypatch):
    monkeypatch.setattr(replay_sqlite, "RESERVE_BYTES", 0)
    path = small_disk / "replay.sqlite"
    store = opened(path)
    assert outcome(store, "n", MADE) == "accepted"
    fill(small_disk)
    names = [f"m{number}" for number in range(500)]
    said = [outcome(store, name, MADE) for name in names]
    assert said[-1] == "error"
    assert "accepted" not in said[said.index("error") :]
    assert "full" in store.fault()
    (small_disk / "filler").unlink()
    assert outcome(store, "l", MADE) == "error"
    store.close()
    again = opened(path)
    kept = [name for name, before in zip(names, said, strict=True) if before == "accepted"]
    assert {outcome(again, name, MADE) for name in ["n", *kept]} == {"replayed"}
    assert outcome(again, "l", MADE) == "accepted"
    again.close()


@as_root
def test_a_disk_that_turns_read_only_stops_the_store(small_disk, opened):
    path = small_disk / "replay.sqlite"
    store = opened(path)
    opened.clock.now = READY
    assert outcome(store, "n", MADE) == "accepted"
    # No disk turns read-only while files are open, but by failing: so SQLite says it by itself.
    store._connection.execute("PRAGMA query_only = ON")
    assert outcome(store, "m", MADE) == "error"
    assert "readonly" in store.fault()
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert "Read-only file system" in refused(lambda: opened(path))


LIMITED = """
import resource, signal, sys
sys.path.insert(0, sys.argv[1])
from replay_cases import *
from pathlib import Path
from pytest_decisionos.trust.replay_sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[2]), life_sec=LIFE_SEC, skew_sec=SKEW_SEC, clock=Clock())
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
said = [outcome(store, f"n{number}", START + 10) for number in range(100)]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
said.append(outcome(store, "last", START + 10))
assert store.fault() is not None
tell(json.dumps(said))
"""


@pytest.mark.slow
def test_a_write_that_fails_stops_the_store(path, opened):
    command = [sys.executable, "-c", LIMITED, Path(__file__).parent, path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said[0] == "accepted"
    assert said[-1] == "error"
    assert "accepted" not in said[said.index("error") :]
    store = opened()
    for number, before in enumerate(said[:-1]):
        after = outcome(store, f"n{number}", MADE)
        assert after == ("replayed" if before == "accepted" else "accepted")


# Whatever happens, in any order


class Machine(RuleBasedStateMachine):
    """One model: the set of accepted nonces. None of it is ever accepted again.

    The clock jumps to and fro. Only a new file looks at it, so that the file is lost only when the
    clock is not behind what it was when a request was accepted.
    """

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="replay-"))
        self.path = self.folder / "replay.sqlite"
        self.clock = Clock()
        self.latest, self.highest = 0, 0
        self.accepted = {}
        self.store = None
        self.open()

    def open(self):
        self.store = SqliteStore(self.path, life_sec=LIFE_SEC, skew_sec=SKEW_SEC, clock=self.clock)

    def teardown(self):
        self.store.close()
        shutil.rmtree(self.folder)

    def verified(self, made):
        """What the server lets pass to the store at all."""
        return -SKEW_SEC <= self.clock.now - made <= 300 + SKEW_SEC

    def claim(self, name, made):
        said = outcome(self.store, name, made)
        assert said != "error"
        if said == "accepted":
            assert name not in self.accepted
            self.accepted[name] = made
            self.latest = max(self.latest, made)
        return said

    @rule(name=st.integers(0, 30), age=st.floats(-0.5, 300.5))
    def claims(self, name, age):
        made = int(self.clock.now - age)
        if self.verified(made):
            self.claim(f"n{name}", self.accepted.get(f"n{name}", made))

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def replays(self, data):
        name = data.draw(st.sampled_from(sorted(self.accepted)))
        assert self.claim(name, self.accepted[name]) in {"replayed", "older_than_store"}

    @rule(count=st.integers(1, 80))
    def traffic(self, count):
        """Enough of it that something is forgotten."""
        made = int(self.clock.now)
        for number in range(count):
            self.claim(f"t{len(self.accepted)}-{number}", made)

    @rule(seconds=st.floats(0, 700))
    def time_goes_by(self, seconds):
        self.clock.now += seconds

    @rule(seconds=st.floats(-4000, 4000))
    def clock_jumps(self, seconds):
        self.clock.now += seconds

    @rule()
    def restarts(self):
        self.store.close()
        self.open()

    @precondition(lambda self: self.clock.now + SKEW_SEC >= self.latest)
    @rule(wal=st.booleans())
    def loses(self, wal):
        (beside(self.path, "-wal") if wal else self.path).unlink()
        assert outcome(self.store, "x", self.clock.now + 100) == "error"
        self.store.close()
        self.open()

    @invariant()
    def refuses_nothing_that_is_younger_than_all_it_saw(self):
        self.highest = max(self.highest, self.clock.now)
        assert self.store._since(self.store._connection) <= self.highest + SKEW_SEC


TestMachine = pytest.mark.slow(Machine.TestCase)
TestMachine.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
