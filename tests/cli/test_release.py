"""``dosctl release`` and pipeline/release/*.sh, as people and pipelines call them: from anywhere."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pytest_decisionos.cli.release import release
from pytest_decisionos.report.text import cells

CHECKOUT = Path(__file__).parents[2]
sys.path.insert(0, str(CHECKOUT / "tests/release"))

from cutover import BASELINE, RELEASE, RING, Desk  # noqa: E402 - found by the line above

from pytest_decisionos.release.stage import FILE, change_stage  # noqa: E402 - the same
from pytest_decisionos.testing import TARGET  # noqa: E402 - the same
from pytest_decisionos.trust import journal  # noqa: E402 - the same

pytestmark = pytest.mark.slow
SCRIPTS = CHECKOUT / "pipeline/release"


@pytest.fixture
def live(tmp_path):
    folder = tmp_path / "프로젝트 1"
    folder.mkdir()
    desk = Desk(folder, live=True)
    shutil.copytree(SCRIPTS, folder / "pipeline/release")
    return desk


def script(desk, name, *words, **how):
    """Run a script from another folder."""
    return desk.run(desk.folder / "pipeline/release" / name, *words, cwd="/", **how)


def stage(desk):
    return json.loads(desk.dosctl("stage", "show", "--json"))


def backdate(desk):
    """The step has been there for 40 minutes, and evidence of it was built."""
    with change_stage(
        desk.root, target=TARGET, ring=RING, state_dir=desk.folder / "state", now=desk.now
    ) as changer:
        pct = changer.reading.pct
        changer.write(since=desk.now - timedelta(minutes=40))
    # In shadow the canary gets a copy of everything.
    share = pct / (100 - pct) if 0 < pct < 100 else 1
    desk.evidence(count=round(9000 * share))


def codes(desk):
    found = journal.read(desk.root / "rollout/audit.jsonl")
    assert found.fault is None
    return [entry["code"] for entry in found.entries if entry["command"] != "test"]


def test_a_whole_cutover(live):
    """The runbook's way: shadow, 5, 10, 25, 50, all; then the post-verification."""
    live.gate(approval={"from_pct": 100, "count": 1})
    live.variables = live.keys()
    live.dosctl("stage", "init", "--release", BASELINE)
    assert "gets copies of requests" in script(live, "canary_step.sh")
    for pct in (5, 10, 25, 50):
        backdate(live)
        said = live.dosctl("decision", "sign", "--without-tests", "--json")
        assert (json.loads(said)["to_pct"], json.loads(said)["phase"]) == (pct, "cutover")
        said = script(live, "canary_step.sh", *([pct] if pct == 10 else []))
        assert f"canary: {pct} % runs {RELEASE}, the rest {BASELINE}" in said
    backdate(live)
    live.dosctl("decision", "sign", "--without-tests")
    said = script(live, "promote.sh", status=2)
    assert "release.approval:missing" in said
    live.dosctl("release", "approve", "--key", "keys/deploy-owner.key")
    assert "is kept warm" in script(live, "promote.sh")
    said = live.dosctl("release", "finish", status=2)
    assert "release.decision:missing" in said
    backdate(live)
    live.dosctl("decision", "sign", "--phase", "post", "--without-tests")
    assert f"stable: everybody runs {RELEASE}" in live.dosctl("release", "finish")
    assert live.moved == [
        f"0 1 {RELEASE} {BASELINE}",
        *(f"{pct} 0 {RELEASE} {BASELINE}" for pct in (5, 10, 25, 50, 100)),
        f"0 0 {RELEASE} ",
    ]
    assert codes(live) == [
        "initialised", *["stepped"] * 5, "release.approval:missing", "approved", "promoted",
        "release.decision:missing", "finished",
    ]  # fmt: skip


def test_abort_pause_and_resume(live):
    live.stage()
    live.sign()
    assert "; paused" in script(live, "pause.sh")
    assert "release.pause:paused" in script(live, "canary_step.sh", status=2)
    script(live, "resume.sh")
    assert "release.used:used_up" in script(live, "canary_step.sh", status=2)
    said = script(live, "abort.sh", "--reason", "시험")
    assert f"stable: everybody runs {BASELINE}" in said
    assert stage(live)["stage"] == "stable"
    assert live.moved == [f"0 0 {BASELINE} "]


