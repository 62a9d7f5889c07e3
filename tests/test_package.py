"""The distribution: its version, what importing it costs, and what its wheel holds."""

import email
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import pytest_decisionos

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = {"pydantic", "duckdb", "numpy", "scipy", "rich", "boto3", "cryptography", "hypothesis"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    (path,) = out.iterdir()
    with zipfile.ZipFile(path) as archive:
        yield archive


def metadata(wheel, name):
    info = f"pytest_decisionos-{PROJECT['version']}.dist-info"
    return wheel.read(f"{info}/{name}").decode()


def loaded_by(code):
    """The top-level modules that ``code`` loads in an interpreter of its own."""
    tail = "; import sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    run = subprocess.run(
        [sys.executable, "-c", code + tail], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return set(json.loads(run.stdout))


def test_one_version():
    assert pytest_decisionos.__version__ == PROJECT["version"]
    assert importlib.metadata.version("pytest-decisionos") == PROJECT["version"]


@pytest.mark.parametrize("module", ["pytest_decisionos", "pytest_decisionos.errors"])
def test_importing_it_loads_nothing_heavy(module):
    assert not loaded_by(f"import {module}") & HEAVY


def test_the_plugin_loads_nothing_heavy_beside_pytest():
    before = loaded_by("import pytest")
    added = loaded_by("import pytest, pytest_decisionos.plugin") - before
    assert not added & HEAVY


def test_every_public_name_resolves():
    assert pytest_decisionos.__all__
    for name in pytest_decisionos.__all__:
        assert getattr(pytest_decisionos, name).__name__ == name
    assert set(pytest_decisionos.__all__) <= set(dir(pytest_decisionos))


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Verdicts'"):
        _ = pytest_decisionos.Verdicts


def test_entry_points_resolve():
    points = importlib.metadata.distribution("pytest-decisionos").entry_points
    found = {(point.group, point.name): point.load() for point in points}
    assert callable(found["console_scripts", "dosctl"])
    assert hasattr(found["pytest11", "decisionos"], "pytest_addoption")


def test_the_wheel_says_what_it_is(wheel):
    head = email.message_from_string(metadata(wheel, "METADATA"))
    assert (head["Name"], head["Version"]) == ("pytest-decisionos", PROJECT["version"])
    assert head["Requires-Python"] == ">=3.11"
    assert "Framework :: Pytest" in head.get_all("Classifier")
    points = metadata(wheel, "entry_points.txt")
    assert "dosctl = pytest_decisionos.cli.main:main" in points
    assert "[pytest11]\ndecisionos = pytest_decisionos.plugin" in points


def test_every_requirement_has_a_lower_bound():
    without = [entry for entry in PROJECT["dependencies"] if ">=" not in entry]
    assert not without


def shipped(folder, pattern):
    return {path for path in folder.rglob(pattern) if "__pycache__" not in path.parts}


def test_the_wheel_holds_every_module_and_data_file_and_no_more(wheel):
    package = ROOT / "pytest_decisionos"
    ours = {path.relative_to(ROOT).as_posix() for path in shipped(package, "*") if path.is_file()}
    assert "pytest_decisionos/py.typed" in ours
    scaffold = {
        f"pytest_decisionos/scaffold/{path.relative_to(ROOT).as_posix()}"
        for folder in ("gates", "configs")
        for path in shipped(ROOT / folder, "*")
        if path.is_file()
    }
    assert "pytest_decisionos/scaffold/configs/gate.yaml" in scaffold
    assert "pytest_decisionos/scaffold/gates/test_slo.py" in scaffold
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == ours | scaffold


def test_the_wheels_scaffold_is_the_checkouts(wheel):
    for name in ("gates/test_slo.py", "gates/test_evidence.py", "configs/gate.yaml"):
        assert wheel.read(f"pytest_decisionos/scaffold/{name}") == (ROOT / name).read_bytes()


class Machine:
    """A PATH on which only these programs are found; ``scripts`` are made up for the test."""

    def __init__(self, folder, *programs, **scripts):
        self.path = folder / "bin"
        self.path.mkdir()
        for name in ("bash", "dirname", *programs):
            (self.path / name).symlink_to(shutil.which(name))
        for name, text in scripts.items():
            file = self.path / name.replace("_", "-")
            file.write_text(f"#!{shutil.which('bash')}\n{text}\n", encoding="utf-8")
            file.chmod(0o755)

    def run(self, script, *args):
        """(exit status, standard output, standard error)"""
        done = subprocess.run(
            ["bash", str(ROOT / "scripts" / script), *map(str, args)],
            env={"PATH": str(self.path), "SBIN": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr


SHIM = "echo not installed; exit 127"  # what a version manager leaves for a version it lacks


class TestSetup:
    def test_without_python(self, tmp_path):
        code, _, said = Machine(tmp_path, python3=SHIM).run("setup.sh", tmp_path / "venv")
        assert (code, said.count("\n")) == (1, 1)
        assert said.startswith("setup: no Python 3.11 or later found → apt-get install python3")

    def test_an_old_python_is_no_python(self, tmp_path):
        old = Machine(tmp_path, python3='case "$*" in *version_info*) exit 1;; esac')
        code, _, said = old.run("setup.sh", tmp_path / "venv")
        assert code == 1
        assert "no Python 3.11 or later found" in said

    def test_debian_without_python3_venv(self, tmp_path):
        python = f'case "$*" in *ensurepip*) exit 1;; esac; exec {sys.executable} "$@"'
        code, _, said = Machine(tmp_path, python3=python).run("setup.sh", tmp_path / "venv")
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        line = f"setup: python3 has no venv module → apt-get install python{version}-venv\n"
        assert (code, said) == (1, line)
        assert not (tmp_path / "venv").exists()


TOOLS = ("curl", "git", "jq", "openssl")
ANYWHERE = ("shellcheck", "redis_server")
DEBIAN = ("chrony", "nginx-light", "ceph-common", "ceph-mon", "ceph-osd", "radosgw")


class TestServices:
    def test_nothing_to_do(self, tmp_path):
        daemons = dict.fromkeys(
            ("chronyd", "nginx", "ceph", "ceph_mon", "ceph_osd", "radosgw", *ANYWHERE), ""
        )
        ready = Machine(tmp_path, *TOOLS, apt_get="exit 99", **daemons)
        assert ready.run("services.sh") == (0, "services: everything is installed\n", "")

    def test_where_there_is_no_debian_no_ceph_is_asked_for(self, tmp_path):
        ready = Machine(tmp_path, *TOOLS, **dict.fromkeys(ANYWHERE, ""))
        assert ready.run("services.sh") == (0, "services: everything is installed\n", "")

    def test_macos(self, tmp_path):
        mac = Machine(tmp_path, *TOOLS, redis_server="", uname="echo Darwin")
        code, _, said = mac.run("services.sh")
        assert (code, said) == (1, "services: missing shellcheck → brew install shellcheck\n")

    def test_another_system(self, tmp_path):
        code, _, said = Machine(tmp_path, *TOOLS, uname="echo Linux").run("services.sh")
        assert (code, said.count("\n")) == (1, 1)
        assert "there is no apt-get" in said

    def test_neither_root_nor_sudo(self, tmp_path):
        user = Machine(tmp_path, apt_get="exit 99", id="echo 1000")
        code, _, said = user.run("services.sh")
        missing = " ".join(("curl", "git", "shellcheck", "jq", "openssl", "redis-server", *DEBIAN))
        line = f"services: missing {missing} → as root: apt-get install {missing}\n"
        assert (code, said) == (1, line)

    @pytest.mark.parametrize("user", [0, 1000])
    def test_as_root_and_through_sudo(self, tmp_path, user):
        debian = Machine(
            tmp_path,
            "env",
            *TOOLS,
            apt_get='echo "$DEBIAN_FRONTEND $*"',
            id=f"echo {user}",
            sudo='echo sudo; exec "$@"',
        )
        code, said, _ = debian.run("services.sh")
        through = "sudo\n" if user else ""
        assert code == 0
        missing = " ".join(("shellcheck", "redis-server", *DEBIAN))
        assert said == (
            f"services: installing {missing}\n"
            f"{through}noninteractive -qq update\n"
            f"{through}noninteractive -qq install --yes --no-install-recommends {missing}\n"
            f"{through}{through}"  # nginx is kept from starting by itself
        )


def test_make_help_shows_every_target():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (targets,) = re.findall(r"(?m)^\.PHONY: (.*)$", text)
    # No MAKEFLAGS of the make that may have started these tests.
    run = subprocess.run(
        ["make", "help"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert {line.split()[1] for line in run.stdout.splitlines()} == set(targets.split())
