"""Only a sealed, fresh, unvetoed GO that would verify is signed; what is not is kept unsigned."""

import json
from datetime import timedelta
from pathlib import Path

import bundle_cases as cases
import pytest
from bundle_cases import KEYS, NOW, TrustFile, inside, judged, project, trust

from pytest_decisionos.errors import KeysError, RefusedError, UsageError
from pytest_decisionos.evidence import bundle
from pytest_decisionos.evidence.seal import sealed
from pytest_decisionos.judge import sign as signing
from pytest_decisionos.judge.bundled import slo_path
from pytest_decisionos.judge.decide import decide
from pytest_decisionos.judge.verify import verify_bundle
from pytest_decisionos.model.decision import InputFile, Verdict
from pytest_decisionos.model.outcome import Status
from pytest_decisionos.model.statement import parse_decision, parse_verdict, release_subject
from pytest_decisionos.report.publish import decision_json
from pytest_decisionos.trust import dsse, ed25519


def sign(inputs, *, document=None, keys=KEYS, max_age_sec=900, step=None):
    return signing.sign(
        inputs, decide(inputs), Path("configs"), keys,
        TrustFile.model_validate(document or trust()),
        step=step or signing.Step(), max_age_sec=max_age_sec, bundles=Path("var/gate/bundle"),
    )  # fmt: skip


@pytest.fixture
def here(tmp_path):
    project(tmp_path)
    with inside(tmp_path):
        yield tmp_path


def test_a_go_is_signed_and_bound(here):
    signed = sign(judged(), step=signing.Step(5, 25, "3" * 64, "5" * 64, "4" * 64))
    assert signed.signed
    assert signed.folder == Path("var/gate/bundle") / signed.claims.decision_id
    envelope = dsse.parse((signed.folder / "decision.json").read_bytes())
    payload = json.loads(envelope.payload)
    assert payload["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert payload["predicate"]["verificationResult"] == "PASSED"
    claims = parse_decision(envelope.payload).claims
    assert (claims.from_pct, claims.to_pct, claims.k, claims.n) == (5, 25, 2, 3)
    assert (claims.stage_sha256, claims.tests_sha256) == ("3" * 64, "4" * 64)
    assert claims.expires_at == NOW - timedelta(seconds=60) + timedelta(seconds=900)
    assert str(claims.target) == "checkout/production/eu-1/all"
    assert set(parse_decision(envelope.payload).attestations) == {
        "evidence.json",
        *(bundle.verdict_name(s, j) for s in claims.quorums for j in cases.JUDGES),
    }
    verdict = json.loads(
        dsse.parse((signed.folder / "verdicts/slo-a@witness.json").read_bytes()).payload
    )
    assert verdict["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert verdict["predicate"]["result"] == "PASSED"
    assert verdict["predicate"]["passedTests"] == ["latency.p95"]
    assert not any(path.stat().st_mode & 0o222 for path in signed.folder.rglob("*.json"))


def test_a_no_go_is_kept_and_never_signed(here):
    signed = sign(judged({"witness": 5000.0, "peer": 5000.0}))
    assert not signed.signed
    files = bundle.read_bundle(signed.folder)
    envelope = dsse.parse(files["decision.json"])
    assert envelope.signatures == ()
    assert json.loads(envelope.payload)["predicate"]["verificationResult"] == "FAILED"
    failed = parse_verdict(dsse.parse(files["verdicts/slo-a@peer.json"]).payload)
    assert failed.vote == "fail"
    report = verify_bundle(files, TrustFile.model_validate(trust()), now=cases.LATER)
    assert [f.reason for f in report.findings if f.status is not Status.SUCCESSFUL] == [
        "bundle.signature:unsigned"
    ]


def test_unsealed_evidence_makes_no_authority(here):
    with pytest.raises(RefusedError, match="only sealed evidence makes authority"):
        sign(judged(unsealed=True))
    assert not Path("var/gate/bundle").exists()


@pytest.mark.parametrize("max_age", [0.0, 59.0, 60.0])
def test_evidence_too_old_to_act_on(here, max_age):
    with pytest.raises(RefusedError, match="too old to act on"):
        sign(judged(), max_age_sec=max_age)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (trust(min_k=3), "bundle.quorum:under"),
        (trust(policy_sha256=[]), "bundle.policy:not_allowed"),
        (trust(gate={"targets": ["checkout/staging/*/*"]}), "bundle.signature:wrong_target"),
        (trust(gate={"revoked": True}), "bundle.signature:revoked_key"),
    ],
)
def test_what_would_not_verify_is_not_signed(here, document, code):
    with pytest.raises(RefusedError, match="not signed, because it would not verify") as caught:
        sign(judged(), document=document)
    assert caught.value.field == code
    assert not Path("var/gate/bundle").exists()


def test_a_judge_without_key(here):
    with pytest.raises(KeysError, match="a judge has no key"):
        sign(judged(), keys=signing.SigningKeys(KEYS.gate, {"evidence": KEYS.judges["evidence"]}))


