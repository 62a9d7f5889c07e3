"""Bundles with one fault each, made by those who have the keys where a key is needed to make it."""

import copy
import hashlib
import json
import os
from base64 import b64decode, b64encode
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pytest_decisionos.evidence import bundle, seal
from pytest_decisionos.judge import sign as signing
from pytest_decisionos.judge.bundled import policy_digest
from pytest_decisionos.judge.decide import GatedSlo, JudgeInput, RemoteVerdicts, decide
from pytest_decisionos.judge.gate import load_gate, load_labels
from pytest_decisionos.judge.gather import assemble, quorum_of
from pytest_decisionos.judge.verdicts import Case, numbers_of, verdict_claims
from pytest_decisionos.model.decision import Action, Verdict, Vote
from pytest_decisionos.model.evidence import read_evidence
from pytest_decisionos.model.outcome import Status
from pytest_decisionos.model.statement import (
    ParsedDecision,
    decision_statement,
    descriptor,
    parse_decision,
    parse_verdict,
    verdict_statement,
)
from pytest_decisionos.slo.compile import load_slo
from pytest_decisionos.trust import dsse
from pytest_decisionos.trust.ed25519 import PrivateKey
from pytest_decisionos.trust.keys import make_ring
from pytest_decisionos.trust.trustfile import TrustFile

CHECKOUT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
TARGET = {"service": "checkout", "environment": "production", "region": "eu-1", "tenant": "all"}
STAGING = {**TARGET, "environment": "staging"}
JUDGES = ("evidence", "witness", "peer")
RING = make_ring(
    [{"key_id": "k1", "secret": "hex:" + "ab" * 32, "state": "active", "use": ["evidence"]}], "test"
)


