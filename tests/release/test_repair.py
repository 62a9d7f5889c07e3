"""Beginning and repairing a stage, and what the audit journal tells of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pytest_decisionos.errors import DeniedError, KeysError, RefusedError, UnusableInputError
from pytest_decisionos.model.target import Target
from pytest_decisionos.release import audit
from pytest_decisionos.release.repair import Asked, initialise, repair
from pytest_decisionos.release.stage import FILE, change_stage, read_stage
from pytest_decisionos.trust import journal
from pytest_decisionos.trust.keys import make_ring

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
TARGET = Target(service="결제", environment="production")
KEY = {"key_id": "k1", "secret": "made-up for tests, of 32 bytes or more", "state": "active"}
RING = make_ring([KEY | {"use": ["stage"]}], "test ring")


@pytest.fixture
def asked(tmp_path):
    return Asked(
        root=tmp_path / "var",
        target=TARGET,
        ring=lambda: RING,
        state_dir=tmp_path / "state",
        scopes="deploy:promote deploy:abort",
        actor="민수",
        now=NOW,
    )


def how(asked, ring=RING):
    return {"target": TARGET, "ring": ring, "state_dir": asked.state_dir, "now": asked.now}


def read(asked, ring=RING):
    return read_stage(asked.root, **how(asked, ring))


def change(asked, **changes):
    with change_stage(asked.root, **how(asked)) as changer:
        return changer.write(**changes)


def lines(asked):
    names = ("command", "scope", "allowed", "code", "from", "to", "release")
    found = journal.read(asked.root / audit.FILE)
    assert found.fault is None
    assert all(entry["actor"] == "민수" for entry in found.entries)
    return [tuple(entry[name] for name in names) for entry in found.entries]


def at(seq, stage="stable", pct=0.0):
    return {"stage": stage, "pct": pct, "seq": seq}


INIT = ("dosctl stage init", "deploy:promote")
RECONCILE = ("dosctl stage reconcile", "deploy:abort")


def test_beginning(asked):
    done = initialise(asked, None)
    assert (done.what, done.unaudited, done.reading.alarm) == ("initialised", "", "")
    assert initialise(asked, None).what == ""
    done = initialise(asked, "1")
    assert (done.what, done.reading.release, done.reading.seq) == ("initialised", "1", 2)
    for same in ("1", None):
        assert initialise(asked, same).what == ""
    assert lines(asked) == [
        (*INIT, True, "initialised", at(0), at(1), None),
        (*INIT, True, "initialised", at(1), at(2), "1"),
    ]
    assert read(asked) == done.reading


def test_beginning_with_a_release(asked):
    assert initialise(asked, "1").reading.stage.seq == 1
    with pytest.raises(RefusedError, match="not the release that stable leads to stable with"):
        initialise(asked, "2")
    assert lines(asked)[1:] == [(*INIT, False, "refused", at(1), None, None)]


def test_what_is_there_is_not_begun_anew(asked):
    initialise(asked, "1")
    change(asked, stage="canary", release="2", pct=5)
    assert initialise(asked, None).what == ""
    with pytest.raises(RefusedError, match="canary does not lead to stable"):
        initialise(asked, "1")
    (asked.root / FILE).write_bytes(b"")
    with pytest.raises(RefusedError, match="cannot be believed.*dosctl stage reconcile"):
        initialise(asked, "1")
    assert [line[3:5] for line in lines(asked)[1:]] == [
        ("refused", at(2, "canary", 5.0)),
        ("refused", at(0)),
    ]


def test_repairing(asked):
    done = repair(asked)
    assert (done.what, done.reading.seq) == ("repaired:missing", 1)
    assert repair(asked).what == ""
    change(asked, stage="canary", release="2", baseline_release="1")
    assert repair(asked).what == ""
    assert read(asked).name == "canary"
    (asked.root / FILE).write_bytes(b"x")
    done = repair(asked)
    assert (done.what, done.reading.name, done.reading.seq) == ("repaired:torn", "stable", 3)
    assert len(list((asked.root / "rollout").glob("stage.json.bad-*"))) == 1
    assert lines(asked) == [
        (*RECONCILE, True, "repaired:missing", at(0), at(1), None),
        (*RECONCILE, True, "repaired:torn", at(0), at(3), None),
    ]


def test_another_key_signs_it_anew(asked):
    initialise(asked, "1")
    change(asked, stage="canary", release="2", pct=5, looks=2)
    before = read(asked).stage
    old = KEY | {"use": ["stage"], "state": "grace", "not_after": NOW + timedelta(days=1)}
    new = KEY | {"key_id": "k2", "use": ["stage"]}
    both = make_ring([old, new], "both")
    done = repair(asked._replace(ring=lambda: both))
    assert (done.what, done.reading.stage.key_id) == ("signed_anew", "k2")
    changed = {"seq": 3, "key_id": "k2", "prev": done.reading.stage.prev}
    assert done.reading.stage.model_dump(exclude={"mac"}) == (
        before.model_dump(exclude={"mac"}) | changed
    )
    assert lines(asked)[1:] == [
        (*RECONCILE, True, "signed_anew", at(2, "canary", 5.0), at(3, "canary", 5.0), "2")
    ]
    only = make_ring([new], "new")
    assert read(asked, only).alarm == ""


def keyless():
    raise KeysError("cannot be had")


def no_ring():
    return None


@pytest.mark.parametrize(
    ("scopes", "ring", "error", "code"),
    [
        ("", lambda: RING, DeniedError, "denied"),
        ("ops:read judge:run", lambda: RING, DeniedError, "denied"),
        ("*", keyless, KeysError, "unusable"),
        ("*", no_ring, KeysError, "unusable"),
    ],
)
def test_who_may_not(asked, scopes, ring, error, code):
    weak = asked._replace(scopes=scopes, ring=ring)
    with pytest.raises(error):
        initialise(weak, "1")
    with pytest.raises(error):
        repair(weak)
    assert lines(asked) == [(*one, False, code, None, None, None) for one in (INIT, RECONCILE)]
    assert not (asked.root / FILE).exists()


@pytest.mark.parametrize(("scopes", "wrong"), [("deploy:promote", repair), ("deploy:abort", None)])
def test_each_has_its_scope(asked, scopes, wrong):
    one = asked._replace(scopes=scopes)
    with pytest.raises(DeniedError):
        initialise(one, "1") if wrong is None else wrong(one)


def test_a_broken_memory(asked):
    initialise(asked, "1")
    for path in asked.state_dir.glob("*.json"):
        path.write_bytes(b"")
    with pytest.raises(UnusableInputError, match="no telling whether an old one was put back"):
        repair(asked)
    assert lines(asked)[1:] == [(*RECONCILE, False, "unusable", at(0), None, None)]


def test_an_audit_that_cannot_be_written_does_not_stop_a_repair(asked):
    (asked.root / audit.FILE).mkdir(parents=True)
    done = repair(asked)
    assert done.what == "repaired:missing"
    assert "not a regular file" in done.unaudited
    assert read(asked).alarm == ""
