"""The stage file: whatever is wrong with it, it reads as stable with an alarm of its own."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_decisionos.errors import (
    DecisionOSError,
    KeysError,
    RefusedError,
    UnusableInputError,
    UsageError,
)
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.target import Target
from pytest_decisionos.release import stage as stages
from pytest_decisionos.release.stage import (
    FILE,
    MAX_BYTES,
    change_stage,
    read_stage,
    remove_stage,
)
from pytest_decisionos.trust import files, seen
from pytest_decisionos.trust.files import locked
from pytest_decisionos.trust.keys import canonical, make_ring

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
TARGET = Target(service="결제", environment="production")
SECRET = "made-up for tests, of 32 bytes or more"


def ring_with(**more):
    key = {"key_id": "k1", "secret": SECRET, "state": "active", "use": ["stage"]}
    return make_ring([key | more], "test ring")


RING = ring_with()


class Here(NamedTuple):
    """A root folder and its surroundings."""

    root: Path
    state: Path

    @property
    def path(self):
        return self.root / FILE

    def how(self, **more):
        return {"target": TARGET, "ring": RING, "state_dir": self.state, "now": NOW} | more

    def read(self, **more):
        return read_stage(self.root, **self.how(**more))

    def change(self, *, how=None, **changes):
        with change_stage(self.root, **self.how(**(how or {}))) as changer:
            return changer.write(**changes)

    def walk(self, *names):
        """Go through these stages, on release 2 from release 1."""
        made = None
        for name in names:
            more = {"canary": {"release": "2"}, "stable": {}}.get(name, {})
            if name == "stable" and made is None:
                more = {"release": "1"}
            made = self.change(stage=name, **more)
        return made

    def forge(self, **fields):
        """Sign a document that ``change_stage`` would not write."""
        document = json.loads(self.path.read_bytes()) | fields
        bare = {name: value for name, value in document.items() if name != "mac"}
        document["mac"] = RING.keys[0].mac("stage", canonical({"use": "stage", **bare}))
        self.path.write_text(strict_json.dumps(document))


@pytest.fixture
def here(tmp_path):
    return Here(tmp_path / "var", tmp_path / "state")


def stable_of(reading):
    return (reading.name, reading.pct, reading.release, reading.baseline_release) == (
        "stable", 0.0, None, None,
    )  # fmt: skip


# What is written


def test_the_whole_way(here):
    assert here.read()[:3] == (None, None, "missing")
    first = here.change(release="1")
    assert (first.stage, first.seq, first.prev, first.since) == ("stable", 1, None, NOW)
    reading = here.read()
    assert (reading.alarm, reading.message, reading.stage) == ("", "", first)
    assert reading.sha256 == stages.fingerprint(here.path.read_bytes())
    later = NOW + timedelta(minutes=5)
    second = here.change(stage="canary", release="2", decision_sha256="d" * 64, how={"now": later})
    assert (second.seq, second.prev, second.since) == (2, reading.sha256, later)
    assert (second.pct, second.baseline_release, second.looks) == (0, "1", 0)
    third = here.change(looks=1, paused=True)
    assert (third.since, third.looks, third.paused) == (later, 1, True)
    assert third.decision_sha256 == "d" * 64
    fourth = here.change(pct=5)
    assert (fourth.pct, fourth.since, fourth.looks, fourth.paused) == (5, NOW, 0, False)
    assert fourth.decision_sha256 is None
    reading = here.read()
    told = (reading.name, reading.pct, reading.release, reading.baseline_release)
    assert told == ("canary", 5, "2", "1")
    assert (reading.seq, reading.looks, reading.paused) == (4, 0, False)
    assert here.change(stage="promote").pct == 100
    last = here.change(stage="stable")
    assert (last.release, last.baseline_release, last.pct, last.seq) == ("2", None, 0, 6)
    assert here.read().stage == last
    assert stat.S_IMODE(here.path.stat().st_mode) == 0o644


def test_the_file_is_what_the_design_says(here):
    here.walk("stable", "canary")
    document = json.loads(here.path.read_bytes())
    assert (
        list(document)
        == (
            "target stage pct release baseline_release since paused looks seq prev decision_sha256"
            " key_id mac"
        ).split()
    )
    bare = {name: value for name, value in document.items() if name != "mac"}
    # Written out once more: RFC 8785 of few and simple fields is Python's compact form.
    text = json.dumps({"use": "stage", **bare, "pct": 0}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)  # fmt: skip
    import hashlib
    import hmac

    assert hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest() == document["mac"]


def test_two_writes_under_one_lock(here):
    here.walk("stable", "canary")
    with change_stage(here.root, **here.how()) as changer:
        assert changer.reading.name == "canary"
        abort = changer.write(stage="abort")
        assert (abort.release, abort.baseline_release, abort.pct) == ("2", "1", 0)
        assert changer.reading.stage == abort
        assert here.read().name == "abort"
        assert changer.write(stage="stable").release == "1"
        assert changer.key_id == "k1"
    assert (here.read().name, here.read().seq) == ("stable", 4)


def test_times_are_told_in_utc(here):
    seoul = datetime(2026, 1, 15, 21, 0, tzinfo=timezone(timedelta(hours=9)))
    assert here.change(since=seoul).since == NOW
    assert b"2026-01-15T12:00:00Z" in here.path.read_bytes()
    assert here.read().alarm == ""


def test_a_ring_without_uses_signs_with_its_sub_key(here):
    ring = ring_with(use=[])
    here.change(how={"ring": ring})
    assert here.read(ring=ring).alarm == ""
    assert here.read().alarm == "tampered"


# What reads as stable


def put(data):
    return lambda path: path.write_bytes(data)


def edited(old, new):
    def change(path):
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new, 1))

    return change


def instead(make):
    def change(path):
        path.unlink()
        make(path)

    return change


def linked(path):
    path.rename(path.with_name("real.json"))
    path.symlink_to("real.json")


def bound(path):
    path.unlink()
    before = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def without(*names):
    def change(path):
        document = json.loads(path.read_bytes())
        for name in names:
            del document[name]
        path.write_text(strict_json.dumps(document))

    return change


BAD = {
    "missing": (Path.unlink, "missing", "no such file; this host has seen number 2, so it was removed"),
    "empty": (put(b""), "torn", "empty file"),
    "cut": (lambda p: os.truncate(p, p.stat().st_size - 9), "torn", "not JSON"),
    "zeros": (put(b"\0" * 400), "torn", "not JSON"),
    "not UTF-8": (put(b'{"a": "\xff"}'), "torn", "not UTF-8"),
    "NaN": (edited(b'"pct": 0.0', b'"pct": NaN'), "torn", "not finite"),
    "deep": (put(b"[" * 5000), "torn", "nested deeper"),
    "a word": (put(b"canary\n"), "torn", "not JSON"),
    "a duplicate key": (edited(b'"pct": 0.0', b'"pct": 5.0,\n  "pct": 0.0'), "duplicate_key", "duplicate key 'pct'"),
    "a list": (put(b"[]"), "not_a_stage", "not an object of fields"),
    "null": (put(b"null"), "not_a_stage", "nothing in it"),
    "no seq": (without("seq"), "not_a_stage", "seq: a required field is missing"),
    "a text as number": (edited(b'"looks": 0', b'"looks": "0"'), "not_a_stage", "looks: "),
    "true as number": (edited(b'"looks": 0', b'"looks": true'), "not_a_stage", "looks: "),
    "another word": (edited(b'"canary"', b'"canari"'), "not_a_stage", "stage: "),
    "more than all": (edited(b'"pct": 0.0', b'"pct": 100.5'), "not_a_stage", "pct: "),
    "canary of all": (edited(b'"pct": 0.0', b'"pct": 100'), "not_a_stage", "canary with all of the traffic"),
    "canary of nothing": (edited(b'"release": "2"', b'"release": null'), "not_a_stage", "canary without a release"),
    "stable at 5 %": (edited(b'"canary",\n  "pct": 0.0', b'"stable",\n  "pct": 5'), "not_a_stage", "stable with 5 %"),
    "promote of half": (edited(b'"canary",\n  "pct": 0.0', b'"promote",\n  "pct": 50'), "not_a_stage", "promote with 50 %"),
    "an unknown field": (edited(b'"paused"', b'"more": 1,\n  "paused"'), "unknown_field", "more: unknown field"),
    "an unknown field of the target": (edited(b'"service"', b'"more": 1,\n    "service"'), "unknown_field", "target.more: unknown field"),
    "no MAC": (without("mac"), "unsigned", "it has no MAC"),
    "no key id": (without("key_id"), "unsigned", "it has no MAC"),
    "no object of ours": (put(b"{}"), "unsigned", "it has no MAC"),
    "another target": (edited(b'"region": "all"', b'"region": "eu"'), "foreign_target", "it is about 결제/production/eu/all, not 결제/production/all/all"),
    "another key": (edited(b'"k1"', b'"k2"'), "unknown_key", "no such key; found k2"),
    "more traffic": (edited(b'"pct": 0.0', b'"pct": 99.0'), "tampered", "its MAC is not that of its fields"),
    "another MAC": (edited(b'"mac": "', b'"mac": "0'), "not_a_stage", "mac: "),
    "another spelling of a number": (edited(b'"pct": 0.0', b'"pct": 0'), "respelled", "not as `dosctl` writes it"),
    "another spelling of a time": (edited(b"T12:00:00Z", b"T12:00:00+00:00"), "respelled", "not as"),
    "blanks": (lambda p: p.write_bytes(p.read_bytes() + b"\n"), "respelled", "not as"),
    "a byte-order mark": (lambda p: p.write_bytes(b"\xef\xbb\xbf" + p.read_bytes()), "respelled", "not as"),
    "huge": (lambda p: p.write_bytes(p.read_bytes() + b" " * MAX_BYTES), "too_large", "more than 16,384 bytes"),
    "endless": (lambda p: os.truncate(p, 1 << 40), "too_large", "more than"),
    "a link to itself": (linked, "link", "a symbolic link is in its place"),
    "a link to nothing": (instead(lambda p: p.symlink_to("nowhere")), "link", "a symbolic link"),
    "a folder": (instead(Path.mkdir), "folder", "a folder is in its place"),
    "a pipe": (instead(os.mkfifo), "not_a_file", "a pipe or a device is in its place"),
    "a socket": (bound, "not_a_file", "a socket is in its place"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "alarm", "says"), BAD.values(), ids=BAD)
def test_a_bad_file_reads_as_stable_and_is_repaired(here, spoil, alarm, says):
    here.walk("stable", "canary")
    spoil(here.path)
    before = os.listdir("/dev/fd")
    reading = here.read()
    assert os.listdir("/dev/fd") == before
    assert (reading.stage, reading.sha256, reading.alarm) == (None, None, alarm)
    assert stable_of(reading)
    assert says in reading.message
    assert reading.message.startswith(str(here.path))
    # It leads nowhere but back, and is kept for whoever wants to know what happened.
    there = os.path.lexists(here.path)
    with pytest.raises(RefusedError, match="cannot be believed does not lead to canary"):
        here.change(stage="canary", release="2", baseline_release="1")
    assert here.read()[:3] == reading[:3]
    repaired = here.change(stage="stable", release="1")
    assert (repaired.seq, repaired.prev) == (3, None)
    assert here.read().stage == repaired
    kept = [path.name for path in here.path.parent.glob("stage.json.bad-20260115T120000Z-*")]
    assert len(kept) == there


def test_each_fault_has_a_code_of_its_own():
    found = {alarm for _, alarm, _ in BAD.values()}
    assert len(found) == 14
    texts = {}
    for _, alarm, says in BAD.values():
        texts.setdefault(alarm, set()).add(says)
    assert not set.intersection(texts["torn"], texts["not_a_stage"])


def test_a_folder_above_that_is_none(here):
    here.root.mkdir()
    here.path.parent.write_bytes(b"")
    assert here.read().alarm == "missing"
    assert read_stage(here.root / "a\0b", **here.how()).alarm == "missing"
    remove_stage(here.root)


def test_a_file_that_may_not_be_read(here, monkeypatch):
    here.walk("stable")
    if os.geteuid() != 0:
        here.path.chmod(0)
    else:  # root may read everything
        real = os.open

        def refuse(path, *args, **more):
            if Path(path) == here.path:
                raise PermissionError(13, "Permission denied")
            return real(path, *args, **more)

        monkeypatch.setattr(stages.os, "open", refuse)
    reading = here.read()
    assert (reading.alarm, reading.stage) == ("unreadable", None)
    assert "cannot be read: Permission denied" in reading.message


@pytest.mark.untraced
def test_every_bit_counts(here):
    here.walk("stable", "canary")
    here.change(pct=10, looks=3, decision_sha256="d" * 64)
    data = here.path.read_bytes()
    alarms = set()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        here.path.write_bytes(changed)
        reading = here.read()
        assert reading.alarm, (bit, bytes(changed))
        assert stable_of(reading)
        alarms.add(reading.alarm)
    assert {"torn", "tampered", "not_a_stage", "foreign_target", "unknown_key"} <= alarms
    here.path.write_bytes(data)
    assert here.read().alarm == ""


def test_every_length_counts(here):
    here.walk("stable", "canary")
    data = here.path.read_bytes()
    for length in range(len(data)):
        here.path.write_bytes(data[:length])
        assert here.read().alarm == ("torn" if length < len(data) - 1 else "respelled")


# Keys


def test_without_a_key_nothing_can_be_believed(here):
    here.walk("stable", "canary")
    reading = here.read(ring=None)
    assert (reading.alarm, stable_of(reading)) == ("unverified", True)
    assert "it says canary 0 % of 2 (number 2), and no key here can verify" in reading.message
    with pytest.raises(KeysError, match="no key signs stages here.*DECISIONOS_JUDGE_KEYS"):
        here.change(stage="abort", how={"ring": None})
    assert here.read().name == "canary"
    # What anybody can see is told without a key as well.
    here.path.write_bytes(b"")
    assert here.read(ring=None).alarm == "torn"


OTHER = "another made-up secret of 32 bytes or more"
KEYS = {
    "for another use": ({"use": ["evidence"]}, "wrong_use"),
    "with another secret": ({"secret": OTHER}, "tampered"),
    "revoked": ({"state": "revoked"}, "revoked_key"),
    "retired": ({"state": "retired", "not_after": NOW + timedelta(days=9)}, "retired_key"),
    "over": ({"state": "grace", "not_after": NOW - timedelta(minutes=1)}, "outside_validity"),
    "of tomorrow": ({"state": "grace", "not_before": NOW + timedelta(days=1)}, "outside_validity"),
    "of another name": ({"key_id": "k2"}, "unknown_key"),
}


@pytest.mark.parametrize(("more", "alarm"), KEYS.values(), ids=KEYS)
def test_a_key_that_may_not_say_this(here, more, alarm):
    here.walk("stable", "canary")
    reading = here.read(ring=ring_with(**more))
    assert (reading.alarm, stable_of(reading)) == (alarm, True)
    assert SECRET not in reading.message


@pytest.mark.parametrize("more", [{"state": "grace"}, {"use": ["evidence"]}])
def test_without_an_active_key_nothing_is_changed(here, more):
    with pytest.raises(KeysError, match="no key is active for stage"):
        here.change(how={"ring": ring_with(**more)})
    assert not here.path.exists()


def test_a_mac_of_another_use_is_worthless(here):
    here.walk("stable")
    ring = ring_with(use=["stage", "evidence"])
    document = json.loads(here.path.read_bytes())
    bare = {name: value for name, value in document.items() if name != "mac"}
    document["mac"] = ring.keys[0].mac("evidence", canonical({"use": "evidence", **bare}))
    here.path.write_text(strict_json.dumps(document))
    assert here.read(ring=ring).alarm == "tampered"


def test_a_rotation_is_outlived(here):
    """The key in grace verifies, says what is to be done, and a write signs with the new one."""
    here.walk("stable", "canary")
    end = NOW + timedelta(days=1)
    old = {"key_id": "k1", "secret": SECRET, "state": "grace", "use": ["stage"], "not_after": end}
    new = {"key_id": "k2", "secret": OTHER, "state": "active", "use": ["stage"], "not_before": NOW}
    both = make_ring([old, new], "both")
    reading = here.read(ring=both)
    assert (reading.alarm, reading.name) == ("", "canary")
    assert "k1 signs no more: `dosctl stage reconcile` signs it anew" in reading.message
    assert here.read(ring=both, now=end).alarm == "outside_validity"
    later = NOW + timedelta(minutes=1)  # the step began before the new key was valid
    again = here.change(how={"ring": both, "now": later})
    assert (again.key_id, again.since, again.seq) == ("k2", NOW, 3)
    assert here.read(ring=both, now=end).message == ""


def test_a_clock_that_is_a_little_behind_is_no_alarm(here):
    ring = ring_with(not_before=NOW)
    here.walk("stable")
    here.change(how={"ring": ring})
    assert here.read(ring=ring, now=NOW - timedelta(seconds=4)).alarm == ""
    here.change(how={"ring": ring, "now": NOW + timedelta(days=1)}, stage="abort")
    assert here.read(ring=ring, now=NOW - timedelta(days=1)).alarm == ""  # it says when it began


# What this host has seen


def test_an_old_valid_file_put_back_is_noticed(here):
    here.walk("stable", "canary")
    old = here.path.read_bytes()
    here.change(stage="abort")
    here.path.write_bytes(old)
    for _ in range(2):
        reading = here.read()
        assert (reading.alarm, stable_of(reading)) == ("rolled_back", True)
        assert "it has number 2, this host has seen 3" in reading.message
    made = here.change(stage="stable", release="1")
    assert made.seq == 4
    (kept,) = here.path.parent.glob("*.bad-*")
    assert kept.read_bytes() == old


def test_another_reader_notices_what_it_has_seen_itself(here, tmp_path):
    here.walk("stable", "canary")
    old = here.path.read_bytes()
    here.change(stage="abort")
    assert here.read(state_dir=tmp_path / "reader").alarm == ""
    here.path.write_bytes(old)
    assert here.read(state_dir=tmp_path / "reader").alarm == "rolled_back"


def test_where_nothing_was_seen_an_old_one_cannot_be_told_and_that_is_said(here, tmp_path):
    first = here.change(release="1")
    assert here.read(state_dir=tmp_path / "one").message == ""  # number 1 has none before it
    here.walk("canary")
    reading = here.read(state_dir=tmp_path / "two")
    assert reading.alarm == ""
    assert "sees it for the first time: an older one would not have been noticed" in reading.message
    assert here.read(state_dir=tmp_path / "two").message == ""
    assert first.seq == 1


def test_two_of_one_number(here, tmp_path):
    """What only a lost file and a lost memory together can give."""
    here.walk("stable", "canary")
    one = here.path.read_bytes()
    here.path.unlink()
    other = Here(here.root, tmp_path / "other")
    other.walk("stable", "canary")
    other.change(pct=5)
    data = here.path.read_bytes()
    assert here.read().alarm == ""  # a higher number
    here.path.write_bytes(one)
    here.forge(seq=3)
    reading = here.read()
    assert (reading.alarm, stable_of(reading)) == ("replaced", True)
    here.path.write_bytes(data)
    assert here.read().alarm == ""


def spoilt(here):
    for path in here.state.glob("*.json"):
        path.write_bytes(b"")


def opened(here):
    here.state.chmod(0o777)


def in_the_way(here):
    for path in here.state.iterdir():
        path.unlink()
    here.state.rmdir()
    here.state.write_bytes(b"")


@pytest.mark.parametrize("spoil", [spoilt, opened, in_the_way])
def test_a_memory_that_cannot_be_relied_on(here, spoil):
    here.walk("stable", "canary")
    spoil(here)
    data = here.path.read_bytes()
    reading = here.read()
    assert (reading.alarm, stable_of(reading)) == ("memory", True)
    assert "no telling whether an old one was put back" in reading.message
    for name in ("canary", "stable"):
        with pytest.raises(UnusableInputError, match="no telling whether an old one"):
            here.change(stage=name)
    assert here.path.read_bytes() == data
    here.path.write_bytes(b"")  # its own fault comes first, and no number is safe
    assert here.read().alarm == "torn"
    with pytest.raises(UnusableInputError, match="no telling"):
        here.change(stage="stable")
    remove_stage(here.root)
    assert here.read().alarm == "missing"


def test_nowhere_to_remember(here, monkeypatch):
    here.walk("stable")

    def homeless():
        raise RuntimeError

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(seen.Path, "home", homeless)
    reading = here.read(state_dir=None)
    assert reading.alarm == "memory"
    assert "name a folder in DECISIONOS_STATE_DIR" in reading.message


def test_the_default_memory(here, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    here.change(how={"state_dir": None})
    assert here.read(state_dir=None).alarm == ""
    assert list((tmp_path / "xdg/decisionos").glob("*.json"))


def full(monkeypatch, folder):
    """No more room in ``folder``."""
    real = os.open

    def refuse(path, flags, *args, **more):
        if str(path).startswith(str(folder)) and flags & os.O_EXCL:
            raise OSError(28, "No space left on device")
        return real(path, flags, *args, **more)

    monkeypatch.setattr(files.os, "open", refuse)


def test_a_full_disk_of_the_memory(here, monkeypatch, tmp_path):
    here.walk("stable")
    with monkeypatch.context() as patched:
        full(patched, tmp_path / "reader")
        reading = here.read(state_dir=tmp_path / "reader")
        assert reading.alarm == "memory"
        assert "it cannot be remembered here" in reading.message
        with pytest.raises(UnusableInputError, match="it cannot be remembered here"):
            here.change(stage="abort", how={"state_dir": tmp_path / "reader"})
    with monkeypatch.context() as patched:
        full(patched, here.state)
        with pytest.raises(UsageError, match="No space left"):
            here.walk("canary")
    # It is there all the same, as after a crash, and the next who looks remembers it.
    assert (here.read().name, here.read().seq) == ("canary", 2)
    assert read_stage(here.root, **here.how()).alarm == ""


def test_a_full_disk_of_the_root(here, monkeypatch):
    here.walk("stable")
    data = here.path.read_bytes()
    full(monkeypatch, here.root)
    with pytest.raises(UsageError, match="No space left"):
        here.walk("canary")
    assert here.path.read_bytes() == data
    assert (here.read().alarm, here.read().name) == ("", "stable")
    remove_stage(here.root)
    assert here.read().alarm == "missing"


def test_links_to_the_root_have_the_memory_of_both_names(here, tmp_path):
    link = Here(tmp_path / "current", here.state)
    here.walk("stable", "canary")
    old = here.path.read_bytes()
    link.root.symlink_to(here.root)
    assert link.read().alarm == ""
    link.change(stage="abort")
    assert here.read().name == "abort"
    other = tmp_path / "other"
    (other / "rollout").mkdir(parents=True)
    (other / FILE).write_bytes(old)
    link.root.unlink()
    link.root.symlink_to(other)
    assert link.read().alarm == "rolled_back"


# A reader between a writer's two steps


def test_a_writer_at_work_does_not_look_like_an_old_file(here, monkeypatch):
    """Whatever happens between the reader's looks at memory and file, there is no alarm."""
    here.walk("stable", "canary")
    real = stages._bytes

    def between(path):
        monkeypatch.setattr(stages, "_bytes", real)
        here.change(looks=1)
        data = real(path)
        here.change(looks=2)
        assert here.read(**more).looks == 2
        return data

    for more in ({}, {"state_dir": here.state.with_name("reader")}):
        monkeypatch.setattr(stages, "_bytes", between)
        reading = here.read(**more)
        assert (reading.alarm, reading.looks) == ("", 1)
        assert here.read(**more).looks == 2


