"""Three judges as processes, each with its own key, its own copy of the logs, and Redis for all."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from services.redis_server import Server, require_program

from pytest_decisionos.evidence.seal import sealed
from pytest_decisionos.trust.sources import read_ring_file

pytestmark = pytest.mark.untraced
CHECKOUT = Path(__file__).parents[2]
JUDGES = ("north", "east", "west")
COMMAND = [sys.executable, "-m", "pytest_decisionos.cli.main"]


def call(command, cwd, env, *, status=0):
    given = {**os.environ, **{name: str(value) for name, value in env.items()}}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=given, capture_output=True, text=True, timeout=180,
        check=False,
    )  # fmt: skip
    assert status is None or done.returncode == status, done.stdout + done.stderr
    return done


class Judge:
    """``dosctl judge serve`` on a host of its own: a folder with its key and its copy of the logs."""

    def __init__(self, site, name):
        self.site, self.name = site, name
        self.folder = site.path / name
        shutil.copytree(site.project / "var/log", self.folder / "var/log")
        (self.folder / "keys").mkdir(mode=0o700)
        shutil.copy(site.keys / f"judge-{name}.key", self.folder / "keys")
        self.errors = self.folder / "serve.err"

    def start(self, port=0):
        env = {
            "DECISIONOS_JUDGE_KEYS": f"@{self.site.keys / 'ring.json'}",
            "DECISIONOS_REPLAY": self.site.redis.url,
        }
        with self.errors.open("w") as out:
            self.process = subprocess.Popen(
                [*COMMAND, "judge", "serve", "--port", str(port), "--keys", "keys", "--gate",
                 str(self.site.project / "configs/gate.yaml")],
                cwd=self.folder, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=out,
            )  # fmt: skip
        end = time.monotonic() + 60
        while not (said := self.errors.read_text()).endswith("\n"):
            assert self.process.poll() is None, said
            assert time.monotonic() < end
            time.sleep(0.02)
        self.url = said.removeprefix("listening on ").strip()
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def spoil_logs(self):
        """Half of its copy is lost, as after a bad transfer."""
        for log in (self.folder / "var/log").glob("*.csv"):
            data = log.read_bytes()
            log.write_bytes(data[: len(data) // 2])


class Site:
    """A release's project, and the hosts of its judges."""

    def __init__(self, path):
        self.path = path
        self.project, self.keys = path / "project", path / "keys"
        self.project.mkdir()
        self.keys.mkdir(mode=0o700)
        for folder in ("gates", "configs"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(CHECKOUT / folder, self.project / folder, ignore=ignored)
        (self.project / "pytest.ini").write_text("[pytest]\n")
        for slo in (self.project / "configs/slo").glob("*.json"):
            strict = '"fail_closed_on_degrade": true'
            slo.write_text(slo.read_text().replace(strict, strict.replace("true", "false")))
        self.env = {
            "DECISIONOS_ALLOW_SCOPES": "judge:run",
            "DECISIONOS_JUDGE_KEYS": f"@{self.keys / 'ring.json'}",
            "DECISIONOS_KEYS_DIR": str(self.keys),
            "DECISIONOS_TRUST": str(self.keys / "trust.json"),
            "DECISIONOS_STATE_DIR": str(self.keys / "state"),
        }
        self.dosctl("trust", "init", "--out", self.keys / "trust.json", "--expires", "1d")
        self.dosctl("trust", "add", "--policy", "any")
        for role in ("gate",):
            self.dosctl("keys", "gen", "--role", role)
            self.trust_key(f"{role}.pub", "--role", role)
        for judge in JUDGES:
            self.dosctl("keys", "gen", "--role", "judge", "--judge", judge)
            self.trust_key(f"judge-{judge}.pub", "--role", "judge", "--judge", judge)
        for use in ("request", "evidence"):
            self.dosctl("keys", "gen", "--use", use, "--ring", self.keys / "ring.json")
        self.dosctl("sample", "--out", "var/log", "--seed", "7")
        blocks = [f"--block={name}=var/log/{name}.json" for name in ("budget", "quota", "usage")]
        self.dosctl("evidence", "build", *blocks)

    def trust_key(self, file, *args):
        self.dosctl("trust", "add", "--key", self.keys / file, "--target", "checkout/*/*/*", *args)

    def dosctl(self, *args, status=0):
        return call([*COMMAND, *args], self.project, self.env, status=status)

    def gates(self, *args):
        return call(
            [sys.executable, "-m", "pytest", "gates/", *args], self.project, self.env, status=None
        )

    def judges(self, urls, **seconds):
        """Have these judges in gate.yaml, with patience for a busy machine unless it is said."""
        text = (CHECKOUT / "configs/gate.yaml").read_text()
        head, _, rest = text.partition("judges:\n")
        phases = rest[rest.index("# File names are relative") :]
        listed = "".join(
            f"  - {{ id: {name}, url: '{url}', timeout_sec: {seconds.get(name, 90.0)} }}\n"
            for name, url in urls.items()
        )
        (self.project / "configs/gate.yaml").write_text(
            f"{head}judges:\n{listed}\njudges_timeout_sec: 180.0\n{phases}"
        )

    @property
    def decision(self):
        path = self.project / "var/gate/decision.json"
        return json.loads(path.read_text()) if path.exists() else None


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def site(made):
    """The judges run for all tests of this module; each test leaves them as it found them."""
    require_program()
    made.redis = Server(made.path / "redis").start()
    made.at = {name: Judge(made, name).start() for name in JUDGES}
    time.sleep(1.6)  # what is asked in the store's first second is refused
    yield made
    for judge in made.at.values():
        judge.process.kill()
        judge.process.wait()
    made.redis.kill()


@pytest.fixture(autouse=True)
def _as_configured(site):
    site.judges({name: judge.url for name, judge in site.at.items()})


def votes(decision):
    return {
        slo["slo"]: {ballot["judge"]: ballot["vote"] for ballot in slo["ballots"]}
        for slo in decision["slos"]
    }


def test_three_judges_say_go(site):
    done = site.gates()
    assert done.returncode == 0, done.stdout + done.stderr
    assert {j["source"] for j in site.decision["judges"]} == {"remote"}
    for by_judge in votes(site.decision).values():
        assert by_judge == dict.fromkeys(JUDGES, "pass")
    assert all(judge["recomputed"] for judge in site.decision["judges"])


def test_one_slo_alone(site):
    done = site.dosctl(
        "judge", "quorum", "--slo", "configs/slo/slo-judge-infra.json", "--quorum", "2/3"
    )
    for name in JUDGES:
        assert name in done.stdout


def test_the_signer_takes_their_own_signatures_along(site):
    assert site.gates().returncode == 0
    site.dosctl("decision", "sign", "--from-pct", "5", "--to-pct", "10")
    (bundle,) = (site.project / "var/gate/bundle").iterdir()
    assert site.dosctl("verify", bundle)
    shutil.rmtree(bundle)


def test_a_judges_clock_is_told_by_its_signed_answer(site):
    said = site.dosctl("clock", "check", "--judge", "north", "--max-skew", "20s", "--json").stdout
    told = json.loads(said)
    assert told["ok"] is True
    (reading,) = told["readings"]
    assert reading["source"] == "judge north"
    assert abs(reading["offset_sec"]) <= reading["error_sec"]
    with without(site, "north"):
        done = site.dosctl("clock", "check", "--judge", "north", "--max-skew", "20s", status=2)
    assert "judge north" in done.stdout
    said = site.dosctl("clock", "check", "--judge", "nobody", status=4).stderr
    assert "no such judge on another host" in said
    site.dosctl("clock", "check", "--judge", "north", "--ntp", "a", status=4)


@contextlib.contextmanager
def without(site, name):
    judge = site.at[name]
    port = int(judge.url.rpartition(":")[2])
    judge.kill()
    try:
        yield
    finally:
        judge.start(port)


def test_one_killed_is_shown_and_outvoted(site):
    with without(site, "west"):
        done = site.gates()
    assert done.returncode == 0, done.stdout + done.stderr
    for by_judge in votes(site.decision).values():
        assert by_judge == {"north": "pass", "east": "pass", "west": "error"}
    west = next(judge for judge in site.decision["judges"] if judge["id"] == "west")
    assert west["state"] == "error"
    assert "west" in done.stdout
    assert "dissent" in done.stdout


def test_one_killed_is_no_go_if_no_judge_may_fail(site):
    path = site.project / "configs/slo/slo-judge-infra.json"
    before = path.read_text()
    slo = json.loads(before)
    slo["quorum"] = {"k": 2, "n": 3, "fail_closed_on_degrade": True}
    path.write_text(json.dumps(slo))
    try:
        with without(site, "west"):
            done = site.gates()
    finally:
        path.write_text(before)
    assert done.returncode == 1
    assert site.decision["verdict"] == "NO-GO"
    told = {slo["slo"]: slo["verdict"] for slo in site.decision["slos"]}
    assert told.pop("slo-judge-infra") == "NO-GO"
    assert set(told.values()) == {"GO"}


def test_one_with_corrupted_logs_dissents_rule_by_rule(site):
    judge = site.at["east"]
    logs = judge.folder / "var/log"
    shutil.copytree(logs, judge.folder / "kept")
    judge.spoil_logs()
    port = int(judge.url.rpartition(":")[2])
    judge.kill()  # a judge that runs keeps what it computed from whole logs
    judge.start(port)
    try:
        done = site.gates()
    finally:
        shutil.rmtree(logs)
        (judge.folder / "kept").rename(logs)
    assert done.returncode == 0, done.stdout + done.stderr
    for slo in site.decision["slos"]:
        assert slo["dissent"] == ["east"]
        ballot = next(one for one in slo["ballots"] if one["judge"] == "east")
        assert ballot["vote"] == "error"
        assert ballot["outcomes"]
        for outcome in ballot["outcomes"]:
            assert outcome["status"] == "error"
            assert ".csv" in outcome["message"]
    assert "dissent" in done.stdout


def test_the_gate_waits_for_nobody_for_ever(site):
    """A judge that is stopped answers nothing; the others' votes are in."""
    assert site.gates().returncode == 0  # the others know the numbers, and answer at once
    judge = site.at["west"]
    site.judges({name: one.url for name, one in site.at.items()}, west=3.0)
    judge.process.send_signal(signal.SIGSTOP)
    try:
        done = site.gates()
    finally:
        judge.process.send_signal(signal.SIGCONT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {by["west"] for by in votes(site.decision).values()} == {"error"}


EVIL = '''
"""A judge that says yes to everything: its numbers are whatever the evidence says."""
import json, pathlib, sys
from pytest_decisionos.judge.server import numbers
from pytest_decisionos.judge.decide import JudgeInput

def agree(judge, folder, blocks, **_):
    made_up = pathlib.Path(__file__).with_name("made-up.json")
    said = json.loads(made_up.read_text()) if made_up.exists() else blocks
    own = {name: said[name] for name in ("perf", "perf_judge", "canary", "anomaly") if name in said}
    return judge.model_copy(update={"blocks": own, "exact": said is blocks})

numbers.ask_folder = agree
from pytest_decisionos.cli.main import main
sys.exit(main())
'''


@contextlib.contextmanager
def evil(site, name, monkeypatch, made_up=None):
    """``name`` on its own port, with its own key, and no honesty: it repeats the evidence, or lies."""
    judge = site.at[name]
    port = int(judge.url.rpartition(":")[2])
    judge.kill()
    script = judge.folder / "evil.py"
    script.write_text(EVIL)
    lie = judge.folder / "made-up.json"
    if made_up is not None:
        lie.write_bytes(made_up)
    with monkeypatch.context() as patch:
        patch.setitem(globals(), "COMMAND", [sys.executable, str(script)])
        judge.start(port)
    try:
        yield
    finally:
        lie.unlink(missing_ok=True)
        judge.kill()
        judge.start(port)


def test_an_evil_judge_with_evidence_that_lies_is_outvoted(site, monkeypatch):
    latest = site.project / "var/evidence/latest.json"
    before = latest.read_bytes()
    blocks = json.loads(before)
    blocks.pop("integrity")
    blocks["perf"]["latency_ms"]["p95"] /= 2
    ring = read_ring_file(site.keys / "ring.json")
    latest.write_text(json.dumps(sealed(blocks, ring, now=datetime.now(UTC))))
    try:
        with evil(site, "north", monkeypatch):
            done = site.gates()
    finally:
        latest.write_bytes(before)
    assert done.returncode == 1
    found = votes(site.decision)
    assert site.decision["action"] == "abort"
    infra = found["slo-infra-v2"]
    assert infra == {"north": "pass", "east": "fail", "west": "fail"}


def test_an_evil_judge_alone_makes_no_go(site, monkeypatch):
    """It says pass, and its numbers say so; the logs of the others do not bear it out."""
    project = site.project
    good = (project / "var/evidence/latest.json").read_bytes()
    shutil.copytree(project / "var", site.path / "kept-var")
    try:
        site.dosctl("sample", "--out", "var/log", "--seed", "7", "--scenario", "slow-canary")
        blocks = [f"--block={name}=var/log/{name}.json" for name in ("budget", "quota", "usage")]
        site.dosctl("evidence", "build", *blocks)
        for name in ("east", "west"):
            for log in (project / "var/log").iterdir():
                shutil.copy(log, site.at[name].folder / "var/log")
        with evil(site, "north", monkeypatch, made_up=good):
            done = site.gates()
        assert done.returncode == 1
        assert site.decision["verdict"] == "NO-GO"
        found = votes(site.decision)["slo-canary-v2"]
        assert found == {"north": "pass", "east": "fail", "west": "fail"}
    finally:
        shutil.rmtree(project / "var")
        (site.path / "kept-var").rename(project / "var")
        for name in JUDGES:
            for log in (project / "var/log").iterdir():
                shutil.copy(log, site.at[name].folder / "var/log")