@pytest.mark.parametrize(
    "name", ["canary_step.sh", "promote.sh", "pause.sh", "resume.sh", "abort.sh"]
)
def test_scripts_without_the_scope(live, name):
    live.stage()
    assert "is not granted" in script(live, name, status=3, DECISIONOS_ALLOW_SCOPES="ops:read")
    assert stage(live)["pct"] == 10.0


def test_scripts_by_a_link_and_by_the_projects_own_dosctl(live, tmp_path):
    live.stage()
    (tmp_path / "bin").mkdir()
    link = tmp_path / "bin/stop"
    link.symlink_to(live.folder / "pipeline/release/abort.sh")
    own = live.folder / ".venv/bin"
    own.mkdir(parents=True)
    own.joinpath("dosctl").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m pytest_decisionos.cli.main "$@"\n'
    )
    own.joinpath("dosctl").chmod(0o755)
    assert "stable" in live.run(link, cwd="/", PATH="/usr/bin:/bin")


GATE = "abort_on_gate_fail.sh"


def test_a_gate_that_passes_changes_nothing(live):
    live.stage()
    assert "GO, proceed" in script(live, GATE)
    said = script(live, GATE, "configs/slo/slo-canary.json", "var/evidence/latest.json", "1/1")
    assert "GO, proceed" in said
    assert stage(live)["pct"] == 10.0


@pytest.mark.parametrize("status", [0, 1, 2, 3, 4, 5, 10, 127, 137])
def test_whatever_stops_a_gate_is_no_go(live, tmp_path, status):
    programs = tmp_path / "bin"
    programs.mkdir()
    programs.joinpath("dosctl").write_text(f"#!/bin/sh\nexit {status}\n")
    programs.joinpath("dosctl").chmod(0o755)
    expected = status if status in {0, 2, 3, 10} else 2
    said = script(live, GATE, status=expected, PATH=f"{programs}:/usr/bin:/bin")
    assert ("could not run" in said) is (status != expected or status == 4)


@pytest.mark.parametrize("words", [["--json"], ["--help"], ["", "-x"], ["a", "b", "1/1", "c"]])
def test_a_gate_takes_no_options(live, words):
    live.stage()
    assert "usage: abort_on_gate_fail.sh" in script(live, GATE, *words, status=4)


def slow(desk):
    blocks = json.loads((desk.root / "evidence/latest.json").read_text())
    perf = blocks["perf"]["latency_ms"] | {"p95": 5000.0}
    return blocks | {"perf": blocks["perf"] | {"latency_ms": perf}}


def test_a_gate_that_fails_aborts(live):
    live.stage()
    live.later = timedelta()
    live.evidence(slow(live))
    said = script(live, GATE, status=2)
    assert "NO-GO, abort" in said
    assert stage(live)["stage"] == "stable"
    assert live.moved == [f"0 0 {BASELINE} "]
    said = live.dosctl("release", "guard", "--json", status=2)
    told = json.loads(said)
    assert (told["action"], told["aborted"], told["stage"]["stage"]) == ("abort", True, "stable")


def test_a_gate_that_fails_needs_the_scope_to_abort(live):
    live.stage()
    live.later = timedelta()
    live.evidence(slow(live))
    said = script(live, GATE, status=3, DECISIONOS_ALLOW_SCOPES="judge:run")
    assert "gate      NO-GO, abort (unsigned: a dry-run)" in said
    assert stage(live)["pct"] == 10.0
    script(live, GATE, status=3, DECISIONOS_ALLOW_SCOPES="deploy:abort")
    assert codes(live) == ["denied", "denied"]


def unread(desk, *words, to, **how):
    """Run dosctl with an output that nobody can read."""
    command = shlex.join([sys.executable, "-m", "pytest_decisionos.cli.main", *words])
    return desk.run("bash", "-c", f"set -o pipefail; {command} {to}", **how)


UNREAD = pytest.mark.parametrize("to", ["> /dev/full", "| true"])


@UNREAD
def test_a_gate_aborts_and_says_so_by_its_status_whoever_reads_it(live, to):
    live.stage()
    live.later = timedelta()
    live.evidence(slow(live))
    said = unread(live, "release", "guard", to=to, status=2)
    assert said.startswith("note: what was done cannot be printed: ")
    assert stage(live)["stage"] == "stable"
    assert live.moved == [f"0 0 {BASELINE} "]


