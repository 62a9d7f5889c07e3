"""People's own gate tests, options, and runs that are none of this plugin's business."""

import json
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest

from pytest_decisionos.gate_tests import Check, GateFailure
from pytest_decisionos.model.outcome import Outcome, Status
from pytest_decisionos.testing import healthy

MODES = [(), ("-n", "2")]


@pytest.mark.parametrize("how", MODES, ids=["plain", "xdist"])
class TestOwnTests:
    def test_a_passing_must_pass_test_keeps_the_go(self, project, how):
        project.write(
            "gates/test_own.py",
            "def test_own(evidence):\n    assert evidence.blocks['perf']['count'] > 1\n",
        )
        assert project.pytest("gates/", *how).returncode == 0
        assert project.decision["verdict"] == "GO"

    @pytest.mark.parametrize(
        ("body", "cause"),
        [
            ("assert evidence.blocks['perf']['count'] < 1", "failed"),
            ("import pytest; pytest.skip('no time')", "skipped"),
            ("import pytest; pytest.xfail('known')", "xfailed"),
            ("raise KeyboardInterrupt", None),
            ("1/0", "failed"),
        ],
    )
    def test_a_must_pass_test_takes_the_go_away(self, project, how, body, cause):
        project.write("gates/test_own.py", f"def test_own(evidence):\n    {body}\n")
        result = project.pytest("gates/", *how)
        assert result.returncode not in (0, 10), result.stdout
        if cause:
            assert project.decision["verdict"] == "NO-GO"
            assert f"test.gates/test_own.py::test_own:{cause}" in {
                r["code"] for r in project.decision["reasons"]
            }
        else:
            # xdist may count the interrupted worker's test as crashed and run all the others.
            assert project.decision is None or project.decision["verdict"] == "NO-GO"

    def test_an_xpass_is_no_pass(self, project, how):
        project.write(
            "gates/test_own.py", "import pytest\n@pytest.mark.xfail\ndef test_own():\n    pass\n"
        )
        assert project.pytest("gates/", *how).returncode == 1
        assert project.decision["verdict"] == "NO-GO"

    def test_a_broken_fixture_or_teardown_takes_the_go_away(self, project, how):
        project.write(
            "gates/test_own.py",
            "import pytest\n@pytest.fixture\ndef late():\n    yield\n    1/0\ndef test_own(late):\n    pass\n",
        )
        assert project.pytest("gates/", *how).returncode == 1
        assert "test.gates/test_own.py::test_own:teardown_failed" in {
            r["code"] for r in project.decision["reasons"]
        }

    def test_a_test_that_takes_judge_is_a_vote(self, scripted, how):
        project = scripted({"s": {"votes": "ppp", "k": 2}})
        project.write("gates/test_own.py", "def test_own(judge):\n    assert judge.id != 'j1'\n")
        result = project.pytest("gates/", *how)
        assert result.returncode == 0, result.stdout
        ballots = {b["judge"]: b["vote"] for b in project.decision["slos"][0]["ballots"]}
        assert ballots == {"j0": "pass", "j1": "fail", "j2": "pass"}
        assert project.decision["slos"][0]["dissent"] == ["j1"]
        project.write("gates/test_own.py", "def test_own(judge):\n    assert judge.id == 'j1'\n")
        assert project.pytest("gates/", *how).returncode == 1
        assert project.decision["action"] == "abort"

    def test_a_vote_on_one_slo_and_on_one_rule(self, scripted, how):
        project = scripted({"s": {"votes": "pp", "k": 1}, "t": {"votes": "pp", "k": 1}})
        project.write(
            "gates/test_own.py",
            "def test_slo(slo, judge):\n    assert slo.stem == 's' or judge.id == 'j0'\n"
            "def test_rule(rule, judge):\n    assert judge.document['perf'] and rule.bound == 0.01\n"
            "def test_words(slo, rule):\n    assert rule in slo.rules and rule.text\n",
        )
        result = project.pytest("gates/", *how)
        assert result.returncode == 0, result.stdout
        votes = {s["slo"]: [b["vote"] for b in s["ballots"]] for s in project.decision["slos"]}
        assert votes == {"s": ["pass", "pass"], "t": ["pass", "fail"]}

    def test_a_failing_test_outside_gates_takes_the_go_away(self, project, how):
        project.write("tests/test_unit.py", "def test_unit():\n    assert False\n")
        assert project.pytest("gates/", "tests/", *how).returncode == 1
        assert project.decision["verdict"] == "NO-GO"

    def test_warnings_and_waivers_are_shown_and_do_not_decide(self, project, how):
        soon = datetime.now(UTC).date().isoformat()
        project.slo(
            "slo-own",
            {
                "latency": {"max_p95_ms": 1, "max_p99_ms": 1800},
                "rules": [
                    {
                        "id": "w",
                        "metric": "/perf/latency_ms/p50",
                        "op": "<=",
                        "bound": 1,
                        "severity": "warn",
                    }
                ],
                "waivers": [
                    {
                        "rule": "latency.p95",
                        "owner": "김민수",
                        "reason": "알려진 문제",
                        "expires": soon,
                    }
                ],
            },
        )
        result = project.pytest("gates/", "-rs", *how)
        assert result.returncode == 0, result.stdout
        assert "김민수" in result.stdout
        assert "알려진 문제" in (project.path / "var/gate/comment.md").read_text()

    def test_parametrised_names_of_ours_elsewhere_are_left_alone(self, project, how):
        project.write(
            "gates/test_own.py",
            "import pytest\n@pytest.mark.parametrize('rule', [1, 2])\ndef test_own(rule):\n    assert rule in (1, 2)\n"
            "@pytest.mark.parametrize(('judge', 'x'), [('a', 1)])\ndef test_more(judge, x):\n    assert judge == 'a'\n",
        )
        result = project.pytest("gates/", *how)
        assert result.returncode == 0, result.stdout


