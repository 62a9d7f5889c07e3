"""POST /judge: what is judged, from what, what is signed, and what is refused."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from judge_host import REQUEST, SEALS, SLO, ask, digest, reason, rows, workspace

from pytest_decisionos.evidence.seal import sealed
from pytest_decisionos.judge import verdicts
from pytest_decisionos.judge.decide import JudgeInput, ballot_of
from pytest_decisionos.judge.rules import Jury
from pytest_decisionos.judge.server import numbers as numbers_module
from pytest_decisionos.judge.wire import Answer, Question
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.evidence import parse_evidence
from pytest_decisionos.model.policy_text import parse_policy
from pytest_decisionos.slo.compile import compile_slo
from pytest_decisionos.trust import dsse


def post(judge, body, **changes):
    return ask(judge.app, "POST", b"/judge", judge.host.signed(body, **changes), body)


class Said:
    """An answer, read as the gate reads it."""

    def __init__(self, judge, body, answer):
        assert answer[0] == 200, answer
        made = Answer.model_validate(strict_json.loads(answer[2]))
        data = strict_json.dumps(made.verdict).encode()
        envelope, self.claims = verdicts.parse(data, "verdict")
        self.signers = dsse.signers(envelope, {judge.host.key.keyid: judge.host.key.public})
        self.text = made.numbers
        self.numbers = JudgeInput.model_validate(strict_json.loads(made.numbers.encode()))
        self.question = Question.model_validate_json(body)

    def again(self):
        """The same judge's ballot, found again from its numbers."""
        from pathlib import Path

        evidence = parse_evidence(self.question.evidence.encode(), Path("latest.json"))
        path, data = Path(self.question.slo.file), self.question.slo.text.encode()
        slo = compile_slo(parse_policy(data, path), data, path)
        as_of = self.question.as_of
        jury = Jury(
            evidence.blocks, "latest.json", [self.numbers], seal=self.numbers.seal, now=as_of
        )
        return slo, ballot_of(self.numbers, jury, slo, as_of)


def said(judge, body, **changes):
    return Said(judge, body, post(judge, body, **changes))


def test_the_verdict_is_bound_to_everything_it_is_about(judge):
    body = judge.host.question()
    headers = judge.host.signed(body)
    before = datetime.now(UTC)
    answer = Said(judge, body, ask(judge.app, "POST", b"/judge", headers, body))
    claims, question = answer.claims, answer.question
    assert answer.signers == [judge.host.key.keyid]
    assert claims.judge == "j1"
    assert claims.slo == "slo-own"
    assert claims.phase == "cutover"
    assert claims.target == judge.judge.target
    assert claims.evidence_sha256 == digest(question.evidence.encode())
    assert claims.slo_sha256 == digest(question.slo.text.encode())
    assert claims.numbers_sha256 == digest(answer.text.encode())
    assert claims.recomputed == ("perf", "perf_judge")
    assert claims.as_of == question.as_of
    assert before <= claims.judged_at <= datetime.now(UTC)
    assert f'nonce="{claims.nonce}"' in dict(headers)["signature-input"]
    assert claims.vote == "pass"
    assert {o.id for o in claims.outcomes} >= {"latency.p95", "judge_infra.availability"}
    assert answer.numbers.source == "remote"
    assert answer.numbers.exact
    assert {log.file for log in answer.numbers.logs} == {"reqlog.csv", "judgelog.csv"}
    assert answer.numbers.seal.state == "valid"
    slo, ballot = answer.again()
    assert not verdicts.ballot_faults(
        claims, ballot, slo_sha256=slo.sha256, blocks=answer.numbers.blocks
    )


def test_numbers_are_the_same_for_every_slo(judge):
    evidence = judge.host.evidence()
    texts = set()
    for name, spec in (("slo-own", SLO), ("한글", {"latency": {"max_p95_ms": 1}})):
        slo = {"file": f"{name}.json", "text": json.dumps(spec)}
        answer = said(judge, judge.host.question(evidence=evidence, slo=slo))
        assert answer.claims.slo == name
        texts.add(answer.text)
    assert len(texts) == 1
    assert answer.claims.vote == "fail"


def test_evidence_that_lies_about_its_log_is_tampering(judge):
    blocks = judge.host.blocks()
    blocks["perf"]["latency_ms"]["p95"] = 50.0
    answer = said(judge, judge.host.question(evidence=judge.host.evidence(blocks)))
    assert answer.claims.vote == "fail"
    assert {o.cause for o in answer.claims.outcomes if o.id == "latency.p95"} == {"tampered"}
    _, ballot = answer.again()
    assert ballot.vote == "fail"