@UNREAD
def test_an_abort_is_an_abort_whoever_reads_it(live, to):
    live.stage()
    unread(live, "release", "abort", to=to)
    assert stage(live)["stage"] == "stable"
    assert live.moved == [f"0 0 {BASELINE} "]
    unread(live, "release", "auto", to=to, status=10)
    unread(live, "release", "reconcile", to=to)


def test_a_step_that_is_refused_is_refused_whoever_reads_it(live):
    live.stage()
    assert "release.decision:missing" in unread(live, "release", "step", to="> /dev/full", status=2)
    said = unread(live, "release", "status", to="> /dev/full", status=4)
    assert said == "error: No space left on device → see where standard output goes\n"


def test_thin_traffic_waits(live):
    live.stage()
    live.write("slo/slo-canary.json", {"latency": {"max_p95_ms": 900, "min_samples": 10**9}})
    live.later = timedelta()
    blocks = json.loads((live.root / "evidence/latest.json").read_text())
    # The step is young: else the gate has waited long enough.
    blocks["canary"]["step_start"] = (live.now - timedelta(minutes=5)).isoformat()
    live.evidence(blocks)
    said = script(live, GATE, status=2)
    assert "NO-GO, wait" in said
    assert "nothing was aborted" in said
    assert (stage(live)["pct"], live.moved) == (10.0, [])


@pytest.mark.parametrize(
    "spoil", ["evidence/latest.json", "../configs/slo/slo-canary.json", "../configs/gate.yaml"]
)
def test_a_gate_that_cannot_run_is_no_go_and_no_abort(live, spoil):
    live.stage()
    (live.root / spoil).write_text("{")
    said = script(live, GATE, status=2)
    assert "the gate could not run (status 4); nothing was aborted" in said
    assert live.moved == []


def test_tampered_evidence_aborts(live):
    live.stage()
    path = live.root / "evidence/latest.json"
    path.write_text(path.read_text().replace("0.003", "0.002", 1))
    assert "NO-GO, abort" in script(live, GATE, status=2)
    assert stage(live)["stage"] == "stable"