def test_ids_are_the_designs(project):
    result = project.pytest("gates/", "--collect-only", "-q")
    listed = [line for line in result.stdout.splitlines() if line.startswith("gates/")]
    assert listed == [
        *(f"gates/test_evidence.py::test_evidence[evidence.{name}]" for name in ("integrity", "freshness", "blocks", "target", "harvest")),
        "gates/test_slo.py::test_rule[slo-own::budget.levels@evidence]",
        "gates/test_slo.py::test_rule[slo-own::latency.p95@evidence]",
        "gates/test_slo.py::test_rule[slo-own::latency.p99@evidence]",
    ]  # fmt: skip


def test_who_says_that_it_failed(project):
    project.slo("slo-own", {"latency": {"max_p95_ms": 1, "max_p99_ms": 1800}})
    said = project.pytest("gates/").stdout
    assert {line for line in said.splitlines() if line.startswith("judge: ")} == {
        "judge:       evidence"  # the others abstain
    }
    outcome = Outcome(id="check.x", status=Status.FAILED, cause="over", message="too much")
    with pytest.raises(GateFailure, match="check.x:over") as fault:
        Check(outcome).pass_or_fail()
    assert "judge" not in str(fault.value)  # nobody votes on a check


def test_getting_a_parametrised_fixture_by_name_is_an_error(project):
    project.write(
        "gates/test_own.py", "def test_own(request):\n    request.getfixturevalue('judge')\n"
    )
    result = project.pytest("gates/")
    assert result.returncode == 1
    assert "take the fixture judge as an argument" in result.stdout


@pytest.mark.parametrize(
    "args",
    [
        ("-p", "no:terminal"),
        ("-q",),
        ("-qq",),
        ("-p", "no:junitxml"),
        ("--tb=no",),
        ("-v",),
        ("-p", "no:xdist"),
        ("--color=yes",),
        ("-s",),
    ],
)
def test_works_with(project, args):
    result = project.pytest("gates/", *args)
    assert result.returncode == 0, result.stdout + result.stderr
    assert project.decision["verdict"] == "GO"