@pytest.mark.parametrize(
    "name", ["var/evidence/latest.json", "configs/gate.yaml", "configs/slo/slo-a.json"]
)
def test_a_file_that_changes_meanwhile(here, name):
    inputs = judged()
    Path(name).write_text(Path(name).read_text() + "\n")
    with pytest.raises(UsageError, match="changed while it was judged"):
        sign(inputs)


def test_a_bundle_is_never_overwritten(here):
    inputs = judged()
    folder = sign(inputs).folder
    before = bundle.read_bundle(folder)
    with pytest.raises(RefusedError, match="a bundle of this name is there"):
        sign(inputs)
    assert bundle.read_bundle(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("file", ["/etc/slo.json", "../slo.json", "slo/../../x.json", "a\\b.json"])
def test_an_slo_from_elsewhere_cannot_be_bundled(file):
    with pytest.raises(UsageError, match="cannot be bundled"):
        slo_path(file)


def test_keys_by_their_names(tmp_path):
    for name in ("gate", "judge-witness"):
        ed25519.write_private(tmp_path / f"{name}.key", ed25519.generate())
    keys = signing.load_keys(tmp_path, ["witness"])
    assert set(keys.judges) == {"witness"}
    with pytest.raises(KeysError, match=r"judge-peer\.key"):
        signing.load_keys(tmp_path, ["witness", "peer"])


# What a pytest run says


def write_run(decision, **changes):
    path = Path("var/gate/decision.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(decision_json(decision.model_copy(update=changes)))
    return path


def test_a_run_on_the_same_evidence_that_says_go(here):
    decision = decide(judged())
    tests, veto = signing.veto_of(write_run(decision), decision)
    assert veto == ""
    assert len(tests) == 64


@pytest.mark.parametrize(
    "changes", [{"verdict": Verdict.NO_GO}, {"verdict": Verdict.HOLD}, {"partial": ("x",)}]
)
def test_a_run_that_says_no_is_a_veto(here, changes):
    decision = decide(judged())
    tests, veto = signing.veto_of(write_run(decision, **changes), decision)
    assert tests
    assert "says" in veto


def test_no_run(here):
    decision = decide(judged())
    assert signing.veto_of(Path("var/gate/decision.json"), decision) == (
        None,
        "no whole pytest run left a decision",
    )
    other = decision.model_copy(
        update={"evidence": decision.evidence.model_copy(update={"sha256": "5" * 64})}
    )
    assert signing.veto_of(write_run(other), decision)[0] is None
    fewer = decision.model_copy(update={"slos": decision.slos[:1]})
    assert signing.veto_of(write_run(fewer), decision)[0] is None
    assert signing.veto_of(write_run(decision, phase="post"), decision)[0] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"evidence": InputFile(file="latest.json", sha256="5" * 64)},
        {"gate": InputFile(file="gate.yaml", sha256="5" * 64)},
    ],
)
def test_a_veto_is_not_lost_by_spelling_the_evidence_or_the_policy_anew(here, changes):
    decision = decide(judged())
    path = write_run(decision, verdict=Verdict.NO_GO, **changes)
    tests, veto = signing.veto_of(path, decision)
    assert tests
    assert "the last pytest run on this window says NO-GO" in veto


def test_a_decision_names_its_release_whole_or_is_none(here):
    for release, named in (
        ("r" * 190 + "@sha256:" + "a" * 64, True),
        ("r" * 1025, False),
        (5, False),
        (None, False),
    ):
        evidence = cases.blocks()
        evidence["meta"]["release"] = release
        document = sealed(evidence, cases.RING, now=NOW)
        Path("var/evidence/latest.json").write_text(json.dumps(document))
        decision = decide(judged())
        assert decision.release == (release if named else None)
        if not named:
            with pytest.raises(RefusedError, match="the evidence names none"):
                sign(judged())


def test_a_file_name_that_is_not_utf_8(here):
    inputs = judged()
    judges = [j.model_copy(update={"reason": "\udcff"}) for j in inputs.judges]
    with pytest.raises(UsageError, match="not UTF-8"):
        sign(inputs.model_copy(update={"judges": tuple(judges)}))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"verdict": "GO"}'])
def test_a_run_that_cannot_be_read_is_a_veto(here, text):
    path = write_run(decide(judged()))
    path.write_text(text)
    tests, veto = signing.veto_of(path, decide(judged()))
    assert tests == ""
    assert veto


@pytest.mark.parametrize(
    ("release", "algorithm"),
    [
        ("sha256:" + "a" * 64, "sha256"),
        ("registry/app@sha256:" + "a" * 64, "sha256"),
        ("0" * 40, "gitCommit"),
        ("v0.5.11q", "nameSha256"),
        ("xsha256:" + "a" * 64, "nameSha256"),
        ("sha256:" + "A" * 64, "nameSha256"),
        (None, "nameSha256"),
        ("릴리스", "nameSha256"),
    ],
)
def test_the_subject_is_the_release(release, algorithm):
    assert list(release_subject(release).digest) == [algorithm]
