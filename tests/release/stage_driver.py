"""Changes of a stage by processes that are killed, that have no room, or that are many.

A script: it forks, which no process of a test runner may. It fails by an assertion, and prints what
it did as JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from pytest_decisionos.errors import DecisionOSError
from pytest_decisionos.model.target import Target
from pytest_decisionos.release.stage import FILE, change_stage, read_stage
from pytest_decisionos.trust.keys import make_ring

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
TARGET = Target(service="checkout", environment="production")
KEY = {"key_id": "k1", "secret": "made-up for tests, of 32 bytes or more", "state": "active"}
RING = make_ring([KEY | {"use": ["stage"]}], "test ring")
CALLS = ("open", "mkdir", "fchmod", "fsync", "replace", "rename", "unlink", "close")
WRITES = ("mkdir", "fchmod", "replace", "rename", "unlink")
DONE, TOLD = 0, 3

ROOT, STATE, READER, COPY = (
    Path(sys.argv[1]) / name for name in ("var", "state", "reader", "copy")
)
HOW = {"target": TARGET, "ring": RING, "now": NOW}
ROUND = [
    ("canary", {"stage": "canary", "release": "2"}),
    ("look", {"looks": 1}),
    ("step", {"pct": 5.0}),
    ("pause", {"paused": True}),
    ("resume", {"paused": False}),
    ("step", {"pct": 25.0}),
    ("promote", {"stage": "promote"}),
    ("finish", {"stage": "stable"}),
    ("canary", {"stage": "canary", "release": "3"}),
    ("abort", {"stage": "abort"}),
    ("stable", {"stage": "stable"}),
    ("torn", {"stage": "stable"}),
    ("removed", {"stage": "stable"}),
    ("put back", {"stage": "stable"}),
    ("folder", {"stage": "stable"}),
    ("name", {"release": "1"}),
]
BAD = {"torn": "torn", "removed": "missing", "put back": "rolled_back", "folder": "folder"}


def change(changes):
    with change_stage(ROOT, state_dir=STATE, **HOW) as changer:
        return changer.write(**changes)


def without_disk():
    """What a process wrote outlives it: only a power cut asks for the disk, and that takes time."""
    os.fsync = lambda _descriptor: None


def killed_at(number, *, writes=False):
    """Die at the point of this number: SIGKILL, so nothing is tidied up.

    Points are before and after each call; of ``writes`` only those that leave other files behind:
    a file that is made, half written, written, moved or removed.
    """
    left = [number]

    def tick(torn=None):
        left[0] -= 1
        if left[0] == 0:
            if torn is not None:
                os.ftruncate(torn, os.fstat(torn).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(real, name):
        def call(*args, **more):
            if not writes:
                tick()
            if name == "fchmod":  # the data are written, and on no disk yet
                tick(torn=args[0])
            made = real(*args, **more)
            if not writes or name in WRITES or (name == "open" and args[1] & os.O_EXCL):
                tick()
            return made

        return call

    for name in CALLS:
        setattr(os, name, wrapped(getattr(os, name), name))
    fcntl.flock = wrapped(fcntl.flock, "flock")


def forked(prepare, changes):
    """Change the stage in a process of its own: its exit status, or -9."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 99
    try:
        prepare()
        change(changes)
        status = DONE
    except DecisionOSError:
        status = TOLD
    finally:
        os._exit(status)


def looks():
    """What a reader with a memory of its own sees, and one with the writers', as they left it."""
    yield read_stage(ROOT, state_dir=READER, **HOW)
    shutil.rmtree(COPY, ignore_errors=True)
    if STATE.exists():
        shutil.copytree(STATE, COPY)
    yield read_stage(ROOT, state_dir=COPY, **HOW)


def spoil(kind, old):
    path = ROOT / FILE
    if kind == "torn":
        path.write_bytes(path.read_bytes()[:100])
    elif kind == "put back":
        path.write_bytes(old)
    elif kind in BAD:
        path.unlink()
        if kind == "folder":
            path.mkdir()


def is_old_or_new(kind, before, changes):
    """Both readers see one of the two; which is all that they may see."""
    for reading in looks():
        if kind in BAD and reading.stage is None:
            assert reading.alarm in {BAD[kind], "missing"}, reading
            assert (reading.name, reading.pct) == ("stable", 0)
            continue
        assert reading.alarm == "", reading
        if reading.seq != before.seq or kind in BAD:
            assert reading.seq == before.seq + 1, (reading, before)
            assert all(getattr(reading.stage, name) == v for name, v in changes.items())
        else:
            assert reading.stage == before


def changes_of(count):
    """(kind, changes, the stage before) of so many changes; the file is spoilt where that is meant."""
    before, old, done = change({"release": "1"}), b"", 0
    while True:
        for kind, changes in ROUND:
            if done == count:
                return
            read_stage(ROOT, state_dir=STATE, **HOW)  # as the next command on this host would
            spoil(kind, old)
            yield kind, changes, before
            readings = list(looks())
            assert {r.alarm for r in readings} == {""}, (kind, readings)
            before = readings[0].stage
            done += 1
            if kind == "finish":
                old = (ROOT / FILE).read_bytes()