def test_scripts_are_clean():
    if shutil.which("shellcheck") is None:
        say = pytest.fail if os.environ.get("REQUIRE_SERVICES") == "1" else pytest.skip
        say("shellcheck not installed: make services")
    files = [str(path) for path in sorted(SCRIPTS.glob("*.sh"))]
    assert len(files) == 7
    done = subprocess.run(
        ["shellcheck", "-x", *files], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


# What commands tell


def test_conditions_fit_a_terminal(live):
    live.stage()
    live.sign()
    live.write("freeze.yaml", {"zone": "UTC", "weekly": [{"from": "Mon 00:00", "to": "Sun 23:59", "reason": "연말 동결 " * 12}]})  # fmt: skip
    said = live.dosctl("release", "step", status=2)
    lines = [line for line in said.splitlines() if not line.startswith("error: ")]
    assert max(map(cells, lines)) <= 80
    assert "✗ freeze" in said
    assert said.splitlines()[-1].startswith("error: release.freeze:frozen: ")
    status = live.dosctl("release", "status")
    assert max(map(cells, status.splitlines())) <= 80
    assert "dosctl release step, to 25 %" in status
    told = json.loads(live.dosctl("release", "status", "--json"))
    assert {one["id"]: one["cause"] for one in told["conditions"]}["release.freeze"] == "frozen"


def test_a_step_for_machines(live):
    live.stage()
    said = live.start(
        sys.executable, "-m", "pytest_decisionos.cli.main", "release", "step", "--json"
    )
    with said as process:
        out, err = process.communicate(timeout=60)
    told = json.loads(out)
    assert process.returncode == 2
    assert (told["command"], told["done"], told["stage"]) == ("step", False, None)
    assert told["error"] in err
    bad = [one["reason"] for one in told["conditions"] if one["cause"]]
    assert bad[0] == "release.decision:missing"
    live.sign()
    told = json.loads(live.dosctl("release", "step", "--json", "--dry-run"))
    assert (told["done"], told["dry_run"], told["to_pct"]) == (False, True, 25.0)
    told = json.loads(live.dosctl("release", "step", "--json"))
    assert (told["done"], told["stage"]["pct"], told["stage"]["seq"]) == (True, 25.0, 3)


def test_traffic_that_does_not_move(live):
    live.stage()
    live.sign()
    (live.root / "stuck").touch()
    out = live.dosctl("release", "step", "--json", status=2)
    told = json.loads(out[: out.rindex("}") + 1])
    assert (told["done"], told["conditions"]) == (False, [])
    assert "traffic could not be moved" in told["error"]
    assert stage(live)["stage"] == "abort"
    said = live.dosctl("release", "auto", status=2)
    assert "FAILED" in said
    assert "traffic was not driven back" in said
    said = script(live, GATE, status=0)  # the gate has nothing against it
    (live.root / "stuck").unlink()
    assert "action    abort, 0 → 0 %" in live.dosctl("release", "auto", status=2)
    assert stage(live)["stage"] == "stable"


def test_a_gate_whose_abort_fails_says_so(live):
    live.stage()
    live.later = timedelta()
    live.evidence(slow(live))
    (live.root / "stuck").touch()
    said = script(live, GATE, status=2)
    assert "FAILED" in said
    assert "NOT known to be back" in said


@pytest.mark.parametrize("stage", ["stable", "promote", "abort", "torn", "none", "keyless"])
def test_the_status_of_every_stage(live, stage):
    if stage != "none":
        live.stage("canary" if stage in {"torn", "keyless"} else stage)
    if stage == "torn":
        (live.root / FILE).write_bytes(b"{")
    more = {"DECISIONOS_JUDGE_KEYS": "@/nowhere"} if stage == "keyless" else {}
    said = live.dosctl("release", "status", **more)
    expected = {
        "stable": "next      dosctl release step, to shadow",
        "promote": "next      dosctl release finish",
        "abort": "next      dosctl release abort: it was cut off",
        "torn": "the stage cannot be believed",
        "none": "next      dosctl release step, to shadow",
        "keyless": "keys      /nowhere",
    }
    assert expected[stage] in said


def test_the_status_of_shadow(live):
    live.stage(pct=0.0)
    tells = {"pct": 0, "shadow": True, "release": RELEASE, "baseline_release": BASELINE}
    (live.root / "tells").write_text(json.dumps(tells))
    assert f"copies to {RELEASE}" in live.dosctl("release", "status")
    assert "NOT what the stage says" not in live.dosctl("release", "status")
    (live.root / "tells").write_text(json.dumps({"release": BASELINE}))
    said = live.dosctl("release", "status")
    assert f"everybody on {BASELINE}: NOT what the stage says" in said
    assert max(map(cells, said.splitlines())) <= 80


def test_help_fits_a_terminal():
    for name in release.list_commands(click.Context(release)):
        said = CliRunner().invoke(release, [name, "--help"], terminal_width=80).output
        assert max(map(cells, said.splitlines())) <= 80, name


def test_a_missing_decision_is_told_once(live):
    live.stage()
    said = live.dosctl("release", "step", status=2).splitlines()[-1]
    assert said.count("dosctl decision sign") == 1


def test_status_without_a_policy_or_an_adapter(live):
    live.stage()
    (live.configs / "canary/policy.json").unlink()
    (live.configs / "rollout.yaml").unlink()
    said = live.dosctl("release", "status")
    assert "✗ step          unreadable" in said
    assert "✗ rollout       unreadable" in said


def test_operators_break_the_glass(live):
    live.stage()
    both = ("--operator-key", "keys/operator.key", "--operator-key", "keys/operator2.key")
    live.dosctl("release", "step", *both, status=4)
    live.dosctl("release", "step", "--break-glass", *both, status=4)
    live.dosctl("release", "step", "--break-glass", "--reason", "급함", status=4)
    live.dosctl("release", "step", "--break-glass", "--reason", "급함", *both[:2], status=2)
    live.dosctl("release", "step", "--break-glass", "--reason", "급함", *both)
    assert codes(live) == ["release.override:too_few", "override"]
    assert stage(live)["decision_sha256"] is None


def test_what_cannot_be_approved(live):
    live.stage()
    folder = live.sign()
    approve = ("release", "approve", folder.name, "--key")
    live.dosctl(*approve, "keys/operator.key", status=2)
    live.dosctl(*approve, "keys/none.key", status=4)
    live.dosctl(*approve, "keys/deploy-owner.key", status=3, DECISIONOS_ALLOW_SCOPES="deploy:abort")
    path = folder / "evidence.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"400.0", b"401.0", 1))
    assert "does not verify" in live.dosctl(*approve, "keys/deploy-owner.key", status=2)
    assert codes(live) == ["refused", "unusable", "denied", "refused"]


def test_acknowledge_and_reconcile(live):
    live.stage()
    live.dosctl("release", "acknowledge", RELEASE, status=2)
    live.dosctl("release", "abort")
    assert "is known" in live.dosctl("release", "acknowledge", RELEASE)
    (live.root / FILE).write_bytes(b"{")
    said = live.dosctl("release", "reconcile")
    assert "repaired:torn" in said
    assert codes(live)[-1] == "reconciled"


def test_an_abort_for_machines_and_what_failed(live):
    live.stage()
    (live.root / "stuck").touch()
    told = json.loads(live.dosctl("release", "abort", "--json", status=2))
    assert (told["done"], told["driven"], told["stage"]["stage"]) == (False, False, "abort")
    assert told["faults"]
    said = live.dosctl("release", "abort", status=2)
    assert "FAILED" in said
    assert "NOT known to be back" in said


def test_an_abort_where_hardly_anything_is_right(live):
    live.stage()
    (live.configs / "gate.yaml").unlink()
    said = live.dosctl("release", "abort", DECISIONOS_MAX_SKEW="x", DECISIONOS_JUDGE_KEYS="")
    assert "note" in said
    assert live.moved == [
        "0 0  "
    ]  # the keys could not be read either, so nobody knows the baseline
    assert not (live.root / FILE).exists()
    # Nothing at all says what this is about.
    assert "gate.yaml" in live.dosctl("release", "abort", status=4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DECISIONOS_DECISION_MAX_AGE", "abc"),
        ("DECISIONOS_TRUST_SHA256", ""),
        ("DECISIONOS_ROOT", ""),  # then it is var
        ("DECISIONOS_JUDGE_HMAC_KEY", ""),  # a source after the one that is asked
    ],
)
def test_an_abort_leaves_out_only_the_variable_that_cannot_be_used(live, name, value):
    live.stage()
    said = live.dosctl("release", "abort", **{name: value})
    assert f"left out: {name}" in said
    assert live.moved == [f"0 0 {BASELINE} "]
    told = stage(live)
    assert (told["stage"], told["release"], told["alarm"]) == ("stable", BASELINE, "")


