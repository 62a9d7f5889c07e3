"""A model of the stage: roles, transitions, crashes, what is put back, and repairs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pytest_decisionos.errors import KeysError, RefusedError
from pytest_decisionos.model.target import Target
from pytest_decisionos.release.stage import FILE, change_stage, read_stage, remove_stage
from pytest_decisionos.trust.keys import fingerprint, make_ring
from pytest_decisionos.trust.seen import last_seen

TARGET = Target(service="checkout", environment="production")
KEY = {"key_id": "k1", "secret": "made-up for tests, of 32 bytes or more", "state": "active"}
RING = make_ring([KEY | {"use": ["stage"]}], "test ring")
NEXT = {
    "stable": {"canary", "abort"},
    "canary": {"canary", "promote", "abort"},
    "promote": {"stable", "abort"},
    "abort": {"stable"},
    None: {"stable", "abort"},
}
CALLS = ("mkdir", "fchmod", "fsync", "replace", "rename", "unlink")


class CrashError(BaseException):
    """The end of a process: after it nothing of that process reaches the disk."""


@contextlib.contextmanager
def crashing(at):
    """Crash before the call of this number; what would tidy up afterwards does not run either."""
    left = [at]
    before = {name: getattr(os, name) for name in CALLS}

    def wrapped(real):
        def call(*args, **more):
            left[0] -= 1
            if left[0] < 0:
                raise CrashError
            return real(*args, **more)

        return call

    for name, real in before.items():
        setattr(os, name, wrapped(real))
    try:
        yield
    finally:
        for name, real in before.items():
            setattr(os, name, real)


class Stages(RuleBasedStateMachine):
    """One writer with the key, a reader with it and a memory of its own, and a reader without."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.root = self.folder / "var"
        self.path = self.root / FILE
        self.now = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
        self.signed = {}  # bytes of every file that was ever valid → its stage
        self.seen = {"writer": (0, None), "reader": (0, None)}  # the highest number, and its bytes

    def teardown(self):
        shutil.rmtree(self.folder)

    def how(self, who, ring=RING):
        return {"target": TARGET, "ring": ring, "state_dir": self.folder / who, "now": self.now}

    def data(self):
        return self.path.read_bytes() if self.path.is_file() else None

    def expected(self, who):
        """The stage that ``who`` may believe; None if it must be alarmed."""
        stage = self.signed.get(self.data())
        last, data = self.seen[who]
        if stage is None or stage.seq < last or (stage.seq == last and self.data() != data):
            return None
        return stage

    def shown(self, who):
        stage = self.expected(who)
        if stage is not None:
            self.seen[who] = (stage.seq, self.data())

    def tick(self):
        self.now += timedelta(seconds=1)

    @initialize()
    def begin(self):
        self.write({"release": "r1"})

    def write(self, changes, crash=None):
        """What a command with the key does, perhaps up to a crash."""
        self.tick()
        before, current = self.data(), self.expected("writer")
        highest = max(self.seen["writer"][0], current.seq if current else 0)
        try:
            with (
                crashing(crash) if crash is not None else contextlib.nullcontext(),
                change_stage(self.root, **self.how("writer")) as changer,
            ):
                assert changer.reading.stage == current
                made = changer.write(**changes)
        except CrashError:
            if self.data() != before:
                self.crashed_in_the_middle(current, highest + 1)
        else:
            assert made.seq == highest + 1
            self.signed[self.data()] = made
            assert self.remembered()[0] == made.seq
        finally:
            self.seen["writer"] = self.remembered()

    def remembered(self):
        """What is in the writer's memory: how much a crash left undone is not for the model to say."""
        seq, digest = last_seen(self.folder / "writer", f"stage:{self.root}")
        assert seq >= self.seen["writer"][0]
        (data,) = [data for data in self.signed if fingerprint(data) == digest]
        assert self.signed[data].seq == seq
        return seq, data

    def crashed_in_the_middle(self, current, seq):
        """The file is a new valid one; only a bad one may be gone."""
        if self.data() is None:
            assert current is None
            return
        found = read_stage(self.root, **self.how("passer-by"))
        shutil.rmtree(self.folder / "passer-by")
        assert (found.alarm, found.seq) == ("", seq)
        self.signed[self.data()] = found.stage

    @rule(
        name=st.sampled_from(["stable", "canary", "promote", "abort"]),
        pct=st.sampled_from([0.0, 5.0, 25.0]),
        crash=st.none() | st.integers(0, 25),
    )
    def change(self, name, pct, crash):
        current = self.expected("writer")
        before = self.data()
        changes = {"stage": name}
        if name == "canary":
            changes |= {"pct": pct}
            if current is None or current.stage == "stable":
                changes |= {"release": "r2"}
                if current is None or current.release is None:
                    changes |= {"baseline_release": "r1"}
        allowed = NEXT[current and current.stage]
        if name in allowed or (current and current.stage == name):
            self.write(changes, crash)
        else:
            with pytest.raises(RefusedError):
                self.write(changes)
            assert self.data() == before

    @rule(crash=st.none() | st.integers(0, 25))
    def look(self, crash):
        current = self.expected("writer")
        if current is not None:
            self.write({"looks": current.looks + 1}, crash)

    @rule()
    def change_without_a_key(self):
        before = self.data()
        with (
            pytest.raises(KeysError),
            change_stage(self.root, **self.how("writer", ring=None)) as changer,
        ):
            changer.write(stage="stable")
        assert self.data() == before

    @rule()
    def abort_without_a_key(self):
        remove_stage(self.root)
        assert not os.path.lexists(self.path)

    @rule(draw=st.randoms(use_true_random=False))
    @precondition(lambda self: self.data())
    def spoil(self, draw):
        data = bytearray(self.data())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        self.path.write_bytes(data)

    @rule(share=st.floats(0, 1))
    @precondition(lambda self: self.data())
    def cut(self, share):
        data = self.data()
        self.path.write_bytes(data[: int(share * len(data))])

    @rule()
    def in_the_way(self):
        remove_stage(self.root)
        os.mkfifo(self.path)

    @rule(draw=st.randoms(use_true_random=False))
    def put_back(self, draw):
        if not self.path.is_file():
            remove_stage(self.root)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(draw.choice(sorted(self.signed, key=lambda d: self.signed[d].seq)))

    @rule(who=st.sampled_from(["writer", "reader"]))
    def read(self, who):
        """Whoever looks believes what is valid and not older than what it has seen; else stable."""
        self.shown(who)
        expected = self.expected(who)
        reading = read_stage(self.root, **self.how(who))
        assert reading.stage == expected
        assert bool(reading.alarm) is (expected is None)
        if expected is None:
            assert (reading.name, reading.pct, reading.sha256) == ("stable", 0.0, None)

    @invariant()
    def nobody_without_a_key_believes_anything(self):
        reading = read_stage(self.root, **self.how("nobody", ring=None))
        assert reading.stage is None
        assert reading.alarm
        assert not list((self.folder / "nobody").glob("*.json"))

    @invariant()
    def no_lock_is_left(self):
        beside = self.path.with_name(".stage.json.lock")
        if beside.exists():
            descriptor = os.open(beside, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                os.close(descriptor)

    @rule()
    def repair(self):
        """From wherever it is, the key's holder gets a stage that everybody believes again."""
        if self.expected("writer") is None:
            self.write({"stage": "stable"})
        self.read("writer")
        assert self.expected("writer") is not None


@pytest.mark.untraced
def test_the_model(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)  # no test takes the power away
    run_state_machine_as_test(
        Stages, settings=settings(max_examples=150, stateful_step_count=40, deadline=None)
    )
