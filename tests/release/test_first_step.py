"""Out of stable: shadow, of which release, and how a release comes back that was taken back."""

import json
from datetime import timedelta

import pytest
from cutover import BASELINE, NOW, RELEASE, RING, SINCE, key

from pytest_decisionos.errors import JournalError, RefusedError
from pytest_decisionos.release import approval, audit, back, change, past
from pytest_decisionos.release.conditions import Asking
from pytest_decisionos.release.here import ConditionsError
from pytest_decisionos.release.repair import initialise, repair
from pytest_decisionos.release.stage import FILE, change_stage
from pytest_decisionos.release.traffic import Traffic
from pytest_decisionos.testing import TARGET


def step(desk, pct=None, override=None, **how):
    return change.step(desk.here(), Asking(override=override), pct, **how)


def refused(desk, *args, **how):
    with pytest.raises(ConditionsError) as fault:
        step(desk, *args, **how)
    assert desk.lines()[-1]["code"] == fault.value.field
    return fault.value.field


def at(desk, **later):
    desk.now = NOW + timedelta(**later)


def serves(desk, release, **canary):
    """What carries the traffic says so."""
    told = {"release": release} if not canary else {"baseline_release": release} | canary
    (desk.root / "tells").write_text(json.dumps(told))


@pytest.mark.parametrize("pct", [None, 0.0])
def test_shadow_is_first(desk, pct):
    desk.stage("stable")
    done = step(desk, pct)
    assert (done.reading.name, done.reading.pct) == ("canary", 0.0)
    assert (done.reading.release, done.reading.baseline_release) == (RELEASE, BASELINE)
    assert desk.moved == [f"0 1 {RELEASE} {BASELINE}"]
    assert desk.told() == [("stepped", True, ("canary", 0.0))]


def test_users_are_not_first(desk):
    desk.stage("stable")
    assert refused(desk, 5.0) == "release.stage:different"


def test_where_nothing_was_yet_it_begins(desk):
    serves(desk, "v1")
    done = step(desk, release="v2", baseline="v1")
    assert (done.reading.release, done.reading.baseline_release, done.reading.seq) == (
        "v2",
        "v1",
        2,
    )
    back.abort(desk.here())
    assert (desk.reading.name, desk.reading.release) == ("stable", "v1")


@pytest.mark.parametrize(
    "told",
    [
        {"release": "v1"},
        {"release": "v2", "baseline_release": "v1", "pct": 10.0},
        {"release": "v1", "baseline_release": "v2", "pct": 100.0},
        {},
    ],
    ids=str,
)
def test_a_first_step_takes_nobody_to_the_baseline_that_it_names(desk, told):
    """Where no stage says what everybody runs, what carries the traffic does."""
    (desk.root / "tells").write_text(json.dumps(told))
    assert refused(desk, release="v1", baseline="v2") == "release.running:different"
    assert desk.moved == []


def test_what_was_taken_back_is_no_baseline(desk):
    """After an abort without keys nobody knows what everybody runs; here not even the adapter."""
    desk.rollout(adapter="none", command=None)
    desk.stage()
    desk.ring = None
    assert back.abort(desk.here()).ok
    desk.ring = RING
    repair(desk.asked())
    at(desk, seconds=301)
    assert refused(desk, release="fixed", baseline=RELEASE) == "release.baseline:not_acknowledged"
    assert step(desk, release="fixed", baseline=BASELINE).reading.name == "canary"


def test_nobody_is_told_to_run_what_was_taken_back(desk):
    desk.stage()
    desk.ring = None
    assert back.abort(desk.here()).ok
    desk.ring = RING
    with pytest.raises(RefusedError, match="its file is gone"):
        initialise(desk.asked(), BASELINE)
    repair(desk.asked())
    with pytest.raises(RefusedError, match="was taken back"):
        initialise(desk.asked(), RELEASE)
    assert initialise(desk.asked(), BASELINE).reading.release == BASELINE


