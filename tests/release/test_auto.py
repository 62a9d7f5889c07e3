"""Auto-promotion, state by state: what it does, what it leaves alone, and that twice is once."""

import json
from datetime import timedelta

import canary_cases
import pytest
from cutover import BASELINE, NOW, RELEASE, RING

from pytest_decisionos.errors import DecisionOSError, DeniedError, KeysError, RefusedError
from pytest_decisionos.release import auto as module
from pytest_decisionos.release import change, looks
from pytest_decisionos.release.auto import auto
from pytest_decisionos.release.conditions import Asking
from pytest_decisionos.release.here import AbortedError, ConditionsError
from pytest_decisionos.release.stage import FILE
from pytest_decisionos.trust.keys import make_ring


def codes(done):
    return [one.reason for one in done.reasons]


def unsure(error_delta=0.5):
    """Every window passes, and the comparison over the step does not."""
    blocks = canary_cases.evidence()
    upper = blocks["canary"]["limits"]["error_delta"]["upper"]
    upper.update(dict.fromkeys(upper, error_delta))
    return blocks


@pytest.mark.parametrize("strategy", ["canary", "blue-green"])
def test_a_healthy_canary_goes_on(desk, strategy):
    desk.rollout(strategy=strategy)
    green = strategy == "blue-green"
    desk.stage(pct=0.0 if green else 10.0)
    if green:
        desk.evidence(count=9000)
    desk.sign(100.0 if green else 25.0)
    before = desk.reading.sha256
    tried = auto(desk.here(), dry_run=True)
    assert (tried.action, desk.reading.sha256, desk.moved) == (
        "promote" if green else "step",
        before,
        [],
    )
    done = auto(desk.here())
    assert (done.action, done.to_pct) == (("promote", 100.0) if green else ("step", 25.0))
    assert desk.reading == done.reading
    again = auto(desk.here())
    assert again.action == "wait"
    assert len(desk.moved) == 1
    assert len(desk.lines()) == 1


def test_the_last_step_is_promote(desk):
    desk.stage(pct=50.0)
    desk.evidence(count=9000)
    desk.sign(100.0)
    assert auto(desk.here()).action == "promote"
    assert desk.moved == [f"100 0 {RELEASE} {BASELINE}"]
    assert codes(auto(desk.here())) == ["release.stage:different"]


@pytest.mark.parametrize("signed", ["none", "used up"])
def test_it_waits_for_a_decision(desk, signed):
    desk.stage()
    if signed != "none":
        desk.sign()
        change.pause(desk.here("pause"))
        change.resume(desk.here("resume"))
    before = desk.reading.sha256
    for _ in range(2):
        done = auto(desk.here())
        assert done.action == "wait"
        assert codes(done) == [
            f"release.{'used:used_up' if signed != 'none' else 'decision:missing'}"
        ]
    assert (desk.reading.sha256, desk.moved, desk.lines()) == (before, [], [])


@pytest.mark.parametrize(
    ("stage", "code"),
    [("stable", "release.stage:different"), ("promote", "release.stage:different")],
)
def test_where_nothing_is_due(desk, stage, code):
    desk.stage(stage)
    done = auto(desk.here())
    assert (done.action, codes(done), desk.moved) == ("wait", [code], [])


def test_before_there_is_a_stage(desk):
    assert auto(desk.here()).action == "wait"


def test_an_abort_that_was_cut_off_is_ended(desk):
    desk.stage("abort")
    assert auto(desk.here(), dry_run=True).action == "abort"
    assert desk.reading.name == "abort"
    done = auto(desk.here())
    assert (done.action, done.reading.name, desk.moved) == ("abort", "stable", [f"0 0 {BASELINE} "])


def test_a_stage_that_cannot_be_believed(desk):
    desk.stage()
    (desk.root / FILE).write_bytes(b"{")
    with pytest.raises(RefusedError, match="cannot be believed"):
        auto(desk.here())


pytestmark = pytest.mark.slow
FAILING = {
    "burst": ({"at": {30: {"burst": 1}}}, "canary.burst:over"),
    "dead": ({"at": dict.fromkeys(canary_cases.MINUTES)}, "canary.share:under"),
    "failing": ({"at": {m: {"error_rate": 0.5} for m in (25, 30, 35)}}, "canary.failures:over"),
}