def test_two_of_one_number_seen_meanwhile(here, tmp_path, monkeypatch):
    """Another reader remembers another file of this number, after this one looked."""
    here.walk("stable", "canary")
    reader = tmp_path / "reader"
    real = stages._bytes

    def meanwhile(path):
        data = real(path)
        monkeypatch.setattr(stages, "_bytes", real)
        here.forge(looks=7)
        assert here.read(state_dir=reader).looks == 7
        return data

    monkeypatch.setattr(stages, "_bytes", meanwhile)
    assert here.read(state_dir=reader).alarm == "replaced"


# What is refused


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pct": 120}, "pct: Input should be less than or equal to 100; found 120"),
        ({"pct": float("nan")}, "pct: "),
        ({"pct": 100}, "canary with all of the traffic: that is promote"),
        ({"looks": -1}, "looks: "),
        ({"decision_sha256": "x"}, "decision_sha256: "),
        ({"paused": 1}, "paused: "),
    ],
)
def test_values_that_no_stage_has(here, changes, says):
    here.walk("stable", "canary")
    data = here.path.read_bytes()
    with pytest.raises(UsageError) as caught:
        here.change(**changes)
    assert says in str(caught.value)
    assert here.path.read_bytes() == data


@pytest.mark.parametrize("release", ["", "a\nb", "$(x)", "x" * 201, 7])
def test_names_that_no_release_has(here, release):
    here.walk("stable")
    with pytest.raises(UsageError, match="release: "):
        here.change(stage="canary", release=release)