@pytest.mark.parametrize("tells", ["x", '{"pct": 10, "release": "v9"}'])
def test_an_abort_that_was_cut_off_is_ended_whatever_is_reported(desk, tells):
    desk.stage("abort")
    (desk.root / "tells").write_text(tells)
    assert back.reconcile(desk.here()).reading.name == "stable"
    back.reconcile(desk.here())
    assert desk.moved[0] == f"0 0 {BASELINE} "


class Says:
    name = "test"

    def __init__(self, told):
        self.told = told

    def running(self):
        return self.told


@pytest.mark.parametrize(
    ("told", "good"),
    [
        (Traffic(release="v1"), True),
        (Traffic(release="v2"), False),
        (Traffic(release="v1", baseline_release="v0", pct=10.0), False),
        (Traffic(release="v1", baseline_release="v0", shadow=True), False),
        (Traffic(release="v1", baseline_release="v0", pct=100.0), True),
        (Traffic(release="v2", baseline_release="v1", pct=10.0), True),
        (Traffic(), False),
        (None, True),
    ],
    ids=str,
)
def test_a_stage_begins_with_what_everybody_runs(desk, told, good):
    if good:
        assert initialise(desk.asked(), "v1", Says(told)).reading.release == "v1"
        return
    with pytest.raises(RefusedError, match="not what everybody runs"):
        initialise(desk.asked(), "v1", Says(told))


def test_a_host_that_has_seen_a_stage_begins_none_by_itself(desk):
    """Also if the journal is gone together with the stage's file."""
    desk.stage("promote")
    desk.ring = None
    assert back.abort(desk.here()).ok
    desk.ring = RING
    (desk.root / audit.FILE).unlink()
    assert refused(desk, release="v2", baseline=RELEASE) == "release.stage:missing"
    with pytest.raises(RefusedError, match="its file is gone"):
        initialise(desk.asked(), RELEASE)
    repair(desk.asked())
    with pytest.raises(RefusedError, match="was taken back"):
        initialise(desk.asked(), RELEASE)
    back.acknowledge(desk.here(), RELEASE)
    at(desk, seconds=1)
    assert initialise(desk.asked(), RELEASE, Says(Traffic(release=RELEASE))).what


def test_who_came_back_and_finished_may_be_named(desk):
    desk.stage()
    back.abort(desk.here())
    at(desk, seconds=301)
    back.acknowledge(desk.here(), RELEASE)
    with change_stage(
        desk.root, target=TARGET, ring=RING, state_dir=desk.folder / "state", now=desk.now
    ) as changer:
        for more in ({"stage": "canary", "release": RELEASE}, {"pct": 10.0}, {"stage": "promote"}):
            before, made = changer.reading, changer.write(**more)
            entry = audit.AuditEntry(
                time=desk.now, actor="x", command="test", allowed=True, code="made",
                from_=audit.at(before), to=audit.at(made), release=RELEASE,
            )  # fmt: skip
            assert audit.record(desk.root, entry) == ""
    desk.sign(100.0, phase="post", now=desk.now)
    change.finish(desk.here(), Asking())
    assert past.past_of(desk.root).aborted == {}


@pytest.mark.parametrize(
    "unknown",
    [
        {"release": "v3"},
        {"release": "v3", "baseline_release": "v4"},
        {"release": BASELINE, "baseline_release": "v4", "pct": 10},
    ],
    ids=str,
)
def test_reconciling_brings_nobody_to_what_nobody_runs(desk, unknown):
    desk.stage("stable")
    (desk.root / "tells").write_text(json.dumps(unknown))
    with pytest.raises(RefusedError, match="has nobody on the release") as fault:
        back.reconcile(desk.here())
    assert fault.value.field == "release.running:different"
    assert desk.moved == []
    serves(desk, BASELINE)
    back.reconcile(desk.here())
    assert desk.moved == [f"0 0 {BASELINE} "]


