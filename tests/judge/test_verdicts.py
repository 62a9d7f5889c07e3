"""A verdict is built once, by whoever judges; whatever differs from what it must be about is named."""

import json
from datetime import timedelta

import bundle_cases as cases
import pytest
from bundle_cases import NOW, TrustFile, inside, judged, key, project, signed_as, trust

from pytest_decisionos.errors import UnusableInputError
from pytest_decisionos.judge import verdicts
from pytest_decisionos.judge.decide import decide
from pytest_decisionos.judge.verdicts import Case, RefusedVerdict
from pytest_decisionos.model.outcome import Status
from pytest_decisionos.model.statement import parse_verdict, verdict_statement
from pytest_decisionos.trust import dsse

TRUST = TrustFile.model_validate(trust())


@pytest.fixture
def made(tmp_path):
    """A judge, its ballot, the case, its numbers and its claims."""
    project(tmp_path)
    with inside(tmp_path):
        inputs = judged()
    slo = decide(inputs).slos[0]
    (peer,) = (judge for judge in inputs.judges if judge.id == "peer")
    (ballot,) = (one for one in slo.ballots if one.judge == "peer")
    case = Case(
        inputs.phase, inputs.target, inputs.evidence.sha256, slo.slo, slo.sha256, inputs.now
    )
    numbers = verdicts.numbers_of(peer)
    claims = verdicts.verdict_claims(
        peer, ballot, case, numbers=numbers, judged_at=NOW + timedelta(seconds=1), nonce="n" * 20
    )
    return peer, ballot, case, numbers, claims


def test_claims_say_what_was_judged(made):
    _, ballot, _, _, claims = made
    assert claims.judge == "peer"
    assert claims.recomputed == ("perf",)
    assert claims.vote is ballot.vote
    assert claims.outcomes == ballot.outcomes
    assert (claims.as_of, claims.judged_at) == (NOW, NOW + timedelta(seconds=1))
    assert claims.nonce == "n" * 20
    payload = verdict_statement(claims).payload()
    assert parse_verdict(payload) == claims
    assert json.loads(payload)["predicateType"].endswith("test-result/v0.1")


def test_a_good_verdict_has_no_fault(made):
    peer, ballot, case, numbers, claims = made
    verdicts.check_about(claims, "peer", case, numbers)
    faults = verdicts.ballot_faults(claims, ballot, slo_sha256=case.slo_sha256, blocks=peer.blocks)
    assert faults == []
    data = dsse.sign(verdict_statement(claims).payload(), [key("peer")])
    envelope, read = verdicts.parse(data, "v")
    assert read == claims
    signers = verdicts.checked_signers(envelope, read, TRUST, case.target, "peer")
    assert signers == [key("peer").keyid]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"judge": "witness"}, "other_judge"),
        ({"slo": "slo-b"}, "other_slo"),
        ({"phase": "post"}, "other_phase"),
        ({"target": cases.STAGING}, "other_target"),
        ({"evidence_sha256": "1" * 64}, "other_evidence"),
        ({"numbers_sha256": "1" * 64}, "other_numbers"),
        ({"as_of": NOW + timedelta(microseconds=1)}, "other_time"),
    ],
)
def test_a_verdict_about_something_else_is_refused_by_what(made, changes, cause):
    _, _, case, numbers, claims = made
    other = type(claims).model_validate(claims.model_dump() | changes)
    with pytest.raises(RefusedVerdict) as caught:
        verdicts.check_about(other, "peer", case, numbers)
    assert caught.value.cause == cause
    assert caught.value.words == str(caught.value)


@pytest.mark.parametrize(
    ("by", "payload_type", "cause"),
    [
        ("witness", dsse.IN_TOTO, "wrong_judge"),
        ("gate", dsse.IN_TOTO, "wrong_role"),
        ("somebody", dsse.IN_TOTO, "unknown_key"),
        (None, dsse.IN_TOTO, "unsigned"),
        ("peer", "text/plain", "wrong_payload_type"),
    ],
)
def test_who_may_sign_it(made, by, payload_type, cause):
    claims, case = made[4], made[2]
    keys = [key(by)] if by else []
    data = signed_as(payload_type, verdict_statement(claims).payload(), *keys)
    envelope, read = verdicts.parse(data, "v")
    with pytest.raises(RefusedVerdict) as caught:
        verdicts.checked_signers(envelope, read, TRUST, case.target, "peer")
    assert caught.value.cause == cause


def test_what_is_no_verdict():
    for data in (b"", b"{}", dsse.sign(b"{}", [key("peer")])):
        with pytest.raises(UnusableInputError):
            verdicts.parse(data, "v")


def test_each_compared_field_is_compared(made):
    peer, ballot, case, _, claims = made
    changes = {
        "status": Status.FAILED, "cause": "over", "observed": 1.5, "unit": "s", "op": ">=",
        "bound": 1.5, "limit": 1.5, "samples": 1, "effective": 1.5, "severity": "warn",
        "waived": "by somebody",
    }  # fmt: skip
    assert set(changes) == set(verdicts.COMPARED)
    for name, value in changes.items():
        first, *rest = ballot.outcomes
        other = ballot.model_copy(
            update={"outcomes": (first.model_copy(update={name: value}), *rest)}
        )
        (fault,) = verdicts.ballot_faults(
            claims, other, slo_sha256=case.slo_sha256, blocks=peer.blocks
        )
        assert fault.startswith(f"{first.id} {name} signed")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"slo_sha256": "1" * 64}, "another SLO file"),
        ({"vote": "fail"}, "signed fail, again pass"),
        ({"recomputed": ()}, "other blocks"),
        ({"outcomes": ()}, "signed 0 outcomes, again 1"),
    ],
)
def test_a_verdict_that_judging_again_does_not_give(made, changes, says):
    peer, ballot, case, _, claims = made
    other = type(claims).model_validate(claims.model_dump() | changes)
    faults = verdicts.ballot_faults(other, ballot, slo_sha256=case.slo_sha256, blocks=peer.blocks)
    assert any(says in fault for fault in faults)
    assert len(faults) == (2 if "outcomes" in changes else 1)
