import csv
import json
import os
import re
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_decisionos.cli import sample as cli
from pytest_decisionos.errors import UsageError
from pytest_decisionos.harvest.sample import (
    CANARY_RELEASE,
    CANARY_SEC,
    CONTROL_RELEASE,
    SCENARIOS,
    SPAN_SEC,
    write_sample,
)

pytestmark = pytest.mark.slow

END = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
FILES = ["reqlog.csv", "judgelog.csv", "lb.csv", "budget.json", "quota.json", "usage.json"]
GUARDBAND_SEC = 600


class Table:
    """A log as columns; seconds count from the start of the sample."""

    def __init__(self, path, *, probes=False):
        with path.open(encoding="utf-8", newline="") as file:
            self.header, *rows = csv.reader(file)
        route = self.header.index("route")
        rows = [row for row in rows if probes or row[route] != "/healthz"]
        self.columns = dict(zip(self.header, zip(*rows, strict=True), strict=True))
        times = np.array([text.removesuffix("Z") for text in self.columns["ts"]], "datetime64[ms]")
        end = np.datetime64(END.replace(tzinfo=None))
        self.second = (times - end) / np.timedelta64(1, "s") + SPAN_SEC
        self.status = np.array(self.columns["status"], int)
        self.latency = np.array(self.columns["latency_ms"], float)
        self.canary = self.column("variant") == "canary"
        self.error = (self.status >= 500) | (self.status == 429)
        judged = self.second >= SPAN_SEC - CANARY_SEC + GUARDBAND_SEC
        self.after_control, self.after_canary = judged & ~self.canary, judged & self.canary

    def column(self, name):
        return np.array(self.columns[name])

    def p(self, q, where=slice(None)):
        return float(np.quantile(self.latency[where], q))

    def p95_rel(self):
        return self.p(0.95, self.after_canary) / self.p(0.95, self.after_control) - 1

    def error_delta(self):
        return float(self.error[self.after_canary].mean() - self.error[self.after_control].mean())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Scenario → folder, made once."""
    folders = {}
    for scenario in SCENARIOS:
        folders[scenario] = tmp_path_factory.mktemp(scenario)
        write_sample(folders[scenario], seed=7, scenario=scenario, end=END)
    return folders


@pytest.fixture(scope="module")
def requests(made):
    return {scenario: Table(folder / "reqlog.csv") for scenario, folder in made.items()}


@pytest.fixture(scope="module")
def healthy(made, requests, tmp_path_factory):
    """Seed → reqlog and judgelog of the healthy scenario."""
    logs = {7: (requests["healthy"], Table(made["healthy"] / "judgelog.csv"))}
    folder = tmp_path_factory.mktemp("seed6")
    write_sample(folder, seed=6, scenario="healthy", end=END)
    logs[6] = Table(folder / "reqlog.csv"), Table(folder / "judgelog.csv")
    return logs


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def dispersion(events, second, buckets=30):
    """Observed over binomial variance of counts in equal spans: Pearson's chi-squared / df."""
    index = (second * buckets / SPAN_SEC).astype(int)
    n, seen = np.bincount(index), np.bincount(index, events)
    p = seen.sum() / n.sum()
    return float(((seen - n * p) ** 2 / (n * p * (1 - p))).sum() / (buckets - 1))


# --- bytes -----------------------------------------------------------------------------------


def test_same_arguments_same_bytes(made, tmp_path):
    written = write_sample(tmp_path, seed=7, scenario="healthy", end=END)
    assert [path.name for path in written] == FILES
    assert all(path.parent == tmp_path for path in written)
    assert contents(tmp_path) == contents(made["healthy"])


def test_another_seed_is_other_traffic(made, tmp_path):
    write_sample(tmp_path, seed=8, scenario="healthy", end=END)
    theirs = contents(made["healthy"])
    for name, content in contents(tmp_path).items():
        assert (content == theirs[name]) == (name == "quota.json")


