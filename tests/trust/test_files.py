"""Files are whole or not there."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from pytest_decisionos.errors import UsageError
from pytest_decisionos.trust.files import write_atomic


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
