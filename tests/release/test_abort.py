"""An abort works, whatever is gone; what failed is told; and a crash on the way is healed."""

import contextlib
import fcntl
import itertools
import json
import resource
import shutil
import socket
import time
from threading import Event

import pytest
from cutover import BASELINE, NOW, RELEASE, RING, Desk
from hypothesis import given
from hypothesis import strategies as st

from pytest_decisionos.errors import (
    DecisionOSError,
    DeniedError,
    KeysError,
    RefusedError,
    RolloutError,
)
from pytest_decisionos.model.target import Target
from pytest_decisionos.release import audit, back, change
from pytest_decisionos.release.conditions import Asking
from pytest_decisionos.release.here import AbortedError, ConditionsError
from pytest_decisionos.release.stage import FILE, change_stage, read_stage
from pytest_decisionos.testing import TARGET

pytestmark = pytest.mark.slow
HOME = f"0 0 {BASELINE} "
"""What the adapter is asked for: everybody on the baseline."""
WHEREVER = "0 0  "
"""The same where nobody can tell which release that is."""


def keys_gone(desk, stack):
    def fail():
        raise KeysError("cannot be had")

    asked = desk.asked
    desk.asked = lambda: asked()._replace(ring=fail)


def evidence_gone(desk, stack):
    (desk.root / "evidence/latest.json").unlink()


def judges_gone(desk, stack):
    for path in (desk.configs / "slo").iterdir():
        path.unlink()
    desk.gate()
    gate = json.loads((desk.configs / "gate.yaml").read_text())
    gate["judges"] = [{"id": "there", "url": "https://127.0.0.1:1"}]
    desk.write("gate.yaml", gate)


def network_gone(desk, stack):
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(
        socket, "getaddrinfo", lambda *a, **k: (_ for _ in ()).throw(OSError("no network"))
    )


def disk_full(desk, stack):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))


def audit_gone(desk, stack):
    (desk.root / audit.FILE).unlink()
    (desk.root / audit.FILE).mkdir()


def stage_gone(desk, stack):
    (desk.root / FILE).unlink()


GONE = (keys_gone, evidence_gone, judges_gone, network_gone, audit_gone, stage_gone, disk_full)
SUBSETS = [s for n in range(len(GONE) + 1) for s in itertools.combinations(GONE, n)]


@pytest.mark.slow
def test_an_abort_works_with_anything_gone(tmp_path):
    assert len(SUBSETS) == 128
    for number, gone in enumerate(SUBSETS):
        desk = Desk(tmp_path / str(number))
        desk.stage(pct=25.0)
        with contextlib.ExitStack() as stack:
            for take in gone:
                take(desk, stack)
            done = back.abort(desk.here(), "시험")
        names = [take.__name__ for take in gone]
        assert done.ok, (names, done)
        assert done.faults == (), names
        blind = {keys_gone, stage_gone} & set(gone)
        assert desk.moved == [WHEREVER if blind else HOME], names
        assert desk.reading.name == "stable", names
        signed = not {keys_gone, disk_full} & set(gone)
        assert (desk.reading.alarm == "") == signed, names
        if not signed:
            assert desk.reading.alarm == "missing", names
        if not {audit_gone, disk_full} & set(gone):
            assert desk.told() == [("aborted", True, ("stable", 0.0))], names
        elif audit_gone in gone or disk_full in gone:
            assert any("not in the audit journal" in note for note in done.notes), names


@pytest.mark.parametrize("stage", ["canary", "promote", "abort"])
def test_where_it_leads(desk, stage):
    before = desk.stage(stage)
    done = back.abort(desk.here(), "느림")
    assert (done.ok, done.faults, done.notes) == (True, (), ())
    assert (done.after.name, done.after.release) == ("stable", BASELINE)
    assert done.after.seq == before.seq + (1 if stage == "abort" else 2) + (stage == "abort")
    assert desk.moved == [HOME]
    (line,) = desk.lines()
    assert (line["code"], line["why"], line["scope"]) == ("aborted", "느림", "deploy:abort")
    assert line["release"] == (None if stage == "abort" else RELEASE)
    assert line["from"]["stage"] == stage
    assert line["to"] == {"stage": "stable", "pct": 0.0, "seq": done.after.seq}


