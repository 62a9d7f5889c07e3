"""The whole way as its users go it: keys, trust file, sealed evidence, tests, signature, proof."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_decisionos.cli.main import cli, run
from pytest_decisionos.testing import TARGET

pytestmark = pytest.mark.slow
JUDGES = ("evidence", "witness", "peer")


class Desk:
    """Somebody's desk: a project, and keys and trust file outside of it."""

    def __init__(self, project, keys):
        self.project, self.keys, self.trust = project, keys, keys / "trust.json"
        self.env = {
            "DECISIONOS_ALLOW_SCOPES": "judge:run",
            "DECISIONOS_JUDGE_KEYS": f"@{keys / 'ring.json'}",
            "DECISIONOS_KEYS_DIR": str(keys),
            "DECISIONOS_TRUST": str(self.trust),
            "DECISIONOS_STATE_DIR": str(keys / "state"),
        }

    def dosctl(self, *args, status=0, **env):
        done = self.project.dosctl(*args, **{**self.env, **env})
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def pytest(self, *args):
        return self.project.pytest("gates", *args, **self.env)

    @property
    def bundles(self):
        folder = self.project.path / "var/gate/bundle"
        return sorted(folder.iterdir()) if folder.exists() else []


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Keys and a trust file, made once by the commands; the policy comes with the project."""
    keys = tmp_path_factory.mktemp("ready")
    keys.chmod(0o700)
    trust, where = str(keys / "trust.json"), str(TARGET)

    def dosctl(*args):
        assert run(cli, list(args)) == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DECISIONOS_KEYS_DIR", str(keys))
        patch.setenv("DECISIONOS_TRUST", trust)
        dosctl("keys", "gen", "--use", "evidence", "--ring", str(keys / "ring.json"))
        dosctl("keys", "gen", "--role", "gate")
        dosctl("trust", "init", "--out", trust, "--expires", "30d", "--min-k", "2", "--min-n", "3")
        dosctl("trust", "add", "--key", str(keys / "gate.pub"), "--role", "gate", "--target", where)
        for judge in JUDGES:
            dosctl("keys", "gen", "--role", "judge", "--judge", judge)
            public = str(keys / f"judge-{judge}.pub")
            dosctl(
                *("trust", "add", "--key", public, "--role", "judge"),
                *("--judge", judge, "--target", where),
            )
    return keys


@pytest.fixture
def desk(project, ready, tmp_path_factory):
    keys = tmp_path_factory.mktemp("desk") / "keys"
    shutil.copytree(ready, keys)
    desk = Desk(project, keys)
    # Three judges that all believe the sealed numbers: what is tested is who signed.
    project.gate(judges=[(judge, "evidence") for judge in JUDGES], quorum="2/3")
    policy = desk.dosctl("decision", "policy").strip()
    desk.dosctl("trust", "add", "--policy", policy)
    desk.dosctl("evidence", "seal", "var/evidence/latest.json")
    return desk


def test_from_evidence_to_proof(desk, tmp_path):
    assert desk.pytest().returncode == 0
    assert "MAC of key" in "\n".join(c["message"] for c in desk.project.decision["checks"])
    said = desk.dosctl("decision", "sign", "--from-pct", "5", "--to-pct", "25")
    assert said.startswith("GO, proceed: signed, until ")
    (folder,) = desk.bundles
    said = desk.dosctl("verify", str(folder), "--fresh", "--target", str(TARGET))
    assert said.splitlines()[-1] == "verified"
    assert "5 → 25 %" in said
    told = json.loads(desk.dosctl("verify", str(folder), "--json"))
    assert told["verified"] is True
    assert told["decision"]["tests_sha256"]
    # An auditor needs the bundle and the trust file, and nothing else.
    shutil.copytree(folder, tmp_path / "copy")
    elsewhere = {**os.environ, "DECISIONOS_STATE_DIR": str(tmp_path / "state")}
    command = [sys.executable, "-m", "pytest_decisionos.cli.main", "verify"]
    command += [str(tmp_path / "copy"), "--trust", str(desk.trust)]
    done = subprocess.run(
        command, cwd="/", env=elsewhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # And a changed byte is told.
    evidence = tmp_path / "copy/evidence.json"
    evidence.chmod(0o644)
    evidence.write_text(evidence.read_text().replace("400.0", "401.0", 1))
    done = subprocess.run(
        command, cwd="/", env=elsewhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "tampered: evidence.json was changed" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_test_that_says_no_is_a_veto(desk):
    desk.project.write("gates/test_own.py", "def test_own():\n    assert False\n")
    assert desk.pytest().returncode == 1
    said = desk.dosctl("decision", "sign", status=2)
    assert "the pytest run on this evidence says NO-GO" in said
    # Nor does a flag help against a veto, and a partial run leaves nothing that says yes.
    desk.dosctl("decision", "sign", "--without-tests", status=2)
    assert desk.pytest("-k", "not own").returncode != 0
    said = desk.dosctl("decision", "sign", status=2)
    assert "no whole pytest run left a decision" in said
    assert desk.bundles == []


def test_without_tests_only_if_one_says_so(desk):
    said = desk.dosctl("decision", "sign", status=2)
    assert "or sign with --without-tests" in said
    desk.dosctl("decision", "sign", "--without-tests", "--json")
    assert len(desk.bundles) == 1


def test_a_no_go_leaves_an_unsigned_bundle(desk):
    desk.project.slo("slo-own", {"latency": {"max_p95_ms": 1, "min_samples": 1}})
    assert desk.pytest().returncode == 1
    said = desk.dosctl("decision", "sign", status=2)
    assert said.startswith("NO-GO, abort: unsigned")
    (folder,) = desk.bundles
    said = desk.dosctl("verify", str(folder), status=2)
    assert "unsigned: the decision has no signature: a dry-run" in said


def test_changed_policy_is_not_signed(desk):
    desk.project.slo("slo-own", {"latency": {"max_p95_ms": 99999, "min_samples": 1}})
    said = desk.dosctl("decision", "sign", "--without-tests", status=2)
    assert "is not one that the trust file allows" in said
    assert desk.bundles == []


def test_forged_evidence_is_not_signed(desk):
    path = desk.project.path / "var/evidence/latest.json"
    blocks = json.loads(path.read_text())
    blocks["perf"]["latency_ms"]["p95"] = 1.0
    mac = blocks["integrity"]["mac"]
    from pytest_decisionos.evidence.seal import sealed

    forged = sealed(blocks)  # who has no key can still make the digest good again
    forged["integrity"]["mac"] = mac
    path.write_text(json.dumps(forged))
    said = desk.dosctl("decision", "sign", "--without-tests", status=2)
    assert "evidence.integrity:tampered" in said
    assert desk.pytest().returncode == 1
    # Nor is a document without any MAC.
    path.write_text(json.dumps(sealed(blocks)))
    said = desk.dosctl("decision", "sign", "--without-tests", status=2)
    assert "evidence.integrity:missing" in said


@pytest.mark.parametrize(
    ("env", "status", "said"),
    [
        ({"DECISIONOS_ALLOW_SCOPES": ""}, 3, "scope judge:run is not granted"),
        ({"DECISIONOS_KEYS_DIR": "none"}, 4, "gate.key"),
        ({"DECISIONOS_TRUST": "none.json"}, 4, "none.json"),
        ({"DECISIONOS_TRUST_SHA256": "0" * 64}, 4, "DECISIONOS_TRUST_SHA256"),
        ({"DECISIONOS_DECISION_MAX_AGE": "1"}, 2, "too old to act on"),
        ({"DECISIONOS_DECISION_MAX_AGE": "nan"}, 4, "DECISIONOS_DECISION_MAX_AGE"),
        ({"DECISIONOS_JUDGE_KEYS": "@none.json"}, 4, "none.json"),
        ({"DECISIONOS_JUDGE_KEYS": ""}, 4, "DECISIONOS_JUDGE_KEYS"),
    ],
)
def test_what_is_missing_is_said_in_one_line(desk, env, status, said):
    told = desk.dosctl("decision", "sign", "--without-tests", status=status, **env)
    assert said in told
    assert told.count("\n") == 1
    assert desk.bundles == []


def test_the_key_of_the_gate_is_private(desk):
    (desk.keys / "gate.key").chmod(0o644)
    said = desk.dosctl("decision", "sign", "--without-tests", status=4)
    assert "others may use this secret" in said


@pytest.mark.parametrize("option", ["--from-pct", "--to-pct"])
@pytest.mark.parametrize("share", ["nan", "inf", "-1", "101", "x"])
def test_no_percentage(option, share, monkeypatch, capsys):
    monkeypatch.setenv("DECISIONOS_ALLOW_SCOPES", "judge:run")
    assert run(cli, ["decision", "sign", option, share]) == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_two_slos_of_one_name(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    Path("b").mkdir()
    for folder in "ab":
        Path(f"{folder}/slo.yaml").write_text("latency: {max_p95_ms: 1, min_samples: 1}\n")
    spec = {"service": "a", "environment": "b"}
    phases = {"cutover": {"slos": ["a/slo.yaml", "b/slo.yaml"]}}
    Path("gate.yaml").write_text(json.dumps({"target": spec, "phases": phases}))
    assert run(cli, ["decision", "policy", "--gate", "gate.yaml"]) == 4
    assert "two SLO files have one name" in capsys.readouterr().err


def test_nothing_is_known(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECISIONOS_ALLOW_SCOPES", "judge:run")
    assert run(cli, ["decision", "sign"]) == 4
    assert "export DECISIONOS_KEYS_DIR" in capsys.readouterr().err
    assert run(cli, ["decision", "sign", "--keys", "k"]) == 4
    assert "export DECISIONOS_TRUST" in capsys.readouterr().err
    assert run(cli, ["verify", "b"]) == 4
    assert "export DECISIONOS_TRUST" in capsys.readouterr().err
    assert Path("var").exists() is False
