"""dosctl judge quorum: exit codes, table, JSON, RBAC; and every error as one line."""

import json
import os

import pytest

QUORUM = ("judge", "quorum", "--slo", "configs/slo/s.json")
ALLOWED = {"DECISIONOS_ALLOW_SCOPES": "judge:run"}


@pytest.mark.parametrize(
    ("votes", "mode", "code"),
    [("ppp", "no-go", 0), ("pff", "no-go", 2), ("pia", "hold", 10), ("pia", "no-go", 2)],
)
def test_exit_codes_and_json(scripted, votes, mode, code):
    project = scripted({"s": {"votes": votes, "k": 2, "mode": mode}})
    result = project.dosctl(*QUORUM, **ALLOWED)
    assert result.returncode == code, result.stderr
    assert {0: "GO", 2: "NO-GO", 10: "HOLD"}[code] in result.stdout
    as_json = project.dosctl(*QUORUM, "--json", **ALLOWED)
    assert as_json.returncode == code
    decision = json.loads(as_json.stdout)
    assert [b["vote"][0] for b in decision["slos"][0]["ballots"]] == list(votes)
    assert project.decision is None  # it is the whole gate's file, and this is one SLO


def test_the_table_is_readable_at_80_columns(scripted):
    project = scripted({"s": {"votes": "pff", "k": 2}})
    result = project.dosctl(*QUORUM, **ALLOWED, COLUMNS="80")
    for word in "rule observed limit bound margin rules.r j0 j2".split() + ["10 %", "1 %"]:
        assert word in result.stdout, result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    "scopes", ["", "ops:read", "judge:runs", "judge", "deploy:*", "judge:run:x"]
)
def test_denied_without_the_scope(scripted, scopes):
    project = scripted({"s": {"votes": "p", "k": 1}})
    result = project.dosctl(*QUORUM, DECISIONOS_ALLOW_SCOPES=scopes)
    assert result.returncode == 3
    assert result.stderr.startswith(
        "error: DECISIONOS_ALLOW_SCOPES: scope judge:run is not granted"
    )
    assert result.stdout == ""


@pytest.mark.parametrize("scopes", ["*", "judge:*", "ops:read, judge:run", "ops:read judge:run"])
def test_allowed_with_it(scripted, scopes):
    project = scripted({"s": {"votes": "p", "k": 1}})
    assert project.dosctl(*QUORUM, DECISIONOS_ALLOW_SCOPES=scopes).returncode == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("judge", "quorum"), "Missing option"),
        (("judge", "quorum", "--slo", "none.json"), "no such file"),
        ((*QUORUM, "--evidence", "none.json"), "dosctl evidence build"),
        ((*QUORUM, "--quorum", "1/3"), "only be tightened"),
        ((*QUORUM, "--quorum", "5/3"), "not a quorum"),
        ((*QUORUM, "--quorum", "2/2"), "3 judges are configured"),
        ((*QUORUM, "--judges", "nobody"), "no such judge"),
        ((*QUORUM, "--phase", "post"), "no such phase"),
        ((*QUORUM, "--gate", "none.yaml"), "dosctl init"),
        ((*QUORUM, "--nonsense"), "No such option"),
        (("judge", "nonsense"), "No such command"),
        (("nonsense",), "No such command"),
    ],
)
def test_unusable_is_one_line_and_exit_4(scripted, args, says):
    project = scripted({"s": {"votes": "ppp", "k": 2}})
    result = project.dosctl(*args, **ALLOWED)
    assert result.returncode == 4, result.stdout
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_a_bad_variable_is_named(project):
    result = project.dosctl(*QUORUM, DECISIONOS_PHASE="x" * 100, **ALLOWED)
    assert result.returncode == 4
    assert "DECISIONOS_PHASE" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("judge",),
        ("judge", "quorum"),
        ("evidence",),
        ("evidence", "build"),
        ("slo", "lint"),
        ("sample",),
        ("init",),
    ],
)
def test_help_has_an_example(project, command):
    result = project.dosctl(*command, "--help")
    assert result.returncode == 0
    if command not in (("judge",), ("evidence",)):
        assert "Example" in result.stdout or "example" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 90


def test_an_slo_whose_name_is_not_utf8(scripted):
    project = scripted({"s": {"votes": "ppp", "k": 2}})
    name = os.fsdecode(b"configs/slo/\xff.json")
    project.write(name, (project.path / "configs/slo/s.json").read_text())
    done = project.dosctl("judge", "quorum", "--slo", name, "--json", **ALLOWED)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["slos"][0]["file"].endswith("\\udcff.json")


@pytest.mark.parametrize(
    ("file", "says"),
    [("slo/a\0b.json", "has a null character"), ("slo/loop.json", "loop.json: no such file")],
)
def test_an_slo_of_gate_yaml_that_no_file_can_be(project, file, says):
    project.slo("s", {"latency": {"max_p95_ms": 900}})
    (project.path / "configs/slo/loop.json").symlink_to("loop.json")
    path = project.path / "configs/gate.yaml"
    gate = json.loads(path.read_text())
    gate["phases"]["cutover"]["slos"] = ["slo/s.json", file]
    path.write_text(json.dumps(gate))
    assert "Traceback" not in project.dosctl(*QUORUM, **ALLOWED).stderr
    done = project.pytest("gates/")
    assert done.returncode == 4
    assert says in done.stdout + done.stderr
    assert "INTERNALERROR" not in done.stdout + done.stderr


def test_added_checks_must_pass(project):
    text = """
from pytest_decisionos.hookspecs import hookimpl
from pytest_decisionos.model.outcome import Outcome, Status

def disk(request):
    ok = request.params.get("free", 0) > 10
    return Outcome(id="x", status=Status.SUCCESSFUL if ok else Status.FAILED, cause=None if ok else "under", severity="warn")

def broken(request):
    raise OSError("no disk")

@hookimpl
def decisionos_checks():
    return {"disk": disk, "broken": broken, "nothing": lambda request: None}
"""
    project.install("our_checks", text)
    project.slo("s", {"latency": {"max_p95_ms": 900}})
    for checks, code, reason in (
        ([{"name": "disk", "params": {"free": 11}}], 0, None),
        ([{"name": "disk", "params": {"free": 1}}], 2, "check.disk:under"),
        (["disk"], 2, "check.disk:under"),
        (["broken"], 2, "check.broken:raised"),
        (["nothing"], 2, "check.nothing:wrong_type"),
    ):
        project.gate(judges=[("evidence", "evidence")], slos=["s"], checks=checks)
        result = project.dosctl(*QUORUM, "--json", **ALLOWED)
        assert result.returncode == code, result.stderr
        codes = {r["code"] for r in json.loads(result.stdout)["reasons"]}
        assert codes == ({reason} if reason else set())
        assert project.pytest("gates/").returncode == (1 if code else 0)
    project.gate(judges=[("evidence", "evidence")], slos=["s"], checks=["unknown"])
    assert project.dosctl(*QUORUM, **ALLOWED).returncode == 4
    assert project.pytest("gates/").returncode == 4
