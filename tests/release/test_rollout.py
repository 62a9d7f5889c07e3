"""rollout.yaml → adapter, stage → traffic, and the adapters none and command."""

import contextlib
import json
import os
import signal
import sys
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pytest_decisionos import hookspecs
from pytest_decisionos.errors import ExitCode, PolicyError, RolloutError, UsageError
from pytest_decisionos.model.target import Target
from pytest_decisionos.release import external
from pytest_decisionos.release.rollout import load_rollout
from pytest_decisionos.release.stage import Reading, Stage
from pytest_decisionos.release.traffic import Traffic, traffic_of

CHECKOUT = Path(__file__).parents[2]
TARGET = Target(service="checkout", environment="production", region="eu-1")
NGINX = {
    "listen": ["8080"],
    "control": "127.0.0.1:18080",
    "releases": {"v1": ["10.0.0.1:80"], "v2": ["10.0.0.2:80", "[::1]:81"]},
}
ARGO = {"rollout": "checkout", "namespace": "shop", "container": "app", "image": "r.example/app"}


def loaded(tmp_path, document, **more):
    path = tmp_path / "rollout.yaml"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return load_rollout(path, root=tmp_path / "var", target=TARGET, **more)


def stage(name, **more):
    fields = {
        "target": TARGET, "stage": name, "pct": 0.0, "release": "v2", "baseline_release": "v1",
        "since": datetime(2026, 1, 1, tzinfo=UTC), "paused": False, "looks": 0, "seq": 1, "prev": None,
        "decision_sha256": None, "key_id": "k1", "mac": "0" * 64,
    }  # fmt: skip
    return Stage.model_construct(**{**fields, **more})


# Stage → traffic


@pytest.mark.parametrize(
    ("given_stage", "traffic"),
    [
        (stage("stable", release="v1", baseline_release=None), Traffic(release="v1")),
        (stage("stable", release=None, baseline_release=None), Traffic()),
        (stage("canary"), Traffic(shadow=True, release="v2", baseline_release="v1")),
        (stage("canary", pct=12.5), Traffic(pct=12.5, release="v2", baseline_release="v1")),
        (
            stage("promote", pct=100.0),
            Traffic(pct=100.0, release="v2", baseline_release="v1", keep_warm=True),
        ),
        (stage("abort"), Traffic(release="v1")),
        (stage("abort", baseline_release=None), Traffic()),
    ],
)
def test_traffic_of_each_stage(given_stage, traffic):
    assert traffic_of(given_stage) == traffic
    assert traffic_of(Reading(given_stage, "0" * 64, "", "")) == traffic


def test_a_stage_that_cannot_be_read_sends_everybody_back():
    assert traffic_of(Reading(None, None, "torn", "half a file")) == Traffic()
    assert Traffic().is_way_back


@pytest.mark.parametrize(
    ("given_stage", "field"),
    [
        (stage("canary", pct=5.0, baseline_release=None), "baseline_release"),
        (stage("promote", pct=100.0, release="v2;"), "release"),
        (stage("stable", release="", baseline_release=None), "release"),
    ],
)
def test_a_stage_that_no_traffic_can_follow(given_stage, field):
    with pytest.raises(RolloutError) as told:
        traffic_of(given_stage)
    assert told.value.field == field
    assert told.value.exit_code == ExitCode.UNUSABLE