def test_a_second_one_changes_nothing(desk):
    desk.stage()
    back.abort(desk.here())
    before = desk.reading
    assert back.abort(desk.here()).ok
    assert desk.reading == before
    assert [code for code, *_ in desk.told()] == ["aborted", "already_stable"]


def test_a_stable_stage_whose_traffic_stays_is_not_told_as_done(desk):
    """Such as after a crash between stage and traffic."""
    desk.stage("stable")
    (desk.root / "stuck").touch()
    assert not back.abort(desk.here()).ok
    assert [code for code, *_ in desk.told()] == ["abort_incomplete"]


def test_where_there_never_was_a_stage(desk):
    done = back.abort(desk.here())
    assert (done.ok, done.after.name, done.after.seq) == (True, "stable", 1)
    assert desk.moved == [WHEREVER]


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_bytes(b"{"), lambda path: (path.unlink(), path.mkdir())]
)
def test_a_stage_that_cannot_be_believed_is_repaired(desk, spoil):
    desk.stage()
    spoil(desk.root / FILE)
    done = back.abort(desk.here())
    assert (done.ok, done.after.alarm, done.after.release) == (True, "", None)
    assert len(list((desk.root / "rollout").glob("stage.json.bad-*"))) == 1


def test_traffic_that_cannot_be_driven_leaves_the_stage_on_its_way(desk):
    desk.stage()
    (desk.root / "stuck").touch()
    done = back.abort(desk.here())
    assert not done.ok
    assert (done.driven, done.after.name) == (False, "abort")
    assert "traffic was not driven back" in done.faults[0]
    assert done.faults[-1] == "the stage reads abort"
    assert desk.told() == [("abort_incomplete", True, ("abort", 0.0))]
    (desk.root / "stuck").unlink()
    assert back.abort(desk.here()).ok
    assert desk.moved == [HOME]


def test_traffic_that_cannot_be_driven_without_a_key(desk):
    desk.stage()
    desk.ring = None
    (desk.configs / "rollout.yaml").unlink()
    done = back.abort(desk.here())
    assert (done.ok, done.driven, done.after.name) == (False, False, "stable")
    assert "rollout.yaml" in done.faults[0]


def test_a_stage_that_cannot_even_be_removed(desk, monkeypatch):
    desk.stage()
    desk.ring = None

    def fail(*args, **how):
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(back, "remove_stage", fail)
    done = back.abort(desk.here())
    assert done.ok  # nobody here can believe it, so it reads stable
    assert done.faults == (
        "the stage could not be removed: PermissionError: [Errno 1] not permitted",
    )