def test_a_log_that_was_changed_puts_the_judge_in_error(opened, tmp_path):
    judge = opened(workspace(tmp_path))
    evidence = judge.host.evidence()
    path = judge.host.logs / "reqlog.csv"
    kept = path.read_text()
    path.write_text(kept.replace(",100\n", ",101\n", 1))
    answer = said(judge, judge.host.question(evidence=evidence))
    assert answer.claims.vote == "error"
    assert answer.numbers.state == "error"
    assert "reqlog.csv" in answer.numbers.reason
    assert str(judge.host.path) not in answer.text
    assert not answer.numbers.blocks
    path.write_text(kept)  # what could not be computed is not kept
    assert said(judge, judge.host.question(evidence=evidence)).claims.vote == "pass"
    path.write_text("nonsense\n")  # and what could is
    assert said(judge, judge.host.question(evidence=evidence)).claims.vote == "pass"


@pytest.mark.parametrize(
    "text",
    ["", "nonsense\n", "ts,status\n1,2\n", "ts,status,latency_ms\nx,y,z\n", "\x00" * 100],
)
def test_no_answer_tells_where_the_logs_are(opened, tmp_path, text):
    judge = opened(workspace(tmp_path))
    blocks = judge.host.blocks()
    (judge.host.logs / "judgelog.csv").write_text(text)
    data = text.encode()
    blocks["witness"]["sources"][1] |= {"sha256": digest(data), "bytes": len(data)}
    answer = said(judge, judge.host.question(evidence=judge.host.evidence(blocks)))
    assert answer.numbers.state == "error"
    assert "judgelog.csv" in answer.numbers.reason
    assert str(tmp_path) not in answer.text
    assert str(tmp_path) not in answer.claims.model_dump_json()


def test_without_its_logs_it_abstains(opened, tmp_path):
    judge = opened(workspace(tmp_path))
    evidence = judge.host.evidence()
    for name in ("reqlog.csv", "judgelog.csv"):
        (judge.host.logs / name).rename(tmp_path / name)
    answer = said(judge, judge.host.question(evidence=evidence))
    assert answer.claims.vote == "abstain"
    assert "not in its log folder" in answer.claims.reason
    assert not answer.claims.recomputed
    assert str(tmp_path) not in answer.text


@pytest.mark.parametrize(
    "name",
    ["../secret.csv", "/etc/passwd", "a/b.csv", "..", "x\0y", "link.csv", "*.csv", "가" * 200],
)
def test_nothing_outside_its_folder_is_opened(opened, tmp_path, name):
    host = workspace(tmp_path)
    judge = opened(host)
    secret = rows(host.now)
    (host.path / "secret.csv").write_text(secret)
    (host.logs / "link.csv").symlink_to(host.path / "secret.csv")
    blocks = host.blocks()
    data = secret.encode()
    blocks["witness"]["sources"] = [
        {"role": "reqlog", "name": name, "sha256": digest(data), "bytes": len(data)}
    ]
    answer = said(judge, host.question(evidence=host.evidence(blocks)))
    assert answer.claims.vote in {"error", "abstain"}
    assert not answer.numbers.blocks
    assert not answer.numbers.logs


def test_a_judge_with_a_log_of_its_own(opened, tmp_path):
    host = workspace(tmp_path)
    (host.logs / "lb.csv").write_text(rows(host.now, latency=lambda i: 950 + i % 50))
    judge = opened(host, peer="lb.csv")
    body = host.question()
    answer = said(judge, body)
    assert answer.claims.vote == "fail"
    assert not answer.numbers.exact
    assert [log.file for log in answer.numbers.logs] == ["lb.csv"]
    assert {o.cause for o in answer.claims.outcomes if o.id == "latency.p95"} == {"over"}
    # Within one decision its numbers stay as they are, though its log grows; the next reads again.
    with (host.logs / "lb.csv").open("a") as stream:
        stream.write(f"{host.now.isoformat()},200,1\n")
    question = json.loads(body)
    assert said(judge, json.dumps(question).encode()).text == answer.text
    question["as_of"] = datetime.now(UTC).isoformat()
    assert said(judge, json.dumps(question).encode()).text != answer.text


def test_its_own_keys_judge_the_seal(opened, tmp_path):
    host = workspace(tmp_path)
    judge = opened(host)
    blocks = host.blocks()
    other = workspace(tmp_path, "other")
    other.ring([REQUEST, SEALS | {"secret": "hex:" + "ef" * 32}])
    forged = json.dumps(sealed(blocks, other.keys_of_ring, now=datetime.now(UTC)))
    answer = said(judge, host.question(evidence=forged))
    assert answer.numbers.seal.state == "refused"
    assert answer.numbers.seal.cause == "tampered"
    bare = said(judge, host.question(evidence=host.evidence(blocks, ring=False)))
    assert bare.numbers.seal.cause == "missing"


