"""What the seal makes of a gate: with keys only a valid MAC will do, without them it is a dry-run."""

import json
from datetime import timedelta

import pytest
from bundle_cases import NOW, RING, blocks, inside, project

from pytest_decisionos.evidence.seal import sealed
from pytest_decisionos.judge.decide import decide
from pytest_decisionos.judge.gather import Request, gather
from pytest_decisionos.model.outcome import Status
from pytest_decisionos.trust.keys import make_ring

OTHER = make_ring([{"key_id": "k1", "secret": "hex:" + "cd" * 32, "state": "active"}], "other")


def states(state, **changes):
    entry = {"key_id": "k1", "secret": "hex:" + "ab" * 32, "state": state, "use": ["evidence"]}
    return make_ring([{**entry, **changes}], "test")


def also_for_evidence():
    """k1, which made the MAC, is for requests; another key is for evidence."""
    secrets = {"k1": ("ab", "request"), "k2": ("cd", "evidence")}
    entries = [
        {"key_id": k, "secret": f"hex:{s * 32}", "state": "active", "use": [use]}
        for k, (s, use) in secrets.items()
    ]
    return make_ring(entries, "test")


@pytest.fixture
def here(tmp_path):
    project(tmp_path)
    policy = tmp_path / "configs/slo/slo-a.json"
    spec = {"integrity": {"require_signature": True}, "quorum": {"k": 2, "n": 3}}
    policy.write_text(json.dumps(spec))
    gate = json.loads((tmp_path / "configs/gate.yaml").read_text())
    gate["judges"] = [{"id": j["id"], "source": "evidence"} for j in gate["judges"]]
    (tmp_path / "configs/gate.yaml").write_text(json.dumps(gate))
    with inside(tmp_path):
        yield tmp_path


def judged(here, document=None, ring=RING):
    if document is not None:
        (here / "var/evidence/latest.json").write_text(json.dumps(document))
    request = Request(
        root=here / "var", gate=here / "configs/gate.yaml", phase="cutover", now=NOW, ring=ring
    )
    decision = decide(gather(request))
    check = next(one for one in decision.checks if one.id == "evidence.integrity")
    (rule,) = next(slo for slo in decision.slos if slo.slo == "slo-a").ballots[0].outcomes
    assert (check.status, check.cause) == (rule.status, rule.cause)
    return decision, check


def test_a_valid_mac(here):
    decision, check = judged(here)
    assert decision.verdict == "GO"
    assert "MAC of key k1" in check.message


def test_without_keys_a_right_digest_is_a_dry_run_that_says_so(here):
    decision, check = judged(here, ring=None)
    assert decision.verdict == "GO"
    assert "unsigned: no keys are configured" in check.message
    assert any("no MAC and no signature" in note for note in decision.notes)
    assert judged(here, sealed(blocks()), ring=None)[0].verdict == "GO"


def test_a_ring_with_keys_for_requests_alone_checks_no_mac(here):
    decision, check = judged(here, ring=states("active", use=["request"]))
    assert decision.verdict == "GO"
    assert "unsigned" in check.message
    assert any("no MAC and no signature" in note for note in decision.notes)


def changed():
    document = sealed(blocks(), RING, now=NOW)
    document["perf"]["latency_ms"]["p95"] = 1.0
    return document


def redigested():
    document = changed()
    mac = document["integrity"]["mac"]
    document = sealed(document)
    document["integrity"]["mac"] = mac
    return document


@pytest.mark.parametrize(
    ("document", "ring", "status", "cause"),
    [
        (sealed(blocks()), RING, Status.ERROR, "missing"),
        (changed(), RING, Status.FAILED, "tampered"),
        (changed(), None, Status.FAILED, "tampered"),
        (redigested(), RING, Status.FAILED, "tampered"),
        (None, OTHER, Status.FAILED, "tampered"),
        (None, states("revoked"), Status.ERROR, "revoked_key"),
        (None, states("retired"), Status.ERROR, "retired_key"),
        (None, also_for_evidence(), Status.ERROR, "wrong_use"),
        (None, states("active", key_id="k2"), Status.ERROR, "unknown_key"),
        (None, states("grace", not_after="2026-01-01T00:00:00Z"), Status.ERROR, "outside_validity"),
        (sealed(blocks(), RING, now=NOW + timedelta(hours=1)), RING, Status.ERROR, "out_of_range"),
    ],
)
def test_anything_else_is_no_go(here, document, ring, status, cause):
    decision, check = judged(here, document, ring)
    assert decision.verdict == "NO-GO"
    assert (check.status, check.cause) == (status, cause)
    assert cause != "tampered" or decision.action == "abort"


@pytest.mark.parametrize("state", ["active", "grace"])
def test_these_verify(here, state):
    assert judged(here, ring=states(state))[0].verdict == "GO"
