"""Every reason for which a step, a promotion or an end is refused, each with its line in the journal."""

import json
from datetime import timedelta

import canary_cases
import pytest
from cutover import NOW, RELEASE, RING, key, trust
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_decisionos.errors import DecisionOSError, DeniedError, RefusedError
from pytest_decisionos.judge import sign as signing
from pytest_decisionos.judge.verify import Report
from pytest_decisionos.model.outcome import Status
from pytest_decisionos.release import approval, back, change
from pytest_decisionos.release.conditions import Asking
from pytest_decisionos.release.decisions import read_decision
from pytest_decisionos.release.here import ConditionsError
from pytest_decisionos.release.stage import FILE, change_stage
from pytest_decisionos.testing import TARGET, sealed

pytestmark = pytest.mark.slow
STEP, PROMOTE, FINISH = "step", "promote", "finish"


def ask(desk, command, **how):
    asking = Asking(**how)
    if command == STEP:
        return change.step(desk.here(), asking)
    return {PROMOTE: change.promote, FINISH: change.finish}[command](desk.here(), asking)


def ready(desk, command, **how):
    """Everything that the command needs; returns the bundle."""
    if command == STEP:
        desk.stage()
        return desk.sign(**how)
    if command == PROMOTE:
        desk.stage(pct=50.0)
        desk.evidence(count=9000)
        return desk.sign(**{"to_pct": 100.0} | how)
    desk.stage("promote")
    return desk.sign(**{"to_pct": 100.0, "phase": "post"} | how)


def approve(desk, folder, name="owner", **how):
    found = read_decision(folder)
    return approval.approve(
        desk.root, found.claims, found.sha256, key(name), desk.trust, **{"now": desk.now} | how
    )


# What spoils a change that is ready


def other_release(desk, command):
    blocks = canary_cases.evidence(**({"count": 9000} if command == PROMOTE else {}))
    blocks["meta"]["release"] = "2026.01.2"
    desk.evidence(blocks)
    desk.sign(desk.to_pct, phase=desk.phase, now=NOW)


def paused(desk, folder):
    change.pause(desk.here("pause"))


def torn(desk, folder):
    (desk.root / FILE).write_bytes(b"{")


def gone(desk, folder):
    (desk.root / FILE).unlink()


def stage_elsewhere(desk, folder):
    with change_stage(
        desk.root, target=TARGET, ring=RING, state_dir=desk.folder / "state", now=NOW
    ) as changer:
        changer.write(stage="abort")


def any_change(desk, folder):
    """Pausing and resuming leaves everything as it was, but for the number."""
    change.pause(desk.here("pause"))
    change.resume(desk.here("resume"))


def no_stage(desk, folder):
    desk.sign(desk.to_pct, phase=desk.phase, stage_sha256=None, now=NOW)


def used(desk, folder):
    made = read_decision(folder)
    desk.here("other").record(
        "", allowed=True, code="stepped", decision_sha256=made.sha256, decision_id="d"
    )


def journal_broken(desk, folder):
    path = desk.root / "rollout/audit.jsonl"
    path.write_bytes(b"{}\n" + path.read_bytes())


def old(desk, folder):
    desk.now = NOW + timedelta(minutes=14, seconds=31)


def policy_changed(desk, folder):
    slo = "slo-post" if desk.phase == "post" else "slo-canary"
    desk.write(
        f"slo/{slo}.json",
        json.loads((desk.configs / f"slo/{slo}.json").read_text()) | {"max_wait_sec": 60},
    )


def canary_policy_changed(desk, folder):
    """By a blank: nobody asks whether that makes it laxer."""
    path = desk.configs / "canary/policy.json"
    path.write_text(path.read_text() + " ")


def canary_policy_unbound(desk, folder):
    desk.sign(desk.to_pct, canary_policy_sha256=None, now=NOW)


def gate_changed(desk, folder):
    desk.write("gate.yaml", (desk.configs / "gate.yaml").read_text() + "\n")