@pytest.mark.parametrize(
    "end",
    [
        END + timedelta(days=36, seconds=17),
        datetime(1999, 2, 3, tzinfo=timezone(timedelta(hours=9))),
    ],
)
def test_another_end_shifts_only_the_times(tmp_path, end):
    here, there = tmp_path / "here", tmp_path / "there"
    write_sample(here, seed=3, scenario="thin-traffic", end=END)
    write_sample(there, seed=3, scenario="thin-traffic", end=end)
    for name in FILES:
        if name.endswith(".json"):
            assert (here / name).read_bytes() == (there / name).read_bytes()
            continue
        one, two = Table(here / name, probes=True), Table(there / name, probes=True)
        assert np.allclose(two.second - one.second, (end - END).total_seconds(), atol=1e-4)
        assert {**one.columns, "ts": ()} == {**two.columns, "ts": ()}


def test_the_same_moment_in_another_zone_is_the_same_sample(tmp_path):
    for name, zone in (("a", UTC), ("b", timezone(timedelta(hours=9)))):
        write_sample(tmp_path / name, seed=1, scenario="thin-traffic", end=END.astimezone(zone))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


# --- shape -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["healthy", "error-burst", "thin-traffic"])
@pytest.mark.parametrize("name", ["reqlog.csv", "judgelog.csv", "lb.csv"])
def test_every_row_is_well_formed_and_in_order(made, scenario, name):
    lines = (made[scenario] / name).read_text(encoding="utf-8").split("\n")
    signature = ",signature_error" if name == "judgelog.csv" else ""
    assert lines[0] == f"ts,status,latency_ms{signature},route,tenant,variant,release"
    assert lines[-1] == ""
    row = re.compile(
        r"2026-01-05T08:[2-5]\d:[0-5]\d\.\d{3}Z,(200|201|204|401|404|429|500|502|503),"
        r"\d{1,5}\.\d{3}"
        + (",[01]" if signature else "")
        + r",(/v1/(pay|cart|search|users|orders)|/healthz|/judge),(acme|globex|initech|한빛|)"
        rf",(control,{re.escape(CONTROL_RELEASE)}|canary,{re.escape(CANARY_RELEASE)})"
    )
    assert [line for line in lines[1:-1] if not row.fullmatch(line)] == []
    times = [line[:24] for line in lines[1:-1]]
    assert times == sorted(times)


def test_the_canary_starts_22_minutes_before_the_end_at_30_percent(requests):
    log = requests["healthy"]
    start = log.second[log.canary].min()
    assert SPAN_SEC - CANARY_SEC <= start < SPAN_SEC - CANARY_SEC + 2
    assert log.canary[log.second >= SPAN_SEC - CANARY_SEC].mean() == pytest.approx(0.3, abs=0.01)
    assert 0 <= log.second.min() < 1
    assert SPAN_SEC - 1 < log.second.max() < SPAN_SEC


def test_the_rate_follows_the_day(requests):
    """A rising morning: the second half has more requests than chance would give it."""
    second = requests["healthy"].second
    early, late = np.sum(second < SPAN_SEC / 2), np.sum(second >= SPAN_SEC / 2)
    assert late - early > 5 * len(second) ** 0.5


def test_routes_and_tenants_differ(requests):
    log = requests["healthy"]
    routes, tenants = log.column("route"), log.column("tenant")
    medians = {route: log.p(0.5, routes == route) for route in np.unique(routes)}
    assert len(medians) == 5
    assert max(medians.values()) > 2 * min(medians.values())
    counts = dict(zip(*np.unique(tenants, return_counts=True), strict=True))
    assert set(counts) == {"acme", "globex", "initech", "한빛"}
    assert counts["acme"] > 3 * counts["한빛"] > 10_000


def test_latencies_have_a_heavy_tail(requests):
    """p99.9 stands well above where a log-normal through p50 and p95 would put it."""
    log = requests["healthy"]
    sigma = np.log(log.p(0.95) / log.p(0.5)) / 1.6449
    assert log.p(0.999) > 1.3 * log.p(0.5) * np.exp(3.0902 * sigma)


