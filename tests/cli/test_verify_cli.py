"""``dosctl verify``: which bundle is meant, by its folder, its id, or as the newest."""

import json
import shutil
from pathlib import Path

import pytest

from pytest_decisionos.cli.main import cli, run

GOOD = Path(__file__).parents[1] / "data/bundles/good"
OLD, NEW = "20260115T120000000000Z-aaaaaaaaaaaa", "20260115T120100000000Z-bbbbbbbbbbbb"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A project with an old bundle that lost a file, and a whole one that is newer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECISIONOS_TRUST", str(GOOD / "trust.json"))
    monkeypatch.setenv("DECISIONOS_STATE_DIR", str(tmp_path / "state"))
    bundles = tmp_path / "var/gate/bundle"
    for name in (OLD, NEW):
        shutil.copytree(GOOD / "bundle", bundles / name)
    (bundles / OLD / "evidence.json").unlink()
    return bundles


def verify(*args):
    return run(cli, ["verify", *map(str, args)])


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("latest", 0),
        (NEW, 0),
        (OLD, 2),
        (f"var/gate/bundle/{NEW}", 0),
        (f"var/gate/bundle/{OLD}", 2),
    ],
)
def test_by_its_folder_its_id_or_as_the_newest(place, capsys, name, status):
    assert verify(name) == status
    out = capsys.readouterr().out
    assert out.endswith("\nverified\n" if status == 0 else "\nNOT verified\n")
    assert verify(name, "--json") == status
    assert json.loads(capsys.readouterr().out)["verified"] is (status == 0)


def test_the_newest_is_meant_whatever_it_says(place):
    shutil.copytree(place / OLD, place / "20260116T000000000000Z-cccccccccccc")
    assert verify("latest") == 2


def test_the_newest_of_another_phase(place, capsys, monkeypatch):
    assert verify("latest", "--phase", "post") == 4
    assert "no decision of phase post" in capsys.readouterr().err
    monkeypatch.setenv("DECISIONOS_PHASE", "post")
    assert verify("latest") == 4
    assert verify("latest", "--phase", "cutover") == 0


def test_under_another_root(place, tmp_path, capsys, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for name in ("latest", NEW):
        assert verify(name) == 4
        assert verify(name, "--root", tmp_path / "var") == 0
    monkeypatch.setenv("DECISIONOS_ROOT", str(tmp_path / "var"))
    assert verify("latest") == 0


@pytest.mark.parametrize("name", ["20260115T120000000000Z-dddddddddddd", "a" * 300, "a/b"])
def test_what_is_not_there_is_said_in_one_line(place, capsys, name):
    assert verify(name) == 4
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1


def test_one_at_a_time(place, capsys):
    assert verify(OLD, NEW) == 4
    assert "unexpected extra argument" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_folder_without_a_name_is_no_decision(place, capsys, monkeypatch, name):
    monkeypatch.chdir(place / NEW)
    assert verify(name) == 4
    assert "names no decision" in capsys.readouterr().err
