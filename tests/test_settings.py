"""The environment: what has no form is refused by name, what is empty too, and no secret is told."""

import pytest

from pytest_decisionos.cli.main import cli, run
from pytest_decisionos.errors import UsageError
from pytest_decisionos.judge.server.options import ServeOptions
from pytest_decisionos.judge.server.service import replay_store
from pytest_decisionos.settings import (
    MAY_BE_EMPTY,
    Settings,
    from_environment,
    what_can_be_used,
)

OURS = sorted(Settings.model_fields.keys() - {"aws_region"})


@pytest.mark.parametrize("name", [name for name in OURS if name not in MAY_BE_EMPTY])
@pytest.mark.parametrize("value", ["", " \t"])
def test_a_variable_that_is_set_and_empty_is_refused(monkeypatch, name, value):
    monkeypatch.setenv(f"DECISIONOS_{name.upper()}", value)
    with pytest.raises(UsageError) as caught:
        from_environment()
    assert str(caught.value).startswith(f"DECISIONOS_{name.upper()}: is set and empty")


@pytest.mark.parametrize("name", ["allow_scopes", "actor", "release", "baseline_release"])
def test_few_may_be_empty(monkeypatch, name):
    monkeypatch.setenv(f"DECISIONOS_{name.upper()}", "")
    assert from_environment() == Settings.model_construct()
    assert name in MAY_BE_EMPTY


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_an_empty_region_is_none(monkeypatch, name):
    for other in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "")
    assert from_environment().aws_region is None


def test_what_cannot_be_used_is_left_out_and_the_rest_stays(monkeypatch):
    bad = {"MAX_SKEW": "abc", "TRUST": "", "JUDGE_HMAC_KEY": "x" * 5000, "REPLAY": "y" * 5000}
    good = {"ROOT": "elsewhere", "JUDGE_KEYS": "@ring.json", "DECISION_MAX_AGE": "60"}
    for name, value in (bad | good).items():
        monkeypatch.setenv(f"DECISIONOS_{name}", value)
    settings, faults = what_can_be_used()
    assert sorted(fault.field for fault in faults) == sorted(f"DECISIONOS_{name}" for name in bad)
    assert "xxx" not in str(faults)
    assert "yyy" not in str(faults)
    assert (str(settings.root), settings.decision_max_age) == ("elsewhere", 60)
    assert settings.judge_keys.get_secret_value() == "@ring.json"
    assert (settings.max_skew, settings.trust, settings.judge_hmac_key) == (0.5, None, None)


@pytest.mark.parametrize(
    ("bad", "left"),
    [
        ("KMS_PARAM_PATH", []),
        ("JUDGE_KEYS", ["KMS_PARAM_PATH"]),
        ("JUDGE_HMAC_KEY", ["KMS_PARAM_PATH", "JUDGE_KEYS"]),
    ],
)
def test_no_source_of_the_ring_takes_the_place_of_one_that_is_empty(monkeypatch, bad, left):
    names = ("KMS_PARAM_PATH", "JUDGE_KEYS", "JUDGE_HMAC_KEY")
    for name in names:
        monkeypatch.setenv(f"DECISIONOS_{name}", "" if name == bad else "/x")
    settings, _ = what_can_be_used()
    assert [name for name in names if getattr(settings, name.lower())] == left


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("STATE_DIR", ["trust", "verify", "trust.json"]),
        ("TRUST_SHA256", ["trust", "verify", "trust.json"]),
        ("KEYS_DIR", ["keys", "gen", "--role", "gate"]),
    ],
)
def test_a_command_says_it_and_leaves_nothing(monkeypatch, tmp_path, capsys, name, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"DECISIONOS_{name}", "")
    assert run(cli, command) == 4
    said = capsys.readouterr().err
    assert said.startswith(f"error: DECISIONOS_{name}: is set and empty")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_empty_replay_store_is_none_of_this_hosts(tmp_path):
    options = ServeOptions(
        judge="j", key=tmp_path / "k", gate=tmp_path / "g", root=tmp_path, witness_root=tmp_path,
        settings=Settings(replay=""),
    )  # fmt: skip
    with pytest.raises(UsageError, match="no replay store"):
        replay_store(options)
    assert not list(tmp_path.iterdir())
