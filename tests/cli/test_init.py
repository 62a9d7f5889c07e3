"""``dosctl init``, in this process and from a wheel in an environment of its own."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import pytest_decisionos
from pytest_decisionos.cli import init as cli
from pytest_decisionos.errors import PolicyError, UnusableInputError, UsageError
from pytest_decisionos.judge.gate import load_gate, load_labels
from pytest_decisionos.model.target import Target
from pytest_decisionos.report.comment import MARKER
from pytest_decisionos.slo.compile import load_slo

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "pytest_decisionos" / "cli" / "templates"
OWN_WORKFLOW = ROOT / ".github" / "workflows" / "release-gate.yml"
GATE = "configs/gate.yaml"
WORKFLOW = ".github/workflows/release-gate.yml"
GITLAB = ".gitlab-ci-decisionos.yml"


def shipped():
    """Paths of what init takes from the checkout."""
    found = [*ROOT.glob("gates/*.py"), *(p for p in ROOT.glob("configs/**/*") if p.is_file())]
    return {path.relative_to(ROOT).as_posix() for path in found}


def tree(folder):
    """Every file and link below ``folder``, outside .git: path → bytes, or where it leads."""
    return {
        path.relative_to(folder).as_posix(): path.readlink()
        if path.is_symlink()
        else path.read_bytes()
        for path in folder.rglob("*")
        if ".git" not in path.relative_to(folder).parts and (path.is_symlink() or path.is_file())
    }


@pytest.fixture
def repo(tmp_path, monkeypatch):
    folder = tmp_path / "checkout-svc"
    folder.mkdir()
    (folder / ".git").mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(*args):
    result = CliRunner().invoke(cli.init, args)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result.output


class TestWriting:
    def test_writes_gates_configs_workflow_and_nothing_else(self, repo):
        out = run()
        made = tree(repo)
        assert set(made) == shipped() | {WORKFLOW, ".gitignore"}
        assert {line.split()[1] for line in out.splitlines() if line.startswith("wrote")} == set(
            made
        )
        for name in shipped() - {GATE}:
            assert made[name] == (ROOT / name).read_bytes()
        assert made[".gitignore"] == b"var/\n"

    def test_the_target_is_the_folders_name(self, repo):
        run()
        target = Target(service="checkout-svc", environment="production")
        assert load_gate(repo / GATE).target == target

    def test_the_target_as_told_and_every_comment_stays(self, repo):
        run("--service", "결제", "--environment", "staging", "--region", "eu-1", "--tenant", "acme")
        target = Target(service="결제", environment="staging", region="eu-1", tenant="acme")
        gate = load_gate(repo / GATE)
        assert gate.target == target
        ours = load_gate(ROOT / GATE)
        assert gate.spec.model_copy(update={"target": ours.target}) == ours.spec
        before, after = ((root / GATE).read_text(encoding="utf-8") for root in (ROOT, repo))
        comments = re.compile(r"(?m)^#.*$")
        assert comments.findall(after) == comments.findall(before)

    def test_what_it_writes_loads(self, repo):
        run()
        slos = {
            slo.file
            for phase in load_gate(repo / GATE).spec.phases.values()
            for slo in phase.slo_files()
        }
        assert slos
        for name in slos:
            assert load_slo(repo / "configs" / name).rules
        assert load_labels(repo / "configs" / "labels.json").labels

    def test_gitlab(self, repo):
        out = run("--ci", "gitlab")
        assert set(tree(repo)) == shipped() | {GITLAB, ".gitignore"}
        assert f"include: [{{local: {GITLAB}}}]" in out
        assert yaml.safe_load(f"[{{local: {GITLAB}}}]") == [{"local": GITLAB}]

    def test_the_workflow_installs_this_version(self, repo):
        run()
        text = (repo / WORKFLOW).read_text(encoding="utf-8")
        assert f'"pytest-decisionos~={pytest_decisionos.__version__}"' in text
        assert "@VERSION@" not in text

    def test_in_a_folder_that_is_no_repository(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        run("--service", "x")
        assert WORKFLOW in tree(tmp_path)


@given(
    st.text(
        st.characters(exclude_categories=["C", "Z"], exclude_characters="/"),
        min_size=1,
        max_size=128,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_name_survives_in_gate_yaml(name):
    text = cli._with_target(
        (ROOT / GATE).read_text(encoding="utf-8"), Target(service=name, environment="e")
    )
    assert yaml.safe_load(text)["target"]["service"] == name


class TestKeeping:
    def test_a_second_run_keeps_all(self, repo):
        run()
        before = tree(repo)
        out = run("--service", "another")
        assert tree(repo) == before
        assert "wrote" not in out
        assert f"note: --service not used: {GATE} is kept\n" in out
        assert "not used" not in run()
        out = run("--region", "eu-1", "--service", "x")
        assert f"note: --service, --region not used: {GATE} is kept\n" in out
        assert {line.split()[1] for line in out.splitlines() if line.startswith("kept")} == set(
            before
        )

    def test_what_is_there_is_never_touched(self, repo):
        (repo / "configs").mkdir()
        (repo / GATE).write_bytes(b"mine\xff")
        (repo / ".gitignore").write_bytes(b"")
        (repo / "gates").mkdir()
        (repo / "gates/test_slo.py").symlink_to("nowhere.py")
        (repo / "gates/test_evidence.py").mkdir()
        out = run()
        assert (repo / GATE).read_bytes() == b"mine\xff"
        assert (repo / ".gitignore").read_bytes() == b""
        assert not (repo / "gates/nowhere.py").exists()
        assert (repo / "gates/test_evidence.py").is_dir()
        for name in (GATE, ".gitignore", "gates/test_slo.py", "gates/test_evidence.py"):
            assert f"kept   {name}\n" in out
        assert f"{GATE} was there" in out
        assert "See that .gitignore has the line var/" in out
        assert f"wrote  {WORKFLOW}\n" in out


class TestDiff:
    def test_it_writes_nothing_and_is_a_patch_that_makes_the_same(self, repo, tmp_path):
        patch = run("--diff")
        assert tree(repo) == {}
        other = tmp_path / "other"
        other.mkdir()
        command = ["git", "apply", "--whitespace=nowarn", "-"]
        subprocess.run(command, cwd=other, input=patch.encode(), check=True, capture_output=True)
        run()
        assert tree(other) == tree(repo)

    def test_it_shows_how_a_kept_file_differs_and_no_other(self, repo):
        run()
        assert run("--diff") == ""
        path = repo / "gates/test_slo.py"
        path.write_text(path.read_text(encoding="utf-8") + "x = 1\n", encoding="utf-8")
        shown = run("--diff")
        assert shown.startswith("--- a/gates/test_slo.py\n+++ b/gates/test_slo.py\n")
        assert shown.endswith("-x = 1\n")

    def test_what_could_steer_a_terminal_is_not_printed(self, repo):
        (repo / ".gitignore").write_bytes(b"\x1b]0;x\x07\xff\tvar/\n")
        shown = run("--diff")
        assert "-\ufffd]0;x\ufffd\ufffd\tvar/\n" in shown

    def test_a_link_out_of_the_repository_is_not_read(self, repo, tmp_path):
        (tmp_path / "hunter2").write_text("hunter2", encoding="utf-8")
        (repo / ".gitignore").symlink_to(tmp_path / "hunter2")
        shown = run("--diff")
        assert "hunter2" not in shown
        assert "# .gitignore is a link out of the repository: not compared\n" in shown

    def test_too_large_or_no_file(self, repo):
        (repo / ".gitignore").write_bytes(b"x\n" * 600_000)
        with pytest.raises(UnusableInputError, match="too large"):
            run("--diff")
        (repo / ".gitignore").unlink()
        (repo / ".gitignore").mkdir()
        with pytest.raises(UnusableInputError, match="not a regular file"):
            run("--diff")


class TestRefusing:
    @pytest.mark.parametrize("name", ["", "a\nb", "\x1b[31m", "x" * 129, "\u202eevil"])
    def test_a_service_that_is_no_name(self, repo, name):
        with pytest.raises(UsageError) as fault:
            run("--service", name)
        assert "\n" not in str(fault.value)
        assert tree(repo) == {}

    @pytest.mark.parametrize(
        ("option", "name", "says"),
        [("--service", "", "empty"), ("--tenant", "b/c", "has a slash; found b/c")],
    )
    def test_why_it_is_no_name(self, repo, option, name, says):
        with pytest.raises(UsageError) as fault:
            run(option, name)
        assert str(fault.value) == f"{option}: {says} → name it with that option"
        assert tree(repo) == {}

    @pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no such file names")
    def test_a_folders_name_that_is_no_text(self, tmp_path, monkeypatch):
        folder = os.fsencode(tmp_path) + b"/\xff\xfe"
        os.mkdir(folder)
        monkeypatch.chdir(os.fsdecode(folder))
        with pytest.raises(UsageError, match=r"^--service: .*name it with that option$"):
            run()
        assert os.listdir(folder) == []
        run("--service", "x")

    @pytest.mark.parametrize(
        "link", ["configs", "configs/slo", ".github", ".github/workflows", "gates"]
    )
    def test_a_link_that_leaves_the_repository(self, repo, tmp_path, link):
        outside = tmp_path / "outside"
        outside.mkdir()
        (repo / link).parent.mkdir(exist_ok=True)
        (repo / link).symlink_to(outside)
        before = tree(repo)
        for args in ((), ("--diff",)):
            with pytest.raises(UsageError, match="leads out of the repository"):
                run(*args)
        assert tree(repo) == before
        assert list(outside.iterdir()) == []

    def test_a_link_that_stays_inside_is_fine(self, repo):
        (repo / "ci").mkdir()
        (repo / "gates").symlink_to("ci")
        run()
        assert (repo / "ci/test_slo.py").is_file()

    @pytest.mark.parametrize("target", [None, "nowhere", "configs"])
    def test_something_that_is_no_folder_in_the_way(self, repo, target):
        if target is None:
            (repo / "configs").write_text("x", encoding="utf-8")
        else:
            (repo / "configs").symlink_to(target)
        before = tree(repo)
        with pytest.raises(UsageError, match=r"^configs: not a folder"):
            run()
        assert tree(repo) == before

    def test_below_the_top_of_a_repository(self, repo, monkeypatch):
        (repo / "service").mkdir()
        monkeypatch.chdir(repo / "service")
        with pytest.raises(
            UsageError, match=f"not the top folder.*run it in {re.escape(str(repo))}$"
        ):
            run()
        assert tree(repo) == {}

    def test_a_folder_that_is_there_no_more(self, repo):
        repo.joinpath(".git").rmdir()
        repo.rmdir()
        with pytest.raises(UsageError, match="no current folder"):
            run()

    def test_a_damaged_installation(self, repo, tmp_path, monkeypatch):
        package = tmp_path / "site" / "pytest_decisionos"
        (package / "scaffold" / "configs").mkdir(parents=True)
        monkeypatch.setattr(cli, "_PACKAGE", package)
        with pytest.raises(PolicyError, match="a file is missing"):
            run()
        (package / "scaffold" / GATE).write_text("version: 1\n", encoding="utf-8")
        with pytest.raises(PolicyError, match="no such field"):
            run()
        assert tree(repo) == {}


class TestWorkflows:
    @pytest.mark.parametrize(
        ("schema", "path"),
        [
            ("vendor.github-workflows", OWN_WORKFLOW),
            ("vendor.github-workflows", TEMPLATES / "github.yml"),
            ("vendor.gitlab-ci", TEMPLATES / "gitlab.yml"),
        ],
    )
    def test_they_follow_their_schema(self, schema, path):
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout

    @pytest.mark.parametrize("path", [OWN_WORKFLOW, TEMPLATES / "github.yml"])
    def test_least_privilege(self, path):
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {}
        gate, comment = workflow["jobs"]["gate"], workflow["jobs"]["comment"]
        assert gate["permissions"] == {"contents": "read"}
        assert comment["permissions"] == {"pull-requests": "write"}
        assert gate["steps"][0]["with"] == {"persist-credentials": False}
        # The job that may write runs no checkout, and no commands of one.
        assert all("checkout" not in s["uses"] and "run" not in s for s in comment["steps"])
        assert "head.repo.full_name == github.repository" in comment["if"]
        used = [s["uses"] for job in (gate, comment) for s in job["steps"] if "uses" in s]
        assert all(re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", use) for use in used)

    def test_both_post_the_same_way(self):
        ours, theirs = (
            yaml.safe_load(path.read_text(encoding="utf-8"))
            for path in (OWN_WORKFLOW, TEMPLATES / "github.yml")
        )
        assert ours["jobs"]["comment"] == theirs["jobs"]["comment"]
        assert ours["concurrency"] == theirs["concurrency"]
        assert (
            f"const marker = '{MARKER}';" in ours["jobs"]["comment"]["steps"][1]["with"]["script"]
        )

    def test_they_publish_what_the_gate_writes(self):
        gitlab = yaml.safe_load((TEMPLATES / "gitlab.yml").read_text(encoding="utf-8"))
        assert gitlab["release-gate"]["artifacts"]["reports"] == {"junit": "var/gate/junit.xml"}
        assert gitlab["release-gate"]["artifacts"]["when"] == "always"
        assert "release-gate/gate/comment.md" in OWN_WORKFLOW.read_text(encoding="utf-8")


class Installed:
    """The wheel, installed beside our dependencies but without this checkout, and a repository."""

    def __init__(self, folder):
        self.repo = folder / "shop"
        environment = folder / "env"
        dist = folder / "dist"
        self.bin = environment / "bin"
        # Nothing of the caller's: no gate settings, no coverage of a copy that is gone tomorrow.
        unwanted = ("DECISIONOS_", "COV", "PYTHON", "PYTEST", "GITHUB_")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
        self.call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist, cwd=ROOT)
        self.call(sys.executable, "-m", "venv", "--without-pip", environment, cwd=folder)
        (site,) = environment.glob("lib/python*/site-packages")
        # A path in a .pth is searched, but its own .pth files (the editable install) are not read.
        (site / "dependencies.pth").write_text(
            sysconfig.get_path("purelib") + "\n", encoding="utf-8"
        )
        pip = [sys.executable, "-m", "pip", "--python", self.bin / "python", "install", "--quiet"]
        self.call(*pip, "--no-deps", "--no-index", *dist.iterdir(), cwd=folder)
        self.call("git", "init", "--quiet", self.repo, cwd=folder)

    def call(self, *command, cwd=None, code=0):
        result = subprocess.run(
            [str(part) for part in command],
            cwd=cwd or self.repo,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in result.stdout + result.stderr
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout

    def dosctl(self, *args, code=0):
        return self.call(self.bin / "dosctl", *args, code=code)

    def pytest(self, *, code):
        return self.call(self.bin / "python", "-m", "pytest", "gates/", code=code)


@pytest.mark.slow
def test_all_that_a_team_needs(tmp_path):
    team = Installed(tmp_path)
    where = team.call(team.bin / "python", "-c", "import pytest_decisionos as p; print(p.__file__)")
    assert Path(where).is_relative_to(tmp_path)

    told = team.dosctl("init", "--ci", "github")
    made = tree(team.repo)
    assert set(made) == shipped() | {WORKFLOW, ".gitignore"}
    assert load_gate(team.repo / GATE).target.service == "shop"
    assert "wrote" not in team.dosctl("init")
    assert tree(team.repo) == made
    assert team.dosctl("init", "--diff") == ""

    team.pytest(code=4)  # no evidence yet: one line, and never GO
    assert not (team.repo / "var/gate/decision.json").exists()

    # What init told to do next, word by word.
    (told,) = re.findall(r"sample traffic:\n((?: {7}.*\n)+)", told)
    script = "set -e\n" + told.replace("dosctl", f"'{team.bin}/dosctl'").replace(
        "pytest gates/", f"'{team.bin}/python' -m pytest gates/"
    )
    out = team.call("bash", "-c", script)
    decision = json.loads((team.repo / "var/gate/decision.json").read_text(encoding="utf-8"))
    assert (decision["verdict"], decision["action"]) == ("GO", "proceed")
    assert decision["target"]["service"] == "shop"
    assert "GO" in out
    status = team.call("git", "status", "--porcelain", "--untracked-files=all")
    assert {line[3:] for line in status.splitlines() if "__pycache__" not in line} == set(made)