HOSTILE = [
    "", " ", "v2;", 'v2"', "v2'", "v2{", "v2}", "$host", "v2\n", "v2\x00", "v2 v3", "-rf", "../v2", "v2\\", "%%{http}", "버전",
    "v2#", "`id`", "$(id)", "v" * 201,
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_release_names_are_refused(name, tmp_path):
    with pytest.raises(ValidationError):
        Traffic(release=name)
    with pytest.raises(ValidationError):
        Traffic(pct=5.0, release="v2", baseline_release=name)
    settings = {**NGINX, "releases": {name: ["10.0.0.1:80"]}}
    with pytest.raises(PolicyError, match=r"nginx\.releases"):
        loaded(tmp_path, {"adapter": "nginx", "nginx": settings})


@pytest.mark.parametrize(
    "name", ["v0.5.11q", "sha256:" + "a" * 64, "app/checkout:v2@sha256:ab", "1"]
)
def test_usual_release_names_are_taken(name):
    assert Traffic(release=name).release == name


@pytest.mark.parametrize(
    "fields",
    [
        {"pct": 5.0},
        {"pct": 5.0, "release": "v2"},
        {"shadow": True, "release": "v2"},
        {"keep_warm": True, "release": "v2"},
        {"baseline_release": "v1"},
        {"shadow": True, "pct": 5.0, "release": "v2", "baseline_release": "v1"},
        {"pct": 100.1, "release": "v2", "baseline_release": "v1"},
        {"pct": -1.0, "release": "v2", "baseline_release": "v1"},
        {"pct": float("nan"), "release": "v2", "baseline_release": "v1"},
        {"pct": "5", "release": "v2", "baseline_release": "v1"},
        {"percent": 5.0},
    ],
)
def test_traffic_that_cannot_be(fields):
    with pytest.raises(ValidationError):
        Traffic(**fields)


# rollout.yaml


def test_the_shipped_file_moves_nothing():
    path = CHECKOUT / "configs/rollout.yaml"
    rollout = load_rollout(path, root=Path("var"), target=TARGET)
    rollout.apply(Traffic(pct=5.0, release="v2", baseline_release="v1"))
    assert (rollout.name, rollout.strategy, rollout.running()) == ("none", "canary", None)


@pytest.mark.parametrize("adapter", ["command", "argo", "nginx"])
def test_the_shipped_examples_can_be_used(tmp_path, adapter):
    lines = (CHECKOUT / "configs/rollout.yaml").read_text().splitlines()
    start = lines.index(f"# {adapter}:")
    block = []
    for line in lines[start:]:
        if not line.startswith("# "):
            break
        block.append(line[2:])
    assert loaded(tmp_path, f"adapter: {adapter}\n" + "\n".join(block) + "\n").name == adapter


def test_adapters_are_what_the_file_says(tmp_path):
    assert loaded(tmp_path, {"adapter": "argo", "argo": ARGO}).name == "argo"
    rollout = loaded(tmp_path, {"adapter": "nginx", "nginx": NGINX, "strategy": "blue-green"})
    assert (rollout.name, rollout.strategy) == ("nginx", "blue-green")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("", "nothing in it"),
        ("[1]", "not an object"),
        ({}, "adapter: a required field is missing"),
        ({"adapter": "none", "strategy": "yolo"}, "strategy"),
        ({"adapter": "none", "version": 2}, "version"),
        ({"adapter": "none", "straegy": "canary"}, "did you mean strategy"),
        ({"adapter": "None"}, "adapter"),
        ({"adapter": "istio"}, "no such adapter; found istio; expected none, command, argo, nginx"),
        ({"adapter": "nginx"}, "adapter nginx without its settings"),
        ({"adapter": "none", "params": {"a": 1}}, "params are for adapters of installed packages"),
        ({"adapter": "command", "command": {"argv": "rm -rf /"}}, "command.argv: not a list"),
        ({"adapter": "command", "command": {"argv": []}}, "command.argv"),
        ({"adapter": "command", "command": {"argv": ["a"], "timeout_sec": 0}}, "timeout_sec"),
        ({"adapter": "argo", "argo": {**ARGO, "namespace": "-n evil"}}, "argo.namespace"),
        ({"adapter": "argo", "argo": {**ARGO, "rollout": "--help"}}, "argo.rollout"),
        ({"adapter": "argo", "argo": {**ARGO, "image": "x y"}}, "argo.image"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used(tmp_path, document, says):
    with pytest.raises(PolicyError) as told:
        loaded(tmp_path, document)
    assert says in str(told.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("listen", []), ("listen", ["80 default_server"]), ("listen", ["0"]), ("listen", ["65536"]),
        ("listen", ["example.com:80"]), ("listen", ["[::1"]), ("listen", ["1.2.3.4.5:80"]),
        ("control", "0.0.0.0:18080"), ("control", "10.0.0.1:80"), ("control", "localhost:80"),
        ("control", "127.0.0.1"), ("releases", {}), ("releases", {"v1": []}),
        ("releases", {"v1": ["a.example:80"]}), ("releases", {"v1": ["10.0.0.1:80;"]}),
        ("releases", {"v1": ["10.0.0.1:80"], "v2": ["10.0.0.1:80"]}),
        ("releases", {"v1": ["[0::1]:80"], "v2": ["[::1]:80"]}),
        ("sticky", "cookie:"), ("sticky", "cookie:a-b"), ("sticky", "header:a b"), ("sticky", "user"),
        ("sticky", "header:x;"), ("tenant", "uid:x"), ("route_segments", 0), ("route_segments", True),
        ("shadow_methods", []), ("shadow_methods", ["GET|.*"]), ("user", "root; daemon off"),
        ("program", []), ("timeout_sec", float("inf")), ("temlate", "x"),
    ],
)  # fmt: skip
def test_nginx_settings_that_cannot_be(tmp_path, field, value):
    with pytest.raises(PolicyError) as told:
        loaded(tmp_path, {"adapter": "nginx", "nginx": {**NGINX, field: value}})
    assert "nginx" in str(told.value)


def test_a_missing_file_is_not_taken_for_none(tmp_path):
    with pytest.raises(PolicyError, match="rollout.yaml"):
        load_rollout(tmp_path / "rollout.yaml", root=tmp_path, target=TARGET)


def test_nginx_tells_users_apart_as_the_canary_policy_says(tmp_path):
    document = {"adapter": "nginx", "nginx": {**NGINX, "sticky": "header:X-User"}}
    assert loaded(tmp_path, document, stickiness="header:X-User").name == "nginx"
    with pytest.raises(PolicyError, match="nginx.sticky: not what the canary policy says"):
        loaded(tmp_path, document, stickiness="ip")
    assert loaded(tmp_path, {"adapter": "none"}, stickiness="ip").name == "none"


# What every adapter may be asked


@pytest.mark.parametrize("pct", [5.0, 50.0, 99.99])
def test_blue_green_has_nothing_between(tmp_path, pct):
    rollout = loaded(tmp_path, {"adapter": "none", "strategy": "blue-green"})
    with pytest.raises(RolloutError, match="nothing between shadow and all"):
        rollout.apply(Traffic(pct=pct, release="v2", baseline_release="v1"))
    rollout.apply(Traffic(shadow=True, release="v2", baseline_release="v1"))
    rollout.apply(Traffic(pct=100.0, release="v2", baseline_release="v1", keep_warm=True))


@given(st.integers(0, 10_000))
def test_two_decimals_of_a_percentage_are_exact(hundredths):
    pct = hundredths / 100
    assert round(pct, 2) == pct
    assert f"{pct:.2f}" == f"{hundredths // 100}.{hundredths % 100:02d}"


def test_more_decimals_are_refused(tmp_path):
    with pytest.raises(RolloutError, match="at most two decimals"):
        loaded(tmp_path, {"adapter": "none"}).apply(
            Traffic(pct=12.345, release="v2", baseline_release="v1")
        )


# Installed packages


class Istio:
    name = "istio"
    strategy = "canary"

    def __init__(self, request):
        self.request, self.applied = request, []

    def apply(self, want):
        self.applied.append(want)
        if self.request.params.get("fails"):
            raise self.request.params["fails"]

    def running(self):
        return self.request.params.get("says", self.applied[-1] if self.applied else None)


@pytest.fixture
def installed(monkeypatch):
    def install(make):
        manager = hookspecs.pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs.Specs)
        package = SimpleNamespace(
            decisionos_rollouts=hookspecs.hookimpl(lambda: {"istio": make}, specname=None)
        )
        manager.register(package, "our-istio")
        monkeypatch.setattr(hookspecs, "plugins", lambda: manager)

    return install


