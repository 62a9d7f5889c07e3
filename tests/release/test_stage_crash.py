"""kill -9, full disks and many writers: readers see the old or the new valid stage, or stable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("stage_driver.py")


def driven(folder, what):
    done = subprocess.run(
        [sys.executable, DRIVER, folder, what],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.untraced
def test_kill_9_at_every_point_of_every_kind_of_change(tmp_path):
    told = driven(tmp_path, "kill")
    assert len(told["points"]) == 14
    assert (
        min(told["points"].values()) > 40
    )  # the calls that the lock, the file and the memory take
    assert told["kills"] > 800


@pytest.mark.untraced
def test_kill_9_at_every_write_of_500_changes(tmp_path):
    told = driven(tmp_path, "kill_many")
    assert min(told["points"].values()) >= 8  # two files: made, half written, written, in place
    assert told["kills"] > 4000
    assert told["through"] > 1000  # the new file was there, and nobody had its answer


@pytest.mark.untraced
def test_a_disk_that_takes_only_a_part(tmp_path):
    assert driven(tmp_path, "full")["told"] == 450


@pytest.mark.untraced
def test_16_writers(tmp_path):
    told = driven(tmp_path, "writers")
    assert told["reads"] > 50
    assert told["seen"] > 20


@pytest.mark.untraced
def test_a_file_system_without_room(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small file system")
    try:
        told = driven(tmp_path, "no_room")
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)
    assert told["told"] > 5
    assert told["half"]  # it was written, and there was no room to remember it