def test_without_a_key_for_seals_only_the_digest_speaks(opened, tmp_path):
    host = workspace(tmp_path)
    host.ring([REQUEST])
    judge = opened(host)
    answer = said(judge, host.question(evidence=host.evidence(ring=False)))
    assert answer.numbers.seal.state == "unchecked"
    assert answer.claims.vote == "pass"


def changed(body, **changes):
    return json.dumps(json.loads(body) | changes).encode()


FOREIGN = {"service": "checkout", "environment": "staging", "region": "eu-1", "tenant": "all"}


@pytest.mark.parametrize(
    ("changes", "expected", "says"),
    [
        ({"evidence": "{"}, (422, "evidence"), "not JSON"),
        ({"evidence": "[]"}, (422, "evidence"), "not an evidence document"),
        ({"evidence": '{"a":1,"a":2}'}, (422, "evidence"), "duplicate key"),
        ({"evidence": "[" * 100 + "]" * 100}, (422, "evidence"), "nested deeper"),
        ({"evidence": "{}"}, (422, "foreign_target"), "no target"),
        (
            {"evidence": json.dumps({"meta": {"target": FOREIGN}})},
            (422, "foreign_target"),
            "checkout/staging",
        ),
        ({"evidence": ""}, (422, "question"), "evidence"),
        ({"evidence": 3}, (422, "question"), "evidence"),
        ({"slo": {"file": "s.json", "text": "{}"}}, (422, "slo"), "compiles to no rule"),
        ({"slo": {"file": "s.json", "text": '{"latncy": {}}'}}, (422, "slo"), "latency"),
        ({"slo": {"file": "s.yaml", "text": "a: &x 1\nb: *x"}}, (422, "slo"), "aliases"),
        ({"slo": {"file": "s.json", "text": '{"a": "' + "x" * 70_000 + '"}'}}, (422, "slo"), "a"),
        ({"slo": {"file": "../s.json", "text": "{}"}}, (422, "question"), "slo.file"),
        ({"slo": {"file": "s.txt", "text": "{}"}}, (422, "question"), "slo.file"),
        ({"slo": {"file": "s.json"}}, (422, "question"), "slo.text"),
        ({"phase": "Cut over"}, (422, "question"), "phase"),
        ({"as_of": "2026-01-01T00:00:00"}, (422, "question"), "timezone"),
        ({"as_of": "2026-01-01T00:00:00Z"}, (422, "as_of"), "2026-01-01"),
        ({"as_of": "2999-01-01T00:00:00Z"}, (422, "as_of"), "2999-01-01"),
        ({"as_of": "soon"}, (422, "question"), "as_of"),
        ({"more": 1}, (422, "question"), "more"),
    ],
)  # fmt: skip
def test_what_is_signed_and_cannot_be_judged(judge, changes, expected, says):
    answer = post(judge, changed(judge.host.question(), **changes))
    assert reason(answer) == expected
    assert says in json.loads(answer[2])["detail"]
    assert len(answer[2]) < 4096


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 100, b'{"a": NaN}', b'{"a":1,"a":2}', b'"\\ud800"']
)
def test_what_is_signed_and_no_json(judge, body):
    assert reason(post(judge, body)) == (400, "malformed")


@pytest.mark.parametrize("body", [b"[]", b"1", b"{}", b"null"])
def test_what_is_signed_and_no_question(judge, body):
    assert reason(post(judge, body)) == (422, "question")


def test_ages_count_to_the_time_of_the_decision(judge):
    slo = {"file": "slo-own.json", "text": json.dumps({"freshness": {"max_age_sec": 900}, **SLO})}
    as_of = datetime.now(UTC) - timedelta(seconds=3)
    answer = said(judge, judge.host.question(slo=slo, as_of=as_of.isoformat()))
    (age,) = [o.observed for o in answer.claims.outcomes if o.id == "freshness.age"]
    assert age == pytest.approx((as_of - judge.host.now).total_seconds(), abs=0.06)


def test_many_who_ask_at_once_make_one_harvest(opened, tmp_path, monkeypatch):
    judge = opened(workspace(tmp_path))
    harvests, inside = [], threading.Barrier(4)
    real = numbers_module.ask_folder

    def counted(*args, **more):
        harvests.append(1)
        return real(*args, **more)

    monkeypatch.setattr(numbers_module, "ask_folder", counted)
    evidence = judge.host.evidence()
    bodies = [judge.host.question(evidence=evidence) for _ in range(4)]
    statuses = []

    def go(body):
        headers = judge.host.signed(body)
        inside.wait()
        statuses.append(ask(judge.app, "POST", b"/judge", headers, body)[0])

    threads = [threading.Thread(target=go, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 4
    assert len(harvests) == 1