def test_a_writer_that_hangs_is_not_waited_for(desk, monkeypatch):
    desk.stage()
    monkeypatch.setattr(back, "LOCK_SEC", 0.05)
    with (desk.root / "rollout/.stage.json.lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = back.abort(desk.here())
    assert done.ok
    assert "another writer has it" in done.notes[0]
    assert desk.reading.alarm == "missing"


def test_a_journal_that_is_held_is_not_waited_for_long(desk, monkeypatch):
    desk.stage()
    monkeypatch.setattr(back, "LOCK_SEC", 0.05)
    with (desk.root / "rollout/.audit.jsonl.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = back.abort(desk.here())
    assert done.ok
    assert "another writer has it since more than 0.05 s" in done.notes[-1]
    assert back.LOCK_SEC < 30


def test_keys_that_are_late_do_not_delay_the_way_back(desk, monkeypatch):
    """Traffic goes back to whatever served; then, with the keys, to what the stage names."""
    desk.stage()
    monkeypatch.setattr(back, "KEYS_SEC", 0.05)
    asked = desk.asked

    def late():
        while not desk.moved:
            time.sleep(0.01)
        return RING

    desk.asked = lambda: asked()._replace(ring=late)
    done = back.abort(desk.here())
    assert (done.ok, done.notes, done.after.alarm) == (True, (), "")
    assert desk.moved == [WHEREVER, HOME]


def test_keys_that_never_come(desk, monkeypatch):
    desk.stage()
    monkeypatch.setattr(back, "KEYS_SEC", 0.05)
    monkeypatch.setattr(back, "LATE_KEYS_SEC", 0.05)
    never, asked = Event(), desk.asked
    desk.asked = lambda: asked()._replace(ring=never.wait)
    done = back.abort(desk.here())
    never.set()
    assert (done.ok, done.after.alarm, desk.moved) == (True, "missing", [WHEREVER])


def test_a_stage_that_is_put_back_after_an_abort_without_a_key(desk):
    """It is the newest that was ever written, and its canary was taken back."""
    desk.stage(pct=10.0)
    desk.sign()
    path = desk.root / FILE
    there = path.read_bytes()
    desk.ring = None
    assert back.abort(desk.here()).ok
    desk.ring = RING
    path.write_bytes(there)
    assert desk.reading.alarm == "rolled_back"
    assert refused_code(desk) == "release.stage:rolled_back"


@pytest.mark.parametrize("keyless", [True, False])
@pytest.mark.parametrize("stage", ["canary", "promote"])
def test_a_stage_that_is_put_back_where_nothing_is_remembered(desk, keyless, stage):
    """The state folder is lost too: the journal still knows that the canary was taken back."""
    desk.stage(stage)
    desk.sign(100.0 if stage == "promote" else 25.0, phase="post" if stage == "promote" else "cutover")  # fmt: skip
    path = desk.root / FILE
    there = path.read_bytes()
    desk.ring = None if keyless else RING
    assert back.abort(desk.here()).ok
    desk.ring = RING
    path.write_bytes(there)
    shutil.rmtree(desk.folder / "state")
    assert (desk.reading.name, desk.reading.alarm) == (stage, "")
    moved = desk.moved
    act = change.finish if stage == "promote" else change.step
    assert refused_code(desk, act) == "release.stage:rolled_back"
    with pytest.raises(RefusedError, match="an old stage was put back"):
        back.reconcile(desk.here())
    assert desk.moved == moved
    assert back.abort(desk.here()).ok
    assert desk.reading.name == "stable"


def refused_code(desk, act=change.step):
    with pytest.raises(ConditionsError) as fault:
        act(desk.here(), Asking())
    return fault.value.field


def test_a_writer_who_hung_through_an_abort_cannot_undo_it(desk, monkeypatch):
    """He held the lock for too long, so the stage was removed; then he wakes, and writes."""
    desk.stage()
    desk.sign()
    monkeypatch.setattr(back, "LOCK_SEC", 0.05)
    record = audit.record

    def hung(root, entry, **how):
        monkeypatch.setattr(audit, "record", record)
        assert back.abort(desk.here("other")).ok
        return record(root, entry, **how)

    monkeypatch.setattr(audit, "record", hung)
    with pytest.raises(DecisionOSError, match="is not what this host has seen"):
        change.step(desk.here(), Asking())
    assert desk.reading.name == "stable"
    assert desk.moved == [HOME]


def test_who_was_faster_is_noticed(desk, monkeypatch):
    """Between the first look and the lock somebody takes a step: its traffic is driven back too."""
    desk.stage()
    drive = back._Way.drive

    def first(way, want):
        monkeypatch.setattr(back._Way, "drive", drive)
        done = drive(way, want)
        with change_stage(
            desk.root, target=TARGET, ring=RING, state_dir=desk.folder / "state", now=NOW
        ) as changer:
            changer.write(pct=50.0)
        return done

    monkeypatch.setattr(back._Way, "drive", first)
    assert back.abort(desk.here()).ok
    assert desk.moved == [HOME, HOME]


def test_who_aborted_meanwhile_is_noticed(desk, monkeypatch):
    desk.stage()
    drive = back._Way.drive

    def first(way, want):
        monkeypatch.setattr(back._Way, "drive", drive)
        assert back.abort(desk.here("other")).ok
        return drive(way, want)

    monkeypatch.setattr(back._Way, "drive", first)
    assert back.abort(desk.here()).ok
    assert desk.moved == [HOME, HOME, HOME]


def test_faults_that_are_nobodys_errors(desk, monkeypatch):
    """Whatever a source of keys or an adapter raises: an abort goes on."""
    desk.stage()

    def fail(*args, **how):
        raise RuntimeError("broken \x1b[31m")

    asked = desk.asked
    desk.asked = lambda: asked()._replace(ring=fail)
    monkeypatch.setattr(back, "load_rollout", fail)
    done = back.abort(desk.here())
    assert not done.ok
    assert "RuntimeError: broken \\x1b[31m" in done.faults[0]
    assert desk.reading.alarm == "missing"


# A change that cannot be made, and a crash in it


def test_a_step_whose_traffic_cannot_be_moved_is_aborted(desk):
    desk.stage()
    desk.sign()
    (desk.root / "fails-once").touch()
    with pytest.raises(AbortedError, match="aborted, because traffic could not be moved") as fault:
        change.step(desk.here(), Asking())
    assert fault.value.exit_code == 2
    assert fault.value.next_step is None
    assert (desk.reading.name, desk.reading.release) == ("stable", BASELINE)
    assert desk.moved == [HOME]
    assert desk.told() == [("stepped", True, ("canary", 25.0)), ("aborted", True, ("stable", 0.0))]


def test_neither_there_nor_back(desk):
    desk.stage()
    desk.sign()
    (desk.root / "stuck").touch()
    with pytest.raises(AbortedError) as fault:
        change.step(desk.here(), Asking())
    assert fault.value.next_step == "dosctl release abort"
    assert desk.reading.name == "abort"


@pytest.mark.parametrize(
    ("meanwhile", "error", "stage", "moved"),
    [
        ([{"stage": "abort"}, {"stage": "stable"}], AbortedError, "stable", HOME),
        ([{"pct": 50.0}], None, "canary", f"50 0 {RELEASE} {BASELINE}"),
        ([{"paused": True}], None, "canary", None),
    ],
)
def test_a_change_during_the_move_is_brought_about(
    desk, monkeypatch, meanwhile, error, stage, moved
):
    """The stage's lock is free while traffic moves, so that an abort need not wait for it."""
    desk.stage()
    desk.sign()
    look = change.bring_about.__globals__["load_rollout"]
    from pytest_decisionos.release import conditions

    def loaded(*args, **how):
        rollout = look(*args, **how)
        apply = rollout.apply

        def slow(want):
            apply(want)
            monkeypatch.setattr(rollout, "apply", apply)
            for changes in meanwhile:
                with change_stage(
                    desk.root, target=TARGET, ring=RING, state_dir=desk.folder / "state", now=NOW
                ) as changer:
                    changer.write(**changes)

        rollout.apply = slow
        return rollout

    monkeypatch.setattr(conditions, "load_rollout", loaded)
    if error:
        with pytest.raises(error, match="another run changed the stage meanwhile"):
            change.step(desk.here(), Asking())
    else:
        change.step(desk.here(), Asking())
    assert desk.reading.name == stage
    assert desk.moved == [f"25 0 {RELEASE} {BASELINE}", *([moved] if moved else [])]


@pytest.mark.slow
def test_a_crash_between_stage_and_traffic_is_healed(live):
    (live.root / "tells").write_text('{"release": "v1"}')
    live.dosctl("release", "step", "--release", "v2", "--baseline", "v1")
    assert live.moved == ["0 1 v2 v1"]
    operators = [
        w for name in ("operator", "operator2") for w in ("--operator-key", f"keys/{name}.key")
    ]
    (live.root / "tells").write_text(
        '{"pct": 0, "shadow": true, "release": "v2", "baseline_release": "v1"}'
    )
    (live.root / "kills").touch()
    live.dosctl("release", "step", "--break-glass", "--reason", "급함", *operators, status=-9)
    assert live.moved == ["0 1 v2 v1"]
    told = json.loads(live.dosctl("stage", "show", "--json"))
    assert (told["stage"], told["pct"]) == ("canary", 5.0)
    assert "5 % runs v2" in live.dosctl("release", "reconcile")
    assert live.moved == ["0 1 v2 v1", "5 0 v2 v1"]
    # And one in the middle of an abort.
    (live.root / "kills").touch()
    live.dosctl("release", "abort", status=-9)
    live.dosctl("release", "abort")
    assert live.moved[2:] == ["0 0 v1 "]
    assert "everybody runs v1" in live.dosctl("stage", "verify")


def test_reconciling_an_abort_that_was_cut_off(desk):
    desk.stage("abort")
    healed = back.reconcile(desk.here())
    assert (healed.reading.name, healed.reading.release) == ("stable", BASELINE)
    assert (healed.what, desk.moved) == (("aborted",), [HOME])
    assert desk.told() == [("reconciled", True, ("stable", 0.0))]


def test_reconciling_a_stage_that_cannot_be_believed(desk):
    desk.stage()
    (desk.root / FILE).write_bytes(b"")
    healed = back.reconcile(desk.here())
    assert (healed.reading.name, healed.what) == ("stable", ("repaired:torn",))
    assert desk.moved == [WHEREVER]


def test_reconciling_may_need_more_than_an_abort(desk):
    desk.stage(pct=25.0)
    desk.scopes = "deploy:abort"
    with pytest.raises(DeniedError):
        back.reconcile(desk.here())
    assert desk.moved == []
    desk.scopes = "deploy:promote"
    back.reconcile(desk.here())
    assert desk.moved == [f"25 0 {RELEASE} {BASELINE}"]


def test_an_abort_during_reconciling_is_not_undone(desk, monkeypatch):
    desk.stage(pct=25.0)
    load = back.load_rollout

    def loaded(*args, **how):
        monkeypatch.setattr(back, "load_rollout", load)
        rollout = load(*args, **how)
        apply = rollout.apply

        def late(want):
            rollout.apply = apply
            assert back.abort(desk.here("other")).ok
            apply(want)

        rollout.apply = late
        return rollout

    monkeypatch.setattr(back, "load_rollout", loaded)
    assert back.reconcile(desk.here()).reading.name == "stable"
    assert desk.moved == [HOME, f"25 0 {RELEASE} {BASELINE}", HOME]


def test_reconciling_aborts_nothing(desk):
    desk.stage(pct=25.0)
    (desk.root / "stuck").touch()
    with pytest.raises(RolloutError):
        back.reconcile(desk.here())
    assert (desk.reading.name, desk.told()) == ("canary", [("failed", False, None)])
    desk.ring = None
    with pytest.raises(KeysError):
        back.reconcile(desk.here())
    assert desk.told()[-1] == ("unusable", False, None)


def test_an_end_whose_baseline_stays_is_no_abort(desk):
    desk.stage("promote")
    desk.sign(100.0, phase="post")
    (desk.root / "stuck").touch()
    with pytest.raises(RolloutError):
        change.finish(desk.here(), Asking())
    assert (desk.reading.name, desk.reading.release) == ("stable", RELEASE)
    (desk.root / "stuck").unlink()
    told = {"pct": 100, "release": RELEASE, "baseline_release": BASELINE, "keep_warm": True}
    (desk.root / "tells").write_text(json.dumps(told))
    back.reconcile(desk.here())
    assert desk.moved == [f"0 0 {RELEASE} "]


@given(
    st.one_of(
        st.binary(max_size=200),
        st.sampled_from([b"[]", b'{"target": 1}', b'{"target": {"service": "a"}}']),
    )
)
def test_what_a_stage_claims_raises_nothing(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("root")
    (root / "rollout").mkdir()
    (root / FILE).write_bytes(data)
    assert back.claimed_target(root) is None


def test_what_a_stage_claims(desk):
    assert back.claimed_target(desk.root) is None
    desk.stage()
    assert back.claimed_target(desk.root) == TARGET
    other = Target(service="x", environment="y")
    assert (
        read_stage(desk.root, target=other, ring=RING, state_dir=desk.folder, now=NOW).alarm
        == "foreign_target"
    )
