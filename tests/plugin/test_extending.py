"""The example of docs/extending.md, as it stands there: installed, judged, and broken."""

import json
import re
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pytest_decisionos.cli.main import cli, run
from pytest_decisionos.hookspecs import plugins
from pytest_decisionos.testing import healthy

PAGE = Path(__file__).parents[2] / "docs/extending.md"
NAMED_BLOCK = re.compile(
    r"^```\w+\n# (\S+\.(?:py|toml|yaml))\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
FILES = dict(NAMED_BLOCK.findall(PAGE.read_text(encoding="utf-8")))
QUORUM = ("judge", "quorum", "--slo", "configs/slo/slo-checkout.yaml", "--quorum", "2/2", "--json")


def write_probes(project, failed, *, ago=60.0):
    """200 probes, the first ``failed`` of which failed; the last one ``ago`` seconds ago."""
    now = datetime.now(UTC)
    rows = [
        {"ts": (now - timedelta(seconds=ago + i)).isoformat(), "ok": i >= failed}
        for i in range(200)
    ]
    project.write("var/log/probes.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def example(project):
    """The page's example in a folder of its own, its package installed as pip would."""
    for name, text in FILES.items():
        project.write(name, text)
    spec = tomllib.loads(FILES["pyproject.toml"])["project"]
    info = f"{spec['name'].replace('-', '_')}-{spec['version']}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {spec['name']}\nVersion: {spec['version']}\n"
    points = "".join(f"{k} = {v}\n" for k, v in spec["entry-points"]["decisionos"].items())
    project.write(f"{info}/METADATA", head)
    project.write(f"{info}/entry_points.txt", f"[decisionos]\n{points}")
    project.evidence(healthy(datetime.now(UTC)))
    write_probes(project, failed=1)
    return project


def test_the_example_under_pytester(example, pytester):
    result = pytester.runpytest_subprocess("gates/", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*release gate: GO*", "*slo *GO, quorum*probes pass*"])
    assert result.ret == 0


def told(result):
    text = result.stdout + result.stderr
    assert "Traceback" not in text, text
    assert "INTERNALERROR" not in text, text
    return text


def judged(project):
    """Exit status and decision of ``dosctl judge quorum``."""
    result = project.dosctl(*QUORUM, DECISIONOS_ALLOW_SCOPES="judge:run")
    told(result)
    return result.returncode, json.loads(result.stdout)


def ballots(decision):
    (slo,) = decision["slos"]
    return {ballot["judge"]: ballot for ballot in slo["ballots"]}


def both(project, *args):
    """The decision on which ``dosctl judge quorum`` and ``pytest gates/`` agree; pytest's output."""
    status, alone = judged(project)
    result = project.pytest("gates/", *args)
    text = told(result)
    whole = project.decision
    assert whole is not None, text
    for said in (alone, whole):
        assert said["verdict"] == whole["verdict"]
        assert said["action"] == whole["action"]
        votes = {judge: ballot["vote"] for judge, ballot in ballots(said).items()}
        assert votes == {judge: ballot["vote"] for judge, ballot in ballots(whole).items()}
        assert [r["code"] for r in said["reasons"]] == [r["code"] for r in whole["reasons"]]
    assert (status, result.returncode) == {"GO": (0, 0), "NO-GO": (2, 1)}[whole["verdict"]]
    return whole, text


def test_the_page_has_the_whole_example():
    assert set(FILES) == {
        "our_probes.py", "pyproject.toml", "configs/gate.yaml", "configs/slo/slo-checkout.yaml",
        "gates/test_own.py", "tests/test_our_slo.py",
    }  # fmt: skip


@pytest.mark.parametrize("how", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_judge_source_check_and_reporter(example, how):
    decision, text = both(example, "-v", *how)
    assert decision["verdict"] == "GO"
    assert {judge: b["vote"] for judge, b in ballots(decision).items()} == {
        "evidence": "pass",
        "probes": "pass",
    }
    probes = next(judge for judge in decision["judges"] if judge["id"] == "probes")
    assert (probes["source"], probes["recomputed"]) == ("probes", ["perf"])
    observed = {
        o["id"]: (o["observed"], o["samples"]) for o in ballots(decision)["probes"]["outcomes"]
    }
    assert observed["error.error_rate"] == (1 / 200, 200)
    assert observed["latency.p95"] == (400.0, 80_000), "what it does not measure stays as sealed"
    checks = {check["id"]: check["status"] for check in decision["checks"]}
    assert checks["check.no-freeze"] == "successful"
    for test in ("slo-checkout::error.error_rate@probes", "check.no-freeze", "test_own.py"):
        assert test in text
    news = (example.path / "var/gate/news.txt").read_text().splitlines()
    assert len(news) == 1
    assert news[0].endswith("checkout/production/eu-1/all GO proceed")


def test_the_judge_votes_by_what_its_source_saw(example):
    write_probes(example, failed=8)
    decision, text = both(example)
    assert decision["verdict"] == "NO-GO"
    assert {judge: b["vote"] for judge, b in ballots(decision).items()} == {
        "evidence": "pass",
        "probes": "fail",
    }
    assert [(r["code"], r["judges"]) for r in decision["reasons"]] == [
        ("error.error_rate:over", ["probes"])
    ]
    assert "4 %" in text
    assert (example.path / "var/gate/news.txt").read_text().endswith("NO-GO abort\n")


def test_a_source_with_nothing_to_look_at_abstains(example):
    (example.path / "var/log/probes.jsonl").unlink()
    decision, _ = both(example)
    assert decision["verdict"] == "NO-GO"
    assert ballots(decision)["probes"]["vote"] == "abstain"


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda project: write_probes(project, 0, ago=7200), "no probe in"),
        (lambda project: project.write("var/log/probes.jsonl", "{"), "JSONDecodeError"),
    ],
    ids=["stale", "torn"],
)
def test_a_source_that_raises_is_an_error_vote(example, break_it, said):
    break_it(example)
    decision, text = both(example)
    assert decision["verdict"] == "NO-GO"
    ballot = ballots(decision)["probes"]
    assert ballot["vote"] == "error"
    assert said in ballot["reason"]
    assert {r["code"].partition(":")[2] for r in decision["reasons"]} == {"source_missing"}
    assert said in text


def test_the_check_must_pass(example):
    example.write("var/freeze.txt", "감사 주간 (audit week)\n")
    decision, text = both(example)
    assert decision["verdict"] == "NO-GO"
    assert {b["vote"] for b in ballots(decision).values()} == {"pass"}
    assert [r["code"] for r in decision["reasons"]] == ["check.no-freeze:frozen"]
    assert "audit week" in text


def test_a_check_that_raises_is_an_error(example):
    (example.path / "var/freeze.txt").write_bytes(b"\xff")
    decision, text = both(example)
    assert decision["verdict"] == "NO-GO"
    assert [r["code"] for r in decision["reasons"]] == ["check.no-freeze:raised"]
    assert "UnicodeDecodeError" in text


def test_a_reporter_that_raises_is_told_and_changes_nothing(example):
    (example.path / "var/gate/news.txt").mkdir(parents=True)
    result = example.pytest("gates/")
    assert result.returncode == 0, told(result)
    assert "reporter our-probes raised" in result.stderr
    assert "IsADirectoryError" in result.stderr
    assert example.decision["verdict"] == "GO"


HOOK = "from pytest_decisionos.hookspecs import hookimpl\n@hookimpl\n"
BROKEN = {
    "no import": ("import nothing_of_that_name\n", "nothing_of_that_name"),
    "ends the process": ("raise SystemExit(0)\n", "SystemExit"),
    "unknown hook": (f"{HOOK}def decisionos_jury():\n    pass\n", "decisionos_jury"),
    "judges raise": (f"{HOOK}def decisionos_judges():\n    raise SystemExit(0)\n", "SystemExit"),
    "no judges": (f"{HOOK}def decisionos_judges():\n    return ['me']\n", "JudgeConfig"),
    "sources raise": (f"{HOOK}def decisionos_sources():\n    1 / 0\n", "ZeroDivisionError"),
    "no sources": (f"{HOOK}def decisionos_sources():\n    return ['me']\n", "a mapping"),
    "checks raise": (f"{HOOK}def decisionos_checks():\n    1 / 0\n", "ZeroDivisionError"),
    "no function": (f"{HOOK}def decisionos_checks():\n    return {{'x': 1}}\n", "functions"),
    "name twice": (f"{HOOK}def decisionos_checks():\n    return {{'no-freeze': print}}\n", "taken"),
}


def install_another(project, text):
    info = "another-1.dist-info"
    project.write("another.py", text)
    project.write(f"{info}/METADATA", "Metadata-Version: 2.1\nName: another\nVersion: 1\n")
    project.write(f"{info}/entry_points.txt", "[decisionos]\nanother = another\n")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_package_ends_the_run_in_one_line(example, name, monkeypatch, capsys):
    text, said = BROKEN[name]
    install_another(example, text)
    monkeypatch.chdir(example.path)
    monkeypatch.syspath_prepend(example.path)
    monkeypatch.setenv("DECISIONOS_ALLOW_SCOPES", "judge:run")
    plugins.cache_clear()
    try:
        assert run(cli, list(QUORUM)) == 4
    finally:
        plugins.cache_clear()
        for module in ("another", "our_probes"):
            sys.modules.pop(module, None)
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1
    assert said in err


def test_an_exit_of_a_package_is_not_the_gates(example):
    install_another(example, "raise SystemExit(0)\n")
    result = example.pytest("gates/")
    assert result.returncode == 4
    assert "SystemExit" in told(result)
    assert example.decision is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("raise SystemExit(0)", "SystemExit"),
        ("return []", "dictionary"),
        ("return {'perf': {'error_rate': float('nan'), 'count': 200}}", "not finite"),
        ("return {'perf': {'error_rate': {0.0}, 'count': 200}}", "not JSON serializable"),
    ],
    ids=["exit", "list", "nan", "set"],
)
def test_a_source_that_answers_nonsense_is_an_error_vote(example, answer, said):
    module = FILES["our_probes.py"].replace('"probes": probes', '"probes": nonsense')
    example.write("our_probes.py", f"{module}\n\ndef nonsense(request):\n    {answer}\n")
    decision, _ = both(example)
    assert decision["verdict"] == "NO-GO"
    assert ballots(decision)["probes"]["vote"] == "error"
    assert said in ballots(decision)["probes"]["reason"]