def slo_gone(desk, folder):
    for path in (desk.configs / "slo").iterdir():
        path.unlink()


def gate_gone(desk, folder):
    (desk.configs / "gate.yaml").unlink()


def unsigned(desk, folder):
    desk.sign_again(folder, by=None)


def by_a_stranger(desk, folder):
    desk.sign_again(folder, by="stranger")


def by_an_owner(desk, folder):
    desk.sign_again(folder, by="owner")


def gate_key_revoked(desk, folder):
    desk.trust = trust(gate={"revoked": True})


def gate_key_elsewhere(desk, folder):
    desk.trust = trust(gate={"targets": ["checkout/staging/*/*"]})


def operator_elsewhere(desk, folder):
    desk.trust = trust(operator2={"targets": ["checkout/staging/*/*"]})


def operator_revoked(desk, folder):
    desk.trust = trust(operator2={"revoked": True})


def evidence_of_bundle_changed(desk, folder):
    path = folder / "evidence.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"400.0", b"401.0", 1))


def more_in_the_bundle(desk, folder):
    folder.joinpath("note.txt").write_text("x")


def no_decision(desk, folder):
    folder.rename(desk.folder / "elsewhere")


def half_a_bundle(desk, folder):
    (folder / "decision.json").unlink()


def no_go(desk, folder):
    """A newer decision says no: the GO before it is not looked for."""
    desk.evidence(canary_cases.evidence() | {"perf": sealed({"latency_ms": {"p95": 5000.0}})})
    desk.sign(desk.to_pct, phase=desk.phase, now=NOW)


def other_pct(desk, folder):
    desk.sign(99.0, phase=desk.phase, now=NOW)


def other_from(desk, folder):
    desk.sign(desk.to_pct, phase=desk.phase, from_pct=5.0, now=NOW)


def without_a_step(desk, folder):
    desk.sign(None, phase=desk.phase, from_pct=None, now=NOW)


def no_trust(desk, folder):
    def fail():
        raise DecisionOSError("expired")

    desk.here_more = {"trust": fail}


def veto(desk, folder):
    run = read_run(desk)
    desk.root.joinpath("gate/decision.json").write_text(json.dumps(run | {"verdict": "NO-GO"}))


def veto_later(desk, folder):
    """A run on a later window of this release says no."""
    run = read_run(desk)
    run |= {"verdict": "HOLD", "decided_at": "2026-01-15T12:00:01Z", "evidence_window": None}
    run["evidence"]["sha256"] = "0" * 64
    desk.root.joinpath("gate/decision.json").write_text(json.dumps(run))


def veto_broken(desk, folder):
    desk.root.joinpath("gate/decision.json").write_text("{")


def read_run(desk):
    """The decision.json of a pytest run on this evidence."""
    from pytest_decisionos.judge.decide import decide
    from pytest_decisionos.judge.gather import Request, gather

    request = Request(
        root=desk.root, gate=desk.configs / "gate.yaml", phase=desk.phase, now=NOW, ring=RING
    )
    return json.loads(decide(gather(request)).model_dump_json())


def frozen(desk, folder):
    desk.write(
        "freeze.yaml",
        "zone: Asia/Seoul\nspans: [{from: 2026-01-15T21:00, to: 2026-01-16T09:00, reason: 점검}]\n",
    )


def freeze_broken(desk, folder):
    desk.write("freeze.yaml", "zone: Mars/Olympus\n")


def freeze_gone(desk, folder):
    (desk.configs / "freeze.yaml").unlink()


def rollout_gone(desk, folder):
    (desk.configs / "rollout.yaml").unlink()


def runs_another(desk, folder):
    (desk.root / "tells").write_text('{"pct": 10, "release": "x", "baseline_release": "y"}')


def tells_nonsense(desk, folder):
    (desk.root / "tells").write_text("x")


def policy_gone(desk, folder):
    (desk.configs / "canary/policy.json").unlink()