class TestOptions:
    """Each option, its ini twin and its variable, in that order of precedence."""

    @pytest.fixture
    def strict(self, project):
        project.write("configs/slo/slo-strict.json", json.dumps({"latency": {"max_p95_ms": 1}}))
        return project

    def judged(self, project):
        return [slo["slo"] for slo in project.decision["slos"]]

    @pytest.mark.parametrize("way", ["option", "glob", "env", "ini"])
    def test_slo_adds(self, strict, way):
        file = "configs/slo/slo-strict.json"
        args, env = ["gates/"], {}
        if way == "option":
            args += ["--decisionos-slo", file, "--decisionos-slo", file]
        elif way == "glob":
            args += ["--decisionos-slo", "configs/slo/*.json"]
        elif way == "env":
            env = {"DECISIONOS_SLO": file}
        else:
            strict.write("pytest.ini", f"[pytest]\ndecisionos_slo =\n    {file}\n")
        assert strict.pytest(*args, **env).returncode == 1
        assert self.judged(strict) == ["slo-own", "slo-strict"]

    @pytest.mark.parametrize("way", ["option", "env", "ini"])
    @pytest.mark.parametrize(
        ("name", "value", "prepare"),
        [
            (
                "evidence",
                "elsewhere.json",
                lambda p: (p.path / "var/evidence/latest.json").rename(p.path / "elsewhere.json"),
            ),
            ("gate", "other/gate.yaml", lambda p: (p.path / "configs").rename(p.path / "other")),
            ("root", "other", lambda p: (p.path / "var").rename(p.path / "other")),
        ],
    )
    def test_paths(self, project, way, name, value, prepare):
        prepare(project)
        args, env = ["gates/"], {}
        if way == "option":
            args.append(f"--decisionos-{name}={value}")
        elif way == "env":
            env = {f"DECISIONOS_{name.upper()}": value}
        else:
            project.write("pytest.ini", f"[pytest]\ndecisionos_{name} = {value}\n")
        result = project.pytest(*args, **env)
        assert result.returncode == 0, result.stdout + result.stderr

    def test_option_wins_over_variable_wins_over_ini(self, project):
        project.write("pytest.ini", "[pytest]\ndecisionos_evidence = ini.json\n")
        assert "ini.json" in project.pytest("gates/").stderr
        assert "env.json" in project.pytest("gates/", DECISIONOS_EVIDENCE="env.json").stderr
        result = project.pytest(
            "gates/", "--decisionos-evidence=opt.json", DECISIONOS_EVIDENCE="env.json"
        )
        assert "opt.json" in result.stderr

    def test_quorum_only_tightens(self, scripted):
        project = scripted({"s": {"votes": "ppf", "k": 2}})
        assert project.pytest("gates/", "--decisionos-quorum=3/3").returncode == 1
        assert project.decision["slos"][0]["quorum"]["k"] == 3
        for bad in ("1/3", "2/2", "nonsense"):
            result = project.pytest("gates/", f"--decisionos-quorum={bad}")
            assert result.returncode == 4
            assert result.stderr.startswith("ERROR: ")
            assert project.decision is None

    def test_judges_that_are_not_asked_abstain(self, scripted):
        project = scripted({"s": {"votes": "ppp", "k": 2}})
        assert project.pytest("gates/", "--decisionos-judges=j0,j2").returncode == 0
        votes = {b["judge"]: b["vote"] for b in project.decision["slos"][0]["ballots"]}
        assert votes == {"j0": "pass", "j1": "abstain", "j2": "pass"}
        assert project.pytest("gates/", "--decisionos-judges=j0").returncode == 1
        assert project.pytest("gates/", "--decisionos-judges=nobody").returncode == 4

    def test_phase(self, project):
        result = project.pytest("gates/", "--decisionos-phase=post")
        assert result.returncode == 4
        assert "no such phase" in result.stderr


