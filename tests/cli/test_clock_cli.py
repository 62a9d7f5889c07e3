"""dosctl clock check, and jobs.clock_guard: table, JSON, exit status, durations."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from services.ntp import servers

from pytest_decisionos.cli.clock import _duration
from pytest_decisionos.cli.main import cli, run
from pytest_decisionos.errors import UsageError

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def check(capsys):
    """Runs the command: status, standard output, standard error."""

    def call(*args):
        status = run(cli, ["clock", "check", *map(str, args)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert len(err.splitlines()) <= 1
        return status, out, err

    return call


def asks(running):
    return [word for server in running for word in ("--ntp", server.name)]


@pytest.mark.parametrize(
    ("ahead", "status", "says"),
    [
        ((0, 0, 0), 0, "within 500 ms: "),
        ((0, 0, 9), 0, "; 1 of 3 say otherwise"),
        ((9, 9, 0), 2, "s slow, at most 500 ms is the SLA"),
        ((-9, 0, 9), 2, "FAULT: cannot tell: only 1 of 3"),
    ],
)
def test_exit_status_and_table(check, ahead, status, says):
    with servers(*({"ahead": one} for one in ahead)) as running:
        found, out, err = check(*asks(running))
    assert (found, err) == (status, "")
    assert says in " ".join(out.replace("|", " ").split())
    assert max(map(len, out.splitlines())) <= 80
    assert out.split()[:4] == ["source", "offset", "bound", "verdict"]
    for server, one in zip(running, ahead, strict=True):
        (row,) = (line for line in out.splitlines() if line.startswith(server.name))
        assert ("ok" in row) is (one == 0)
        assert "±" in row


def test_a_source_that_says_nothing_shows_no_number(check):
    with servers({}, {}, {"leap": 3}) as running:
        status, out, _ = check(*asks(running))
    assert status == 2
    (row,) = (line for line in out.splitlines() if line.startswith(running[2].name))
    assert row.split()[1:4] == ["-", "-", "is"]
    assert "nan" not in out
    assert "inf" not in out


def test_json(check):
    with servers({}, {"ahead": 9}, {"ahead": 0.1}, {"stratum": 16}) as running:
        status, out, _ = check(*asks(running), "--json", "--max-skew", "800ms")
    told = json.loads(out)
    assert status == 0
    assert told["ok"] is True
    assert told["fault"] is None
    assert told["max_skew_sec"] == 0.8
    assert 0 < told["error_sec"]
    assert abs(told["offset_sec"] - 0.1) <= told["error_sec"]
    assert told["dissent"] == 1
    assert [one["source"] for one in told["readings"]] == [server.name for server in running]
    faults = [one["fault"] for one in told["readings"]]
    assert (faults[0], faults[2], faults[3]) == (None, None, "is not synchronised itself")
    assert "s slow" in faults[1]
    assert told["readings"][3]["offset_sec"] is None
    assert told["readings"][3]["error_sec"] is None


def test_json_of_a_failure(check, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    status, out, _ = check("--json")
    told = json.loads(out)
    assert status == 2
    assert told["ok"] is False
    assert "install chrony, or name SNTP servers with DECISIONOS_NTP" in told["fault"]
    assert (told["offset_sec"], told["error_sec"]) == (None, None)


def test_the_environment_names_servers_and_sla(check, monkeypatch):
    with servers({"ahead": 0.3}, {"ahead": 0.3}, {"ahead": 0.3}) as running:
        monkeypatch.setenv("DECISIONOS_NTP", ", ".join(server.name for server in running))
        assert check()[0] == 0
        monkeypatch.setenv("DECISIONOS_MAX_SKEW", "0.2")
        assert check()[0] == 2
        assert check("--max-skew", "600ms")[0] == 0  # an option wins
    with servers({}, {}, {}) as others:
        assert check(*asks(others))[0] == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--max-skew", "half a second"), "--max-skew: not a duration"),
        (("--max-skew", "61s"), "at most 60 s"),
        (("--ntp", "a", "--ntp", "b"), "too few SNTP servers"),
        (("--ntp", "a", "--ntp", "b", "--ntp", "c d"), "not a server"),
        (("--ntp", "a", "--ntp", "b", "--ntp", "a"), "named twice"),
        (("--nonsense",), "No such option"),
    ],
)
def test_unusable_options_are_one_line_and_exit_4(check, args, says):
    status, out, err = check(*args)
    assert (status, out) == (4, "")
    assert err.startswith("error: ")
    assert says in err


def test_an_unusable_variable_is_exit_4(check, monkeypatch):
    monkeypatch.setenv("DECISIONOS_MAX_SKEW", "nan")
    status, _, err = check()
    assert status == 4
    assert "DECISIONOS_MAX_SKEW" in err


@pytest.mark.parametrize(
    ("text", "value"),
    [("500ms", 0.5), ("2s", 2.0), ("0.5", 0.5), ("1.5s", 1.5), ("60", 60.0), ("0.25ms", 0.00025)],
)
def test_durations(text, value):
    assert _duration("--max-skew", text) == value


@pytest.mark.parametrize(
    "text",
    ["", "0", "0ms", "-1", "+1", "1m", "1h", "5 ms", " 5", "5\n", ".5", "5.", "1e1", "nan", "inf", "٥", "500MS",
     "60.1", "60001ms", "1,5", "5msms", "0x1"],
)  # fmt: skip
def test_what_is_no_duration(text):
    with pytest.raises(UsageError, match="not a duration"):
        _duration("--max-skew", text)


@pytest.mark.slow
def test_a_real_chronyd(check, follower, monkeypatch):
    monkeypatch.setenv("PATH", str(follower.bin), prepend=os.pathsep)
    status, out, _ = check()
    assert status == 0, out
    assert "chrony via 127.0.0.1" in out
    assert "within 500 ms" in out


@pytest.mark.slow
def test_the_job(chronyd, follower):
    for daemon, status, says in (
        (follower, 0, "within 500 ms"),
        (chronyd(), 2, "not synchronised"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "jobs.clock_guard", "--max-skew", "500ms"],
            cwd=CHECKOUT, env={**os.environ, "PATH": f"{daemon.bin}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert says in " ".join(done.stdout.replace("|", " ").split())


@pytest.mark.parametrize("command", [("clock",), ("clock", "check")])
def test_help_has_an_example(command, capsys):
    assert run(cli, [*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Example" in out
    assert max(map(len, out.splitlines())) <= 90
