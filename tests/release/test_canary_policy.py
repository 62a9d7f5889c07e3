"""The canary policy: what is shipped, what is refused and how, and which steps it lets through."""

import json
import re
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_decisionos.cli.main import cli, run
from pytest_decisionos.errors import PolicyError
from pytest_decisionos.model.outcome import Status
from pytest_decisionos.release.canary_policy import CanaryPolicy, PolicyFile, load_policy
from pytest_decisionos.stats.limits import LEVELS
from pytest_decisionos.testing import NOW

CHECKOUT = Path(__file__).parents[2]
SHIPPED = CHECKOUT / "configs/canary/policy.json"
EXAMPLE = CHECKOUT / "../shared/examples/canary-policy-v2.json"
GOOD = json.loads(SHIPPED.read_bytes())
POLICY = load_policy(SHIPPED)
STEP = {"pct": 5, "min_duration_sec": 300}


def write(tmp_path, spec):
    path = tmp_path / "policy.json"
    path.write_text(spec if isinstance(spec, str) else json.dumps(spec), "utf-8")
    return path


def made(**changes):
    return CanaryPolicy(**GOOD | changes, file="p.json", sha256="0" * 64)


@pytest.mark.skipif(not EXAMPLE.exists(), reason="the example policy is not beside this checkout")
def test_the_example_is_what_ships_and_loads_alone():
    example = json.loads(EXAMPLE.read_bytes())
    assert {name: GOOD[name] for name in example} == example
    alone = load_policy(EXAMPLE)
    assert alone.model_dump(exclude={"file", "sha256"}) == POLICY.model_dump(
        exclude={"file", "sha256"}
    )
    assert alone.sha256 != POLICY.sha256


def test_the_schema_agrees():
    schema = PolicyFile.model_json_schema()
    jsonschema.validate(GOOD, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(GOOD | {"max_looks": 6}, schema)


def test_the_schema_is_printed(capsys):
    assert run(cli, ["slo", "schema", "--canary"]) == 0
    assert "step_schedule" in json.loads(capsys.readouterr().out)["properties"]
    assert run(cli, ["slo", "schema", "--canary", "--gate"]) == 4
    assert "two schemas" in capsys.readouterr().err


def steps(*pcts):
    return {"step_schedule": [STEP | {"pct": pct} for pct in pcts]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (steps(5, 10, 10), r"step_schedule\[2\]: 10 % is not more than the 10 % before it"),
        (steps(10, 5), r"step_schedule\[1\]: 5 % is not more than the 10 % before it"),
        (steps(30), r"step_schedule\[0\]: 30 % is more than max_step_pct, 25, above 0 %"),
        (steps(5, 31), r"step_schedule\[1\]: 31 % is more than max_step_pct, 25, above 5 %"),
        (
            {**steps(50, 96), "max_step_pct": 100},
            r"step_schedule\[1\]: 96 % leaves the baseline less than holdback_pct_min, 5 %",
        ),
        (steps(), "step_schedule: .*at least 1 item"),
        (steps(100), r"step_schedule\[0\].pct: .*less than 100"),
        (steps(-1), r"step_schedule\[0\].pct: .*greater than or equal to 0"),
        ({"step_schedule": [{"pct": 5}]}, r"step_schedule\[0\].min_duration_sec: .*missing"),
        ({"step_schedule": [STEP | {"pct": True}]}, r"step_schedule\[0\].pct"),
        ({"step_schedule": [STEP | {"min_duration": 3}]}, "did you mean min_duration_sec"),
        ({"step_schedule": 5}, "step_schedule: not a list"),
        ({"max_looks": 6}, "max_looks: 6 looks: from 1 to 5, because .* no limits beyond 0.99"),
        ({"max_looks": 0}, "max_looks: 0 looks"),
        ({"max_looks": 2.5}, "max_looks"),
        ({"consecutive_passes": 0}, "consecutive_passes"),
        ({"consecutive_passes": "3"}, "consecutive_passes"),
        ({"consecutive_failures": 0}, "consecutive_failures"),
        ({"grace_burst": -1}, "grace_burst"),
        ({"grace_burst": 0.5}, "grace_burst"),
        ({"max_step_pct": 0}, "max_step_pct"),
        ({"holdback_pct_min": 100}, "holdback_pct_min"),
        ({"cooldown_sec": -1}, "cooldown_sec"),
        ({"cooldown_sec": None}, "cooldown_sec"),
        ({"burst_threshold": 0}, "burst_threshold"),
        ({"ewma_tolerance": -0.1}, "ewma_tolerance"),
        ({"max_window_gap_sec": -1}, "max_window_gap_sec"),
        ({"max_age_sec": 0}, "max_age_sec"),
        ({"min_share": 0}, "min_share"),
        ({"min_share": 1.1}, "min_share"),
        ({"stickiness": "ipv4"}, "stickiness"),
        ({"stickiness": "cookie:a b"}, "stickiness"),
        ({"stickiness": "cookie:"}, "stickiness"),
        ({"stickiness": "header:$uri"}, "stickiness"),
        ({"stickiness": "ip\n"}, "stickiness"),
        ({"stickyness": "ip"}, "stickyness: unknown field.*did you mean stickiness"),
        ({"consecutive_pass": 3}, "did you mean consecutive_passes"),
        ({"burst_treshold": 0.5}, "did you mean burst_threshold"),
        ({"최대": 3}, "최대: unknown field"),
    ],
    ids=str,
)
def test_faults(tmp_path, change, says):
    path = write(tmp_path, GOOD | change)
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    assert re.search(says, str(caught.value))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lacking", sorted(n for n, f in PolicyFile.model_fields.items() if f.is_required()))  # fmt: skip
def test_what_is_required(tmp_path, lacking):
    with pytest.raises(PolicyError, match=f"{lacking}: a required field is missing"):
        load_policy(write(tmp_path, {k: v for k, v in GOOD.items() if k != lacking}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("[]", "not an object"),
        ("null", "nothing in it"),
        ('{"max_looks": NaN}', "not finite"),
        ('{"max_looks": 1, "max_looks": 5}', "duplicate key"),
        ('{"max_step_pct": 1e400}', "not finite"),
    ],
)
def test_no_policy_at_all(tmp_path, text, says):
    with pytest.raises(PolicyError, match=says):
        load_policy(write(tmp_path, text))
    with pytest.raises(PolicyError, match="no such file"):
        load_policy(tmp_path / "nothing.json")