def key(name):
    """The private key of a name: made-up, and the same every time."""
    return PrivateKey(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


def signed_as(kind, payload, *keys):
    """An envelope as ``dsse.sign`` makes it, of another type of payload."""
    message = dsse.pae(payload, kind)
    made = [{"keyid": k.keyid, "sig": b64encode(k.sign(message)).decode()} for k in keys]
    document = {"payloadType": kind, "payload": b64encode(payload).decode(), "signatures": made}
    return json.dumps(document).encode()


KEYS = signing.SigningKeys(key("gate"), {judge: key(judge) for judge in JUDGES})


def trust(**changes):
    """The trust file that the good bundle verifies by; ``gate`` changes the gate's key."""
    gate = {"role": "gate", "targets": ["checkout/*/eu-1/all"], **changes.pop("gate", {})}
    listed = [("gate", gate)]
    listed += [(j, {"role": "judge", "judge": j, "targets": ["*/*/*/*"]}) for j in JUDGES]
    listed.append(("owner", {"role": "deploy-owner", "targets": ["*/*/*/*"]}))
    keys = [
        {"keyid": key(name).keyid, "public_key": key(name).public.pem, **spec}
        for name, spec in listed
    ]
    return {
        "version": 3, "expires": "2100-01-01T00:00:00Z", "keys": keys,
        "policy_sha256": ["*"], "min_k": 2, "min_n": 3, "min_remote": 0, **changes,
    }  # fmt: skip


def blocks(target=None, p95=400.0, end=NOW - timedelta(seconds=60)):
    start = end - timedelta(minutes=30)
    window = {"start": start.isoformat(), "end": end.isoformat()}
    return {
        "meta": {
            "version": "1", "target": target or TARGET, "release": "v0.5.11q",
            "baseline_release": "v0.5.11p", "window": window,
        },
        "perf": {"latency_ms": {"p95": p95, "p99": 2 * p95}, "error_rate": 0.002, "count": 5000},
    }  # fmt: skip


def project(folder, target=None, now=NOW, judges=JUDGES, remote=()):
    """The files of a small project: policy and sealed evidence; one judge has one SLO alone."""
    slos = [{"file": "slo/slo-a.json", "quorum": "2/3"}, "slo/slo-오류.yaml"]
    phase = {
        "slos": slos if len(judges) > 1 else slos[1:],
        "require_blocks": ["meta", "perf", "integrity"],
    }
    sources = {"evidence": "evidence", "witness": "log", "peer": "log"}
    gate = {
        "version": 1, "target": target or TARGET, "phases": {"cutover": phase},
        "judges": [
            {"id": j, "url": f"https://{j}:8443"} if j in remote else {"id": j, "source": sources[j]}
            for j in judges
        ],
    }  # fmt: skip
    labels = {
        "version": "1", "reasons": {"*": "reason:gate"},
        "groups": {"gate": {"weight": 1, "color": "ee0701", "description": "게이트"}},
        "labels": {"reason:gate": {"group": "gate", "color": "ee0701", "description": "게이트"}},
    }  # fmt: skip
    slo = {"latency": {"max_p95_ms": 900, "min_samples": 100}, "quorum": {"k": 2, "n": 3}}
    files = {
        "configs/gate.yaml": json.dumps(gate, indent=1),
        "configs/labels.json": json.dumps(labels, ensure_ascii=False, indent=1),
        "configs/slo/slo-a.json": json.dumps(slo, indent=1),
        "configs/slo/slo-오류.yaml": "error: {max_error_rate: 0.01, min_samples: 100}\n",
        "var/evidence/latest.json": json.dumps(seal.sealed(blocks(target), RING, now=now), indent=1),
    }  # fmt: skip
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@contextmanager
def inside(folder):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def judged(numbers=None, unsealed=False, now=NOW, dead=()):
    """What is judged here and now; ``numbers`` are each judge's own p95; ``dead`` do not answer."""
    gate = load_gate(Path("configs/gate.yaml"))
    slos = [
        GatedSlo(slo=slo, quorum=quorum_of(slo, listed, gate, len(gate.spec.judges)))
        for listed in gate.phase("cutover").slo_files()
        for slo in [load_slo(Path("configs") / listed.file)]
    ]
    evidence = read_evidence(Path("var/evidence/latest.json"))
    judges = [JudgeInput(id="evidence", source="evidence")]
    found = seal.check(evidence.blocks, None if unsealed else RING, now=now)
    for judge in gate.spec.judges[1:]:
        own = {"perf": copy.deepcopy(evidence.blocks["perf"])}
        own["perf"]["latency_ms"]["p95"] = (numbers or {}).get(judge.id, 400.0)
        if judge.id in dead:
            made = {"source": "remote", "state": "error", "reason": "it did not answer in time"}
        elif judge.url:
            made = {"source": "remote", "blocks": own, "seal": found}
        else:
            made = {"source": "log", "blocks": own}
        judges.append(JudgeInput(id=judge.id, **made))
    inputs = assemble(
        gate, "cutover", slos, load_labels(Path("configs/labels.json")), evidence,
        seal=found, judges=judges, now=now,
    )  # fmt: skip
    remote = {
        judge.id: answered(inputs, judge)
        for judge in judges
        if judge.source == "remote" and judge.state == "ready"
    }
    return inputs.model_copy(update={"remote": remote})


def answered(inputs, judge):
    """What a remote judge signs, a second after it was asked."""
    numbers, signed = numbers_of(judge), {}
    for slo in decide(inputs).slos:
        ballot = next(one for one in slo.ballots if one.judge == judge.id)
        case = Case(
            inputs.phase, inputs.target, inputs.evidence.sha256, slo.slo, slo.sha256, inputs.now
        )
        when = inputs.now + timedelta(seconds=1)
        claims = verdict_claims(
            judge, ballot, case, numbers=numbers, judged_at=when, nonce=f"nonce-of-{slo.slo}"
        )
        signed[slo.slo] = dsse.sign(verdict_statement(claims).payload(), [key(judge.id)]).decode()
    return RemoteVerdicts(keyid=key(judge.id).keyid, numbers=numbers.decode(), verdicts=signed)


def make(
    folder, *, numbers=None, target=None, keys=KEYS, document=None, now=NOW, judges=JUDGES,
    remote=(), dead=(),
):  # fmt: skip
    """Sign in ``folder`` as the command does; the files of the bundle."""
    project(folder, target, now, judges, (*remote, *dead))
    with inside(folder):
        inputs = judged(numbers, now=now, dead=dead)
        elsewhere = [judge.id for judge in inputs.judges if judge.source == "remote"]
        local = {name: one for name, one in keys.judges.items() if name not in elsewhere}
        keys = signing.SigningKeys(keys.gate, local)
        signed = signing.sign(
            inputs, decide(inputs), Path("configs"), keys,
            TrustFile.model_validate(document or trust()),
            step=signing.Step(from_pct=5, to_pct=25), max_age_sec=900,
            bundles=Path("var/gate/bundle"),
        )  # fmt: skip
        return bundle.read_bundle(signed.folder)


class Bundle:
    """A good bundle, and what insiders and outsiders can do to it."""

    def __init__(self, files, **changes):
        self.files = dict(files)
        self.trust = trust(**changes)
        self.args = {}

    def envelope(self, name):
        return dsse.parse(self.files[name])

    def decision(self) -> ParsedDecision:
        return parse_decision(self.envelope(bundle.DECISION).payload)

    def decide_again(self, attestations=None, by=KEYS.gate, **changes):
        """The gate (or who has its key) signs other claims."""
        parsed = self.decision()
        claims = parsed.claims.model_copy(update=changes)
        listed = parsed.attestations if attestations is None else attestations
        statement = decision_statement(
            claims, tuple(descriptor(d, uri=n) for n, d in listed.items()), parsed.version
        )
        self.files[bundle.DECISION] = dsse.sign(statement.payload(), [by] if by else [])

    def attest_again(self, **changes):
        """The gate signs for the verdicts and inputs as they are now."""
        listed = {n: d for n, d in self.decision().attestations.items() if n in self.files}
        now = {name: hashlib.sha256(self.files[name]).hexdigest() for name in listed}
        inputs = hashlib.sha256(self.files[bundle.INPUTS]).hexdigest()
        self.decide_again(now, inputs_sha256=inputs, **changes)

    def rewrite_inputs(self, **changes):
        """Change inputs.json; ``attest_again`` makes the gate sign for it."""
        document = json.loads(self.files[bundle.INPUTS]) | changes
        self.files[bundle.INPUTS] = json.dumps(document, indent=1).encode()

    def rewrite_policy(self, change):
        """The gate signs for another gate.yaml."""
        gate = json.loads(self.files[bundle.GATE])
        change(gate)
        self.files[bundle.GATE] = json.dumps(gate, indent=1).encode()
        digests = {
            Path(name).stem: hashlib.sha256(data).hexdigest()
            for name, data in self.files.items()
            if name.startswith("policy/slo/")
        }
        gate_sha256 = hashlib.sha256(self.files[bundle.GATE]).hexdigest()
        self.attest_again(policy_sha256=policy_digest(gate_sha256, digests))

    def vote_again(self, slo, judge, by=None, **changes):
        """A judge signs another verdict."""
        name = bundle.verdict_name(slo, judge)
        claims = parse_verdict(self.envelope(name).payload).model_copy(update=changes)
        payload = verdict_statement(claims).payload()
        self.files[name] = dsse.sign(payload, [by or KEYS.judges[judge]])

    def replace(self, name, old, new):
        """Somebody without a key changes a file."""
        data = self.files[name]
        assert data.count(old) >= 1, name
        self.files[name] = data.replace(old, new, 1)

    def replace_payload(self, name, old, new):
        document = json.loads(self.files[name])
        payload = b64decode(document["payload"])
        assert old in payload
        document["payload"] = b64encode(payload.replace(old, new, 1)).decode()
        self.files[name] = json.dumps(document, indent=2).encode()


A, B = "slo-a", "slo-오류"
OTHERS = key("somebody")


def evidence_changed(b):
    b.replace(bundle.EVIDENCE, b"400.0", b"401.0")


def old_bundle_for_new_evidence(b):
    fresh = seal.sealed(blocks(p95=410.0), RING, now=NOW)
    b.files[bundle.EVIDENCE] = json.dumps(fresh, indent=1).encode()


def signatures_swapped(b):
    first, second = (bundle.verdict_name(A, judge) for judge in ("witness", "peer"))
    one, two = json.loads(b.files[first]), json.loads(b.files[second])
    one["signatures"], two["signatures"] = two["signatures"], one["signatures"]
    b.files[first], b.files[second] = (json.dumps(d, indent=2).encode() for d in (one, two))
    b.attest_again()


def verdict_dropped_from_attestations(b):
    listed = dict(b.decision().attestations)
    del listed[bundle.verdict_name(B, "peer")]
    b.decide_again(listed)


def verdict_removed(b):
    del b.files[bundle.verdict_name(B, "peer")]
    b.attest_again()


def attestation_of_nothing(b):
    listed = {**b.decision().attestations, "verdicts/slo-z@peer.json": "0" * 64}
    b.decide_again(listed)


def verdict_changed(b):
    b.replace_payload(bundle.verdict_name(A, "peer"), b'"vote": "pass"', b'"vote": "fail"')
    b.replace_payload(bundle.verdict_name(A, "peer"), b'"result": "PASSED"', b'"result": "FAILED"')
    b.attest_again()


def verdict_replaced_after_the_decision(b):
    b.vote_again(A, "peer", reason="again")


def verdict_by_another_judge(b):
    b.vote_again(A, "peer", by=KEYS.judges["witness"])
    b.attest_again()


def verdict_by_a_deploy_owner(b):
    b.vote_again(A, "peer", by=key("owner"))
    b.attest_again()


def verdict_by_a_stranger(b):
    b.vote_again(A, "peer", by=OTHERS)
    b.attest_again()


def verdict_unsigned(b):
    name = bundle.verdict_name(A, "peer")
    b.files[name] = dsse.sign(b.envelope(name).payload, [])
    b.attest_again()


def verdict_on_other_evidence(b):
    b.vote_again(A, "peer", evidence_sha256="1" * 64)
    b.attest_again()


def verdict_of_another_phase(b):
    b.vote_again(A, "peer", phase="post")
    b.attest_again()


def verdict_for_staging(b):
    target = b.decision().claims.target.model_copy(update={"environment": "staging"})
    b.vote_again(A, "peer", target=target)
    b.attest_again()


def verdict_younger_than_the_decision(b):
    b.vote_again(A, "peer", judged_at=NOW + timedelta(seconds=301))
    b.attest_again()


def verdict_as_of_another_time(b):
    b.vote_again(A, "peer", as_of=NOW - timedelta(seconds=1))
    b.attest_again()


def local_judge_says_it_is_elsewhere(b):
    b.replace(bundle.numbers_name("peer"), b'"log"', b'"remote"')
    digest = hashlib.sha256(b.files[bundle.numbers_name("peer")]).hexdigest()
    for slo in (A, B):
        b.vote_again(slo, "peer", numbers_sha256=digest)
    b.attest_again()


def silence(b, name, **changes):
    """The gate says that a judge gave no verdict."""
    for slo in (A, B):
        b.files.pop(bundle.verdict_name(slo, name), None)
    b.files[bundle.numbers_name(name)] = json.dumps(
        json.loads(b.files[bundle.numbers_name(name)]) | changes, indent=1
    ).encode()
    votes = dict.fromkeys((A, B), Vote.ERROR)
    judges = [
        one.model_copy(update={"keyid": None, "votes": votes}) if one.id == name else one
        for one in b.decision().claims.judges
    ]
    b.attest_again(judges=tuple(judges))


def local_judge_is_silent(b):
    silence(b, "peer", state="error", blocks={})


def one_key_counts_twice(b):
    for slo in (A, B):
        b.vote_again(slo, "peer", by=KEYS.judges["witness"])
    judges = b.decision().claims.judges
    peer = judges[2].model_copy(update={"keyid": judges[1].keyid})
    b.attest_again(judges=(*judges[:2], peer))


def one_judge_stands_twice(b):
    b.rewrite_inputs(judges=["evidence", "witness", "witness"])
    judges = b.decision().claims.judges
    b.attest_again(judges=(*judges[:2], judges[1]))


def judges_of_the_inputs_are_others(b):
    b.rewrite_inputs(judges=["witness", "evidence", "peer"])
    b.attest_again()


def check_of_gate_yaml_left_out(b):
    b.rewrite_policy(lambda gate: gate["phases"]["cutover"].update(checks=["freeze"]))


def check_made_a_warning(b):
    b.rewrite_policy(lambda gate: gate["phases"]["cutover"].update(checks=["freeze"]))
    freeze = {"id": "check.freeze", "status": "failed", "cause": "on", "severity": "warn"}
    b.rewrite_inputs(checks=[freeze])
    b.attest_again()


def outcome_told_twice(b):
    name = bundle.verdict_name(A, "peer")
    outcomes = parse_verdict(b.envelope(name).payload).outcomes
    b.vote_again(A, "peer", outcomes=(outcomes[0].model_copy(update={"observed": 1.0}), *outcomes))
    b.attest_again()


def blocks_that_it_did_not_compute(b):
    b.vote_again(A, "evidence", recomputed=("perf",))
    b.attest_again()


def verdict_older_than_the_evidence(b):
    b.vote_again(A, "peer", judged_at=NOW - timedelta(days=900))
    b.attest_again()


def may_be_acted_on_for_years(b):
    b.decide_again(expires_at=NOW + timedelta(days=3650))


def numbers_changed(b):
    b.replace(bundle.numbers_name("witness"), b"400.0", b"300.0")


def vote_against_its_own_rules(b):
    name = bundle.verdict_name(A, "peer")
    outcomes = parse_verdict(b.envelope(name).payload).outcomes
    worse = outcomes[0].model_copy(update={"status": Status.FAILED, "cause": "over"})
    b.vote_again(A, "peer", outcomes=(worse, *outcomes[1:]))
    b.attest_again()


def votes_counted_otherwise_than_signed(b):
    judges = b.decision().claims.judges
    peer = judges[2].model_copy(update={"votes": {A: Vote.PASS, B: Vote.FAIL}})
    b.decide_again(judges=(*judges[:2], peer))


def outcome_that_the_numbers_do_not_give(b):
    name = bundle.verdict_name(A, "peer")
    outcomes = parse_verdict(b.envelope(name).payload).outcomes
    b.vote_again(
        A, "peer", outcomes=(outcomes[0].model_copy(update={"observed": 1.0}), *outcomes[1:])
    )
    b.attest_again()


def slo_loosened(b):
    b.replace("policy/slo/slo-a.json", b"900", b"990")


def gate_changed(b):
    b.files[bundle.GATE] += b"\n"


def labels_changed(b):
    b.replace(bundle.LABELS, b"ee0701", b"ee0702")


def inputs_changed(b):
    b.replace(bundle.INPUTS, b'"notes": []', b'"notes": ["fine"]')


def evidence_was_not_sealed(b):
    b.rewrite_inputs(seal={"state": "unchecked"})
    b.attest_again()


def file_added(b):
    b.files["policy/slo/slo-z.json"] = b"{}"


def file_removed(b):
    del b.files[bundle.numbers_name("peer")]


def decision_changed(b):
    b.replace_payload(bundle.DECISION, b'"to_pct": 25.0', b'"to_pct": 99.0')


def decision_contradicts_itself(b):
    document = json.loads(b.files[bundle.DECISION])
    payload = b64decode(document["payload"]).replace(b'"PASSED"', b'"FAILED"')
    b.files[bundle.DECISION] = dsse.sign(payload, [KEYS.gate])


def decision_of_another_type(b):
    payload = b.envelope(bundle.DECISION).payload
    b.files[bundle.DECISION] = signed_as("application/json", payload, KEYS.gate)


def decision_is_not_json(b):
    b.files[bundle.DECISION] = b.files[bundle.DECISION][:-20]


def decision_unsigned(b):
    b.decide_again(by=None)


def decision_by_a_judge(b):
    b.decide_again(by=KEYS.judges["witness"])


def decision_by_a_stranger(b):
    b.decide_again(by=OTHERS)


def gate_key_revoked(b):
    b.trust = trust(gate={"revoked": True})


def gate_key_for_staging_only(b):
    b.trust = trust(gate={"targets": ["checkout/staging/*/*"]})


def gate_key_not_yet_valid(b):
    b.trust = trust(gate={"not_before": (NOW + timedelta(days=1)).isoformat()})


def gate_key_no_longer_valid(b):
    b.trust = trust(gate={"not_after": (NOW - timedelta(days=1)).isoformat()})


def policy_not_allowed(b):
    b.trust = trust(policy_sha256=["2" * 64])


def no_policy_allowed(b):
    b.trust = trust(policy_sha256=[])


def quorum_below_the_trust_file(b):
    b.trust = trust(min_k=3)


def too_few_judges_for_the_trust_file(b):
    b.trust = trust(min_n=5)


def too_few_remote_judges(b):
    b.trust = trust(min_remote=1)


def presented_for_staging(b):
    b.args = {"target": "checkout/staging/eu-1/all"}


def presented_for_another_release(b):
    b.args = {"release": "v0.5.12"}


def acted_on_too_late(b):
    b.args = {"fresh": True, "now": (NOW + timedelta(minutes=20)).isoformat()}


def issued_in_the_future(b):
    b.args = {"now": (NOW - timedelta(minutes=20)).isoformat()}


def expires_before_it_was_issued(b):
    b.decide_again(expires_at=NOW - timedelta(seconds=1))


def bound_to_another_release(b):
    b.decide_again(release="v9")


def bound_to_another_window(b):
    b.decide_again(evidence_window=("2026-01-15T11:00:00Z", "2026-01-15T11:59:59Z"))


def says_less_quorum(b):
    b.decide_again(quorums={A: "1/3", B: "2/3"}, k=1)


def says_a_smaller_k(b):
    b.decide_again(k=1)


def key_named_that_did_not_sign(b):
    judges = b.decision().claims.judges
    peer = judges[2].model_copy(update={"keyid": key("owner").keyid})
    b.decide_again(judges=(*judges[:2], peer))


def numbers_under_another_name(b):
    b.replace(bundle.numbers_name("peer"), b'"peer"', b'"pear"')
    digest = hashlib.sha256(b.files[bundle.numbers_name("peer")]).hexdigest()
    for slo in (A, B):
        b.vote_again(slo, "peer", numbers_sha256=digest)
    b.attest_again()


# Of a bundle whose peer is on another host


def remote_judge_is_silent_and_ready(b):
    silence(b, "peer")


def remote_judge_is_silent_and_unreadable(b):
    silence(b, "peer", state="nowhere")


def remote_verdicts_dropped_their_key_named(b):
    for slo in (A, B):
        del b.files[bundle.verdict_name(slo, "peer")]
    b.attest_again()


def remote_judge_says_it_is_here(b):
    b.replace(bundle.numbers_name("peer"), b'"remote"', b'"log"')
    digest = hashlib.sha256(b.files[bundle.numbers_name("peer")]).hexdigest()
    for slo in (A, B):
        b.vote_again(slo, "peer", numbers_sha256=digest)
    b.attest_again()


def remote_verdict_by_the_judge_next_door(b):
    for slo in (A, B):
        b.vote_again(slo, "peer", by=KEYS.judges["witness"])
    b.attest_again()


def remote_verdict_by_the_gate(b):
    b.vote_again(A, "peer", by=KEYS.gate)
    b.attest_again()


def remote_verdict_as_of_another_time(b):
    b.vote_again(A, "peer", as_of=NOW + timedelta(seconds=1))
    b.attest_again()


def remote_verdict_by_another_slo_file(b):
    b.vote_again(A, "peer", slo_sha256="6" * 64)
    b.attest_again()


def fewer_remote_judges_than_the_trust_file_asks_for(b):
    b.trust = trust(min_remote=2)


# Of a bundle whose peer is on another host, and did not answer


def silent_judge_makes_no_minimum(b):
    b.trust = trust(min_remote=1)


def silent_judge_is_counted_as_pass(b):
    judges = b.decision().claims.judges
    peer = judges[2].model_copy(update={"votes": {A: Vote.PASS, B: Vote.PASS}})
    b.decide_again(judges=(*judges[:2], peer))


def silent_judge_has_a_verdict(b):
    b.files[bundle.verdict_name(A, "peer")] = b.files[bundle.verdict_name(A, "witness")]


def silent_judge_has_a_key(b):
    judges = b.decision().claims.judges
    peer = judges[2].model_copy(update={"keyid": key("peer").keyid})
    b.decide_again(judges=(*judges[:2], peer))


VERDICT = "bundle.verdict[slo-a@peer]"
REMOTE_CASES = {
    remote_judge_is_silent_and_ready: "bundle.files:missing",
    remote_judge_is_silent_and_unreadable: "bundle.files:missing",
    remote_verdicts_dropped_their_key_named: "bundle.files:missing",
    remote_judge_says_it_is_here: "bundle.inputs:wrong_source",
    remote_verdict_by_the_judge_next_door: f"{VERDICT}:wrong_judge",
    remote_verdict_by_the_gate: f"{VERDICT}:wrong_role",
    remote_verdict_as_of_another_time: f"{VERDICT}:other_time",
    remote_verdict_by_another_slo_file: "bundle.rejudged:different",
    fewer_remote_judges_than_the_trust_file_asks_for: "bundle.quorum:under",
}
SILENT_CASES = {
    silent_judge_makes_no_minimum: "bundle.quorum:under",
    silent_judge_is_counted_as_pass: "bundle.quorum:miscounted",
    silent_judge_has_a_verdict: "bundle.files:unexpected",
    silent_judge_has_a_key: "bundle.files:missing",
}
CASES = {
    evidence_changed: "bundle.evidence:tampered",
    old_bundle_for_new_evidence: "bundle.evidence:other_evidence",
    signatures_swapped: "bundle.verdict[slo-a@witness]:bad_signature",
    verdict_dropped_from_attestations: "bundle.attestations:dropped",
    verdict_removed: "bundle.files:missing",
    attestation_of_nothing: "bundle.attestations:missing",
    verdict_changed: f"{VERDICT}:bad_signature",
    verdict_replaced_after_the_decision: "bundle.attestations:different",
    verdict_by_another_judge: f"{VERDICT}:wrong_judge",
    verdict_by_a_deploy_owner: f"{VERDICT}:wrong_role",
    verdict_by_a_stranger: f"{VERDICT}:unknown_key",
    verdict_unsigned: f"{VERDICT}:unsigned",
    verdict_on_other_evidence: f"{VERDICT}:other_evidence",
    verdict_of_another_phase: f"{VERDICT}:other_phase",
    verdict_for_staging: f"{VERDICT}:other_target",
    verdict_younger_than_the_decision: f"{VERDICT}:out_of_range",
    verdict_as_of_another_time: f"{VERDICT}:other_time",
    local_judge_says_it_is_elsewhere: "bundle.inputs:wrong_source",
    local_judge_is_silent: "bundle.files:missing",
    key_named_that_did_not_sign: f"{VERDICT}:other_key",
    numbers_under_another_name: "bundle.rejudged:unreadable",
    one_key_counts_twice: "bundle.verdicts:key_twice",
    one_judge_stands_twice: "bundle.files:unexpected",
    judges_of_the_inputs_are_others: "bundle.inputs:different",
    check_of_gate_yaml_left_out: "bundle.rejudged:unreadable",
    check_made_a_warning: "bundle.rejudged:unreadable",
    outcome_told_twice: "bundle.rejudged:different",
    blocks_that_it_did_not_compute: "bundle.rejudged:different",
    verdict_older_than_the_evidence: f"{VERDICT}:out_of_range",
    may_be_acted_on_for_years: "bundle.expiry:out_of_range",
    numbers_changed: "bundle.verdict[slo-a@witness]:other_numbers",
    vote_against_its_own_rules: "bundle.quorum:miscounted",
    votes_counted_otherwise_than_signed: "bundle.quorum:miscounted",
    outcome_that_the_numbers_do_not_give: "bundle.rejudged:different",
    slo_loosened: "bundle.policy:different",
    gate_changed: "bundle.policy:different",
    labels_changed: "bundle.inputs:different",
    inputs_changed: "bundle.inputs:different",
    evidence_was_not_sealed: "bundle.inputs:unsealed",
    file_added: "bundle.files:unexpected",
    file_removed: "bundle.files:missing",
    decision_changed: "bundle.signature:bad_signature",
    decision_contradicts_itself: "bundle.statement:unreadable",
    decision_of_another_type: "bundle.signature:wrong_payload_type",
    decision_is_not_json: "bundle.statement:unreadable",
    decision_unsigned: "bundle.signature:unsigned",
    decision_by_a_judge: "bundle.signature:wrong_role",
    decision_by_a_stranger: "bundle.signature:unknown_key",
    gate_key_revoked: "bundle.signature:revoked_key",
    gate_key_for_staging_only: "bundle.signature:wrong_target",
    gate_key_not_yet_valid: "bundle.signature:outside_validity",
    gate_key_no_longer_valid: "bundle.signature:outside_validity",
    policy_not_allowed: "bundle.policy:not_allowed",
    no_policy_allowed: "bundle.policy:not_allowed",
    quorum_below_the_trust_file: "bundle.quorum:under",
    too_few_judges_for_the_trust_file: "bundle.quorum:under",
    too_few_remote_judges: "bundle.quorum:under",
    presented_for_staging: "bundle.target:foreign_target",
    presented_for_another_release: "bundle.release:other_release",
    acted_on_too_late: "bundle.expiry:expired",
    issued_in_the_future: "bundle.expiry:out_of_range",
    expires_before_it_was_issued: "bundle.expiry:out_of_range",
    bound_to_another_release: "bundle.bound:different",
    bound_to_another_window: "bundle.bound:different",
    says_less_quorum: "bundle.quorum:miscounted",
    says_a_smaller_k: "bundle.quorum:under",
}


def lost_quorum(files):
    """A decision that two judges' votes do not carry, signed as GO by who has the gate's key.

    Args:
        files: of a bundle that came to NO-GO.
    """
    made = Bundle(files)
    claims = made.decision().claims
    changes = {
        "verdict": Verdict.GO, "action": Action.PROCEED, "expires_at": NOW + timedelta(minutes=10),
    }  # fmt: skip
    statement = decision_statement(
        claims.model_copy(update=changes),
        tuple(descriptor(d, uri=n) for n, d in made.decision().attestations.items()),
        made.decision().version,
    )
    made.files[bundle.DECISION] = dsse.sign(statement.payload(), [KEYS.gate])
    return made