def copies_for_users(desk, folder):
    """Evidence that measures a canary with users by copies, and a gate that signed it all the same."""
    blocks = canary_cases.evidence(**desk.how)
    blocks["witness"]["harvest"] = {**blocks["witness"]["harvest"], "shadow": True}
    desk.evidence(blocks)
    verified = signing.verify_bundle
    signing.verify_bundle = lambda *_, **__: Report([], None)
    try:
        desk.sign(desk.to_pct, now=NOW)
    finally:
        signing.verify_bundle = verified


def evidence_gone(desk, folder):
    (desk.root / "evidence/latest.json").unlink()


def evidence_unsealed(desk, folder):
    path = desk.root / "evidence/latest.json"
    path.write_text(json.dumps(sealed(json.loads(path.read_text()))))


def windows_fail(desk, folder):
    desk.evidence(at={minute: {"p95": 9000.0} for minute in (25, 30, 35)}, **desk.how)


def burst(desk, folder):
    desk.evidence(at={30: {"burst": 1}}, **desk.how)


def too_young(desk, folder):
    desk.policy(step_schedule=[{"pct": p, "min_duration_sec": 3600} for p in (10, 25, 50)])


def not_good_enough(desk, folder):
    """All windows pass; the comparison of the whole step, at its level, does not."""
    blocks = canary_cases.evidence(**desk.how)
    for limit in blocks["canary"]["limits"]["error_delta"]["upper"]:
        blocks["canary"]["limits"]["error_delta"]["upper"][limit] = 0.5
    desk.evidence(blocks)


ANY = (STEP, PROMOTE, FINISH)
UP = (STEP, PROMOTE)
CASES = [
    (ANY, torn, "release.stage:torn"),
    (ANY, gone, "release.stage:missing"),
    (ANY, stage_elsewhere, "release.stage:different"),
    (UP, paused, "release.pause:paused"),
    (UP, frozen, "release.freeze:frozen"),
    (UP, freeze_broken, "release.freeze:unreadable"),
    (UP, freeze_gone, "release.freeze:unreadable"),
    (UP, policy_gone, "release.step:unreadable"),
    (UP, policy_gone, "release.policy:unreadable"),
    (UP, canary_policy_changed, "release.policy:changed"),
    (UP, canary_policy_unbound, "release.policy:changed"),
    (ANY, rollout_gone, "release.rollout:unreadable"),
    (ANY, no_decision, "release.decision:missing"),
    (ANY, half_a_bundle, "release.decision:unreadable"),
    (ANY, evidence_of_bundle_changed, "release.decision:tampered"),
    (ANY, more_in_the_bundle, "release.decision:unexpected"),
    (ANY, unsigned, "release.signature:unsigned"),
    (ANY, by_a_stranger, "release.signature:unknown_key"),
    (ANY, by_an_owner, "release.signature:wrong_role"),
    (ANY, gate_key_revoked, "release.signature:revoked_key"),
    (ANY, gate_key_elsewhere, "release.signature:wrong_target"),
    (ANY, no_go, "release.verdict:no_go"),
    (ANY, old, "release.age:expired"),
    (UP, other_pct, "release.percentage:other_pct"),
    (ANY, other_from, "release.percentage:other_pct"),
    (ANY, without_a_step, "release.percentage:other_pct"),
    (ANY, any_change, "release.used:used_up"),
    (ANY, no_stage, "release.used:no_stage"),
    (ANY, used, "release.used:used_up"),
    (ANY, policy_changed, "release.policy:changed"),
    (ANY, gate_changed, "release.policy:changed"),
    (ANY, slo_gone, "release.policy:unreadable"),
    (ANY, gate_gone, "release.policy:unreadable"),
    (ANY, no_trust, "release.trust:unreadable"),
    (ANY, veto, "release.veto:vetoed"),
    (ANY, veto_later, "release.veto:vetoed"),
    (ANY, veto_broken, "release.veto:vetoed"),
    (ANY, runs_another, "release.running:different"),
    (ANY, tells_nonsense, "release.running:unreadable"),
    (UP, copies_for_users, "release.decision:not_allowed"),
    (UP, copies_for_users, "release.canary:wait"),
    (UP, evidence_gone, "release.canary:unreadable"),
    (UP, evidence_unsealed, "release.canary:wait"),
    (UP, windows_fail, "release.canary:abort"),
    (UP, burst, "release.canary:abort"),
    (UP, too_young, "release.canary:wait"),
    (UP, not_good_enough, "release.canary:wait"),
]
"""Commands, what is spoilt, and the reason that is told among the others."""


