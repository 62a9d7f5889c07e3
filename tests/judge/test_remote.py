"""Judges on other hosts: heard alike by all, and in error by name whatever one of them does."""

import hashlib
import json
import re
import threading
from datetime import UTC, datetime, timedelta

import bundle_cases as cases
import pytest
from bundle_cases import key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge_stub import KEYS, RING, Stub, claims_of, send

from pytest_decisionos.errors import KeysError, PolicyError, TrustError, UsageError
from pytest_decisionos.evidence.seal import sealed
from pytest_decisionos.judge import heard, remote
from pytest_decisionos.judge.client import Exchange
from pytest_decisionos.judge.decide import GateInputs, JudgeInput, decide
from pytest_decisionos.judge.gather import Request, gather
from pytest_decisionos.judge.heard import Inquiry, hear
from pytest_decisionos.judge.verdicts import numbers_of
from pytest_decisionos.judge.wire import Answer, Question, SloText
from pytest_decisionos.model.evidence import read_evidence
from pytest_decisionos.settings import Settings
from pytest_decisionos.slo.compile import load_slo
from pytest_decisionos.testing import healthy
from pytest_decisionos.trust.keys import make_ring
from pytest_decisionos.trust.trustfile import TrustFile

A, B = "slo-a", "slo-오류"
SLOS = {
    f"{A}.json": {"latency": {"max_p95_ms": 900, "max_p99_ms": 1800, "min_samples": 100}},
    f"{B}.json": {"error": {"max_error_rate": 0.01, "min_samples": 100}},
}
NAMES = ("j1", "j2", "j3")


def trust_of(*names, **changes):
    listed = [{"role": "judge", "judge": name, "targets": ["checkout/*/*/*"]} for name in names]
    keys = [
        {"keyid": key(spec["judge"]).keyid, "public_key": key(spec["judge"]).public.pem, **spec}
        for spec in listed
    ]
    gate = {
        "keyid": key("gate").keyid, "public_key": key("gate").public.pem,
        "role": "gate", "targets": ["*/*/*/*"],
    }  # fmt: skip
    return {
        "version": 1, "expires": "2100-01-01T00:00:00Z", "keys": [*keys, gate],
        "policy_sha256": ["*"], **changes,
    }  # fmt: skip


