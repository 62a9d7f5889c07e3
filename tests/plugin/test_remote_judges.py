"""Judges on other hosts: `pytest gates/`, `dosctl judge quorum` and the signer hear them alike."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "judge"))

from bundle_cases import key
from judge_stub import KEYS, RING, Stub

from pytest_decisionos.evidence.seal import sealed
from pytest_decisionos.testing import healthy
from pytest_decisionos.trust import ed25519

NAMES = ("j1", "j2", "j3")
LATENCY = {"max_p95_ms": 900, "min_samples": 100}


@pytest.fixture
def judges():
    with Stub("j1") as one, Stub("j2") as two, Stub("j3") as three:
        yield one, two, three


@pytest.fixture
def place(project, judges):
    """A project whose three judges are elsewhere; returns it and what must be exported."""
    roles = [("gate", None), *(("judge", name) for name in NAMES)]
    keys = []
    for role, name in roles:
        one = key(name or role)
        named = {"judge": name} if name else {}
        keys.append(
            {
                "keyid": one.keyid,
                "role": role,
                "public_key": one.public.pem,
                "targets": ["*/*/*/*"],
                **named,
            }
        )
    trust = {
        "version": 1, "expires": "2100-01-01T00:00:00Z", "keys": keys,
        "policy_sha256": ["*"], "min_k": 2, "min_n": 3, "min_remote": 2,
    }  # fmt: skip
    project.write("trust.json", json.dumps(trust))
    project.write("keys/.keep", "")
    ed25519.write_private(project.path / "keys/gate.key", key("gate"))  # no judge's key is here
    for name, entries in (("ring", KEYS), ("requests", KEYS[1:])):
        project.write(f"{name}.json", json.dumps(entries)).chmod(0o600)
    now = datetime.now(UTC)
    blocks = healthy(now)
    project.write("var/evidence/latest.json", json.dumps(sealed(blocks, RING, now=now)))
    environment = {
        "DECISIONOS_TRUST": project.path / "trust.json",
        "DECISIONOS_STATE_DIR": project.path / "state",
        "DECISIONOS_JUDGE_KEYS": f"@{project.path / 'requests.json'}",
        "DECISIONOS_ALLOW_SCOPES": "judge:run",
    }
    gate(project, [{"id": one.name, "url": one.url} for one in judges])
    return project, environment


def gate(project, listed, *, closed=False):
    quorum = {"k": 2, "n": 3, "fail_closed_on_degrade": closed}
    project.slo("s", {"latency": LATENCY, "quorum": quorum})
    project.gate(judges=listed, slos=["s"])


def down(judges):
    return [
        *({"id": one.name, "url": one.url} for one in judges[:2]),
        {"id": "j3", "url": "http://127.0.0.1:1"},
    ]


def ballots(decision):
    return {b["judge"]: b["vote"] for b in decision["slos"][0]["ballots"]}


def test_a_run_with_keys_for_requests_alone_is_go(place, judges):
    project, environment = place
    result = project.pytest("gates/", "-v", **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert ballots(project.decision) == dict.fromkeys(NAMES, "pass")
    assert "s::latency.p95@j3" in result.stdout
    assert [one.said for one in judges] == [1, 1, 1]


def test_workers_of_xdist_ask_nobody_again(place, judges):
    project, environment = place
    result = project.pytest("gates/", "-n", "2", **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert [one.said for one in judges] == [1, 1, 1]


@pytest.mark.parametrize(("closed", "status"), [(False, 0), (True, 1)])
def test_an_outage_is_shown_everywhere(place, judges, closed, status):
    project, environment = place
    gate(project, down(judges), closed=closed)
    result = project.pytest("gates/", COLUMNS="80", **environment)
    assert result.returncode == status, result.stdout + result.stderr
    assert ballots(project.decision) == {"j1": "pass", "j2": "pass", "j3": "error"}
    junit = (project.path / "var/gate/junit.xml").read_text()
    comment = (project.path / "var/gate/comment.md").read_text()
    for text in (result.stdout, junit, comment):
        flat = " ".join(text.replace("|", " ").split())
        assert "judge j3 cannot say" in flat
        assert "cannot be reached: Connection refused" in flat, text
    quorum = project.dosctl(
        "judge", "quorum", "--slo", "configs/slo/s.json", COLUMNS="80", **environment
    )
    assert quorum.returncode == (2 if closed else 0), quorum.stderr
    assert "cannot be reached" in " ".join(quorum.stdout.split())


def test_dissent_is_shown_by_rule(place, judges):
    project, environment = place
    judges[1].p95 = 5000.0
    result = project.pytest("gates/", **environment)
    assert result.returncode == 0, result.stdout
    assert "j2" in result.stdout
    assert "5,000 ms" in result.stdout
    quorum = project.dosctl("judge", "quorum", "--slo", "configs/slo/s.json", **environment)
    assert quorum.returncode == 0
    assert "5,000 ms" in quorum.stdout


@pytest.mark.parametrize("lacking", ["DECISIONOS_TRUST", "DECISIONOS_JUDGE_KEYS"])
def test_what_is_not_configured_is_one_line(place, lacking):
    project, environment = place
    del environment[lacking]
    result = project.pytest("gates/", **environment)
    assert result.returncode == 4
    assert f"{lacking}: a judge is on another host" in result.stderr
    quorum = project.dosctl("judge", "quorum", "--slo", "configs/slo/s.json", **environment)
    assert quorum.returncode == 4
    assert quorum.stderr.startswith(f"error: {lacking}: a judge is on another host")
    assert len(quorum.stderr.splitlines()) == 1
    assert quorum.stdout == ""


def sign(project, environment):
    ring = {**environment, "DECISIONOS_JUDGE_KEYS": f"@{project.path / 'ring.json'}"}
    del ring["DECISIONOS_TRUST"]
    return project.dosctl(
        "decision", "sign", "--keys", "keys", "--trust", "trust.json", "--from-pct", "5",
        "--to-pct", "25", "--json", **ring,
    )  # fmt: skip


def bundle_of(project):
    (folder,) = (project.path / "var/gate/bundle").iterdir()
    return folder


def test_the_signer_asks_them_itself_and_their_own_verdicts_are_in_the_bundle(place, judges):
    project, environment = place
    assert project.pytest("gates/", **environment).returncode == 0
    result = sign(project, environment)
    assert result.returncode == 0, result.stderr
    assert [one.said for one in judges] == [2, 2, 2]
    folder = bundle_of(project)
    assert sorted(one.name for one in (folder / "verdicts").iterdir()) == [
        f"s@{name}.json" for name in NAMES
    ]
    verified = project.dosctl("verify", folder, "--trust", "trust.json", **environment)
    assert verified.returncode == 0, verified.stdout


def test_a_bundle_without_the_verdict_of_a_judge_that_was_down(place, judges):
    project, environment = place
    gate(project, down(judges))
    assert project.pytest("gates/", **environment).returncode == 0
    result = sign(project, environment)
    assert result.returncode == 0, result.stderr
    folder = bundle_of(project)
    assert sorted(one.name for one in (folder / "verdicts").iterdir()) == ["s@j1.json", "s@j2.json"]
    verified = project.dosctl("verify", folder, "--trust", "trust.json", **environment)
    assert verified.returncode == 0, verified.stdout
    assert "none of j3" in " ".join(verified.stdout.split())


def test_too_few_judges_elsewhere_are_not_signed(place, judges):
    project, environment = place
    gate(project, [*down(judges)[1:], {"id": "j0", "source": "evidence"}])
    ed25519.write_private(project.path / "keys/judge-j0.key", key("j0"))
    document = json.loads((project.path / "trust.json").read_text())
    one = key("j0")
    document["keys"].append(
        {
            "keyid": one.keyid,
            "role": "judge",
            "judge": "j0",
            "public_key": one.public.pem,
            "targets": ["*/*/*/*"],
        }
    )
    project.write("trust.json", json.dumps(document))
    assert project.pytest("gates/", **environment).returncode == 0  # 2 of 3, one of them elsewhere
    result = sign(project, environment)
    assert result.returncode == 2
    assert "1 judges on other hosts pass s, and the trust file asks for 2" in result.stderr