@pytest.mark.parametrize("key", ["ip", "cookie:session_id", "header:X-User-Id"])
def test_stickiness(key):
    assert made(stickiness=key).stickiness == key


@pytest.mark.parametrize(
    ("pct", "following", "least"),
    [(0, 5, 300), (5, 10, 300), (7, 10, 300), (10, 25, 300), (25, 50, 600), (30, 50, 900), (50, 100, 900), (75, 100, 900)],
)  # fmt: skip
def test_the_schedule(pct, following, least):
    assert POLICY.next_pct(pct) == following
    assert POLICY.min_duration_sec(pct) == least


def test_blue_green_is_a_schedule_of_shadow_alone():
    policy = made(step_schedule=[{"pct": 0, "min_duration_sec": 600}])
    assert policy.next_pct(0) == 100
    assert policy.min_duration_sec(0) == 600
    assert policy.step(0, 100).status is Status.SUCCESSFUL


@pytest.mark.parametrize("looks", range(1, 6))
def test_the_level_of_a_look_is_the_least_that_holds(looks):
    level = made(max_looks=looks).level
    assert level >= 1 - 0.05 / looks - 1e-12
    assert not [v for v in LEVELS if 1 - 0.05 / looks <= v < level]


@pytest.mark.parametrize(
    ("go", "cause"),
    [
        ((0, 5), None),
        ((5, 30), None),
        ((5, 30.5), "over"),
        ((0, 50), "over"),
        ((50, 75), None),
        ((75, 95), None),
        ((75, 96), "over"),
        ((50, 100), None),
        ((75, 100), None),
        ((25, 100), "over"),
        ((0, 100), "over"),
        ((10, 10), "under"),
        ((10, 5), "under"),
        ((50, 101), "under"),
        ((50, float("nan")), "under"),
        ((float("nan"), 50), "under"),
    ],
    ids=str,
)
def test_a_step_by_hand(go, cause):
    outcome = POLICY.step(*go)
    assert (outcome.id, outcome.cause) == ("canary.step", cause)
    assert (outcome.status is Status.SUCCESSFUL) is (cause is None)


@given(st.floats(0, 99, exclude_max=True))
def test_the_schedule_never_breaks_its_own_limits(pct):
    assert POLICY.step(pct, POLICY.next_pct(pct)).status is Status.SUCCESSFUL


@pytest.mark.parametrize(
    ("ago", "status"),
    [(None, "successful"), (300, "successful"), (299.9, "inconclusive"), (-5, "inconclusive")],
)
def test_cooldown(ago, status):
    at = None if ago is None else NOW - timedelta(seconds=ago)
    outcome = POLICY.cooldown(at, NOW)
    assert (outcome.id, outcome.status) == ("canary.cooldown", status)