def prepared(desk, command):
    desk.phase = "post" if command == FINISH else "cutover"
    desk.to_pct = 25.0 if command == STEP else 100.0
    desk.how = {"count": 9000} if command == PROMOTE else {}
    desk.here_more = {}
    made = desk.here
    desk.here = lambda name="test": made(name)._replace(**desk.here_more)
    return ready(desk, command)


@pytest.mark.parametrize(
    ("command", "spoil", "reason"),
    [
        pytest.param(command, spoil, reason, id=f"{command}-{spoil.__name__}")
        for commands, spoil, reason in CASES
        for command in commands
    ],
)
def test_what_refuses(desk, command, spoil, reason):
    folder = prepared(desk, command)
    spoil(desk, folder)
    before = (desk.reading.sha256, desk.reading.name, desk.reading.pct)
    with pytest.raises(ConditionsError) as refused:
        ask(desk, command)
    reasons = [one.reason for one in refused.value.outcomes if one.status is not Status.SUCCESSFUL]
    assert reason in reasons, reasons
    assert refused.value.field == reasons[0]
    assert refused.value.exit_code == 2
    if spoil is not not_good_enough:  # a look that was taken is counted
        assert (desk.reading.sha256, desk.reading.name, desk.reading.pct) == before
    assert desk.moved == []
    (line,) = desk.lines()
    assert (line["allowed"], line["code"], line["to"]) == (False, reasons[0], None)
    assert line["scope"] == "deploy:promote"
    assert line["why"]


@pytest.mark.parametrize("command", ANY)
def test_what_is_ready_is_done_once(desk, command):
    folder = prepared(desk, command)
    made = read_decision(folder)
    before = desk.reading
    done = ask(desk, command)
    stage, pct = {STEP: ("canary", 25.0), PROMOTE: ("promote", 100.0), FINISH: ("stable", 0.0)}[
        command
    ]
    assert (done.reading.name, done.reading.pct, done.reading.release) == (stage, pct, RELEASE)
    assert done.reading.stage.decision_sha256 == made.sha256
    assert desk.reading == done.reading
    (line,) = desk.lines()
    assert line["allowed"] is True
    assert (line["decision_sha256"], line["decision_id"]) == (made.sha256, made.claims.decision_id)
    assert line["from"] == {"stage": before.name, "pct": before.pct, "seq": before.seq}
    assert line["to"] == {"stage": stage, "pct": pct, "seq": done.reading.seq}
    assert len(desk.moved) == 1
    with pytest.raises(ConditionsError):
        ask(desk, command)
    assert len(desk.moved) == 1


@pytest.mark.parametrize("command", ANY)
def test_of_a_dry_run_nothing_is_left(desk, command):
    prepared(desk, command)
    before = desk.reading.sha256
    done = ask(desk, command, dry_run=True)
    assert done.to_pct == desk.to_pct
    assert all(one.status is Status.SUCCESSFUL for one in done.outcomes)
    assert (desk.reading.sha256, desk.moved, desk.lines()) == (before, [], [])
    frozen(desk, None)
    if command != FINISH:
        with pytest.raises(ConditionsError):
            ask(desk, command, dry_run=True)
        assert desk.lines() == []


