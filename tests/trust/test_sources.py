"""Where the ring lies: the first source that is configured, and no other."""

from __future__ import annotations

import json
import os
import stat
import threading

import pytest

from pytest_decisionos.errors import KeysError, RefusedError, UsageError
from pytest_decisionos.settings import from_environment
from pytest_decisionos.trust import files, sources, ssm
from pytest_decisionos.trust.keys import make_ring
from pytest_decisionos.trust.rotate import Step
from pytest_decisionos.trust.sources import Place

SECRET = "correct horse battery staple, and more"
KEYS, ALONE, PATH = (
    f"DECISIONOS_{name}" for name in ("JUDGE_KEYS", "JUDGE_HMAC_KEY", "KMS_PARAM_PATH")
)


def entry(key_id="k", **more):
    return {"key_id": key_id, "secret": SECRET, "state": "active", "use": ["request"], **more}


def private(path, data, mode=0o600):
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    path.chmod(mode)
    return path


def configured(monkeypatch, **names):
    for name, value in names.items():
        monkeypatch.setenv(f"DECISIONOS_{name}", str(value))
    return sources.ring_of(from_environment())


@pytest.fixture
def in_ssm(monkeypatch):
    """Stands in for SSM: what was asked, and an answer."""
    asked = []

    def read(path, *, region):
        asked.append((path, region))
        return make_ring([entry("ssm")], f"SSM {path}")

    monkeypatch.setattr(ssm, "read_ring", read)
    return asked


def test_nothing_configured_is_no_ring():
    assert sources.ring_of(from_environment()) is None
    assert sources.place_of(from_environment()) is None


def test_the_order(monkeypatch, in_ssm):
    found = configured(monkeypatch, JUDGE_HMAC_KEY=SECRET)
    assert (found.origin, found.keys[0].key_id, found.keys[0].use) == (ALONE, "default", ())
    found = configured(monkeypatch, JUDGE_KEYS=json.dumps([entry("json")]))
    assert (found.origin, found.keys[0].key_id) == (KEYS, "json")
    assert in_ssm == []
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    found = configured(monkeypatch, KMS_PARAM_PATH="/a/b")
    assert (found.origin, found.keys[0].key_id) == ("SSM /a/b", "ssm")
    assert in_ssm == [("/a/b", "eu-north-1")]


@pytest.mark.parametrize(
    ("names", "place"),
    [
        ({"JUDGE_HMAC_KEY": "x"}, Place("variable", ALONE)),
        ({"JUDGE_HMAC_KEY": "x", "JUDGE_KEYS": "[]"}, Place("variable", KEYS)),
        ({"JUDGE_HMAC_KEY": "x", "JUDGE_KEYS": "@a/한글"}, Place("file", "a/한글")),
        ({"JUDGE_KEYS": "@a", "KMS_PARAM_PATH": "/a"}, Place("ssm", "/a")),
        ({"KMS_PARAM_PATH": "x"}, Place("ssm", "x")),
    ],
)
def test_places(monkeypatch, names, place):
    for name, value in names.items():
        monkeypatch.setenv(f"DECISIONOS_{name}", value)
    assert sources.place_of(from_environment()) == place


def test_a_source_that_fails_is_an_error_never_the_next(monkeypatch, tmp_path):
    """Every source behind the one that fails would work."""
    monkeypatch.setenv(ALONE, SECRET)
    for bad in ("", " ", "[]", "{}", "null", SECRET, "@", f"@{tmp_path / 'none'}", f"@{tmp_path}"):
        with pytest.raises(KeysError if bad.strip() else UsageError) as caught:
            configured(monkeypatch, JUDGE_KEYS=bad)
        assert SECRET not in str(caught.value)
    monkeypatch.setenv(KEYS, json.dumps([entry()]))
    for bad in ("relative/path", "/", "/a//b", "/한글"):
        with pytest.raises(KeysError, match="not a path of SSM"):
            configured(monkeypatch, KMS_PARAM_PATH=bad)
    with pytest.raises(UsageError, match="DECISIONOS_KMS_PARAM_PATH: is set and empty"):
        configured(monkeypatch, KMS_PARAM_PATH="")


