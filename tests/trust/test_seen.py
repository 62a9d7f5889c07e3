"""What this host has seen is never forgotten silently, and never falls."""

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_decisionos.errors import DecisionOSError, ExitCode, UnusableInputError, UsageError
from pytest_decisionos.trust import files, seen
from pytest_decisionos.trust.seen import OlderError, default_folder, last_seen, remember

A, B, C = "a" * 64, "b" * 64, "c" * 64


def memory(folder):
    (file,) = folder.glob("*.json")
    return file


def test_it_rises_and_stays(tmp_path):
    folder = tmp_path / "x" / "state"
    for value, digest in ((0, A), (0, A), (1, B), (7, A), (7, A)):
        remember(folder, "stage", value, digest)
    assert json.loads(memory(folder).read_text()) == {"name": "stage", "value": 7, "sha256": A}


def test_what_was_seen_last(tmp_path):
    folder = tmp_path / "state"
    assert last_seen(folder, "stage") is None
    for value, digest in ((1, B), (7, A)):
        remember(folder, "stage", value, digest)
        assert last_seen(folder, "stage") == (value, digest)
    assert last_seen(folder, "stage2") is None


@pytest.mark.parametrize(
    ("value", "digest", "says"),
    [
        (4, A, "stage is older than what this host has seen; found 4; expected 5 or more"),
        (0, B, "is older than what this host has seen"),
        (5, B, "stage is not what this host has seen under the same number"),
    ],
)
def test_an_older_or_another_one_is_refused(tmp_path, value, digest, says):
    remember(tmp_path, "stage", 5, A)
    before = memory(tmp_path).read_bytes()
    for _ in range(2):  # being refused changes nothing
        with pytest.raises(OlderError, match=says) as caught:
            remember(tmp_path, "stage", value, digest)
        assert caught.value.last == 5
        assert caught.value.file == str(memory(tmp_path))
        assert caught.value.exit_code is ExitCode.NO_GO
    assert memory(tmp_path).read_bytes() == before
    remember(tmp_path, "stage", 5, A)


@given(st.lists(st.tuples(st.sampled_from("xy"), st.integers(0, 4), st.sampled_from([A, B, C]))))
def test_it_is_the_last_accepted_one_of_each_name(steps):
    with tempfile.TemporaryDirectory() as folder:
        last = {}
        for name, value, digest in steps:
            accepted = value > last.get(name, (-1, ""))[0] or (value, digest) == last[name]
            try:
                remember(Path(folder), name, value, digest)
                assert accepted
                last[name] = value, digest
            except OlderError as fault:
                assert not accepted
                assert fault.last == last[name][0]


@pytest.mark.parametrize("name", ["", "한글/경로", "\udcff", "../../x", "a\nb", "x" * 5000])
def test_any_name_has_a_place_of_its_own(tmp_path, name):
    folder = tmp_path / "state"
    remember(folder, name, 2, A)
    remember(folder, name, 2, A)
    remember(folder, name + "-", 1, B)
    with pytest.raises(OlderError):
        remember(folder, name, 1, A)
    assert os.listdir(tmp_path) == ["state"]


def test_it_is_private(tmp_path):
    folder = tmp_path / "state"
    old = os.umask(0)
    try:
        remember(folder, "stage", 1, A)
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()] == [0o600, 0o600]


def rewritten(**fields):
    def change(file):
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


def text(content):
    return lambda file: file.write_bytes(content)


def linked(file):
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def dangling(file):
    file.unlink()
    file.symlink_to("nowhere")


def folder_there(file):
    file.unlink()
    file.mkdir()


BROKEN = {
    "empty": text(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-4]),
    "zeros": text(b"\0" * 100),
    "not an object": text(b"[]"),
    "a key twice": text(b'{"value": 1, "value": 9}'),
    "large": text(b" " * 5000),
    "no value": rewritten(value=None),
    "a float": rewritten(value=5.0),
    "negative": rewritten(value=-1),
    "huge": rewritten(value=2**53),
    "no digest": rewritten(sha256="x"),
    "more": rewritten(more=1),
    "about another": rewritten(name="other"),
    "others may write": lambda file: file.chmod(0o620),
    "a link": linked,
    "a dangling link": dangling,
    "a folder": folder_there,
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_a_broken_memory_is_said_and_not_forgotten(tmp_path, change):
    remember(tmp_path, "stage", 5, A)
    file = memory(tmp_path)
    change(file)
    for value in (4, 5, 6):
        with pytest.raises(UnusableInputError, match="remembers is broken") as caught:
            remember(tmp_path, "stage", value, A)
        assert f"then remove {file}" in caught.value.next_step
    with pytest.raises(UnusableInputError, match="remembers is broken"):
        last_seen(tmp_path, "stage")


def test_a_folder_that_others_may_write_is_refused(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    for mode in (0o770, 0o702):
        folder.chmod(mode)
        with pytest.raises(UnusableInputError, match=f"others may write.*chmod 700 {folder}"):
            remember(folder, "stage", 1, A)
        with pytest.raises(UnusableInputError, match="others may write"):
            last_seen(folder, "stage")
    folder.chmod(0o755)
    remember(folder, "stage", 1, A)


@pytest.mark.parametrize("place", ["file", "file/below", "a\0b", "x" * 300])
def test_a_folder_that_cannot_be_made(tmp_path, place):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be made.*DECISIONOS_STATE_DIR"):
        remember(tmp_path / place, "stage", 1, A)


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    remember(tmp_path, "stage", 1, A)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", full)
        with pytest.raises(UsageError, match="No space left"):
            remember(tmp_path, "stage", 2, B)
    remember(tmp_path, "stage", 1, A)


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    home = tmp_path / ".local/state/decisionos"
    assert default_folder() == home
    for ignored in ("", "relative/state"):
        monkeypatch.setenv("XDG_STATE_HOME", ignored)
        assert default_folder() == home
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert default_folder() == Path("/var/state/decisionos")


def test_nowhere_to_remember(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(seen.Path, "home", homeless)
    with pytest.raises(UsageError, match="no home → name a folder in DECISIONOS_STATE_DIR"):
        default_folder()


RACER = """
import sys
from pathlib import Path
from pytest_decisionos.trust.seen import OlderError, remember
first, folder = int(sys.argv[1]), Path(sys.argv[2])
for value in range(first, 200, 8):
    try:
        remember(folder, "stage", value, f"{value:064x}")
        print(value, flush=True)
    except OlderError:
        pass
"""


@pytest.mark.slow
def test_processes_agree_on_the_highest(tmp_path):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(first), tmp_path], stdout=subprocess.PIPE, text=True
        )
        for first in range(8)
    ]
    accepted = [
        int(value) for racer in racers for value in racer.communicate(timeout=120)[0].split()
    ]
    assert all(racer.returncode == 0 for racer in racers)
    assert max(accepted) == 199
    assert len(accepted) == len(set(accepted))
    with pytest.raises(DecisionOSError, match="expected 199 or more"):
        remember(tmp_path, "stage", 198, A)
    remember(tmp_path, "stage", 199, f"{199:064x}")
