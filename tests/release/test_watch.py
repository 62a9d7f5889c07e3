"""Following the stage: what a controller is told, when, and with which variables."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from pytest_decisionos.errors import KeysError
from pytest_decisionos.model.target import Target
from pytest_decisionos.release import watch
from pytest_decisionos.release.stage import FILE, change_stage, remove_stage
from pytest_decisionos.release.watch import Command, environment, follow, look, until_stopped
from pytest_decisionos.trust.keys import make_ring

TARGET = Target(service="결제", environment="production")
KEY = {"key_id": "k1", "secret": "made-up for tests, of 32 bytes or more", "state": "active"}
RING = make_ring([KEY | {"use": ["stage"]}], "test ring")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "var"


def change(root, **changes):
    how = {"target": TARGET, "ring": RING, "state_dir": root.parent / "state"}
    with change_stage(root, **how, now=datetime.now(UTC)) as changer:
        return changer.write(**changes)


def see(root, ring=lambda: RING):
    return look(root, target=TARGET, ring=ring, state_dir=root.parent / "state")


def followed(root, monkeypatch, actions, command=None):
    """What is told while ``actions`` happen one by one between two looks."""
    left = iter(actions)
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        for action in left:
            action()
            return
        raise InterruptedError

    monkeypatch.setattr(watch, "time", SimpleNamespace(sleep=sleep))
    told = []
    with contextlib.suppress(InterruptedError):
        told.extend(follow(lambda: see(root), command, root=root, target=TARGET, interval_sec=2.5))
    assert waits == [2.5] * (len(actions) + 1)
    return told


def test_each_change_of_what_is_to_be_obeyed_is_told_once(root, monkeypatch):
    told = followed(
        root,
        monkeypatch,
        [
            lambda: None,
            lambda: change(root, release="1"),
            lambda: change(root, stage="canary", release="2"),
            lambda: change(root, looks=1),  # nothing else to obey
            lambda: change(root, pct=5),
            lambda: change(root, paused=True),
            lambda: (root / FILE).write_bytes(b""),
            lambda: remove_stage(root),
            lambda: change(root, stage="stable", release="1"),
        ],
    )
    assert [(c.reading.alarm, c.reading.name, c.reading.pct, c.reading.release) for c in told] == [
        ("missing", "stable", 0, None),
        ("", "stable", 0, "1"),
        ("", "canary", 0, "2"),
        ("", "canary", 5, "2"),
        ("", "canary", 5, "2"),
        ("torn", "stable", 0, None),
        ("missing", "stable", 0, None),
        ("", "stable", 0, "1"),
    ]
    assert {one.fault for one in told} == {None}
    assert told[0].at.tzinfo is not None


def script(root, text):
    path = root.parent / "command.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return Command([str(path)], 10.0)


def test_a_command_is_given_what_it_has_to_obey_and_no_key(root, monkeypatch, tmp_path):
    out = tmp_path / "out"
    monkeypatch.setenv("DECISIONOS_JUDGE_HMAC_KEY", KEY["secret"])
    monkeypatch.setenv("DECISIONOS_REPLAY", "redis://:made-up@host")
    monkeypatch.setenv("OTHERS", "kept")
    command = script(root, f"env >> {out}; echo END >> {out}")
    told = followed(
        root,
        monkeypatch,
        [
            lambda: change(root, release="1"),
            lambda: change(root, stage="canary", release="2", pct=2.5, paused=True),
        ],
        command,
    )
    assert [one.fault for one in told] == ["", "", ""]
    first, _, last, rest = out.read_text().split("END\n")
    assert rest == ""
    ours = dict(line.split("=", 1) for line in last.splitlines() if line.startswith("DECISIONOS_"))
    assert ours == {
        "DECISIONOS_ROOT": str(root),
        "DECISIONOS_TARGET": "결제/production/all/all",
        "DECISIONOS_STAGE": "canary",
        "DECISIONOS_PCT": "2.5",
        "DECISIONOS_RELEASE": "2",
        "DECISIONOS_BASELINE_RELEASE": "1",
        "DECISIONOS_PAUSED": "1",
        "DECISIONOS_SEQ": "2",
        "DECISIONOS_ALARM": "",
    }
    for line in ("DECISIONOS_STAGE=stable", "DECISIONOS_PCT=0", "DECISIONOS_ALARM=missing"):
        assert line in first.splitlines()
    for line in ("DECISIONOS_RELEASE=", "DECISIONOS_SEQ=0", "OTHERS=kept"):
        assert line in first.splitlines()
    assert KEY["secret"] not in first + last
    assert environment(see(root), root, TARGET)["DECISIONOS_STAGE"] == "canary"


def test_a_command_that_fails_is_told_and_tried_again_at_the_next_change(
    root, monkeypatch, tmp_path
):
    out = tmp_path / "out"
    command = script(root, f"echo x >> {out}; echo no route >&2; exit 3")
    change(root, stage="stable", release="v1")
    change(root, stage="canary", pct=5.0, release="v2")
    told = followed(
        root, monkeypatch, [lambda: None, lambda: change(root, pct=10.0), lambda: None], command
    )
    assert len(told) == 2
    for one in told:
        assert "failed with status 3" in one.fault
        assert "no route" in one.fault
    assert out.read_text() == "x\nx\n"


def test_a_command_that_fails_on_the_way_back_is_tried_again_at_each_look(
    root, monkeypatch, tmp_path
):
    out = tmp_path / "out"
    text = f'echo "$DECISIONOS_STAGE" >> {out}; test $(wc -l < {out}) != 2 || exit 3'
    change(root, stage="stable", release="v1")
    change(root, stage="canary", pct=5.0, release="v2")
    actions = [lambda: change(root, stage="abort"), lambda: None, lambda: None]
    told = followed(root, monkeypatch, actions, script(root, text))
    assert [bool(one.fault) for one in told] == [False, True, False]
    assert out.read_text() == "canary\nabort\nabort\n"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["/nowhere/at/all"], "cannot be started: No such file"),
        (["/"], "cannot be started"),
        (["sleep", "60"], "did not end within 0.1 s and was stopped"),
    ],
)
def test_a_command_that_cannot_be_run(root, argv, says):
    begun = time.monotonic()
    (one,) = follow(
        lambda: see(root), Command(argv, 0.1), root=root, target=TARGET, interval_sec=9, once=True
    )
    assert says in one.fault
    assert time.monotonic() - begun < 50


def test_keys_that_cannot_be_had_are_an_alarm(root):
    change(root, release="1")
    change(root, stage="canary", release="2")

    def gone():
        raise KeysError("SSM is away")

    reading = see(root, gone)
    assert (reading.name, reading.alarm) == ("stable", "unverified")
    assert "it says canary" in reading.message
    assert reading.message.endswith("the keys: SSM is away")
    assert see(root, lambda: None).alarm == "unverified"
    assert see(root).name == "canary"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it(number):
    before = signal.getsignal(number)
    ended = []
    with until_stopped():
        try:
            os.kill(os.getpid(), number)
            time.sleep(30)
        except Exception:  # noqa: BLE001 - that even this does not catch it is what is shown
            ended.append("caught")
        finally:
            ended.append("tidied up")
        ended.append("went on")
    assert ended == ["tidied up"]
    assert signal.getsignal(number) is before


def test_what_fails_inside_is_not_hidden():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), until_stopped():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is before