@pytest.mark.parametrize("bad", ["tiny", "hex:zz", "x" * 31])
def test_one_key_alone_that_is_none(monkeypatch, bad):
    with pytest.raises(KeysError, match=f"^{ALONE}: ") as caught:
        configured(monkeypatch, JUDGE_HMAC_KEY=bad)
    assert bad not in str(caught.value)


def test_a_file(monkeypatch, tmp_path):
    path = private(tmp_path / "한글.json", [entry("file")])
    found = configured(monkeypatch, JUDGE_KEYS=f"@{path}")
    assert (found.origin, found.keys[0].key_id) == (str(path), "file")
    path.chmod(0o400)
    assert configured(monkeypatch, JUDGE_KEYS=f"@{path}").keys


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666])
def test_a_file_that_others_may_use(monkeypatch, tmp_path, mode):
    path = private(tmp_path / "ring", [entry()], mode)
    with pytest.raises(KeysError, match=f"others may use.*mode {mode:04o}.*chmod 600") as caught:
        configured(monkeypatch, JUDGE_KEYS=f"@{path}")
    assert SECRET not in str(caught.value)


def test_files_that_are_none(monkeypatch, tmp_path):
    path = private(tmp_path / "ring", [entry()])
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    private(tmp_path / "large", b" " * (sources.MAX_RING_BYTES + 1))
    private(tmp_path / "empty", b"")
    private(tmp_path / "broken", b'[{"secret": "' + SECRET.encode())
    for name, says in [
        ("link", "cannot be read"),
        ("pipe", "not a regular file"),
        ("large", "too large"),
        ("empty", "not a key ring"),
        ("broken", "not JSON"),
        ("none", "No such file"),
        ("x" * 300, "File name too long"),
    ]:
        with pytest.raises(KeysError, match=says) as caught:
            configured(monkeypatch, JUDGE_KEYS=f"@{tmp_path / name}")
        assert SECRET not in str(caught.value)


# Changing a ring


def replaced(ring, *, changed=True):
    return lambda _there: Step(ring, changed, "done", "then")


def test_a_file_is_written_whole_and_private(tmp_path):
    path = tmp_path / "new" / "ring"
    first, second = (make_ring([entry(name)], str(path)) for name in "ab")
    seen = []

    def change(there):
        seen.append(there)
        return Step(first, True, "done", "then")

    place = Place("file", str(path))
    assert sources.update_ring(place, change, region=None).ring is first
    assert seen == [None]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sources.read_ring_file(path) == first
    sources.update_ring(place, replaced(second, changed=False), region=None)
    assert sources.read_ring_file(path) == first
    sources.update_ring(place, replaced(second), region=None)
    assert sources.read_ring_file(path) == second


def test_a_file_that_cannot_be_read_is_not_overwritten(tmp_path):
    good = make_ring([entry()], "x")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    private(tmp_path / "open", [entry()], 0o644)
    private(tmp_path / "broken", b"{")
    for name in ("dangling", "open", "broken"):
        before = os.lstat(tmp_path / name)
        with pytest.raises(KeysError):
            sources.update_ring(Place("file", str(tmp_path / name)), replaced(good), region=None)
        assert os.lstat(tmp_path / name).st_ino == before.st_ino


@pytest.mark.parametrize("name", [KEYS, ALONE])
def test_a_variable_cannot_be_changed(name):
    with pytest.raises(UsageError, match=f"{name}: .*cannot be changed.*JUDGE_KEYS=@FILE"):
        sources.update_ring(Place("variable", name), lambda _: pytest.fail("called"), region=None)


def test_one_writer_at_a_time(tmp_path):
    place = Place("file", str(tmp_path / "ring"))
    ring = make_ring([entry()], str(tmp_path / "ring"))
    inside, leave = threading.Event(), threading.Event()

    def slow(_there):
        inside.set()
        leave.wait(10)
        return Step(ring, True, "done", "then")

    writer = threading.Thread(target=lambda: sources.update_ring(place, slow, region=None))
    writer.start()
    try:
        assert inside.wait(10)
        # The same folder's lock, without waiting half a minute.
        with (
            pytest.raises(RefusedError, match="another writer"),
            files.locked(tmp_path / "ring", timeout_sec=0),
        ):
            pytest.fail("two writers")
    finally:
        leave.set()
        writer.join()
    assert sources.read_ring_file(tmp_path / "ring") == ring
