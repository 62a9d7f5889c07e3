"""What is told before a change and of a refusal: no more, and no less, than what then happens."""

from datetime import timedelta

import pytest
from cutover import BASELINE, KEY, NOW, RELEASE, Desk

from pytest_decisionos.errors import KeysError
from pytest_decisionos.model.outcome import Outcome, Status
from pytest_decisionos.release import audit, back, change
from pytest_decisionos.release.conditions import Asking, Judged
from pytest_decisionos.release.here import ConditionsError
from pytest_decisionos.release.outlook import outlook
from pytest_decisionos.release.stage import FILE
from pytest_decisionos.trust.keys import make_ring

VERIFIES = make_ring([KEY | {"state": "grace", "use": ["evidence", "stage"]}], "ring.json")


def step_is_next(desk: Desk):
    desk.stage()
    desk.sign()


def promote_is_next(desk: Desk):
    desk.stage(pct=50.0)
    desk.evidence(count=9000)
    desk.sign(to_pct=100.0)


def finish_is_next(desk: Desk):
    desk.stage("promote")
    desk.sign(to_pct=100.0, phase="post")


READY = {
    change.step: [lambda desk: desk.stage("stable"), step_is_next],
    change.promote: [promote_is_next],
    change.finish: [finish_is_next],
}


@pytest.mark.parametrize(
    ("act", "ready"), [(act, ready) for act, cases in READY.items() for ready in cases]
)
def test_without_a_key_that_signs_stages_nothing_is_promised(desk, act, ready):
    ready(desk)
    here = desk.here()
    (first, *rest) = outlook(here, desk.reading, desk.ring, Asking(dry_run=True))[1].outcomes
    assert (first.id, first.status, first.message) == (
        "release.keys",
        Status.SUCCESSFUL,
        "k1 signs stages",
    )
    assert "release.keys" not in {one.id for one in rest}
    desk.ring = VERIFIES
    (first, *_) = outlook(here, desk.reading, desk.ring, Asking(dry_run=True))[1].outcomes
    assert (first.reason, first.status) == ("release.keys:missing", Status.ERROR)
    assert "ring.json: no key is active for stage" in first.message
    told = []
    for dry_run in (True, False):
        with pytest.raises(KeysError, match="no key is active for stage") as fault:
            act(desk.here(), Asking(dry_run=dry_run))
        told.append((str(fault.value), fault.value.exit_code))
    assert told[0] == told[1]
    assert desk.told() == [("unusable", False, None)]


def test_without_keys_the_first_step_lacks_them(desk):
    reading = desk.reading
    assert not (desk.root / FILE).exists()
    _, judged = outlook(desk.here(), reading, None, Asking(dry_run=True))
    assert judged.outcomes[0].reason == "release.keys:missing"
    assert judged.outcomes[0].message == "no keys, so no stage can be believed or written"


# The canary condition


def test_what_the_canary_lacks_is_told_once(desk):
    desk.stage()
    desk.sign()
    desk.policy(step_schedule=[{"pct": 10.0, "min_duration_sec": 86_400}])
    with pytest.raises(ConditionsError) as fault:
        change.step(desk.here(), Asking())
    told = {one.id: one for one in fault.value.outcomes}
    assert told["release.canary"].cause == "wait"
    assert "canary.duration:under" in told["release.canary"].message.split(", ")
    why = told["canary.duration"].message
    assert why
    assert why not in told["release.canary"].message
    assert sum(why in one.message for one in fault.value.outcomes) == 1


def test_a_refusal_by_the_canary_alone_says_why():
    judged = Judged(
        outcomes=(
            _outcome("release.canary", "wait", "canary.duration:under, canary.passes:under"),
            _outcome("canary.duration", "under", "10 % for 3 s of 60 s"),
            _outcome("canary.passes", "under", "1 of 3"),
        ),
        to_pct=25.0,
        release=RELEASE,
        baseline=None,
    )
    with pytest.raises(ConditionsError) as fault:
        judged.must_hold()
    assert str(fault.value) == "release.canary:wait: canary.duration:under: 10 % for 3 s of 60 s"


def _outcome(name, cause, message):
    return Outcome(id=name, status=Status.INCONCLUSIVE, cause=cause, message=message)


# What nobody can tell


def test_a_release_is_not_said_to_be_aborted_that_the_journal_does_not_name(desk):
    desk.stage()
    back.abort(desk.here("abort"))
    (desk.root / audit.FILE).unlink()
    with pytest.raises(ConditionsError) as fault:
        _first(desk, "never-used")
    (told,) = _of(fault, "release.cooldown")
    assert told.cause == "cooldown"
    assert "does not tell what ended" in told.message
    assert "it may have been this release, which stays away" in told.message
    assert "was aborted" not in told.message
    desk.now = NOW + timedelta(hours=1)
    with pytest.raises(ConditionsError) as fault:
        _first(desk, "never-used")
    (told,) = _of(fault, "release.cooldown")
    assert told.cause == "not_acknowledged"
    assert "it may have been this one: dosctl release acknowledge never-used" in told.message
    assert "taken back" not in told.message


def _first(desk, release):
    return change.step(desk.here(), Asking(), release=release, baseline=BASELINE)


def _of(fault, name):
    return [one for one in fault.value.outcomes if one.id == name]


def test_an_adapter_that_tells_nothing_is_named(desk):
    desk.stage()
    desk.sign()
    desk.rollout(adapter="none", command=None)
    judged = outlook(desk.here(), desk.reading, desk.ring, Asking(dry_run=True))[1]
    (running,) = [one for one in judged.outcomes if one.id == "release.running"]
    assert running.message == "adapter none: cannot tell what runs"