@pytest.mark.parametrize("command", ANY)
def test_a_decision_about_another_target_or_release(desk, command):
    folder = prepared(desk, command)
    other_release(desk, command)
    with pytest.raises(ConditionsError) as refused:
        ask(desk, command)
    assert "release.release:other_release" in {one.reason for one in refused.value.outcomes}
    # A bundle of another target, carried over: everything in it is right, but here.
    here = desk.here()
    elsewhere = TARGET.model_copy(update={"tenant": "b"})
    asked = desk.asked()._replace(target=elsewhere)
    with change_stage(
        desk.root / "b", target=elsewhere, ring=RING, state_dir=desk.folder / "state", now=NOW
    ) as changer:
        changer.write(stage="stable", release="2026.01.0")
        changer.write(stage="canary", release=RELEASE, pct=10.0)
    asked = asked._replace(root=desk.root / "b")
    here = here._replace(asked=asked)
    with pytest.raises(ConditionsError) as refused:
        change.step(here, Asking(bundle=str(folder)))
    assert "release.target:foreign_target" in {one.reason for one in refused.value.outcomes}


def test_a_decision_of_another_phase(desk):
    prepared(desk, PROMOTE)
    folder = desk.sign(100.0, phase="post", now=NOW)
    assert ask(desk, PROMOTE, dry_run=True)  # the newest of its own phase is meant
    with pytest.raises(ConditionsError) as refused:
        ask(desk, PROMOTE, bundle=folder.name)
    assert "release.phase:other_phase" in {one.reason for one in refused.value.outcomes}


@pytest.mark.parametrize(
    "run",
    [
        {},  # on this evidence, and GO
        {"verdict": "NO-GO", "release": "another", "evidence_window": None},
        {"verdict": "NO-GO", "phase": "drill", "evidence_window": None},
        {"verdict": "NO-GO", "decided_at": "2026-01-15T11:59:00Z", "evidence_window": None},
        {"verdict": "GO", "decided_at": "2026-01-15T12:00:01Z", "evidence_window": None},
    ],
)
def test_a_run_that_is_no_veto(desk, run):
    prepared(desk, STEP)
    document = read_run(desk) | run
    if run:
        document["evidence"]["sha256"] = "0" * 64
    desk.root.joinpath("gate/decision.json").write_text(json.dumps(document))
    assert ask(desk, STEP).reading.pct == 25.0


@pytest.mark.parametrize("command", UP)
def test_adapters_that_tell_nothing(desk, command):
    prepared(desk, command)
    desk.rollout(adapter="none")
    assert ask(desk, command).reading.pct == desk.to_pct


def test_an_adapter_that_does_not_answer(desk):
    prepared(desk, STEP)
    settings = {
        "listen": ["127.0.0.1:1"],
        "control": "127.0.0.1:1",
        "releases": {RELEASE: ["127.0.0.1:2"]},
    }
    desk.rollout(adapter="nginx", nginx=settings)
    with pytest.raises(ConditionsError) as refused:
        ask(desk, STEP)
    assert refused.value.field == "release.running:missing"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_lies_there_is_refused_in_words(ready_step, data):
    """Bytes that are changed, cut or foreign, in any file of the bundle and beside it."""
    desk, folder, files = ready_step
    path = data.draw(st.sampled_from(files))
    before = path.read_bytes()
    at = data.draw(st.integers(0, len(before) - 1))
    after = data.draw(
        st.one_of(
            st.just(before[:at]),
            st.binary(min_size=1, max_size=4).map(lambda b: before[:at] + b + before[at + 1 :]),
            st.sampled_from(
                [b"", b"null", b"[]", b"{}", b'{"a": 1, "a": 2}', b"[" * 5000, b"\xff"]
            ),
        )
    )
    path.write_bytes(after)
    try:
        ask(desk, STEP, dry_run=True)
    except DecisionOSError as fault:
        assert str(fault)
    else:  # other spellings of the same envelope, another policy: only what is digested may not
        assert after == before or folder not in path.parents or path.name == "decision.json"
    finally:
        path.write_bytes(before)