def test_health_checks_come_from_three_probes_on_both_variants(made):
    log = Table(made["healthy"] / "reqlog.csv", probes=True)
    probe = log.column("route") == "/healthz"
    assert probe.sum() == 3 * SPAN_SEC / 5
    assert set(log.status[probe]) == {200}
    assert log.latency[probe].mean() == pytest.approx(1, abs=0.1)
    assert set(log.column("tenant")[probe]) == {""}
    assert log.canary[probe].sum() == pytest.approx(CANARY_SEC / 5, abs=1)
    assert log.canary[probe & (log.second < SPAN_SEC - CANARY_SEC)].sum() == 0


def test_the_balancer_saw_the_same_requests_a_little_later(made):
    ours = Table(made["healthy"] / "reqlog.csv", probes=True)
    theirs = Table(made["healthy"] / "lb.csv", probes=True)
    assert theirs.header == ours.header
    same = ["status", "route", "tenant", "variant", "release"]
    keys = [sorted(zip(*(t.columns[c] for c in same), strict=True)) for t in (ours, theirs)]
    assert keys[0] == keys[1]
    for q in (0.5, 0.95, 0.99):
        assert ours.p(q) < theirs.p(q) < ours.p(q) + 5
    assert 0 < np.mean(theirs.second) - np.mean(ours.second) < 0.005
    assert ours.columns["route"] != theirs.columns["route"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_blocks_are_healthy_and_agree_with_the_log(made, requests, scenario):
    budget, quota, usage = (
        json.loads((made[scenario] / f"{name}.json").read_bytes())
        for name in ("budget", "quota", "usage")
    )
    assert budget == {"level": "ok", "spent": budget["spent"], "limit": 1.0}
    assert 0 < budget["spent"] < 0.5
    assert quota == {"decisions": {m: {"action": "allow"} for m in ("tokens", "requests")}}
    assert 0 < usage["cpu_percent"] < 90
    assert 0 < usage["mem_percent"] < 85
    assert usage["qps"] == pytest.approx(len(requests[scenario].status) / SPAN_SEC, abs=0.01)


# --- scenarios -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [6, 7])
def test_healthy_is_far_inside_the_bounds(healthy, seed):
    log, judge = healthy[seed]
    assert log.p(0.95) < 450
    assert log.p(0.99) < 900
    assert log.error.mean() < 0.005
    assert abs(log.p95_rel()) < 0.08
    assert abs(log.error_delta()) < 0.002
    assert log.after_canary.sum() > 12_000
    assert judge.p(0.95) < 600
    assert judge.p(0.99) < 1250
    assert np.mean(judge.status >= 500) < 0.001
    assert judge.after_canary.sum() > 12_000
    wrong = judge.column("signature_error") == "1"
    assert wrong[judge.canary].sum() == 0
    assert wrong.mean() < 0.0001
    assert set(judge.status[wrong]) <= {401}


def test_traffic_is_mildly_autocorrelated(healthy):
    """Slow requests and errors come in clusters; a single D varies, so the mean of both."""
    logs = [log for log, _ in healthy.values()]
    slow = [dispersion(log.latency > log.p(0.95), log.second) for log in logs]
    wrong = [dispersion(log.error, log.second) for log in logs]
    assert 1.05 < np.mean(slow) < 1.7
    assert 1.05 < np.mean(wrong) < 1.7


@pytest.mark.parametrize(("scenario", "factor"), [("slow-canary", 1.6), ("evil-evidence", 8.0)])
def test_a_slow_canary_is_the_healthy_one_slowed(requests, scenario, factor):
    healthy, slow = requests["healthy"], requests[scenario]
    expected = np.where(healthy.canary, healthy.latency * factor, healthy.latency)
    # Both logs are rounded to 0.001 ms, and the service gives up after 30 s.
    assert np.allclose(slow.latency, np.minimum(expected, 30_000), atol=0.001 * factor)
    assert np.array_equal(slow.status, healthy.status)
    assert slow.p95_rel() > 0.4


def test_evil_evidence_logs_are_beyond_every_bound(requests):
    log = requests["evil-evidence"]
    assert log.p(0.95) > 1.2 * 900
    assert log.p(0.99) > 1.2 * 1800


@pytest.mark.parametrize("second_of_end", [0, 1, 5, 6, 150, 299])
def test_error_bursts_lie_in_closed_windows(requests, second_of_end):
    """Whenever the sample ends: windows are multiples of 300 s and close 5 s after their end."""
    healthy, log = requests["healthy"], requests["error-burst"]
    assert np.array_equal(log.latency, healthy.latency)
    changed = log.status != healthy.status
    assert set(log.status[changed]) <= {500, 502, 503}
    assert log.canary[changed].all()
    starts = [SPAN_SEC - before for before in (700, 520, 325)]
    inside = np.any([(s <= log.second) & (log.second < s + 20) for s in starts], axis=0)
    assert not changed[~inside].any()
    for start in starts:
        burst = log.canary & (start <= log.second) & (log.second < start + 20)
        assert np.mean(log.status[burst] >= 500) == pytest.approx(0.6, abs=0.1)
    assert log.error_delta() > 0.02
    assert abs(log.p95_rel()) < 0.08
    # In seconds since a window's start: the window that the sample ends in began at `opened`.
    opened = SPAN_SEC - second_of_end
    last_closed = opened if second_of_end >= 6 else opened - 300
    assert starts[-1] + 20 <= last_closed
    assert starts[-1] >= SPAN_SEC - 480


def test_thin_traffic_is_too_thin_and_otherwise_healthy(requests):
    log = requests["thin-traffic"]
    assert len(log.status) / SPAN_SEC == pytest.approx(2, abs=0.1)
    assert 300 < log.after_canary.sum() < 550
    assert log.p(0.95) < 600
    assert log.error.mean() < 0.008


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "given", "says"),
    [
        ("end", {"end": datetime(2026, 1, 5, 9)}, "without offset"),  # noqa: DTZ001
        ("end", {"end": END.replace(microsecond=1)}, "fraction of a second"),
        ("end", {"end": datetime(1969, 12, 31, tzinfo=UTC)}, "out of range"),
        ("end", {"end": datetime.min.replace(tzinfo=UTC)}, "out of range"),
        (
            "end",
            {"end": datetime.max.replace(microsecond=0, tzinfo=timezone(timedelta(hours=-12)))},
            "out of range",
        ),
        ("seed", {"seed": -1}, "no such seed"),
        ("seed", {"seed": 2**32}, "no such seed"),
        ("scenario", {"scenario": "helthy"}, "healthy, slow-canary"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, field, given, says):
    out = tmp_path / "log"
    with pytest.raises(UsageError, match=says) as refused:
        write_sample(out, **{"seed": 7, "scenario": "thin-traffic", "end": END, **given})
    assert refused.value.field == field
    assert not out.exists()


@settings(max_examples=15, deadline=None)
@given(
    second=st.integers(SPAN_SEC, 253_402_300_799),
    minutes=st.integers(-12 * 60, 14 * 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_end_and_seed_give_rows_before_the_end(tmp_path_factory, second, minutes, seed):
    end = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    zone = timezone(timedelta(minutes=minutes))
    try:
        end = end.astimezone(zone)
    except OverflowError:  # the last hours of the year 9999, east of Greenwich
        zone = UTC
    out = tmp_path_factory.mktemp("any")
    write_sample(out, seed=seed, scenario="thin-traffic", end=end)
    for name in ("reqlog.csv", "judgelog.csv", "lb.csv"):
        rows = (out / name).read_text(encoding="utf-8").splitlines()[1:]
        for row in (rows[0], rows[-1]):
            time = datetime.fromisoformat(row.partition(",")[0])
            assert timedelta(0) < end - time <= timedelta(seconds=SPAN_SEC)


def test_existing_files_are_replaced(tmp_path):
    (tmp_path / "reqlog.csv").write_text("old", encoding="utf-8")
    os.link(tmp_path / "reqlog.csv", tmp_path / "kept")
    write_sample(tmp_path, seed=7, scenario="thin-traffic", end=END)
    assert (tmp_path / "reqlog.csv").read_bytes().startswith(b"ts,")
    # Replaced, not written into: who had the old file open still reads the old file.
    assert (tmp_path / "kept").read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("dangling", [True, False])
def test_a_symbolic_link_is_never_written_through(tmp_path, dangling):
    out, elsewhere = tmp_path / "log", tmp_path / "elsewhere"
    out.mkdir()
    if not dangling:
        elsewhere.write_text("precious", encoding="utf-8")
    (out / "usage.json").symlink_to(elsewhere)
    with pytest.raises(UsageError, match="symbolic link"):
        write_sample(out, seed=7, scenario="thin-traffic", end=END)
    assert [path.name for path in out.iterdir()] == ["usage.json"]
    assert (out / "usage.json").is_symlink()
    assert elsewhere.exists() != dangling


def test_a_folder_in_a_files_place_is_refused(tmp_path):
    (tmp_path / "lb.csv").mkdir()
    with pytest.raises(UsageError, match="not a regular file"):
        write_sample(tmp_path, seed=7, scenario="thin-traffic", end=END)
    assert [path.name for path in tmp_path.iterdir()] == ["lb.csv"]


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "log").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be written: File exists"):
        write_sample(tmp_path / "log", seed=7, scenario="thin-traffic", end=END)


def test_an_impossible_folder_name_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not a folder name"):
        write_sample(tmp_path / "a\0b", seed=7, scenario="thin-traffic", end=END)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    """No file takes its name before all are safely written."""
    (tmp_path / "reqlog.csv").write_text("old", encoding="utf-8")
    synced = []

    def fsync(handle):
        synced.append(handle)
        if len(synced) == len(FILES):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UsageError, match="No space left on device"):
        write_sample(tmp_path, seed=7, scenario="thin-traffic", end=END)
    assert contents(tmp_path) == {"reqlog.csv": b"old"}


# --- command ---------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(cli.sample, [str(argument) for argument in arguments])


def test_command_writes_and_counts(tmp_path):
    end = "2026-01-05T18:00:00+09:00"
    out = tmp_path / "로그"
    result = run("--out", out, "--seed", 5, "--scenario", "thin-traffic", "--end", end)
    assert result.exit_code == 0, result.output
    write_sample(tmp_path / "same", seed=5, scenario="thin-traffic", end=END)
    assert contents(out) == contents(tmp_path / "same")
    lines = result.output.splitlines()
    assert [line.rpartition("/")[2] for line in lines] == FILES
    rows = len(Table(out / "reqlog.csv", probes=True).status)
    assert lines[0].split()[:2] == [f"{rows:,}", "rows"]
    assert "rows" not in lines[-1]


def test_command_forges_evidence_for_evil_evidence(tmp_path):
    result = run("--out", tmp_path, "--scenario", "evil-evidence")
    assert result.exit_code == 0, result.output
    forged = set(contents(tmp_path)) - set(FILES)
    assert forged == {"forged-evidence.json"}
    assert result.output.splitlines()[-1].endswith("forged-evidence.json")


def test_command_ends_now_by_default(tmp_path):
    before = datetime.now(UTC).replace(microsecond=0)
    assert run("--out", tmp_path, "--scenario", "thin-traffic").exit_code == 0
    after = datetime.now(UTC)
    last = (tmp_path / "reqlog.csv").read_text(encoding="utf-8").splitlines()[-1]
    time = datetime.fromisoformat(last.partition(",")[0])
    assert before - timedelta(seconds=10) < time < after


@pytest.mark.parametrize("end", ["2026-01-05T09:00:00", "yesterday", "9" * 100, ""])
def test_command_refuses_a_time_without_offset(tmp_path, end):
    result = run("--out", tmp_path / "log", "--end", end)
    assert isinstance(result.exception, UsageError)
    assert result.exception.field == "--end"
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("bad", [["--scenario", "odd"], ["--seed", "-1"], ["--seed", "x"]])
def test_command_refuses_what_click_can_tell(tmp_path, bad):
    assert run("--out", tmp_path / "log", *bad).exit_code == 2
    assert not (tmp_path / "log").exists()


def test_command_knows_every_scenario_and_shows_an_example():
    assert cli._SCENARIOS == SCENARIOS
    text = run("--help").output
    assert "\b" not in text
    assert "  dosctl sample --out var/log --seed 7\n" in text
    assert "slow-canary" in text