def test_a_stage_that_was_taken_away_is_looked_into(desk):
    desk.stage("stable")
    (desk.root / FILE).unlink()
    assert refused(desk) == "release.stage:missing"
    (desk.root / FILE).write_bytes(b"")
    assert refused(desk) == "release.stage:torn"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"release": BASELINE}, "release.release:same"),
        ({"baseline": "other"}, "release.release:other_release"),
        ({"release": "a b"}, "release.release:not_a_name"),
        ({"release": "x" * 201}, "release.release:not_a_name"),
    ],
)
def test_which_release(desk, how, reason):
    desk.stage("stable")
    assert refused(desk, **how) == reason


def test_nobody_says_which_release(desk):
    desk.stage("stable", release=BASELINE)
    (desk.root / "evidence/latest.json").unlink()
    assert refused(desk) == "release.release:missing"
    assert step(desk, release="v2").reading.release == "v2"


def test_evidence_that_names_no_release(desk):
    desk.stage("stable")
    (desk.root / "evidence/latest.json").write_text('{"meta": 1}')
    assert refused(desk) == "release.release:missing"


def test_a_freeze_holds_it_and_operators_do_not_wait(desk):
    desk.stage("stable")
    desk.write(
        "freeze.yaml", "zone: UTC\nweekly: [{from: Thu 00:00, to: Fri 00:00, reason: 목요일}]\n"
    )
    assert refused(desk) == "release.freeze:frozen"
    both = approval.Override((key("operator"), key("operator2")), "고침")
    assert step(desk, override=both).reading.name == "canary"
    assert desk.lines()[-1]["code"] == "override"


def test_paused_stable(desk):
    desk.stage("stable")
    change.pause(desk.here("pause"))
    assert refused(desk) == "release.pause:paused"
    change.resume(desk.here("resume"))
    assert step(desk).reading.name == "canary"


# A release that was taken back


def test_an_aborted_release_comes_back_later_and_only_if_somebody_knows(desk):
    desk.stage()
    back.abort(desk.here("abort"))
    assert refused(desk) == "release.cooldown:cooldown"
    at(desk, seconds=299)
    assert refused(desk) == "release.cooldown:cooldown"
    at(desk, seconds=300)
    assert refused(desk) == "release.cooldown:not_acknowledged"
    back.acknowledge(desk.here("ack"), RELEASE)
    assert step(desk).reading.name == "canary"
    # And after the next abort it has to be known again.
    at(desk, seconds=400)
    back.abort(desk.here("abort"))
    at(desk, seconds=800)
    assert refused(desk) == "release.cooldown:not_acknowledged"


def test_acknowledging_at_once_does_not_shorten_the_cooldown(desk):
    desk.stage()
    back.abort(desk.here("abort"))
    at(desk, seconds=1)
    back.acknowledge(desk.here("ack"), RELEASE)
    assert refused(desk) == "release.cooldown:cooldown"
    at(desk, seconds=301)
    assert step(desk).reading.name == "canary"


def test_another_release_need_not_wait(desk):
    desk.stage()
    back.abort(desk.here("abort"))
    assert step(desk, release="fixed").reading.release == "fixed"
    with pytest.raises(RefusedError, match="was not taken back"):
        back.acknowledge(desk.here(), "fixed")
    assert desk.lines()[-1]["code"] == "refused"


def test_an_abort_that_could_not_be_recorded(desk):
    """The journal tells of an older stage than is there: nobody knows what happened between."""
    desk.stage("stable", audited=True)
    step(desk)
    (desk.root / audit.FILE).rename(desk.root / "away")
    (desk.root / audit.FILE).mkdir()
    assert back.abort(desk.here()).ok
    (desk.root / audit.FILE).rmdir()
    (desk.root / "away").rename(desk.root / audit.FILE)
    at(desk, seconds=301)
    assert refused(desk) == "release.cooldown:not_acknowledged"
    assert refused(desk, release="fixed") == "release.cooldown:not_acknowledged"
    back.acknowledge(desk.here("ack"), "fixed")
    assert step(desk, release="fixed").reading.name == "canary"