def test_an_abort_takes_no_key_of_a_later_source_for_one_that_is_empty(live):
    live.stage()
    other = "made-up for this test, 32 bytes or more"
    said = live.dosctl(
        "release", "abort", DECISIONOS_JUDGE_KEYS="", DECISIONOS_JUDGE_HMAC_KEY=other
    )
    assert "left out: DECISIONOS_JUDGE_KEYS: is set and empty" in said
    assert not (live.root / FILE).exists()


def test_a_percentage_that_is_none(live):
    live.dosctl("release", "step", "nan", status=4)
    live.dosctl("release", "step", "101", status=4)


# What a decision is bound to by itself


def test_a_decision_is_bound_to_the_stage(live):
    live.stage()
    sign = ("decision", "sign", "--without-tests", "--json")
    assert "not what the stage says" in live.dosctl(*sign, "--from-pct", "5", status=4)
    assert "less than it has" in live.dosctl(*sign, "--to-pct", "5", status=4)
    told = json.loads(live.dosctl(*sign, "--to-pct", "12"))
    assert (told["from_pct"], told["to_pct"]) == (10.0, 12.0)
    told = json.loads(live.dosctl(*sign))
    assert (told["from_pct"], told["to_pct"]) == (10.0, 25.0)
    assert told["stage_sha256"] == stage(live)["sha256"]


def test_a_decision_without_a_stage_allows_nothing(live):
    told = json.loads(live.dosctl("decision", "sign", "--without-tests", "--json"))
    assert (told["from_pct"], told["to_pct"], told["stage_sha256"]) == (None, None, None)


def test_a_gate_takes_no_copies_for_users(live):
    live.stage()
    live.later = timedelta()
    blocks = json.loads((live.root / "evidence/latest.json").read_text())
    blocks["witness"]["harvest"]["shadow"] = True
    live.evidence(blocks)
    said = script(live, GATE, status=2)
    assert "copies of requests count as the canary's, which has users" in said
    assert stage(live)["pct"] == 10.0
    said = live.dosctl("decision", "sign", "--without-tests", status=2)
    assert "bundle.bound:not_allowed" in said