@pytest.mark.parametrize(
    ("what", "status", "verdict"),
    [
        ("def no_freeze(request):", 1, "NO-GO"),
        ("def decisionos_report(decision, folder):", 0, "GO"),
    ],
    ids=["check", "reporter"],
)
def test_an_exit_of_a_check_or_reporter_is_not_the_gates(example, what, status, verdict):
    assert what in FILES["our_probes.py"]
    module = FILES["our_probes.py"].replace(what, f"{what}\n    raise SystemExit(0)")
    example.write("our_probes.py", module)
    result = example.pytest("gates/")
    assert result.returncode == status
    assert "SystemExit" in told(result)
    assert example.decision["verdict"] == verdict


def test_a_quorum_of_another_number_of_judges_is_refused(example):
    gate = FILES["configs/gate.yaml"].replace("2/2", "1/1")
    example.write("configs/gate.yaml", gate)
    for result in (
        example.pytest("gates/"),
        example.dosctl(*QUORUM, DECISIONOS_ALLOW_SCOPES="judge:run"),
    ):
        assert result.returncode == 4
        assert "2 judges are configured" in told(result)


def test_a_check_that_nobody_offers_is_refused(example):
    example.write("configs/gate.yaml", FILES["configs/gate.yaml"].replace("no-freeze", "no-frost"))
    result = example.pytest("gates/")
    assert result.returncode == 4
    assert "no-frost" in told(result)
    assert example.decision is None