class Place:
    """A project whose judges are on other hosts, and a request on it."""

    def __init__(self, folder):
        self.folder = folder
        self.now = datetime.now(UTC)
        self.settings = {"trust": folder / "trust.json", "state_dir": folder / "state"}
        self.ring = RING
        (folder / "configs/slo").mkdir(parents=True)
        (folder / "var/evidence").mkdir(parents=True)
        labels = cases.CHECKOUT / "configs/labels.json"
        (folder / "configs/labels.json").write_bytes(labels.read_bytes())
        for name, spec in SLOS.items():
            (folder / "configs/slo" / name).write_text(json.dumps(spec))
        self.trust(*NAMES)
        self.evidence_file = folder / "var/evidence/latest.json"
        self.evidence_file.write_text(json.dumps(sealed(healthy(self.now), RING, now=self.now)))

    def trust(self, *names, **changes):
        (self.folder / "trust.json").write_text(json.dumps(trust_of(*names, **changes)))

    def gate(self, judges, *, closed=False, **more):
        for name, spec in SLOS.items():
            n = len(judges)
            quorum = {"k": -(-2 * n // 3), "n": n, "fail_closed_on_degrade": closed}
            (self.folder / "configs/slo" / name).write_text(json.dumps({**spec, "quorum": quorum}))
        phase = {"slos": [f"slo/{name}" for name in SLOS], "require_blocks": ["perf"]}
        spec = {
            "version": 1, "target": cases.TARGET, "judges": judges,
            "phases": {"cutover": phase}, **more,
        }  # fmt: skip
        (self.folder / "configs/gate.yaml").write_text(json.dumps(spec))

    def request(self, **changes):
        fields = {
            "root": self.folder / "var", "gate": self.folder / "configs/gate.yaml",
            "phase": "cutover", "now": self.now, "ring": self.ring,
            "settings": Settings(**self.settings), **changes,
        }  # fmt: skip
        return Request(**fields)

    def judged(self, **changes):
        inputs = gather(self.request(**changes))
        return inputs, decide(inputs)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def stubs():
    with Stub("j1") as one, Stub("j2") as two, Stub("j3") as three:
        yield one, two, three


def entries(stubs, **more):
    return [{"id": stub.name, "url": stub.url, **more} for stub in stubs]


def votes(decision):
    return {
        slo.slo: {ballot.judge: str(ballot.vote) for ballot in slo.ballots} for slo in decision.slos
    }


def only(vote):
    return {slo: dict.fromkeys(NAMES, vote) for slo in (A, B)}


# Asked and heard


def test_three_judges_elsewhere_make_a_go(place, stubs):
    place.gate(entries(stubs))
    inputs, decision = place.judged()
    assert decision.verdict == "GO"
    assert votes(decision) == only("pass")
    assert {j.id: j.source for j in inputs.judges} == dict.fromkeys(NAMES, "remote")
    assert all(judge.seal.state == "valid" for judge in inputs.judges)
    assert {name: set(one.verdicts) for name, one in inputs.remote.items()} == {
        name: {A, B} for name in NAMES
    }
    assert [stub.said for stub in stubs] == [2, 2, 2]  # one request per SLO and judge
    assert len({nonce for stub in stubs for nonce in stub.nonces}) == 6
    assert GateInputs.model_validate_json(inputs.model_dump_json()) == inputs  # as workers get it
    assert decide(inputs.model_copy(update={"remote": {}})) == decision


def test_here_and_elsewhere_mixed(place, stubs):
    place.gate([{"id": "j0", "source": "evidence"}, *entries(stubs[:2])])
    inputs, decision = place.judged()
    assert decision.verdict == "GO"
    assert [judge.source for judge in inputs.judges] == ["evidence", "remote", "remote"]
    assert set(inputs.remote) == {"j1", "j2"}


def test_dissent_rule_by_rule(place, stubs):
    stubs[1].p95 = 5000.0
    place.gate(entries(stubs))
    _, decision = place.judged()
    assert decision.verdict == "GO"
    assert votes(decision)[A] == {"j1": "pass", "j2": "fail", "j3": "pass"}
    assert [slo.dissent for slo in decision.slos] == [("j2",), ()]
    ballot = decision.slos[0].ballots[1]
    assert [(o.id, str(o.status)) for o in ballot.outcomes] == [
        ("latency.p95", "failed"),
        ("latency.p99", "successful"),
    ]


def test_judges_are_asked_at_the_same_time(place, stubs):
    together = threading.Barrier(3)

    def wait(handler, honest):
        body = honest()
        together.wait(timeout=20)  # breaks unless all three have come
        send(handler, body)

    for stub in stubs:
        stub.reply = wait
    place.gate(entries(stubs))
    assert place.judged()[1].verdict == "GO"


def test_a_judge_that_is_not_asked_abstains(place, stubs):
    place.gate(entries(stubs))
    inputs, decision = place.judged(judges=("j1",))
    assert votes(decision)[A] == {"j1": "pass", "j2": "abstain", "j3": "abstain"}
    assert [stub.said for stub in stubs] == [2, 0, 0]
    assert {j.reason for j in inputs.judges[1:]} == {"was not asked (--judges)"}
    assert {j.source for j in inputs.judges} == {"remote"}


def test_no_judge_elsewhere_needs_nothing(place):
    place.gate([{"id": "j0", "source": "evidence"}, {"id": "j1", "url": "http://127.0.0.1:1"}])
    place.settings = {}
    place.ring = None
    _, decision = place.judged(judges=("j0",))
    assert votes(decision)[A] == {"j0": "pass", "j1": "abstain"}


def test_progress_is_told(place, stubs):
    place.gate(entries(stubs))
    told = []
    gather(place.request(), progress=lambda share, text: told.append((share, text)))
    assert [round(share * 6) for share, _ in told] == [1, 2, 3, 4, 5, 6]
    assert {text for _, text in told} <= {f"judge {name}" for name in NAMES}


# An outage


@pytest.mark.slow
@pytest.mark.parametrize(("closed", "verdict"), [(False, "GO"), (True, "NO-GO")])
def test_one_is_down(place, stubs, closed, verdict):
    place.gate([*entries(stubs[:2]), {"id": "j3", "url": "http://127.0.0.1:1"}], closed=closed)
    inputs, decision = place.judged()
    assert decision.verdict == verdict
    assert votes(decision)[A] == {"j1": "pass", "j2": "pass", "j3": "error"}
    down = inputs.judges[2]
    assert down.state == "error"
    assert down.reason == "http://127.0.0.1:1/judge: cannot be reached: Connection refused"
    assert "j3" not in inputs.remote
    assert {(r.judges, r.outvoted) for r in decision.reasons} == {(("j3",), not closed)}
    for slo in decision.slos:
        assert all("judge j3 cannot say: http" in o.message for o in slo.ballots[2].outcomes)
        assert slo.dissent == (() if closed else ("j3",))


@pytest.mark.slow
def test_an_unreachable_judge_passes_nothing_not_even_warnings(place, stubs):
    rule = {"id": "r", "metric": "/perf/error_rate", "op": "<=", "bound": 0.5, "severity": "warn"}
    SLO = {"rules": [rule], "quorum": {"k": 2, "n": 2}}
    place.gate([*entries(stubs[:1]), {"id": "j2", "url": "http://127.0.0.1:1"}])
    for name in SLOS:
        (place.folder / "configs/slo" / name).write_text(json.dumps(SLO))
    _, decision = place.judged()
    assert votes(decision)[A] == {"j1": "pass", "j2": "error"}
    assert decision.verdict == "NO-GO"


@pytest.mark.slow
def test_deadlines_per_judge_and_in_all(place, stubs, monkeypatch):
    monkeypatch.setattr(remote, "GRACE_SEC", 0.05)
    over = threading.Event()
    stubs[1].reply = stubs[2].reply = lambda handler, honest: over.wait(20)
    listed = entries(stubs)
    listed[1]["timeout_sec"] = 0.2
    listed[2]["timeout_sec"] = 60.0
    place.gate(listed, judges_timeout_sec=1.0)
    inputs, decision = place.judged()
    over.set()
    assert votes(decision)[A] == {"j1": "pass", "j2": "error", "j3": "error"}
    for judge in inputs.judges[1:]:
        assert judge.reason.endswith("it did not answer in time")


def test_a_request_that_hangs_beyond_its_own_timeout_is_left(place, stubs, monkeypatch):
    monkeypatch.setattr(remote, "GRACE_SEC", 0.05)
    over = threading.Event()
    ask = remote.JudgeClient.ask

    def hang(self, body, until):
        return ask(self, body, until) if str(stubs[0].port) in self.url else over.wait(20)

    monkeypatch.setattr(remote.JudgeClient, "ask", hang)
    place.gate(entries(stubs[:2], timeout_sec=0.3))
    inputs, _ = place.judged()
    over.set()
    assert inputs.judges[0].state == "ready"
    assert inputs.judges[1].reason == f"{stubs[1].url}/judge: it did not answer in time"


def test_a_bug_on_the_way_is_an_error_of_that_judge(place, stubs, monkeypatch):
    ask = remote.JudgeClient.ask

    def crash(self, body, until):
        if str(stubs[1].port) in self.url:
            raise ZeroDivisionError
        return ask(self, body, until)

    monkeypatch.setattr(remote.JudgeClient, "ask", crash)
    place.gate(entries(stubs))
    inputs, decision = place.judged()
    assert votes(decision)[A] == {"j1": "pass", "j2": "error", "j3": "pass"}
    assert inputs.judges[1].reason == f"{stubs[1].url}/judge: ZeroDivisionError"


def test_a_judge_that_answers_too_much(place, stubs, monkeypatch):
    monkeypatch.setattr(remote, "MAX_ANSWERS", 3000)
    place.gate(entries(stubs[:1]))
    inputs, _ = place.judged()
    assert "it answers more than 3,000 bytes in all" in inputs.judges[0].reason


# What is wrong with an answer: each of these puts one judge in error, and two of three still pass


def change(**changes):
    def spoil(parts, question):
        claims = parts["claims"]
        parts["claims"] = type(claims).model_validate(claims.model_dump() | changes)

    return spoil


def numbers(**changes):
    """Other numbers, and a verdict that is honestly made from them."""

    def spoil(parts, question):
        parts["judge"] = parts["judge"].model_copy(update=changes)
        made = numbers_of(parts["judge"])
        parts["numbers"] = made.decode()
        parts["claims"] = claims_of(
            parts["judge"], question, parts["claims"].nonce, numbers=made
        ).model_copy(update={"judge": "j2"})

    return spoil


def numbers_text(text):
    """Something that is no numbers, and a verdict about it."""

    def spoil(parts, question):
        parts["numbers"] = text
        parts["claims"] = parts["claims"].model_copy(
            update={"numbers_sha256": hashlib.sha256(text.encode()).hexdigest()}
        )

    return spoil


def signed_by(name):
    return lambda parts, question: parts.update(by=key(name))


def shifted(seconds):
    def spoil(parts, question):
        when = parts["claims"].judged_at + timedelta(seconds=seconds)
        parts["claims"] = parts["claims"].model_copy(update={"judged_at": when})

    return spoil


def evil(parts, question):
    """Says pass, whatever its numbers say."""
    blocks = json.loads(json.dumps(parts["judge"].blocks))
    blocks["perf"]["latency_ms"]["p95"] = 5000.0
    blocks["perf"]["error_rate"] = 0.5
    parts["judge"] = parts["judge"].model_copy(update={"blocks": blocks})
    made = numbers_of(parts["judge"])
    parts["numbers"] = made.decode()
    honest = claims_of(parts["judge"], question, parts["claims"].nonce, numbers=made)
    passing = [
        o.model_copy(update={"status": "successful", "cause": None}) for o in honest.outcomes
    ]
    parts["claims"] = type(honest).model_validate(
        honest.model_dump()
        | {"vote": "pass", "outcomes": [o.model_dump(warnings=False) for o in passing]}
    )


def some_other_numbers(parts, question):
    if question.slo.file == f"{B}.json":
        numbers(reason="again")(parts, question)


def two_keys(parts, question):
    if question.slo.file == f"{B}.json":
        parts["by"] = key("j2-new")


def outcomes(change):
    def spoil(parts, question):
        claims = parts["claims"]
        parts["claims"] = claims.model_copy(update={"outcomes": change(claims.outcomes)})

    return spoil


OTHER = "is about {what} {said}, not"
FAULTS = {
    "key of another judge": (signed_by("j1"), "is signed by key .*…, which is judge j1's, not j2's"),
    "key of the gate": (signed_by("gate"), "has the role gate, not judge"),
    "key of a stranger": (signed_by("somebody"), "is signed by no key of the trust file"),
    "two keys": (two_keys, "its verdicts are signed with different keys"),
    "another judge": (change(judge="j1"), "is about judge j1, not j2"),
    "another slo": (change(slo=B + "x"), "is about slo"),
    "another slo file": (change(slo_sha256="1" * 64), "judged by another SLO file"),
    "another phase": (change(phase="post"), "is about phase post, not cutover"),
    "another target": (change(target=cases.STAGING), "is about target checkout/staging"),
    "other evidence": (change(evidence_sha256="1" * 64), "is about evidence 1111"),
    "other numbers": (change(numbers_sha256="1" * 64), "is about numbers 1111"),
    "another time": (change(as_of="2026-01-01T00:00:00Z"), "judges as of 2026-01-01"),
    "another request": (change(nonce="n" * 24), "answers another request"),
    "no request": (change(nonce=""), "answers another request"),
    "stale": (shifted(-60), "before it was asked: its clock or ours is wrong, or it is old"),
    "from the future": (shifted(60), "after it came: its clock or ours is wrong"),
    "other blocks": (change(recomputed=("canary",)), "it computed other blocks itself"),
    "another vote": (change(vote="abstain"), "signed abstain, again pass"),
    "no rules": (change(outcomes=()), "signed 0 outcomes"),
    "a rule too few": (outcomes(lambda o: o[:-1]), "was judged once only"),
    "a rule twice": (outcomes(lambda o: (o[0], *o)), "outcomes, again"),
    "a rule too many": (
        outcomes(lambda o: (*o, o[0].model_copy(update={"id": "x"}))), "x was judged once only"),
    "always pass": (evil, "signed pass, again fail"),
    "numbers of another judge": (numbers(id="j1"), "not those of this judge; found j1, remote"),
    "numbers of a local judge": (numbers(source="log"), "not those of this judge; found j2, log"),
    "numbers that differ": (some_other_numbers, "its answers are made from different numbers"),
    "a long reason": (numbers(reason="x" * 5000), "its numbers: too long"),
    "numbers that are no JSON": (numbers_text("nothing"), "its numbers.*: not JSON"),
    "numbers that are NaN": (numbers_text('{"id": "j2", "source": "remote", "blocks": {"perf": NaN}}'), "not finite"),
    "numbers twice": (numbers_text('{"id": "j1", "id": "j2", "source": "remote"}'), "duplicate key"),
    "numbers with more": (numbers_text('{"id": "j2", "source": "remote", "x": 1}'), "its numbers: x: "),
    "deep numbers": (numbers_text('{"id": "j2", "source": "remote", "blocks": {"perf": ' + "[" * 80 + "]" * 80 + "}}"), "nested deeper"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_judge_with_a_wrong_answer_is_in_error_by_name(place, stubs, fault):
    spoil, words = FAULTS[fault]
    place.trust(*NAMES, "j2-new") if fault != "two keys" else two_trusted(place)
    stubs[1].spoil = spoil
    place.gate(entries(stubs))
    inputs, decision = place.judged()
    assert votes(decision)[A] == {"j1": "pass", "j2": "error", "j3": "pass"}
    judge = inputs.judges[1]
    assert (judge.id, judge.source, judge.state, judge.blocks) == ("j2", "remote", "error", {})
    assert re.search(words, judge.reason), judge.reason
    assert judge.reason.isprintable()
    assert set(inputs.remote) == {"j1", "j3"}
    assert decision.verdict == "GO"


def two_trusted(place):
    """The judge j2 has two keys: the old one and the new one."""
    document = trust_of(*NAMES)
    new = {
        **document["keys"][1],
        "keyid": key("j2-new").keyid,
        "public_key": key("j2-new").public.pem,
    }
    document["keys"].append(new)
    (place.folder / "trust.json").write_text(json.dumps(document))


def test_a_judge_with_a_new_key_is_heard(place, stubs):
    two_trusted(place)
    stubs[1].spoil = signed_by("j2-new")
    place.gate(entries(stubs))
    inputs, decision = place.judged()
    assert votes(decision) == only("pass")
    assert inputs.remote["j2"].keyid == key("j2-new").keyid


REPLIES = {
    "nothing": b"",
    "no JSON": b"<html>hello</html>",
    "a list": b"[]",
    "no numbers": b'{"verdict": {}}',
    "an empty verdict": b'{"verdict": {}, "numbers": "{}"}',
    "a verdict that is text": b'{"verdict": "yes", "numbers": "{}"}',
    "not UTF-8": b"\xff\xfe",
    "a bomb": b"[" * 100_000,
    "half a pair": b'{"verdict": {"payload": "\\ud800"}, "numbers": "{}"}',
    "a huge number": b'{"verdict": {"payload": 1e999}, "numbers": "{}"}',
    "a long number": b'{"verdict": {"payload": ' + b"9" * 10_000 + b'}, "numbers": "{}"}',
}


@pytest.mark.parametrize("reply", REPLIES)
def test_garbage_is_an_error_by_name(place, stubs, reply):
    stubs[1].reply = lambda handler, honest: send(handler, REPLIES[reply])
    place.gate(entries(stubs))
    inputs, decision = place.judged()
    assert votes(decision)[A] == {"j1": "pass", "j2": "error", "j3": "pass"}
    assert inputs.judges[1].reason.isprintable()
    assert "its answer on slo-a" in inputs.judges[1].reason or "verdict" in inputs.judges[1].reason


def test_an_answer_from_before_is_no_answer(place, stubs):
    """The same judge's own signed answer, played back to a later request."""
    kept = {}
    place.gate(entries(stubs))
    stubs[1].reply = lambda handler, honest: send(handler, kept.setdefault("first", honest()))
    inputs, decision = place.judged()
    assert votes(decision)[A]["j2"] == "error"
    assert "its verdict on" in inputs.judges[1].reason


def test_a_judge_whose_source_is_gone_says_so_itself(place, stubs):
    stubs[1].spoil = numbers(state="error", reason="its log is cut off", blocks={})
    stubs[2].spoil = lambda parts, question: absent(parts, question)
    place.gate(entries(stubs))
    inputs, decision = place.judged()
    assert votes(decision)[A] == {"j1": "pass", "j2": "error", "j3": "abstain"}
    assert set(inputs.remote) == set(NAMES)  # each has signed what it says
    assert inputs.judges[1].reason == "its log is cut off"


def absent(parts, question):
    parts["judge"] = parts["judge"].model_copy(
        update={"state": "absent", "reason": "no log", "blocks": {}}
    )
    made = numbers_of(parts["judge"])
    parts["numbers"] = made.decode()
    parts["claims"] = claims_of(parts["judge"], question, parts["claims"].nonce, numbers=made)


def test_tampered_evidence_is_found_elsewhere_too(place, stubs):
    blocks = sealed(healthy(place.now), RING, now=place.now)
    blocks["perf"]["latency_ms"]["p95"] = 1.0
    place.evidence_file.write_text(json.dumps(blocks))
    place.gate(entries(stubs))
    slo = {**SLOS[f"{A}.json"], "integrity": {"require_signature": True}}
    (place.folder / f"configs/slo/{A}.json").write_text(json.dumps(slo))
    place.ring = make_ring([KEYS[1]], "requests alone")
    inputs, decision = place.judged()
    assert inputs.seal.state == "unchecked"
    assert decision.verdict == "NO-GO"
    assert votes(decision)[A] == dict.fromkeys(NAMES, "fail")
    assert decision.action == "abort"


def test_a_host_with_keys_for_requests_alone_is_told_by_the_judges(place, stubs):
    other = make_ring([{**KEYS[0], "secret": "hex:" + "11" * 32}], "others")
    blocks = sealed(healthy(place.now), other, now=place.now)
    place.evidence_file.write_text(json.dumps(blocks))
    place.gate(entries(stubs))
    slo = {**SLOS[f"{A}.json"], "integrity": {"require_signature": True}}
    (place.folder / f"configs/slo/{A}.json").write_text(json.dumps(slo))
    place.ring = make_ring([KEYS[1]], "requests alone")
    _, decision = place.judged()
    assert decision.verdict == "NO-GO"  # the MAC is not theirs
    assert votes(decision)[A] == dict.fromkeys(NAMES, "fail")


# Every byte of an answer counts


@pytest.fixture(scope="module")
def one_answer(tmp_path_factory):
    """What was asked about one SLO, and an honest answer to it."""
    place = Place(tmp_path_factory.mktemp("answer"))
    place.gate([{"id": "j1", "url": "http://127.0.0.1:1"}])
    request = place.request()
    evidence = read_evidence(place.evidence_file)
    slo = load_slo(place.folder / f"configs/slo/{A}.json")
    text = SloText(file=f"{A}.json", text=(place.folder / f"configs/slo/{A}.json").read_text())
    question = Question(
        evidence=place.evidence_file.read_text(), slo=text, phase="cutover", as_of=request.now
    )
    stub = Stub("j1")
    stub._server.server_close()
    sent = datetime.now(UTC)
    body = stub.answer(question, "n" * 24)
    asked = Inquiry(
        phase="cutover",
        target=request.loaded_gate.target,
        evidence=evidence,
        seal=stub_seal(body),
        slos=(slo,),
        as_of=request.now,
        trust=TrustFile.model_validate(trust_of("j1")),
        max_skew_sec=0.5,
    )
    return Exchange(body, "n" * 24, sent, datetime.now(UTC)), asked


def stub_seal(body):
    return JudgeInput.model_validate_json(json.loads(body)["numbers"]).seal


def test_the_honest_answer_is_believed(one_answer):
    answer, asked = one_answer
    made = hear("j1", {A: answer}, asked)
    assert made.judge.state == "ready"
    assert made.signed.keyid == key("j1").keyid
    assert made.signed.numbers == Answer.model_validate_json(answer.body).numbers


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_byte_is_an_error_or_no_change(one_answer, data):
    answer, asked = one_answer
    believed = hear("j1", {A: answer}, asked)
    at = data.draw(st.integers(0, len(answer.body) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda one: one != answer.body[at]))
    body = answer.body[:at] + bytes([byte]) + answer.body[at + 1 :]
    made = hear("j1", {A: answer._replace(body=body)}, asked)
    if made.judge.state == "ready":  # a key id is a hint only: who signed is found by trying
        assert made.judge == believed.judge
        assert made.signed.keyid == believed.signed.keyid
        assert made.signed.numbers == believed.signed.numbers
    else:
        assert made.signed is None
        assert made.judge.reason


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["verdict", "numbers", "payload", "payloadType", "signatures"]), inner, max_size=4),
    max_leaves=10,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_is_answered_is_no_exception(one_answer, body):
    answer, asked = one_answer
    made = hear("j1", {A: answer._replace(body=body)}, asked)
    assert made.judge.state == "error"
    assert made.judge.reason.isprintable()


def test_a_bug_of_ours_is_an_error_of_the_judge(one_answer, monkeypatch):
    answer, asked = one_answer
    monkeypatch.setattr(heard, "words_of", lambda *_: 1 / 0)
    made = hear("j1", {A: answer}, asked)
    assert made.judge.reason == "its answer cannot be used: ZeroDivisionError"


# What must be configured


def test_without_a_trust_file(place, stubs):
    place.gate(entries(stubs))
    place.settings = {}
    with pytest.raises(UsageError, match="DECISIONOS_TRUST: a judge is on another host"):
        place.judged()


def test_with_a_trust_file_that_may_not_be_believed(place, stubs):
    place.gate(entries(stubs))
    place.trust(*NAMES, expires="2020-01-01T00:00:00Z")
    with pytest.raises(TrustError, match="expired"):
        place.judged()


def test_without_keys(place, stubs):
    place.gate(entries(stubs))
    place.ring = None
    with pytest.raises(UsageError, match="DECISIONOS_JUDGE_KEYS: a judge is on another host"):
        place.judged()
    place.ring = make_ring([KEYS[0]], "test")
    with pytest.raises(KeysError, match="no key is active for request"):
        place.judged()
    assert [stub.said for stub in stubs] == [0, 0, 0]


def test_settings_of_the_environment_when_none_are_given(place, stubs, monkeypatch):
    place.gate(entries(stubs))
    monkeypatch.setenv("DECISIONOS_TRUST", str(place.folder / "trust.json"))
    monkeypatch.setenv("DECISIONOS_STATE_DIR", str(place.folder / "state"))
    assert place.judged(settings=None)[1].verdict == "GO"


def test_files_that_cannot_be_sent(place, stubs, monkeypatch):
    place.gate(entries(stubs))
    with monkeypatch.context() as patch:
        patch.setattr(remote, "MAX_BODY", 1000)
        with pytest.raises(UsageError, match=r"slo-a\.json: cannot be sent to a judge: too large"):
            place.judged()
    wrong = place.folder / "configs/slo" / ("s" * 210 + ".json")
    wrong.write_bytes((place.folder / f"configs/slo/{A}.json").read_bytes())
    with pytest.raises(UsageError, match="cannot be sent to a judge"):
        place.judged(only_slo=wrong)


def test_a_file_that_is_no_text_cannot_be_sent(tmp_path):
    file = tmp_path / "x.json"
    file.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        remote._text(str(file), hashlib.sha256(b"\xff").hexdigest())


def test_a_file_that_changes_meanwhile(place, stubs):
    place.gate(entries(stubs))
    evidence = read_evidence(place.evidence_file)
    slo = load_slo(place.folder / f"configs/slo/{A}.json")
    place.evidence_file.write_text(place.evidence_file.read_text() + "\n")
    request = place.request()
    with pytest.raises(UsageError, match="was changed while it was judged"):
        remote.ask_judges(
            request.loaded_gate.spec.judges, request, evidence, [slo], heard_seal(request)
        )


def heard_seal(request):
    from pytest_decisionos.model.seal import Seal

    return Seal()


# A judge's clock


def test_the_clock_of_a_judge(place, stubs):
    place.gate(entries(stubs))
    reading = remote.judge_clock("j2", place.request())
    assert reading.source == "judge j2"
    assert reading.fault == ""
    assert abs(reading.offset_sec) <= reading.error_sec  # it is this very clock
    stubs[1].spoil = shifted(-3)
    assert remote.judge_clock("j2", place.request()).offset_sec == pytest.approx(-3, abs=1)
    stubs[1].spoil = signed_by("j1")
    reading = remote.judge_clock("j2", place.request())
    assert "judge j1's, not j2's" in reading.fault
    stubs[1].spoil = change(nonce="x" * 20)
    assert "another request" in remote.judge_clock("j2", place.request()).fault
    stubs[1].reply = lambda handler, honest: send(handler, b"", 500)
    assert "it answered 500" in remote.judge_clock("j2", place.request()).fault


def test_the_clock_of_no_judge(place, stubs):
    place.gate([{"id": "j0", "source": "evidence"}, *entries(stubs[:2])])
    for name in ("j0", "nobody"):
        with pytest.raises(UsageError, match="no such judge on another host.*expected j1, j2"):
            remote.judge_clock(name, place.request())
    place.gate([{"id": "j0", "source": "evidence"}])
    with pytest.raises(UsageError, match=r"on another host: gate.yaml names none; found j0$"):
        remote.judge_clock("j0", place.request())


# gate.yaml


def test_a_judge_elsewhere_must_stand_in_gate_yaml(place, stubs, monkeypatch):
    from pytest_decisionos.judge import gather as gathering
    from pytest_decisionos.judge.gate import JudgeConfig

    place.gate(entries(stubs[:2]))
    added = JudgeConfig(id="j3", url=stubs[2].url)
    monkeypatch.setattr(gathering, "_added_judges", lambda: [added])
    with pytest.raises(UsageError, match="must stand in gate.yaml"):
        place.judged(quorum="")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"id": "j", "source": "remote"}, "j is remote, and has no url"),
        ({"id": "j", "url": "http://h", "path": "log/x.csv"}, "a remote judge has its own source"),
        ({"id": "j", "url": "ftp://h"}, "url"),
        ({"id": "j", "url": "http://user:pw@h"}, "url"),
        ({"id": "j", "url": "http://h?x=1"}, "url"),
        ({"id": "j", "url": "http://h", "timeout_sec": 0.0}, "timeout_sec"),
    ],
)
def test_gate_yaml_says_where(place, entry, says):
    place.gate([entry])
    with pytest.raises(PolicyError, match=says):
        place.judged()


@pytest.mark.parametrize("seconds", [0.0, -1.0, 241.0])
def test_the_deadline_in_all_is_bounded(place, seconds):
    place.gate([{"id": "j0", "source": "evidence"}], judges_timeout_sec=seconds)
    with pytest.raises(PolicyError, match="judges_timeout_sec"):
        place.judged()