def kept():
    """All that lies in the folders of the writers and of the reader: path → bytes, of a folder None."""
    paths = (path for folder in (ROOT, STATE, READER) for path in folder.rglob("*"))
    return {path: None if path.is_dir() else path.read_bytes() for path in paths}


def put_back(files):
    now = kept()
    for path, data in sorted(now.items(), reverse=True):
        if path not in files or (data is None) != (files[path] is None):
            path.rmdir() if data is None else path.unlink()
    for path, data in sorted(files.items()):
        if data is None:
            path.mkdir(exist_ok=True)
        elif now.get(path) != data:
            path.write_bytes(data)


def kills(count, *, writes=False):
    """So many changes, each killed at each of its points, every time from the same beginning."""
    without_disk()
    points, made, through = {}, 0, 0
    READER.mkdir()
    for kind, changes, before in changes_of(count):
        files = kept()
        number = 1
        while (status := forked(lambda: killed_at(number, writes=writes), changes)) == -9:  # noqa: B023 - called at once
            is_old_or_new(kind, before, changes)
            # The file is the new one, and perhaps nobody remembers it.
            through += read_stage(ROOT, state_dir=COPY, **HOW).seq == before.seq + 1
            put_back(files)
            number += 1
        assert status == DONE, (kind, status)
        points[kind] = number - 1
        made += points[kind]
    return {"points": points, "kills": made, "through": through}


def kill():
    return kills(len(ROUND))


def kill_many():
    return kills(500, writes=True)


def full(count=150):
    """The disk takes fewer and fewer bytes of any file."""
    told = 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for number, (kind, changes, before) in enumerate(changes_of(count)):
        for room in (0, 1 + number * 7 % 150, 150 + number * 11 % 250):
            status = forked(
                lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1])),  # noqa: B023 - called at once
                changes,
            )
            assert status == TOLD, status
            told += 1
            is_old_or_new(kind, before, changes)
        change(changes)
    return {"told": told}


def no_room(count=40):
    """A file system that is really full, of root and memory both."""
    told = half = 0
    pad = Path(sys.argv[1]) / "pad"
    size = os.statvfs(sys.argv[1])
    size = size.f_blocks * size.f_frsize
    assert size <= 1 << 20, "not the file system that is meant"
    for number, (kind, changes, before) in enumerate(changes_of(count)):
        with pad.open("wb", buffering=0) as stream:
            try:
                for _ in range(size // 512 + 1):
                    stream.write(b"x" * 512)
            except OSError as fault:
                assert fault.errno == 28
            os.truncate(pad, pad.stat().st_size - 4096 * (number % 4))  # room for so many files
        status = forked(lambda: None, changes)
        reading = read_stage(ROOT, state_dir=STATE, **HOW)
        pad.unlink()
        assert status in {DONE, TOLD}
        told += status == TOLD
        if kind in BAD and reading.stage is None:
            assert reading.alarm in {BAD[kind], "missing", "memory"}
            half += reading.alarm == "memory"
        else:
            assert reading.alarm == ""
            assert reading.seq in {before.seq, before.seq + 1}
        if read_stage(ROOT, state_dir=STATE, **HOW).seq != before.seq + 1:
            change(changes)
    return {"told": told, "half": half}


def writers(count=16, each=32):
    change({"release": "1"})
    change({"stage": "canary", "release": "2"})
    pids = set()
    for number in range(count):
        pid = os.fork()
        if not pid:
            status = 99
            try:
                with (Path(sys.argv[1]) / f"told{number}").open("w") as told:
                    for turn in range(each):
                        made = change({"pct": (number * each + turn) / 10, "looks": number})
                        told.write(json.dumps([made.seq, made.prev, made.pct]) + "\n")
                status = DONE
            finally:
                os._exit(status)
        pids.add(pid)
    seen, reads = {READER: 2, STATE: 2}, 0
    stages = {}
    while pids:
        for state, last in seen.items():
            reading = read_stage(ROOT, state_dir=state, **HOW)
            assert reading.alarm == "", reading
            assert reading.seq >= last
            seen[state] = reading.seq
            stages[reading.seq] = reading
            reads += 1
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            assert status == 0, status
            pids.remove(pid)
        time.sleep(0.0005)
    told = [
        json.loads(line)
        for number in range(count)
        for line in (Path(sys.argv[1]) / f"told{number}").read_text().splitlines()
    ]
    told.sort()
    assert [seq for seq, _, _ in told] == list(range(3, 3 + count * each))
    pcts = {seq: pct for seq, _, pct in told}
    prevs = {seq: prev for seq, prev, _ in told}
    for seq, reading in stages.items():
        assert seq == 2 or reading.pct == pcts[seq]
        assert seq + 1 not in prevs or reading.sha256 == prevs[seq + 1]
    return {"reads": reads, "seen": len(stages)}


if __name__ == "__main__":
    ways = {way.__name__: way for way in (kill, kill_many, full, no_room, writers)}
    sys.stdout.write(json.dumps(ways[sys.argv[2]]()))
