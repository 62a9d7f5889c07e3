"""Files are whole or not there."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pytest_decisionos.errors import KeysError, RefusedError, TrustError, UsageError
from pytest_decisionos.trust import files
from pytest_decisionos.trust.files import (
    locked,
    read_guarded,
    read_private,
    write_atomic,
    write_new,
)


def test_writes_with_folders_and_mode(tmp_path):
    path = tmp_path / "a" / "b" / "한글.json"
    old = os.umask(0o077)
    try:
        write_atomic(path, b"one")
        write_atomic(path, b"two", mode=0o600)
    finally:
        os.umask(old)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == [path.name]


def test_a_link_is_replaced_not_followed(tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"kept")
    (tmp_path / "link").symlink_to(target)
    write_atomic(tmp_path / "link", b"new")
    assert target.read_bytes() == b"kept"
    assert not (tmp_path / "link").is_symlink()


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="cannot be written: No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_names_that_are_none(tmp_path, name):
    with pytest.raises(UsageError):
        write_atomic(tmp_path / name, b"")
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        write_atomic(tmp_path / "there", b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "below", b"")
    assert sorted(os.listdir(tmp_path)) == ["file", "there"]


def test_the_longest_name_can_be_written(tmp_path):
    write_atomic(tmp_path / ("x" * 255), b"1")
    assert os.listdir(tmp_path) == ["x" * 255]


def test_readers_never_see_a_part(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([65 + i]) * 200_000 for i in range(4)]
    write_atomic(path, contents[0])
    done = threading.Event()

    def write():
        for i in range(40):
            write_atomic(path, contents[i % 4])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while not done.is_set():
        assert path.read_bytes() in contents
        seen += 1
    writer.join()
    assert seen


# Only if nothing is there


def test_write_new_never_replaces(tmp_path):
    path = tmp_path / "folder" / "한글"
    assert write_new(path, b"first", mode=0o600)
    assert not write_new(path, b"second")
    assert path.read_bytes() == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_nlink == 1
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("kind", ["folder", "dangling link", "link", "pipe"])
def test_write_new_leaves_whatever_is_there(tmp_path, kind):
    path = tmp_path / "there"
    (tmp_path / "target").write_bytes(b"kept")
    {
        "folder": path.mkdir,
        "dangling link": lambda: path.symlink_to("nowhere"),
        "link": lambda: path.symlink_to("target"),
        "pipe": lambda: os.mkfifo(path),
    }[kind]()
    assert not write_new(path, b"new")
    assert (tmp_path / "target").read_bytes() == b"kept"
    assert sorted(os.listdir(tmp_path)) == ["target", "there"]


def test_write_new_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    with pytest.raises(UsageError, match="not a file name"):
        write_new(tmp_path / "a\0b", b"new")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        write_new(tmp_path / "file", b"new")
    assert os.listdir(tmp_path) == []


# Processes: all wait on one pipe until the last of them is ready


def race(code, *args, count=8):
    """What each of ``count`` processes printed that ran ``code`` at the same moment."""
    head = (
        "import os, sys; from pathlib import Path\n"
        "from pytest_decisionos.trust.files import locked, write_new\n"
        "print('ready', flush=True); sys.stdin.read()\n"
    )
    pipe_end, start = os.pipe()
    try:
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", head + code, *map(str, args), str(number)],
                stdin=pipe_end, stdout=subprocess.PIPE, text=True,
            )
            for number in range(count)
        ]  # fmt: skip
        for racer in racers:
            assert racer.stdout.readline() == "ready\n"
    finally:
        os.close(start)
        os.close(pipe_end)
    told = [racer.communicate(timeout=120)[0].strip() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * count
    return told


@pytest.mark.slow
def test_of_eight_that_write_new_one_did(tmp_path):
    code = (
        "folder, number = Path(sys.argv[1]), sys.argv[2]\n"
        "print(*[n for n in range(25) if write_new(folder / str(n), number.encode() * 5000)])"
    )
    told = race(code, tmp_path)
    winners = {name: number for number, names in enumerate(told) for name in names.split()}
    assert sorted(winners, key=int) == [str(n) for n in range(25)]
    assert sum(len(names.split()) for names in told) == 25
    for name, number in winners.items():
        assert (tmp_path / name).read_bytes() == str(number).encode() * 5000
    assert len(os.listdir(tmp_path)) == 25


@pytest.mark.slow
def test_of_eight_that_lock_one_has_it(tmp_path):
    path = tmp_path / "count"
    path.write_text("0")
    code = (
        "path = Path(sys.argv[1])\n"
        "for _ in range(25):\n"
        "    with locked(path):\n"
        "        held = os.open(path.with_name('held'), os.O_CREAT | os.O_EXCL)\n"
        "        path.write_text(str(int(path.read_text()) + 1))\n"
        "        os.close(held); os.unlink(path.with_name('held'))\n"
    )
    race(code, path)
    assert path.read_text() == "200"


@pytest.mark.slow
def test_kill_9_releases_the_lock(tmp_path):
    path = tmp_path / "file"
    code = (
        "import sys, time; from pathlib import Path; from pytest_decisionos.trust.files import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RefusedError), locked(path, timeout_sec=0):
            pytest.fail("two have it")
        holder.send_signal(signal.SIGKILL)
        holder.wait(timeout=60)
        with locked(path, timeout_sec=0):
            pass
    finally:
        holder.kill()
        holder.communicate()


def test_a_lock_that_is_held_too_long_is_said(tmp_path):
    path = tmp_path / "folder" / "한글"
    with locked(path):
        with pytest.raises(RefusedError) as caught, locked(path, timeout_sec=0.01):
            pytest.fail("two have it")
        assert caught.value.what == "another writer has it since more than 0.01 s"
        assert caught.value.file == str(path)
        with locked(path.with_name("other")):
            pass
    with locked(path, timeout_sec=0):
        pass
    with pytest.raises(KeyError), locked(path, timeout_sec=0):  # an error gives it back too
        raise KeyError
    with locked(path, timeout_sec=0):
        pass
    assert not path.exists()
    assert stat.S_IMODE(path.with_name(f".{path.name}.lock").stat().st_mode) & 0o077 == 0


def test_who_waits_gets_it(tmp_path):
    path = tmp_path / "file"
    got = []

    def wait():
        with locked(path):
            got.append("waiter")

    with locked(path):
        waiter = threading.Thread(target=wait)
        waiter.start()
        waiter.join(0.05)
        got.append("first")
    waiter.join()
    assert got == ["first", "waiter"]


@pytest.mark.parametrize("again", [True, False])
def test_a_lock_whose_file_was_deleted_meanwhile_is_taken_anew(tmp_path, again):
    path, beside = tmp_path / "file", tmp_path / ".file.lock"
    got = []

    def wait():
        with locked(path):
            got.append(beside.stat().st_ino)

    with locked(path):
        waiter = threading.Thread(target=wait)
        waiter.start()
        waiter.join(0.05)
        beside.unlink()
        if again:
            beside.touch()  # as whoever locks it next would
    waiter.join()
    assert got == [beside.stat().st_ino]
    with locked(path):
        beside.unlink()
    with locked(path, timeout_sec=0):
        assert beside.exists()


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "file/below", "/"])
def test_a_lock_that_cannot_be_made(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError), locked(tmp_path / name):
        pytest.fail("no lock")


def test_a_lock_of_no_name_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="not a file name"), locked(Path()):
        pytest.fail("no lock")
    assert not list(tmp_path.iterdir())


def test_a_link_in_the_place_of_the_lock(tmp_path):
    (tmp_path / ".file.lock").symlink_to("elsewhere")
    with pytest.raises(UsageError, match="cannot be written"), locked(tmp_path / "file"):
        pytest.fail("no lock")
    assert not (tmp_path / "elsewhere").exists()


# What others may read or write


@pytest.mark.parametrize(
    ("mode", "private", "guarded"),
    [
        (0o600, True, True),
        (0o400, True, True),
        (0o700, True, True),
        (0o644, False, True),
        (0o640, False, True),
        (0o604, False, True),
        (0o610, False, True),
        (0o660, False, False),
        (0o620, False, False),
        (0o602, False, False),
        (0o666, False, False),
    ],
)
def test_modes(tmp_path, mode, private, guarded):
    path = tmp_path / "file"
    path.write_bytes(b"s3cret-value")
    path.chmod(mode)
    for good, error, says, read in (
        (private, KeysError, "others may use this secret", read_private),
        (guarded, TrustError, "others may write this file", by_trust),
    ):
        if good:
            assert read(path) == b"s3cret-value"
        else:
            with pytest.raises(error, match=says) as caught:
                read(path)
            assert f"mode {mode:04o}" in str(caught.value)
            assert "chmod" in caught.value.next_step
            assert "s3cret" not in str(caught.value)


def by_trust(path):
    return read_guarded(path, error=TrustError, max_bytes=65_536)


def linked(path):
    path.with_name("target").write_bytes(b"x")
    path.with_name("target").chmod(0o600)
    path.symlink_to("target")


def large(path):
    path.write_bytes(b"x" * 65_537)
    path.chmod(0o600)


def of_somebody_else(path):
    path.write_bytes(b"x")
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 12_345, -1)
    else:
        files.os.geteuid = lambda: 12_345  # given back by the test


KINDS = {
    "missing": (lambda path: None, "cannot be read: No such file"),
    "a folder": (lambda path: path.mkdir(mode=0o700), "not a regular file"),
    "a pipe": (lambda path: os.mkfifo(path, 0o600), "not a regular file"),
    "a link": (linked, "cannot be read"),
    "a dangling link": (lambda path: path.symlink_to("nowhere"), "cannot be read"),
    "large": (large, "too large; expected at most 65,536 bytes"),
    "of somebody else": (of_somebody_else, "others may"),
}


@pytest.mark.parametrize(("make", "says"), KINDS.values(), ids=KINDS)
def test_what_is_not_read(tmp_path, monkeypatch, make, says):
    monkeypatch.setattr(files.os, "geteuid", os.geteuid)
    path = tmp_path / "file"
    make(path)
    before = os.listdir("/dev/fd")
    for error, read in ((KeysError, read_private), (TrustError, by_trust)):
        with pytest.raises(error, match=says) as caught:
            read(path)
        assert caught.value.file == str(path)
        with pytest.raises(error, match="not a file name"):
            read(tmp_path / "a\0b")
    assert os.listdir("/dev/fd") == before  # nothing is left open


def test_the_largest_is_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    path.chmod(0o600)
    assert read_private(path, max_bytes=10) == b"x" * 10
    with pytest.raises(KeysError, match="too large"):
        read_private(path, max_bytes=9)


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("none", False),
        ("file/below", False),
        ("file", True),
        ("dangling", True),
        ("x" * 5000, True),
        ("a\0b", True),
    ],
)
def test_only_what_is_surely_missing_is_missing(tmp_path, name, there):
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    assert files.is_there(tmp_path / name) is there