def test_an_installed_package_adds_an_adapter(tmp_path, installed):
    made = []
    installed(lambda request: made.append(Istio(request)) or made[-1])
    rollout = loaded(
        tmp_path, {"adapter": "istio", "params": {"mesh": "a"}, "strategy": "blue-green"}
    )
    want = Traffic(shadow=True, release="v2", baseline_release="v1")
    rollout.apply(want)
    assert (rollout.name, rollout.running()) == ("istio", want)
    assert made[0].request == hookspecs.RolloutRequest(
        {"mesh": "a"}, "blue-green", tmp_path / "var", TARGET
    )


@pytest.mark.parametrize(
    "fault", [RuntimeError("boom"), SystemExit(0), UsageError("full disk"), RolloutError("no")]
)
def test_however_an_adapter_fails_it_is_a_rollout_that_failed(tmp_path, installed, fault):
    def make(request):
        return Istio(request._replace(params={"fails": fault}))

    installed(make)
    with pytest.raises(RolloutError) as told:
        loaded(tmp_path, {"adapter": "istio"}).apply(Traffic(release="v1"))
    assert str(fault) in str(told.value)


@pytest.mark.parametrize("says", [{"pct": 5}, 5, "v2"])
def test_an_adapter_that_reports_something_else(tmp_path, installed, says):
    installed(lambda request: Istio(request._replace(params={"says": says})))
    with pytest.raises(RolloutError, match="istio reports no traffic"):
        loaded(tmp_path, {"adapter": "istio"}).running()