def test_an_abort_without_a_key_and_its_repair(desk):
    desk.stage()
    desk.ring = None
    assert back.abort(desk.here()).ok
    desk.ring = RING
    assert refused(desk) == "release.stage:missing"
    repair(desk.asked())
    assert refused(desk) == "release.cooldown:cooldown"


def pause_and_resume(desk):
    change.pause(desk.here())
    change.resume(desk.here())


def take_away_and_repair(desk):
    (desk.root / FILE).unlink()
    repair(desk.asked())


@pytest.mark.parametrize("hide", [pause_and_resume, take_away_and_repair])
@pytest.mark.parametrize("kept", [0, 1])
def test_a_journal_that_lost_an_abort_does_not_shorten_the_cooldown(desk, hide, kept):
    """And then tells of the stage again: what is missing before that is noticed."""
    desk.stage("stable")
    step(desk)
    back.abort(desk.here())
    path = desk.root / audit.FILE
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))
    hide(desk)
    assert refused(desk) == "release.cooldown:cooldown"
    at(desk, seconds=301)
    assert refused(desk) == "release.cooldown:not_acknowledged"
    back.acknowledge(desk.here(), RELEASE)
    assert step(desk).reading.name == "canary"


def test_an_abort_that_was_not_told_is_not_forgotten_for_the_next_release(desk):
    desk.stage("stable")
    step(desk)
    (desk.root / audit.FILE).rename(desk.root / "away")
    back.abort(desk.here())
    (desk.root / "away").rename(desk.root / audit.FILE)
    at(desk, seconds=301)
    back.acknowledge(desk.here(), "fixed")
    step(desk, release="fixed")
    back.abort(desk.here())
    assert set(past.past_of(desk.root).aborted) == {RELEASE, "fixed"}


def test_a_crash_before_the_first_write_costs_no_release_its_turn(desk, monkeypatch):
    """The journal tells of a step that was then not taken; another try, and another release."""
    desk.stage("stable")

    def crash(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(change, "_write", crash)
        with pytest.raises(KeyboardInterrupt):
            step(desk)
    assert step(desk).reading.name == "canary"
    assert past.past_of(desk.root).aborted == {}


def test_a_finished_release_was_not_taken_back(desk):
    desk.stage("promote")
    desk.sign(100.0, phase="post")
    change.finish(desk.here(), Asking())
    assert past.past_of(desk.root).aborted == {}
    serves(desk, RELEASE)
    assert step(desk, release="next", baseline=RELEASE).reading.release == "next"


def test_a_journal_that_was_changed_says_nothing(desk):
    desk.stage("stable")
    path = desk.root / audit.FILE
    path.write_bytes(path.read_bytes().replace(b"made", b"mode"))
    with path.open("ab") as stream:
        stream.write(path.read_bytes())
    with pytest.raises(ConditionsError) as fault:
        step(desk)
    assert "release.cooldown:unreadable" in {one.reason for one in fault.value.outcomes}
    with pytest.raises(JournalError):
        back.acknowledge(desk.here(), RELEASE)


def test_a_crash_while_the_journal_was_written_hides_nothing(desk):
    desk.stage()
    back.abort(desk.here())
    with (desk.root / audit.FILE).open("ab") as stream:
        stream.write(b'{"half"')
    assert set(past.past_of(desk.root).aborted) == {RELEASE}


def test_beginning_by_hand_first(desk):
    initialise(desk.asked(), BASELINE)
    assert step(desk).reading.seq == 2


def test_the_past_of_nothing(tmp_path):
    assert past.past_of(tmp_path) == ({}, {}, None, False, None)
    entry = {"actor": "x", "command": "x", "allowed": False, "code": "x", "release": "r"}
    made = audit.AuditEntry(time=SINCE, to=audit.StageAt(stage="canary", pct=0, seq=1), **entry)
    assert audit.record(tmp_path, made) == ""
    assert past.past_of(tmp_path) == ({}, {}, None, False, None)
