"""The graph: where each stage leads, with which releases, and what begins anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pytest_decisionos.errors import ExitCode, RefusedError
from pytest_decisionos.release.transitions import after

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
BEFORE = NOW - timedelta(hours=1)
STEP = {"since": BEFORE, "paused": True, "looks": 3, "decision_sha256": "d" * 64}
STABLE = {"stage": "stable", "pct": 0.0, "release": "1", "baseline_release": None, **STEP}
CANARY = {"stage": "canary", "pct": 5.0, "release": "2", "baseline_release": "1", **STEP}
PROMOTE = {"stage": "promote", "pct": 100.0, "release": "2", "baseline_release": "1", **STEP}
ABORT = {"stage": "abort", "pct": 0.0, "release": "2", "baseline_release": "1", **STEP}
NAMES = ("stable", "canary", "promote", "abort")
ALLOWED = {
    None: {"stable", "abort"},
    "stable": {"stable", "canary", "abort"},
    "canary": {"canary", "promote", "abort"},
    "promote": {"promote", "stable", "abort"},
    "abort": {"abort", "stable"},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("current", [None, STABLE, CANARY, PROMOTE, ABORT], ids=str)
def test_the_graph(current, name):
    before = current and current["stage"]
    changes = {"stage": name}
    if before == "stable" and name == "canary":
        changes["release"] = "2"
    if name in ALLOWED[before]:
        assert after(current, changes, now=NOW)["stage"] == name
        return
    with pytest.raises(RefusedError, match=f"does not lead to {name}") as caught:
        after(current, changes, now=NOW)
    assert caught.value.exit_code is ExitCode.NO_GO
    assert set(caught.value.expected.split(" or ")) == ALLOWED[before]
    assert ("dosctl stage reconcile" in str(caught.value)) is (before is None)


@pytest.mark.parametrize(
    ("current", "name", "given", "pct", "releases"),
    [
        (None, "stable", {}, 0, (None, None)),
        (None, "stable", {"release": "1"}, 0, ("1", None)),
        (None, "abort", {}, 0, (None, None)),
        (None, "abort", {"release": "2", "baseline_release": "1"}, 0, ("2", "1")),
        (STABLE | {"release": None}, "stable", {"release": "1"}, 0, ("1", None)),
        (STABLE, "canary", {"release": "2"}, 0, ("2", "1")),
        (STABLE, "canary", {"release": "2", "pct": 5.0}, 5, ("2", "1")),
        (STABLE | {"release": None}, "canary", {"release": "2", "baseline_release": "0"}, 0, ("2", "0")),
        (STABLE, "abort", {}, 0, (None, "1")),
        (CANARY, "canary", {"pct": 25.0}, 25, ("2", "1")),
        (CANARY, "canary", {"pct": 1.0}, 1, ("2", "1")),
        (CANARY, "promote", {}, 100, ("2", "1")),
        (CANARY, "abort", {}, 0, ("2", "1")),
        (PROMOTE, "stable", {}, 0, ("2", None)),
        (PROMOTE, "abort", {}, 0, ("2", "1")),
        (ABORT, "stable", {}, 0, ("1", None)),
        (ABORT | {"baseline_release": None}, "stable", {"release": "1"}, 0, ("1", None)),
    ],
)  # fmt: skip
def test_a_step_begins_anew(current, name, given, pct, releases):
    made = after(current, {"stage": name, **given}, now=NOW)
    assert (made["pct"], (made["release"], made["baseline_release"])) == (pct, releases)
    fresh = {"since": NOW, "paused": False, "looks": 0, "decision_sha256": None}
    assert {field: made[field] for field in fresh} == fresh
    given_too = {"since": BEFORE, "paused": True, "looks": 9, "decision_sha256": "e" * 64}
    assert after(current, {"stage": name, **given, **given_too}, now=NOW) == made | given_too


@pytest.mark.parametrize("current", [STABLE, CANARY, PROMOTE, ABORT], ids=str)
def test_the_same_step_stays(current):
    assert after(current, {}, now=NOW) == current
    assert after(current, {"stage": current["stage"], "pct": current["pct"]}, now=NOW) == current
    changes = {"looks": 4, "paused": False}
    assert after(current, changes, now=NOW) == current | changes


@pytest.mark.parametrize(
    ("current", "changes", "field", "expected"),
    [
        (STABLE, {"release": "3"}, "release", "1"),
        (STABLE, {"stage": "canary", "release": "2", "baseline_release": "0"}, "baseline_release", "1"),
        (STABLE, {"baseline_release": "0"}, "baseline_release", "None"),
        (STABLE, {"stage": "abort", "release": "1"}, "release", "None"),
        (CANARY, {"pct": 25.0, "release": "3"}, "release", "2"),
        (CANARY, {"release": None}, "release", "2"),
        (CANARY, {"baseline_release": "0"}, "baseline_release", "1"),
        (CANARY, {"stage": "promote", "release": "3"}, "release", "2"),
        (CANARY, {"stage": "abort", "baseline_release": "3"}, "baseline_release", "1"),
        (PROMOTE, {"stage": "stable", "release": "1"}, "release", "2"),
        (ABORT, {"stage": "stable", "release": "2"}, "release", "1"),
        (None, {"stage": "stable", "release": "1", "baseline_release": "0"}, "baseline_release", "None"),
    ],
)  # fmt: skip
def test_releases_follow_from_the_way(current, changes, field, expected):
    with pytest.raises(RefusedError) as caught:
        after(current, changes, now=NOW)
    assert (caught.value.field, caught.value.expected) == (field, expected)