UNUSABLE = {
    "evidence missing": lambda p: (p.path / "var/evidence/latest.json").unlink(),
    "evidence empty": lambda p: (p.path / "var/evidence/latest.json").write_text(""),
    "evidence a list": lambda p: (p.path / "var/evidence/latest.json").write_text("[]"),
    "evidence cut": lambda p: (p.path / "var/evidence/latest.json").write_text('{"perf": {'),
    "evidence a folder": lambda p: ((p.path / "var/evidence/latest.json").unlink(), (p.path / "var/evidence/latest.json").mkdir()),
    "evidence NaN": lambda p: (p.path / "var/evidence/latest.json").write_text('{"perf": NaN}'),
    "evidence twice": lambda p: (p.path / "var/evidence/latest.json").write_text('{"perf": 1, "perf": 2}'),
    "evidence deep": lambda p: (p.path / "var/evidence/latest.json").write_text("[" * 100_000),
    "gate broken": lambda p: p.write("configs/gate.yaml", "a: [1"),
    "gate without target": lambda p: p.write("configs/gate.yaml", "version: 1\nphases: {cutover: {slos: [slo/slo-own.json]}}\n"),
    "slo broken": lambda p: p.write("configs/slo/slo-own.json", '{"latency": {"max_p96_ms": 1}}'),
    "slo empty": lambda p: p.write("configs/slo/slo-own.json", "{}"),
    "slo missing": lambda p: (p.path / "configs/slo/slo-own.json").unlink(),
    "labels missing": lambda p: (p.path / "configs/labels.json").unlink(),
    "root a file": lambda p: ((p.path / "var/evidence/latest.json").unlink(), (p.path / "var/evidence").rmdir(), p.write("x", ""), (p.path / "x").rename(p.path / "var/evidence")),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_input_is_one_line_and_takes_the_decision_away(project, name):
    assert project.pytest("gates/").returncode == 0
    UNUSABLE[name](project)
    for how in MODES[:1]:
        result = project.pytest("gates/", *how)
        assert result.returncode == 4, result.stdout + result.stderr
        lines = [line for line in result.stderr.splitlines() if line]
        assert len(lines) == 1
        assert lines[0].startswith("ERROR: ")
        assert "Traceback" not in result.stdout + result.stderr
        assert project.decision is None


def test_without_gates_the_plugin_is_inert(project):
    assert project.pytest("gates/").returncode == 0
    before = (project.path / "var/gate/decision.json").read_text()
    project.write(
        "tests/test_unit.py",
        "import sys\n"
        "def test_unit():\n"
        "    heavy = {'pydantic', 'duckdb', 'scipy', 'numpy', 'rich', 'click', 'boto3', 'yaml'}\n"
        "    assert not {m for m in sys.modules if m in heavy or m.startswith('pytest_decisionos.')} - {'pytest_decisionos.plugin'}\n",
    )
    for how in ((), ("-n", "1", "-p", "no:benchmark")):
        if how:
            project.write("tests/test_unit.py", "def test_unit():\n    pass\n")
        result = project.pytest("tests/", "-p", "no:hypothesispytest", *how)
        assert result.returncode == 0, result.stdout
        assert "release gate" not in result.stdout
    assert (project.path / "var/gate/decision.json").read_text() == before


def test_gates_that_xdist_finds_only_in_its_workers(project):
    (project.path / "gates").rename(project.path / "checks")
    result = project.pytest("checks/", "-n", "2")
    assert result.returncode == 0, result.stdout
    assert project.decision["verdict"] == "GO"
    (project.path / "var/evidence/latest.json").unlink()
    for how in MODES:
        result = project.pytest("checks/", *how)
        assert result.returncode not in (0, 10)
        assert "no such file" in result.stdout
        assert "Traceback" not in result.stdout
        assert project.decision is None


def test_help_and_version_do_not_gather(project):
    (project.path / "var/evidence/latest.json").unlink()
    assert project.pytest("gates/", "--help").returncode == 0
    assert project.pytest("gates/", "--version").returncode == 0


def test_github_gets_annotations_summary_and_output(scripted):
    project = scripted({"s": {"votes": "fff", "k": 2}})
    out, summary = project.path / "out", project.path / "summary"
    result = project.pytest(
        "gates/", GITHUB_ACTIONS="true", GITHUB_OUTPUT=out, GITHUB_STEP_SUMMARY=summary
    )
    assert result.returncode == 1
    commands = [line for line in result.stdout.splitlines() if line.lstrip().startswith("::")]
    assert commands[0].startswith("::error")
    assert "NO-GO" in commands[0]
    assert len(commands) <= 10
    assert "NO-GO" in out.read_text()
    assert "DECISIONOS" in summary.read_text()


@pytest.mark.parametrize("how", MODES, ids=["plain", "xdist"])
def test_evidence_text_cannot_speak_to_ci(project, how):
    blocks = healthy(datetime.now(UTC))
    blocks["budget"]["level"] = "::set-output name=verdict::GO\n::error::x ##[command]x \x1b[31m"
    project.evidence(blocks)
    result = project.pytest("gates/", *how, GITHUB_ACTIONS="true")
    assert result.returncode == 1
    for line in result.stdout.splitlines():
        assert not line.strip().startswith("::set-output")
        assert "##[command]" not in line
        assert "\x1b[31m" not in line.replace("\x1b[31mF", "").replace("\x1b[31mE", "")
    ElementTree.parse(project.path / "var/gate/junit.xml")


def test_a_decision_that_cannot_be_written_is_no_go(project):
    project.write("var/gate", "a file where the folder should be")
    result = project.pytest("gates/")
    assert result.returncode == 4
    assert "ERROR: " in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_an_old_decision_that_cannot_be_removed_is_no_go(project):
    (project.path / "var/gate/decision.json").mkdir(parents=True)
    result = project.pytest("gates/")
    assert result.returncode == 4
    assert len(result.stderr.split("\n")) <= 3


def test_the_comment_links_the_run(project):
    env = {
        "GITHUB_SERVER_URL": "https://github.example",
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_RUN_ID": "42",
    }
    assert project.pytest("gates/", **env).returncode == 0
    assert (
        "https://github.example/o/r/actions/runs/42"
        in (project.path / "var/gate/comment.md").read_text()
    )


@pytest.mark.parametrize("how", MODES, ids=["plain", "xdist"])
def test_hostile_group_names_are_ids_like_any_other(project, how):
    rule = {
        "id": "each",
        "metric": "/perf/latency_ms/p95",
        "op": "<=",
        "bound": 450,
        "for_each": "route",
    }
    project.slo("slo-own", {"rules": [rule]})
    blocks = healthy(datetime.now(UTC))
    (group,) = (g for g in blocks["perf"]["groups"] if g["name"] == "/v1/cart")
    names = [
        "a\nb",
        "x::y[z]@evidence",
        "\x00\x1b[31m",
        "한빛 ",
        "",
        "x" * 5000,
        "::error::x",
        "%0A",
        "\u202e",
        "a/../b",
    ]
    blocks["perf"]["groups"] = [{**group, "name": name} for name in names]
    project.evidence(blocks)
    result = project.pytest("gates/", "--junitxml=own.xml", *how)
    assert result.returncode == 0, result.stdout[-3000:]
    ids = {o["id"] for o in project.decision["slos"][0]["ballots"][0]["outcomes"]}
    assert ids == {"rules.each", *(f"rules.each[{name}]" for name in names)}
    blocks["perf"]["groups"] = [
        {**group, "name": name, "latency_ms": {"p95": 9000.0}} for name in names
    ]
    project.evidence(blocks)
    result = project.pytest("gates/", "--junitxml=own.xml", *how)
    assert result.returncode == 1
    assert "INTERNALERROR" not in result.stdout
    assert "\x1b[31m\x00" not in result.stdout
    for file in ("own.xml", "var/gate/junit.xml"):
        ElementTree.parse(project.path / file)


@pytest.mark.parametrize("how", MODES, ids=["plain", "xdist"])
def test_run_in_the_gates_folder(project, how):
    whole = project.path
    project.path = whole / "gates"
    result = project.pytest(*how)
    project.path = whole
    assert result.returncode == 0, result.stdout + result.stderr
    assert project.decision["verdict"] == "GO"
    (whole / "var/evidence/latest.json").unlink()
    project.path = whole / "gates"
    result = project.pytest(*how)
    project.path = whole
    assert result.returncode == 4
    assert project.decision is None