@pytest.fixture
def ready_step(desk):
    desk.gate(approval={"from_pct": 25, "count": 1})
    folder = prepared(desk, STEP)
    approve(desk, folder)
    (desk.root / "rollout/look.json").write_text("{}")
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
    folders = (folder, desk.root / "gate/approval", desk.configs, desk.root / "evidence")
    files = [path for one in folders for path in sorted(one.rglob("*")) if path.is_file()]
    return desk, folder, [*files, desk.root / "rollout/look.json"]


# Percentages


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (10.0, "release.step:under"),
        (5.0, "release.step:under"),
        (36.0, "release.step:over"),
        (100.0, "release.step:promote"),
    ],
)
def test_a_step_is_neither_too_large_nor_back(desk, asked, reason):
    desk.stage()
    desk.sign(max(asked, 10.0))
    with pytest.raises(ConditionsError) as refused:
        change.step(desk.here(), Asking(), asked)
    assert refused.value.field == reason
    assert desk.lines()[-1]["code"] == reason


def test_promote_is_the_last_step(desk):
    desk.stage()
    desk.sign(100.0)
    with pytest.raises(ConditionsError) as refused:
        change.promote(desk.here(), Asking())
    assert refused.value.field == "release.step:over"


def test_a_smaller_step_than_the_next_may_be_asked_for(desk):
    desk.stage()
    desk.sign(12.5)
    assert change.step(desk.here(), Asking(), 12.5).reading.pct == 12.5


def test_blue_green_goes_from_shadow_to_all(desk):
    desk.rollout(strategy="blue-green")
    desk.stage(pct=0.0)
    desk.evidence(count=9000)
    desk.sign(100.0)
    for pct in (None, 25.0):
        with pytest.raises(ConditionsError) as refused:
            change.step(desk.here(), Asking(), pct)
        assert refused.value.field == f"release.step:{'blue_green' if pct else 'promote'}"
    assert change.promote(desk.here(), Asking()).reading.name == "promote"
    assert desk.moved == ["100 0 2026.01.1 2026.01.0"]


# Approvals


@pytest.mark.parametrize("command", [STEP, PROMOTE])
@pytest.mark.parametrize(
    ("names", "keys", "reason"),
    [
        ([], {}, "release.approval:missing"),
        (["operator"], {"operator": {"role": "deploy-owner"}}, "release.approval:wrong_role"),
        (["owner"], {"owner": {"revoked": True}}, "release.approval:revoked_key"),
        (
            ["owner"],
            {"owner": {"targets": ["checkout/staging/*/*"]}},
            "release.approval:wrong_target",
        ),
        (
            ["owner"],
            {"owner": {"not_after": "2026-01-15T11:59:59Z"}},
            "release.approval:outside_validity",
        ),
        (["owner", "owner2"], {}, None),
        (["owner"], {}, None),
    ],
)
def test_a_step_that_needs_approval(desk, command, names, keys, reason):
    desk.gate(approval={"from_pct": 25, "count": 1})
    folder = prepared(desk, command)
    after = desk.trust
    if reason and "wrong_role" in reason:
        desk.trust = trust(**keys)  # it was one when it approved
    for name in names:
        approve(desk, folder, name)
    desk.trust = after if not reason or "wrong_role" in reason else trust(**keys)
    if reason is None:
        assert ask(desk, command).reading.pct == desk.to_pct
        return
    with pytest.raises(ConditionsError) as refused:
        ask(desk, command)
    assert refused.value.field == reason
    assert desk.lines()[-1]["code"] == reason


def test_two_approvals_are_of_two_people(desk):
    desk.gate(approval={"from_pct": 25, "count": 2})
    folder = prepared(desk, STEP)
    path = approve(desk, folder)
    path.with_name(path.name.replace(".dsse", "-again.dsse")).write_bytes(path.read_bytes())
    with pytest.raises(RefusedError, match="has approved this decision already"):
        approve(desk, folder)
    with pytest.raises(ConditionsError, match="1 of 2 deploy owners"):
        ask(desk, STEP)
    approve(desk, folder, "owner2")
    assert ask(desk, STEP).reading.pct == 25.0