@pytest.mark.parametrize("name", FAILING)
@pytest.mark.parametrize("paused", [False, True])
def test_a_bad_canary_is_aborted(desk, name, paused):
    how, code = FAILING[name]
    desk.stage()
    if paused:
        change.pause(desk.here("pause"))
    desk.evidence(**how)
    assert auto(desk.here(), dry_run=True).action == "abort"
    assert (desk.reading.name, desk.moved) == ("canary", [])
    done = auto(desk.here())
    assert (done.action, done.reading.name, done.faults) == ("abort", "stable", ())
    assert code in codes(done)
    assert desk.moved == [f"0 0 {BASELINE} "]
    (line,) = desk.lines()
    assert line["code"] == "aborted"
    assert line["release"] == RELEASE
    assert auto(desk.here()).action == "wait"


def test_evidence_that_was_changed_is_an_abort(desk):
    desk.stage()
    path = desk.root / "evidence/latest.json"
    path.write_text(path.read_text().replace("0.003", "0.002", 1))
    assert auto(desk.here()).action == "abort"


@pytest.mark.parametrize("text", [None, "", "{", "[]"])
def test_evidence_that_cannot_be_read_says_nothing(desk, text):
    desk.stage()
    path = desk.root / "evidence/latest.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    done = auto(desk.here())
    assert (done.action, codes(done)) == ("wait", ["release.evidence:unreadable"])


def test_evidence_of_another_key(desk):
    desk.stage()
    other = make_ring(
        [{"key_id": "k9", "secret": "y" * 40, "state": "active", "use": ["evidence"]}], "t"
    )
    from pytest_decisionos.evidence import seal

    path = desk.root / "evidence/latest.json"
    path.write_text(json.dumps(seal.sealed(json.loads(path.read_text()), other, now=NOW)))
    done = auto(desk.here())
    assert done.action == "wait"
    assert "canary.integrity:unknown_key" in codes(done)


def test_other_conditions_make_it_wait(desk):
    desk.stage()
    desk.sign()
    desk.write(
        "freeze.yaml", "zone: UTC\nweekly: [{from: Thu 00:00, to: Fri 00:00, reason: 목요일}]\n"
    )
    done = auto(desk.here())
    assert done.action == "wait"
    assert "release.freeze:frozen" in codes(done)
    assert "release.canary:not_looked" in codes(done)
    assert desk.reading.looks == 0
    assert desk.told() == [("release.freeze:frozen", False, None)]


def test_a_young_step_waits_without_asking(desk):
    desk.policy(step_schedule=[{"pct": p, "min_duration_sec": 3600} for p in (10, 25, 50)])
    desk.stage()
    desk.sign()
    done = auto(desk.here())
    assert (done.action, codes(done)) == ("wait", ["canary.duration:under"])
    assert desk.lines() == []


@pytest.mark.parametrize(
    ("scopes", "how", "allowed"),
    [
        ("", {}, False),
        ("judge:run", {}, False),
        ("deploy:abort", {}, False),
        ("deploy:promote", {}, True),
        ("deploy:promote", {"at": {30: {"burst": 1}}}, False),
        ("deploy:abort", {"at": {30: {"burst": 1}}}, True),
    ],
)
def test_the_scope_of_what_is_due(desk, scopes, how, allowed):
    desk.stage()
    desk.evidence(**how)
    if not how:
        desk.sign()
    desk.scopes = scopes
    if allowed:
        assert auto(desk.here()).action == ("abort" if how else "step")
        return
    with pytest.raises(DeniedError):
        auto(desk.here())
    assert desk.moved == []
    assert desk.told()[-1] == ("denied", False, None)


def test_either_scope_lets_it_wait(desk):
    desk.stage("stable")
    for scopes in ("deploy:abort", "deploy:promote"):
        desk.scopes = scopes
        assert auto(desk.here()).action == "wait"


def test_without_keys_or_policy(desk):
    desk.stage()
    (desk.configs / "canary/policy.json").unlink()
    with pytest.raises(DecisionOSError):
        auto(desk.here())
    desk.ring = None
    with pytest.raises(KeysError):
        auto(desk.here())


def test_an_adapter_that_fails(desk):
    desk.stage()
    desk.sign()
    (desk.root / "fails-once").touch()
    with pytest.raises(AbortedError):
        auto(desk.here())
    assert desk.reading.name == "stable"


def test_another_run_is_at_it(desk, monkeypatch):
    def busy(*args, **how):
        raise RefusedError("another writer has it")

    desk.stage()
    desk.sign()
    monkeypatch.setattr(module.change, "step", busy)
    assert codes(auto(desk.here())) == ["release.stage:busy"]