@pytest.mark.parametrize("fault", [KeyError("mesh"), PolicyError("mesh")])
def test_an_adapter_that_cannot_be_made(tmp_path, installed, fault):
    def make(request):
        raise fault

    installed(make)
    with pytest.raises(PolicyError, match="mesh"):
        loaded(tmp_path, {"adapter": "istio"})


# command


def script(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(f"#!{sys.executable}\n" + textwrap.dedent(text))
    path.chmod(0o755)
    return str(path)


def command(tmp_path, text, **more):
    argv = [script(tmp_path, "mover", text), "--weight", "a b;$(id)"]
    return loaded(tmp_path, {"adapter": "command", "command": {"argv": argv, **more}})


RECORD = """
    import json, os, sys
    with open({out!r}, "w") as out:
        json.dump([sys.argv[1:], dict(os.environ)], out)
"""


def test_the_command_gets_what_is_wanted_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("DECISIONOS_JUDGE_HMAC_KEY", "s3cr3t-s3cr3t-s3cr3t-s3cr3t-s3cr3t")
    monkeypatch.setenv("decisionos_judge_keys", "s3cr3t")
    monkeypatch.setenv("KUBECONFIG", "/home/me/kube")
    out = tmp_path / "out.json"
    command(tmp_path, RECORD.format(out=str(out)))
    monkeypatch.chdir(tmp_path)
    rollout = load_rollout(
        tmp_path / "rollout.yaml", root=Path("var"), target=TARGET, stickiness="cookie:sid"
    )
    rollout.apply(Traffic(pct=12.5, release="v2", baseline_release="v1"))
    argv, env = json.loads(out.read_text())
    assert argv == ["--weight", "a b;$(id)"]
    assert {k: v for k, v in env.items() if k.startswith("DECISIONOS_")} == {
        "DECISIONOS_PCT": "12.5",
        "DECISIONOS_SHADOW": "0",
        "DECISIONOS_KEEP_WARM": "0",
        "DECISIONOS_RELEASE": "v2",
        "DECISIONOS_BASELINE_RELEASE": "v1",
        "DECISIONOS_STICKINESS": "cookie:sid",
        "DECISIONOS_STRATEGY": "canary",
        "DECISIONOS_ROOT": str(tmp_path / "var"),
        "DECISIONOS_TARGET": "checkout/production/eu-1/all",
        "DECISIONOS_TARGET_SERVICE": "checkout",
        "DECISIONOS_TARGET_ENVIRONMENT": "production",
        "DECISIONOS_TARGET_REGION": "eu-1",
        "DECISIONOS_TARGET_TENANT": "all",
    }
    assert env["KUBECONFIG"] == "/home/me/kube"
    assert "s3cr3t" not in out.read_text()


@pytest.mark.parametrize(
    ("want", "said"),
    [
        (Traffic(), ("0", "0", "0", "", "")),
        (Traffic(release="v1"), ("0", "0", "0", "v1", "")),
        (Traffic(shadow=True, release="v2", baseline_release="v1"), ("0", "1", "0", "v2", "v1")),
        (
            Traffic(pct=100.0, release="v2", baseline_release="v1", keep_warm=True),
            ("100", "0", "1", "v2", "v1"),
        ),
    ],
)
def test_the_command_is_told_each_kind_of_traffic(tmp_path, want, said):
    out = tmp_path / "out.json"
    command(tmp_path, RECORD.format(out=str(out))).apply(want)
    env = json.loads(out.read_text())[1]
    names = ("PCT", "SHADOW", "KEEP_WARM", "RELEASE", "BASELINE_RELEASE")
    assert tuple(env[f"DECISIONOS_{name}"] for name in names) == said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import sys; sys.exit(3)", "failed with status 3: it said nothing"),
        ("import sys; sys.exit('no such service\\nat all')", "status 1: no such service / at all"),
        ("print('on stdout'); raise SystemExit(1)", "status 1: on stdout"),
        ("import os; os.kill(os.getpid(), 9)", "failed with signal 9"),
        ("import sys; sys.stderr.buffer.write(b'\\xff\\x1b[31m' * 9); sys.exit(1)", "\\x1b[31m"),
    ],
)
def test_a_command_that_fails_says_how(tmp_path, text, says):
    with pytest.raises(RolloutError) as told:
        command(tmp_path, text).apply(Traffic(release="v1"))
    assert says in str(told.value)
    assert str(told.value).isprintable()