def test_an_approval_is_of_one_decision(desk):
    desk.gate(approval={"from_pct": 25, "count": 1})
    folder = prepared(desk, STEP)
    path = approve(desk, folder)
    again = desk.sign(now=NOW)
    name = path.name.replace(folder.name, again.name)
    path.with_name(name).write_bytes(path.read_bytes())
    path.with_name(f"{again.name}.x.dsse.json").write_text("{")
    with pytest.raises(ConditionsError) as refused:
        ask(desk, STEP)
    assert refused.value.field == "release.approval:other_decision"
    path.with_name(name).unlink()
    with pytest.raises(ConditionsError) as refused:
        ask(desk, STEP)
    assert refused.value.field == "release.approval:unreadable"


def test_an_approval_of_the_future(desk):
    desk.gate(approval={"from_pct": 25, "count": 1})
    folder = prepared(desk, STEP)
    approve(desk, folder, now=NOW + timedelta(minutes=1))
    with pytest.raises(ConditionsError) as refused:
        ask(desk, STEP)
    assert refused.value.field == "release.approval:out_of_range"


def test_smaller_steps_need_none(desk):
    desk.gate(approval={"from_pct": 26, "count": 1})
    prepared(desk, STEP)
    assert ask(desk, STEP).reading.pct == 25.0


@pytest.mark.parametrize("name", ["operator", "stranger"])
def test_who_may_not_approve(desk, name):
    folder = prepared(desk, STEP)
    with pytest.raises(RefusedError, match="not an approval that would count"):
        approve(desk, folder, name)


# Breaking the glass


def override(*names, reason="결제 장애"):
    return approval.Override(tuple(key(name) for name in names), reason)


@pytest.mark.parametrize("command", [STEP, PROMOTE])
def test_two_operators_instead_of_a_go(desk, command):
    prepared(desk, command)
    for spoil in (frozen, evidence_gone, slo_gone, no_decision):
        spoil(desk, next((desk.root / "gate/bundle").iterdir(), None))
    done = ask(desk, command, override=override("operator", "operator2"))
    assert done.reading.pct == desk.to_pct
    assert done.reading.stage.decision_sha256 is None
    (line,) = desk.lines()
    assert (line["code"], line["why"]) == ("override", "결제 장애")
    assert line["override"] == [key("operator").keyid, key("operator2").keyid]
    assert line["decision_id"] is None
    (path,) = (desk.root / approval.OVERRIDES).iterdir()
    assert path.read_bytes().count(b'"sig"') == 2


@pytest.mark.parametrize(
    ("names", "spoil", "reason"),
    [
        (["operator", "operator"], None, "release.override:too_few"),
        (["operator"], None, "release.override:too_few"),
        (["operator", "owner"], None, "release.override:wrong_role"),
        (["operator", "stranger"], None, "release.override:unknown_key"),
        (["operator", "operator2"], paused, "release.pause:paused"),
        (["operator", "operator2"], torn, "release.stage:torn"),
        (["operator", "operator2"], no_trust, "release.override:unreadable"),
        (["operator", "operator2"], operator_elsewhere, "release.override:wrong_target"),
        (["operator", "operator2"], operator_revoked, "release.override:revoked_key"),
        (["operator", "operator2"], runs_another, "release.running:different"),
    ],
)
def test_what_no_operators_override(desk, names, spoil, reason):
    prepared(desk, STEP)
    if spoil:
        spoil(desk, None)
    with pytest.raises(ConditionsError) as refused:
        ask(desk, STEP, override=override(*names))
    assert refused.value.field == reason
    assert desk.lines()[-1]["allowed"] is False
    assert not (desk.root / approval.OVERRIDES).exists()