# Looks


def test_a_look_that_lets_nothing_pass_counts_once(desk):
    desk.stage()
    desk.evidence(unsure())
    desk.sign()
    done = auto(desk.here())
    assert done.action == "wait"
    assert any(code.startswith("canary.look[") for code in codes(done))
    assert desk.reading.looks == 1
    assert done.reading.looks == 1
    # The same evidence again, by a decision for the stage as it is now: no second look.
    desk.sign(now=NOW)
    for _ in range(2):
        again = auto(desk.here())
        assert (again.action, desk.reading.looks) == ("wait", 1)
    # Also for a step by hand.
    with pytest.raises(ConditionsError):
        change.step(desk.here(), Asking())
    assert desk.reading.looks == 1
    # Better numbers of the same windows, such as a longer guardband gives, are no look again.
    desk.evidence()
    again = auto(desk.here())
    assert (again.action, desk.reading.looks) == ("wait", 1)
    assert "canary.looks:samples_insufficient" in codes(again)


def test_a_look_that_is_forgotten_costs_another(desk):
    desk.stage()
    desk.evidence(unsure())
    for count in range(1, 6):
        desk.sign(now=NOW + timedelta(milliseconds=count))
        desk.now = NOW + timedelta(milliseconds=count + 1)
        assert auto(desk.here()).action == "wait"
        assert desk.reading.looks == count
        (desk.root / looks.FILE).unlink()
    done = auto(desk.here())
    assert (done.action, done.reading.name) == ("abort", "stable")
    assert "canary.looks:over" in codes(done)


def test_a_dry_run_is_no_look(desk):
    desk.stage()
    desk.evidence(unsure())
    desk.sign()
    done = auto(desk.here(), dry_run=True)
    assert (done.action, desk.reading.looks) == ("step", 0)
    assert not any(code.startswith("canary.look[") for code in codes(done))
    assert any("would be a look" in one.message for one in done.reasons)


@pytest.mark.parametrize("spoil", ["until", "evidence", "mac", "looks", "key"])
def test_what_a_look_has_seen_is_believed_only_as_written(desk, spoil):
    stage = desk.stage(looks=1).stage
    seen = looks.Look(NOW - timedelta(minutes=1), "5" * 64)
    looks.remember(desk.root, stage, seen, RING.keys[0])
    assert looks.last_look(desk.root, stage, RING, NOW) == seen
    path = desk.root / looks.FILE
    document = json.loads(path.read_text())
    if spoil == "looks":
        stage = stage.model_copy(update={"looks": 2})
    elif spoil == "key":
        document["key_id"] = "other"
    else:
        document[spoil] = NOW.isoformat() if spoil == "until" else "0" * 64
    path.write_text(json.dumps(document))
    assert looks.last_look(desk.root, stage, RING, NOW) is None


def test_no_look_at_all(desk):
    stage = desk.stage().stage
    assert looks.last_look(desk.root, stage, RING, NOW) is None
    (desk.root / looks.FILE).write_text("[]")
    assert looks.last_look(desk.root, stage, RING, NOW) is None


# As processes


@pytest.mark.slow
def test_twice_at_once_is_once(live):
    live.stage()
    live.sign()
    runs = [live.start("dosctl", "release", "auto", "--json") for _ in range(4)]
    ends = []
    for run in runs:
        with run:
            out, err = run.communicate(timeout=60)
        ends.append((run.returncode, json.loads(out)["action"] if out else err))
    assert sorted(status for status, _ in ends) == [0, 10, 10, 10], ends
    assert live.moved == [f"25 0 {RELEASE} {BASELINE}"]
    assert json.loads(live.dosctl("stage", "show", "--json"))["pct"] == 25.0


@pytest.mark.slow
def test_the_job(live):
    job = ("python", "-m", "jobs.canary_auto_promote")
    from cutover import CHECKOUT

    path = {"PYTHONPATH": str(CHECKOUT)}
    live.stage()
    assert "? decision" in live.run(*job, status=10, **path)
    live.sign()
    said = live.run(*job, "--dry-run", **path)
    assert "would step, 10 → 25 %" in said
    assert json.loads(live.run(*job, "--json", **path))["to_pct"] == 25.0
    live.evidence(at={30: {"burst": 1}})
    live.run(*job, status=10, **path)  # evidence of the step before says nothing of this one
    live.run(*job, status=3, **path, DECISIONOS_ALLOW_SCOPES="ops:read")
