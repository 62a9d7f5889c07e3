"""Evidence is built with the policy's bursts, judges recompute it so, and the canary is judged by it."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from canary_cases import POLICY, codes, judge

from pytest_decisionos.cli.main import cli, run
from pytest_decisionos.harvest.recompute import recompute
from pytest_decisionos.harvest.sample import CANARY_SEC, write_sample
from pytest_decisionos.testing import TARGET

CONFIGS = Path(__file__).parents[2] / "configs"
SIZES = ("burst_threshold", "ewma_tolerance")


@pytest.fixture(scope="module")
def thin_log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thin")
    write_sample(folder, seed=7, scenario="thin-traffic", end=datetime(2026, 1, 5, 9, tzinfo=UTC))
    return folder / "reqlog.csv"


@pytest.fixture
def there(thin_log, tmp_path, monkeypatch):
    """A root folder with a log, and a gate.yaml without a canary policy beside it."""
    monkeypatch.chdir(tmp_path)
    Path("var/log").mkdir(parents=True)
    shutil.copy(thin_log, "var/log/reqlog.csv")
    Path("configs").mkdir()
    shutil.copy(CONFIGS / "gate.yaml", "configs")
    return Path("var/evidence/latest.json")


def sizes(path):
    stated = json.loads(path.read_bytes())["witness"]["harvest"]
    return [stated[name] for name in SIZES]


def test_the_policy_beside_the_gate_says_how_large_a_burst_is(there, tmp_path):
    assert run(cli, ["evidence", "build"]) == 0
    assert sizes(there) == [1.0, 1.0]
    shutil.copytree(CONFIGS / "canary", "configs/canary")
    assert run(cli, ["evidence", "build"]) == 0
    assert sizes(there) == [0.6, 0.35]
    other = json.loads((CONFIGS / "canary/policy.json").read_bytes()) | {"burst_threshold": 0.2}
    Path("mine.json").write_text(json.dumps(other))
    assert run(cli, ["evidence", "build", "--canary-policy", "mine.json"]) == 0
    assert sizes(there) == [0.2, 0.35]
    blocks = json.loads(there.read_bytes())
    again = recompute(
        blocks["witness"]["sources"][:1], Path("var/log"), blocks, limits=False, exact=True
    )
    assert again.blocks["canary"]["windows"] == blocks["canary"]["windows"]


@pytest.mark.parametrize(("text", "says"), [("{", "not JSON"), ("{}", "required field is missing")])
def test_a_broken_policy_builds_nothing(there, text, says, capsys):
    Path("configs/canary").mkdir()
    Path("configs/canary/policy.json").write_text(text)
    assert run(cli, ["evidence", "build"]) == 4
    assert says in capsys.readouterr().err
    assert not there.exists()
    assert run(cli, ["evidence", "build", "--canary-policy", "nothing.json"]) == 4
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scenario", "action", "reason"),
    [
        ("healthy", "step", None),
        ("slow-canary", "abort", "canary.look[canary.thresholds.p95_rel_increase]:over"),
        ("error-burst", "abort", "canary.burst:over"),
        ("thin-traffic", "wait", "canary.rule[canary.sample_count]:samples_insufficient"),
    ],
)
def test_the_shipped_evidence(scenario, action, reason):
    """As the samples are: 30 % canary from 22 minutes before the end, windows of five."""
    blocks = json.loads((CONFIGS.parent / f"evidence/{scenario}.json").read_bytes())
    end = datetime.fromisoformat(blocks["meta"]["generated_at"])
    since = end - timedelta(seconds=CANARY_SEC)
    one = POLICY.model_copy(update={"consecutive_passes": 1})
    verdict = judge(blocks, policy=one, pct=30.0, since=since, now=end, target=TARGET)
    assert verdict.action == action, codes(verdict)
    assert reason is None or reason in codes(verdict)
