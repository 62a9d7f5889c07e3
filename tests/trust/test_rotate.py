"""Rotation: the overlap dance step by step, in every order, and by several processes at once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pytest_decisionos.errors import KeysError, RefusedError, SignatureError, UsageError
from pytest_decisionos.trust import rotate, sources
from pytest_decisionos.trust.keys import MAX_KEYS, USES, make_ring, parse_ring, ring_json
from pytest_decisionos.trust.refresh import GRACE_SEC, INTERVAL_SEC
from pytest_decisionos.trust.rotate import add, health, next_step, revoke

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TICK = timedelta(microseconds=1)
SECRET = "correct horse battery staple, and more"


def entry(key_id="a", state="active", use=("request",), **more):
    return {"key_id": key_id, "secret": SECRET, "state": state, "use": list(use), **more}


def ring(*entries):
    return make_ring(list(entries), "here")


def step(there, use="request", now=NOW, overlap=DAY):
    return next_step(there, use, now=now, overlap=overlap)


def states(there):
    return [key.state for key in there.keys]


def key_of(there, name):
    return next(key for key in there.keys if key.key_id == name)


# The dance


def test_the_whole_dance():
    joined = step(ring(entry(not_before=NOW - DAY)))
    a, b = joined.ring.keys
    assert (a.state, b.state, b.use, b.not_before, b.not_after) == (
        "active",
        "grace",
        ("request",),
        NOW + DAY,
        None,
    )
    assert joined.changed
    assert joined.at == NOW + DAY
    assert joined.done == f"{b.key_id}: joined, verifies only"
    assert joined.then == "`dosctl keys rotate --use request` makes it sign"

    for early in (NOW, NOW + DAY - TICK):
        waited = step(joined.ring, now=early)
        assert waited.ring is joined.ring
        assert (waited.changed, waited.at) == (False, NOW + DAY)
        assert waited.done == "too early: nothing is changed"
        assert waited.then == f"`dosctl keys rotate --use request` makes {b.key_id} sign"

    taken = step(joined.ring, now=NOW + DAY)
    a, b = taken.ring.keys
    assert (a.state, a.not_before, a.not_after) == ("grace", NOW - DAY, NOW + 2 * DAY)
    assert (b.state, b.not_before, b.not_after) == ("active", NOW + DAY, None)
    assert taken.at == NOW + 2 * DAY
    assert taken.done == f"{b.key_id}: signs now for request; a: verifies only"
    assert taken.then == "`dosctl keys rotate --use request` retires a"

    for early in (NOW + DAY, NOW + 2 * DAY):
        waited = step(taken.ring, now=early)
        assert (waited.ring, waited.changed, waited.at) == (taken.ring, False, NOW + 2 * DAY)

    retired = step(taken.ring, now=NOW + 2 * DAY + TICK)
    a, b = retired.ring.keys
    assert (a.state, a.not_after, b.state) == ("retired", NOW + 2 * DAY, "active")
    assert retired.at is None
    assert retired.done.startswith("a: retired")
    assert states(step(retired.ring, now=NOW + 3 * DAY).ring) == ["retired", "active", "grace"]


def test_times_are_whole_seconds_and_never_too_early():
    joined = step(ring(entry()), now=NOW + TICK)
    assert joined.at == joined.ring.keys[1].not_before == NOW + DAY + timedelta(seconds=1)
    taken = step(joined.ring, now=NOW + 2 * DAY + TICK)
    assert taken.at == taken.ring.keys[0].not_after == NOW + 3 * DAY + timedelta(seconds=1)


def test_new_keys_are_random_named_and_told_nowhere():
    made = [step(ring(entry()), use="request").ring.keys[1] for _ in range(20)]
    assert len({key.raw for key in made}) == len({key.key_id for key in made}) == 20
    for key in made:
        assert re.fullmatch(r"request-20260105-[0-9a-f]{6}", key.key_id)
        assert re.fullmatch(r"b64:[A-Za-z0-9+/]{43}=", key.secret.get_secret_value())
        assert len(key.raw) == 32
    done = step(ring(entry()))
    assert done.ring.keys[1].secret.get_secret_value()[4:] not in repr(done)


def test_every_step_survives_its_file():
    there, now = ring(entry()), NOW
    for days in (1.5, 1.5, 1.5):
        there = parse_ring(ring_json(step(there, now=now).ring), "here")
        now += days * DAY
    assert states(there) == ["retired", "active"]


def test_an_end_that_was_said_is_not_put_off():
    joined = step(ring(entry(not_after=NOW + DAY + HOUR)))
    taken = step(joined.ring, now=NOW + DAY)
    assert taken.ring.keys[0].not_after == taken.at == NOW + DAY + HOUR


# No valid key: at once


@pytest.mark.parametrize("state", ["grace", "retired", "revoked"])
def test_a_new_key_signs_at_once_when_none_does(state):
    made = step(ring(entry(state=state)), now=NOW + TICK)
    assert states(made.ring) == [state, "active"]
    new = made.ring.keys[1]
    assert made.ring.signing("request", NOW) == new
    assert new.use == ("request",)
    assert new.not_before == NOW
    assert made.done == f"{new.key_id}: signs for request at once, as no key did"
    assert made.then.startswith(
        "no key signs for evidence, stage: `dosctl keys rotate --use evidence`, "
    )


def test_the_key_that_waits_signs_at_once_when_the_active_one_is_revoked():
    joined = step(ring(entry(), entry("o", use=("evidence", "stage"))))
    without = revoke(joined.ring, "a").ring
    made = step(without, now=NOW + HOUR)
    assert states(made.ring) == ["revoked", "active", "active"]
    assert made.ring.signing("request", NOW + HOUR).key_id == joined.ring.keys[2].key_id
    assert made.ring.signing("request", NOW + HOUR).not_before == NOW + HOUR
    assert made.then == "`dosctl keys rotate --use request` lets the next key join"


def test_the_first_of_several_that_wait_signs_at_once():
    late, soon = (
        entry("l", "grace", not_before=NOW + DAY),
        entry("s", "grace", not_before=NOW - DAY),
    )
    made = step(ring(late, soon))
    assert states(made.ring) == ["grace", "active"]
    assert key_of(made.ring, "s").not_before == NOW - DAY


def test_one_that_ran_out_is_replaced_at_once():
    made = step(ring(entry(not_after=NOW - TICK, use=("request", "stage"))))
    assert states(made.ring) == ["grace", "active"]
    assert made.ring.keys[0].not_after == NOW - TICK
    assert made.ring.signing("request", NOW).use == ("request",)
    assert "no key signs for evidence, stage" in made.then
    again = step(made.ring, now=NOW + HOUR)
    assert states(again.ring) == ["retired", "active"]


def test_one_that_waits_for_another_use_too_does_not_push_out_its_key():
    there = ring(
        entry("r", "revoked"),
        entry("e", use=("evidence",), not_before=NOW - DAY),
        entry("w", "grace", ("request", "evidence"), not_before=NOW + HOUR),
    )
    made = step(there)
    assert states(made.ring)[:3] == ["revoked", "active", "grace"]
    assert made.ring.signing("request", NOW).use == ("request",)
    assert made.ring.signing("evidence", NOW).key_id == "e"


def test_an_active_key_whose_time_has_not_come_is_waited_for():
    """Either its time or this clock is wrong: making another key would not tell which."""
    there = ring(entry(not_before=NOW + HOUR), entry("w", "grace", not_before=NOW - HOUR))
    made = step(there)
    assert (made.changed, made.at) == (False, NOW + HOUR)
    assert states(step(there, now=NOW + HOUR).ring) == ["grace", "active"]


# Keys of several uses


@pytest.mark.parametrize("uses", [(), ("request", "evidence", "stage")])
def test_uses_that_share_a_key_are_rotated_together_into_keys_of_their_own(uses):
    joined = step(ring(entry(use=uses)), "evidence")
    assert [key.use for key in joined.ring.keys[1:]] == [(use,) for use in USES]
    assert states(joined.ring) == ["active", "grace", "grace", "grace"]
    assert joined.done.endswith("; request, stage shares the old key, and is rotated with evidence")
    for use in USES:
        assert not step(joined.ring, use, now=NOW + DAY - TICK).changed
    taken = step(joined.ring, "stage", now=NOW + DAY)
    assert states(taken.ring) == ["grace", "active", "active", "active"]
    assert "signs now for request, evidence, stage; a: verifies only" in taken.done
    assert {taken.ring.signing(use, NOW + DAY).use for use in USES} == {(use,) for use in USES}
    retired = step(taken.ring, "request", now=NOW + 2 * DAY + TICK)
    assert states(retired.ring) == ["retired", "active", "active", "active"]


def test_a_use_with_a_key_of_its_own_is_rotated_alone():
    there = ring(*(entry(use[0], use=(use,)) for use in USES))
    joined = step(there, "stage")
    taken = step(joined.ring, "stage", now=NOW + DAY)
    assert states(taken.ring) == ["active", "active", "grace", "active"]
    assert [key for key in taken.ring.keys if key.key_id in "re"] == list(there.keys[:2])


def test_what_is_lacking_joins_what_waits_already():
    there = ring(
        entry(use=("request", "stage")), entry("w", "grace", ("stage",), not_before=NOW - HOUR)
    )
    joined = step(there)
    assert [key.use for key in joined.ring.keys[2:]] == [("request",)]
    taken = step(joined.ring, now=NOW + DAY)
    assert states(taken.ring) == ["grace", "active", "active"]


def test_keys_that_wait_for_shared_uses_link_them():
    there = ring(
        entry("r", use=("request",)),
        entry("e", use=("evidence",)),
        entry("s", use=("stage",)),
        entry("w", "grace", ("request", "evidence"), not_before=NOW),
    )
    taken = step(there, "evidence")
    assert states(taken.ring) == ["grace", "grace", "active", "active"]
    assert "signs now for request, evidence; r, e: verifies only" in taken.done


def test_two_that_wait_for_one_use_are_refused():
    there = ring(
        entry(),
        entry("v", "grace", not_before=NOW),
        entry("w", "grace", ("request", "stage"), not_before=NOW),
    )
    with pytest.raises(
        RefusedError, match=r"several keys wait to sign for request; found v, w → revoke"
    ):
        step(there)
    assert step(revoke(there, "v").ring).changed


# Overlap, limits


@pytest.mark.parametrize(
    ("overlap", "told"),
    [
        (timedelta(0), "0d"),
        (-DAY, "-1d"),
        (timedelta(minutes=1), "1m"),
        (timedelta(seconds=959), "959s"),
        (timedelta(hours=20_000), "20000h"),
        (timedelta(days=367), "367d"),
    ],
)
def test_overlaps_that_are_none(overlap, told):
    with pytest.raises(UsageError, match=f"^--overlap: .*found {told}; expected 16m to 366d$"):
        step(ring(entry()), overlap=overlap)


@pytest.mark.parametrize(
    "overlap", [rotate.MIN_OVERLAP - TICK, rotate.MAX_OVERLAP + TICK, timedelta.max]
)
def test_overlaps_that_are_just_none(overlap):
    with pytest.raises(UsageError, match="expected 16m to 366d"):
        step(ring(entry()), overlap=overlap)


def test_the_shortest_overlap_outlasts_the_oldest_ring_in_use():
    assert rotate.MIN_OVERLAP.total_seconds() >= INTERVAL_SEC + GRACE_SEC
    assert step(ring(entry()), overlap=rotate.MIN_OVERLAP).changed
    assert step(ring(entry()), overlap=rotate.MAX_OVERLAP).changed


def test_a_ring_that_is_full():
    full = ring(entry(), *(entry(f"k{i}", "retired") for i in range(MAX_KEYS - 1)))
    with pytest.raises(KeysError, match="at most 256"):
        step(full)
    with pytest.raises(KeysError, match="at most 256"):
        add(full, ["stage"], now=NOW, origin="here")


# Adding and revoking


def test_add():
    made = add(None, ["request", "stage", "request"], now=NOW, origin="there")
    assert made.ring.origin == "there"
    assert [(key.state, key.use) for key in made.ring.keys] == [
        ("active", ("request",)),
        ("active", ("stage",)),
    ]
    assert made.changed
    more = add(made.ring, ["evidence"], now=NOW, origin="there")
    assert more.ring.keys[:2] == made.ring.keys
    assert not health(more.ring, now=NOW, plain=False).faults


@pytest.mark.parametrize("use", [("request",), ("stage", "request"), ()])
def test_add_never_makes_a_second_active_key(use):
    with pytest.raises(
        RefusedError, match="a key is active for request already; found a → replace it"
    ):
        add(ring(entry(use=use)), ["request"], now=NOW, origin="here")


@pytest.mark.parametrize("state", ["active", "grace", "retired"])
def test_revoke(state):
    made = revoke(ring(entry("a", state, ("request", "stage")), entry("b", use=("evidence",))), "a")
    assert states(made.ring) == ["revoked", "active"]
    assert made.changed
    with pytest.raises(SignatureError, match="revoked"):
        made.ring.verifying("request", "a", made_at=NOW)
    if state == "active":
        assert made.done == "a: revoked; verifies nothing, and nothing signs for request, stage now"
        assert made.then == (
            "`dosctl keys rotate --use request`, `dosctl keys rotate --use stage` makes a key sign at once"
        )
    else:
        assert made.done == "a: revoked; verifies nothing"
    again = revoke(made.ring, "a")
    assert (again.changed, again.ring, again.done) == (False, made.ring, "a: is revoked already")


def test_revoke_what_is_not_there():
    with pytest.raises(UsageError, match="no such key; found x → see `dosctl keys list`"):
        revoke(ring(entry()), "x")


# Health

SOUND = [
    *(entry(use, use=(use,)) for use in USES),
    *(entry(f"{use}-next", "grace", (use,), not_before=NOW + DAY) for use in USES),
]


def test_a_sound_ring():
    found = health(ring(*SOUND), now=NOW, plain=False)
    assert found == ({use: use for use in USES}, {}, [])


@pytest.mark.parametrize(
    ("change", "plain", "warning"),
    [
        ({}, True, "the ring lies in a variable, which every child process can read"),
        ({"request": {"not_after": NOW + 7 * DAY}}, False, "request signs for request only until 2026-01-12T09:00:00+00:00: `dosctl keys rotate --use request`"),
        ({"stage-next": {"state": "retired"}}, False, "stage has no key in grace: nothing is ready to take over; `dosctl keys rotate --use stage` adds one"),
        ({"stage-next": {"not_before": None}}, False, "stage-next is in grace without an end: revoke it one day"),
        ({"stage-next": {"use": []}}, False, "stage-next serves every use: rotate it into one for each"),
    ],
)  # fmt: skip
def test_warnings(change, plain, warning):
    entries = [{**one, **change.get(one["key_id"], {})} for one in SOUND]
    found = health(ring(*entries), now=NOW, plain=plain)
    assert found.warnings == [warning]
    assert not found.faults


@pytest.mark.parametrize(
    ("change", "use", "fault"),
    [
        ({"stage": {"state": "grace"}}, "stage", "no key is active for stage"),
        (
            {"request": {"not_after": NOW - TICK}},
            "request",
            "the active key of request was valid only until",
        ),
        (
            {"evidence": {"not_before": NOW + TICK}},
            "evidence",
            "the active key of evidence is valid only from",
        ),
    ],
)
def test_faults(change, use, fault):
    entries = [{**one, **change.get(one["key_id"], {})} for one in SOUND]
    found = health(ring(*entries), now=NOW, plain=False)
    assert list(found.faults) == [use]
    assert found.faults[use].startswith(fault)
    assert set(found.signing) == set(USES) - {use}


def test_an_end_that_is_far_off_is_no_warning():
    entries = [{**SOUND[0], "not_after": NOW + 7 * DAY + TICK}, *SOUND[1:]]
    assert health(ring(*entries), now=NOW, plain=False).warnings == []


# Every order of rotating, revoking, signing and waiting

LAYOUTS = {
    "own": [entry(use, use=(use,)) for use in USES],
    "every": [entry("every", use=())],
    "shared": [entry("both", use=("request", "evidence")), entry("stage", use=("stage",))],
    "one": [entry("request", use=("request",))],
    "ending": [entry("ending", use=("request", "stage"), not_after=NOW + 3 * DAY), entry("e", use=("evidence",))],
    "begun": [entry("old", use=()), entry("next", "grace", ("stage",), not_before=NOW + HOUR)],
}  # fmt: skip


def signer(there, use, now):
    try:
        return there.signing(use, now)
    except KeysError:
        return None


class Rotations(RuleBasedStateMachine):
    """Sees to it that old and new readers and signers understand each other at every step."""

    @initialize(layout=st.sampled_from(sorted(LAYOUTS)))
    def begin(self, layout):
        self.ring = ring(*LAYOUTS[layout])
        self.now = NOW
        self.at = None
        self.signed = []
        self.ends = {}  # key → until when it was promised to verify
        self.steps = 0

    @rule(minutes=st.integers(0, 60 * 24 * 5), micros=st.integers(0, 999_999))
    def wait(self, minutes, micros):
        self.now += timedelta(minutes=minutes, microseconds=micros)

    @precondition(lambda self: self.at is not None and self.at > self.now)
    @rule(off=st.sampled_from([-TICK, timedelta(0), TICK]))
    def wait_until_the_next_step(self, off):
        self.now = max(self.now, self.at + off)

    @rule(use=st.sampled_from(USES))
    def sign(self, use):
        key = signer(self.ring, use, self.now)
        if key is not None:
            self.signed.append((use, key.key_id, self.now, key.mac(use, b"said")))

    @rule(use=st.sampled_from(USES), hours=st.sampled_from([1, 24, 100]))
    def rotate(self, use, hours):
        before, overlap = self.ring, timedelta(hours=hours)
        done = next_step(before, use, now=self.now, overlap=overlap)
        self.ring, self.at = done.ring, done.at
        if not done.changed:
            assert done.ring is before
            assert done.at >= self.now
            return
        self.steps += 1
        assert done.at is None or done.at > self.now
        for one in USES:
            old, new = signer(before, one, self.now), signer(done.ring, one, self.now)
            if old is None:
                assert new is not None or one != use, "a rotation always ends an outage"
                continue
            # A reader that has the ring of one step earlier verifies what the new ring signs.
            known = before.verifying(one, new.key_id, made_at=self.now)
            assert known.mac(one, b"said") == new.mac(one, b"said")
            # A signer that has it is verified with the new ring, as long as the overlap takes.
            until = min(self.now + overlap, old.not_after or self.now + overlap)
            done.ring.verifying(one, old.key_id, made_at=until)
            if old != new:
                assert one in done.done, "a use is never changed silently"
                self.ends[old.key_id] = until

    @precondition(lambda self: any(key.state != "revoked" for key in self.ring.keys))
    @rule(data=st.data())
    def revoke(self, data):
        names = [key.key_id for key in self.ring.keys if key.state != "revoked"]
        # Seldom an old one, or nothing would ever come to its end.
        name = data.draw(st.sampled_from(names))
        self.ring = revoke(self.ring, name).ring
        assert key_of(self.ring, name).state == "revoked"

    @rule(use=st.sampled_from(USES))
    def add(self, use):
        if any(key.state == "active" for key in self.ring.of(use)):
            with pytest.raises(RefusedError):
                add(self.ring, [use], now=self.now, origin="here")
        else:
            self.ring = add(self.ring, [use], now=self.now, origin="here").ring

    @invariant()
    def never_two_active_keys(self):
        for use in USES:
            assert sum(key.state == "active" and key.serves(use) for key in self.ring.keys) <= 1

    @invariant()
    def the_ring_can_be_written_and_read(self):
        assert parse_ring(ring_json(self.ring), "here") == self.ring

    @invariant()
    def what_was_signed_verifies_until_the_grace_ends(self):
        for use, name, made_at, mac in self.signed:
            key = key_of(self.ring, name)
            if key.state == "revoked":
                continue
            if key.state == "retired":
                assert self.now > self.ends.get(name, key.not_after)
                found = self.ring.verifying(use, name, made_at=made_at, anchored_at=made_at)
            else:
                found = self.ring.verifying(use, name, made_at=made_at)
            assert found.mac(use, b"said") == mac


TestRotations = Rotations.TestCase
TestRotations.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestRotations.pytestmark = [pytest.mark.slow]


# On a file, by several processes at once


@pytest.mark.slow
def test_processes_at_once_make_one_step(tmp_path):
    path = tmp_path / "ring.json"
    now = datetime.now(UTC)
    waiting = entry("b", "grace", not_before=now - HOUR)
    place = sources.Place("file", str(path))
    sources.update_ring(
        place, lambda _: rotate.Step(ring(entry(), waiting), True, "done", "then"), region=None
    )
    command = [sys.executable, "-m", "pytest_decisionos.cli.main", "keys", "rotate", "--use", "request",
               "--ring", str(path), "--json"]  # fmt: skip
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    told = []
    for run in runs:
        out, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
        told.append(json.loads(out))
    assert sorted(one["changed"] for one in told) == [False] * 5 + [True]
    assert {one["done"] for one in told if not one["changed"]} == {"too early: nothing is changed"}
    assert states(sources.read_ring_file(path)) == ["grace", "active"]
    assert sorted(os.listdir(tmp_path)) == [".ring.json.lock", "ring.json"]
    assert path.stat().st_mode & 0o777 == 0o600