def test_a_canary_has_a_baseline(here):
    here.change()
    with pytest.raises(UsageError, match="without a baseline to go back to"):
        here.change(stage="canary", release="2")
    assert here.change(stage="canary", release="2", baseline_release="1").baseline_release == "1"


def test_an_error_inside_leaves_what_was_there(here):
    here.walk("stable")
    with pytest.raises(RuntimeError), change_stage(here.root, **here.how()):
        raise RuntimeError
    assert here.read().name == "stable"
    here.walk("canary")  # and no lock


def test_a_writer_that_hangs_is_said(here):
    here.walk("stable")
    with (
        locked(here.path),
        pytest.raises(RefusedError, match="another writer has it"),
        change_stage(here.root, **here.how(), wait_sec=0.05),
    ):
        pass


def test_a_bad_file_that_cannot_be_moved(here, monkeypatch):
    here.walk("stable")
    here.path.write_bytes(b"")

    def refuse(_path, _target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UsageError, match="cannot be moved aside: Operation not permitted"):
        here.change(stage="stable")
    assert here.read().alarm == "torn"


def test_a_bad_file_that_is_gone_meanwhile(here):
    here.walk("stable")
    here.path.write_bytes(b"")
    with change_stage(here.root, **here.how()) as changer:
        here.path.unlink()
        changer.write(stage="stable")
    assert here.read().alarm == ""