def test_the_end_of_endless_output_is_told(tmp_path):
    text = """
        import sys
        for _ in range(300):
            sys.stdout.write("x" * 65536)
        sys.exit("the end")
    """
    with pytest.raises(RolloutError, match="the end"):
        command(tmp_path, text).apply(Traffic(release="v1"))


def test_a_command_that_is_not_there(tmp_path):
    document = {"adapter": "command", "command": {"argv": ["/nowhere/mover"]}}
    with pytest.raises(RolloutError, match="/nowhere/mover: cannot be started"):
        loaded(tmp_path, document).apply(Traffic(release="v1"))
    document["command"]["argv"] = ["a\0b"]
    with pytest.raises(RolloutError, match="cannot be started"):
        loaded(tmp_path, document).apply(Traffic(release="v1"))


@pytest.mark.slow
def test_a_command_that_hangs_is_stopped_with_its_children(tmp_path):
    text = f"""
        import os, time
        if os.fork() == 0:
            open({str(tmp_path / "child")!r}, "w").write(str(os.getpid()))
        time.sleep(600)
    """
    with pytest.raises(RolloutError, match="did not end within 1.5 s"):
        command(tmp_path, text, timeout_sec=1.5).apply(Traffic(release="v1"))
    child = int((tmp_path / "child").read_text())
    until = time.monotonic() + 30
    while is_running(child):
        assert time.monotonic() < until
        time.sleep(0.01)


def is_running(pid):
    """Whether it is; one that is dead and not yet waited for by init does not count."""
    with contextlib.suppress(OSError):
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.slow
def test_what_a_command_leaves_behind_is_not_waited_for(tmp_path):
    text = f"""
        import os, time
        if os.fork() == 0:
            open({str(tmp_path / "child")!r}, "w").write(str(os.getpid()))
            time.sleep(600)
        while not os.path.exists({str(tmp_path / "child")!r}):
            time.sleep(0.01)
    """
    command(tmp_path, text, timeout_sec=300).apply(Traffic(release="v1"))
    child = int((tmp_path / "child").read_text() or "0") or None
    if child:
        assert is_running(child)
        os.kill(child, signal.SIGKILL)


def test_the_report_tells_what_runs(tmp_path):
    says = {"pct": 25, "release": "v2", "baseline_release": "v1"}
    report = script(tmp_path, "report", f"print({json.dumps(says)!r})")
    rollout = command(tmp_path, "", report=[report])
    assert rollout.running() == Traffic(pct=25.0, release="v2", baseline_release="v1")
    assert command(tmp_path, "").running() is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("print('')", "empty file"),
        ("print('10')", "report of traffic"),
        ("print('{')", "not JSON"),
        ("print('{\"pct\": NaN}')", "NaN is not finite"),
        ('print(\'{"pct": 10, "pct": 90}\')', "duplicate key"),
        ('print(\'{"pct": 10, "release": "v2"}\')', "without a baseline"),
        ('print(\'{"pct": 10, "release": "v;", "baseline_release": "v1"}\')', "release"),
        ("raise SystemExit('down')", "down"),
        ("print('x' * 2_000_000)", "not JSON"),
    ],
)
def test_a_report_that_cannot_be_used(tmp_path, text, says):
    rollout = command(tmp_path, "", report=[script(tmp_path, "report", text)])
    with pytest.raises(RolloutError, match=says):
        rollout.running()


def test_programs_are_looked_for_where_daemons_are(monkeypatch):
    monkeypatch.delenv("PATH")
    monkeypatch.setenv("DECISIONOS_ROOT", "x")
    found = external.environment({"A": "b"})
    assert found["PATH"].endswith(":/usr/local/sbin:/usr/sbin:/sbin")
    assert found["A"] == "b"
    assert "DECISIONOS_ROOT" not in found