def test_an_override_is_of_no_other_size(desk):
    prepared(desk, STEP)
    with pytest.raises(ConditionsError, match="max_step_pct"):
        change.step(desk.here(), Asking(override=override("operator", "operator2")), 75.0)


def test_a_reason_that_is_none(desk):
    prepared(desk, STEP)
    with pytest.raises(DecisionOSError, match="--reason"):
        ask(desk, STEP, override=override("operator", "operator2", reason="x" * 2000))
    assert desk.reading.pct == 10.0


# Scopes


COMMANDS = {
    "step": ("deploy:promote", lambda here: change.step(here, Asking())),
    "promote": ("deploy:promote", lambda here: change.promote(here, Asking())),
    "finish": ("deploy:promote", lambda here: change.finish(here, Asking())),
    "resume": ("deploy:promote", change.resume),
    "acknowledge": ("deploy:promote", lambda here: back.acknowledge(here, RELEASE)),
    "pause": ("deploy:abort", change.pause),
    "abort": ("deploy:abort", back.abort),
    "reconcile-canary": ("deploy:promote", back.reconcile),
    "reconcile": ("deploy:abort", back.reconcile),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("granted", "grants"),
    [
        ("", ()),
        ("ops:read judge:run", ()),
        ("deploy", ()),
        ("deploy:promote", ("deploy:promote",)),
        ("judge:run,deploy:abort", ("deploy:abort",)),
        ("deploy:*", ("deploy:promote", "deploy:abort")),
        ("*", ("deploy:promote", "deploy:abort")),
    ],
)
def test_every_scope_and_command(desk, command, granted, grants):
    scope, run = COMMANDS[command]
    desk.stage("stable" if command == "reconcile" else "canary")
    desk.scopes = granted
    if scope in grants:
        try:
            run(desk.here())
        except DeniedError:
            raise
        except RefusedError:
            pass  # for its own reason: a condition
        assert desk.lines()
        assert all(line["code"] != "denied" for line in desk.lines())
        return
    before = desk.reading.sha256
    with pytest.raises(DeniedError) as denied:
        run(desk.here())
    assert denied.value.exit_code == 3
    assert (desk.reading.sha256, desk.moved) == (before, [])
    assert [(e["code"], e["allowed"], e["scope"], e["actor"]) for e in desk.lines()] == [
        ("denied", False, scope, "민수")
    ]


def test_nothing_is_paused_that_cannot_be_believed(desk):
    desk.stage()
    torn(desk, None)
    for act in (change.pause, change.resume):
        with pytest.raises(RefusedError, match="dosctl stage reconcile"):
            act(desk.here())
    assert [code for code, *_ in desk.told()] == ["refused", "refused"]


def test_pausing_twice_is_pausing_once(desk):
    desk.stage()
    first = change.pause(desk.here())
    assert change.pause(desk.here()) == first
    assert change.resume(desk.here()).seq == first.seq + 1


def test_without_keys_nothing_goes_on(desk):
    prepared(desk, STEP)
    desk.ring = None
    with pytest.raises(DecisionOSError, match="no keys are configured"):
        ask(desk, STEP)
    assert desk.lines()[-1]["code"] == "unusable"


def test_what_the_journal_cannot_tell_is_not_done(desk):
    prepared(desk, STEP)
    (desk.root / "rollout/audit.jsonl").unlink()
    (desk.root / "rollout/audit.jsonl").mkdir()
    with pytest.raises(DecisionOSError, match=r"audit|regular"):
        ask(desk, STEP)
    assert (desk.reading.pct, desk.moved) == (10.0, [])


def test_a_journal_that_was_changed(desk):
    folder = prepared(desk, STEP)
    journal_broken(desk, folder)
    with pytest.raises(ConditionsError) as refused:
        ask(desk, STEP)
    assert "release.used:unreadable" in {one.reason for one in refused.value.outcomes}