# Away with it


def test_removing(here):
    remove_stage(here.root)  # nothing there: nothing made
    assert not here.root.exists()
    here.walk("stable", "canary")
    remove_stage(here.root)
    reading = here.read()
    assert (reading.alarm, stable_of(reading)) == ("missing", True)
    assert "this host has seen number 2, so it was removed" in reading.message
    remove_stage(here.root)
    assert here.walk("stable").seq == 3


def test_removing_what_somebody_else_removes_meanwhile(here, monkeypatch):
    here.walk("stable")
    here.path.unlink()
    monkeypatch.setattr(stages, "is_there", lambda _path: True)
    remove_stage(here.root)
    assert here.read().alarm == "missing"


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a socket", "a link to nothing", "huge"])
def test_removing_whatever_is_there(here, kind):
    here.walk("stable")
    BAD[kind][0](here.path)
    remove_stage(here.root)
    assert here.read().alarm == "missing"
    assert len(list(here.path.parent.glob("*.bad-*"))) == (kind == "a folder")


def test_removing_does_not_wait_for_who_hangs(here):
    here.walk("stable")
    with locked(here.path):
        remove_stage(here.root, wait_sec=0.05)
    assert not here.path.exists()


@pytest.mark.slow
def test_removing_waits_for_who_works(here):
    """Or the step that is being written would put the file back."""
    here.walk("stable", "canary")
    code = (
        "import sys; from pathlib import Path; from pytest_decisionos.release.stage import remove_stage;"
        "print('go', flush=True); remove_stage(Path(sys.argv[1])); print('gone', flush=True)"
    )
    with change_stage(here.root, **here.how()) as changer:
        remover = subprocess.Popen(
            [sys.executable, "-c", code, here.root], stdout=subprocess.PIPE, text=True
        )
        assert remover.stdout.readline() == "go\n"
        with pytest.raises(subprocess.TimeoutExpired):
            remover.wait(0.3)
        changer.write(pct=5)
        assert here.read().pct == 5
    assert remover.communicate(timeout=30)[0] == "gone\n"
    assert here.read().alarm == "missing"


def test_what_cannot_be_removed_is_said(here, monkeypatch):
    here.walk("stable")

    def refuse(*_args):
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        patched.setattr(Path, "rename", refuse)
        with pytest.raises(UsageError, match="cannot be moved aside"):
            remove_stage(here.root)
    with pytest.raises(DecisionOSError, match="not a file name"):
        remove_stage(here.root / "a\0b")