def test_what_the_failure_of_an_own_test_means(example):
    tests = {
        "evidence": "evidence.blocks is None",
        "slo": "slo.stem == ''",
        "rule, judge": "judge.id != 'probes'",
        "slo, judge": "judge.id != 'probes'",
        "judge": "judge.id != 'probes'",
        "check": "check.id != 'check.no-freeze'",
    }
    for i, (taken, holds) in enumerate(tests.items()):
        example.write(f"gates/test_{i}.py", f"def test_it({taken}):\n    assert {holds}\n")
    result = example.pytest("gates/")
    assert result.returncode == 1, told(result)
    said = {reason["code"]: reason["judges"] for reason in example.decision["reasons"]}
    assert said == {
        "test.gates/test_0.py::test_it:failed": [],
        "test.gates/test_1.py::test_it[slo-checkout]:failed": [],
        "error.error_rate:failed": ["probes"],
        "latency.p95:failed": ["probes"],
        "test.gates/test_3.py::test_it[slo-checkout@probes]:failed": ["probes"],
        "test.gates/test_4.py::test_it[probes]:failed": ["probes"],
        "check.no-freeze:failed": [],
    }


def test_the_unit_tests_of_the_page_pass(example):
    result = example.pytest("tests/", "-q")
    assert result.returncode == 0, told(result)
    assert "3 passed" in result.stdout
    assert "release gate" not in result.stdout
