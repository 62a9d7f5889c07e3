"""What the judge keeps: numbers by digest, bounded, shared by workers; documents and seals."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from judge_host import workspace

from pytest_decisionos.errors import DecisionOSError, UsageError
from pytest_decisionos.evidence.seal import sealed
from pytest_decisionos.judge.server import documents
from pytest_decisionos.judge.server import numbers as module
from pytest_decisionos.judge.server.documents import Seals
from pytest_decisionos.judge.server.numbers import Numbers
from pytest_decisionos.model.evidence import Evidence

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return workspace(tmp_path_factory.mktemp("numbers"))


@pytest.fixture
def counted(monkeypatch):
    """How often logs were asked."""
    calls = []
    real = module.ask_folder

    def ask(*args, **more):
        calls.append(args[2])
        return real(*args, **more)

    monkeypatch.setattr(module, "ask_folder", ask)
    return calls


def evidence(host, number=0):
    return Evidence("e", f"{number:064x}", host.blocks())


def numbers(host, shared=None, own=None):
    return Numbers("j1", host.logs, own, shared)


def test_kept_by_digest_and_no_more_than_so_many(host, counted, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 2)
    made = numbers(host)
    first = made.of(evidence(host, 0), NOW)
    assert first.blocks["perf"]["count"] == 1200
    assert made.of(evidence(host, 0), NOW + timedelta(seconds=9)) is first
    made.of(evidence(host, 1), NOW)
    made.of(evidence(host, 0), NOW)  # used, so 1 is the oldest
    made.of(evidence(host, 2), NOW)
    assert len(counted) == 3
    made.of(evidence(host, 0), NOW)
    assert len(counted) == 3
    made.of(evidence(host, 1), NOW)
    assert len(counted) == 4
    assert len(made._kept) == 2
    assert not made._pending


def test_what_could_not_be_computed_is_not_kept(host, counted):
    broken = Evidence(
        "e",
        "0" * 64,
        host.blocks() | {"witness": {"sources": [{"role": "x", "name": "reqlog.csv"}]}},
    )
    made = numbers(host)
    assert [made.of(broken, NOW).state for _ in range(2)] == ["error", "error"]
    absent = Evidence("e", "1" * 64, {})
    assert [made.of(absent, NOW).state for _ in range(2)] == ["absent", "absent"]
    assert len(counted) == 4


def test_a_bug_reaches_everybody_who_waits_and_the_next_tries_again(host, monkeypatch):
    made, inside, leave = numbers(host), threading.Event(), threading.Event()

    def breaks(*args, **more):
        inside.set()
        assert leave.wait(30)
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(module, "ask_folder", breaks)
        faults = []

        def go():
            try:
                made.of(evidence(host), NOW)
            except RuntimeError as fault:
                faults.append(str(fault))

        threads = [threading.Thread(target=go) for _ in range(3)]
        threads[0].start()
        assert inside.wait(30)
        for thread in threads[1:]:
            thread.start()
        leave.set()
        for thread in threads:
            thread.join()
    assert faults == ["a bug"] * 3
    assert made.of(evidence(host), NOW).state == "ready"


def test_workers_share_what_the_first_of_them_computed(host, counted, tmp_path):
    one, other = numbers(host, tmp_path), numbers(host, tmp_path)
    first = one.of(evidence(host), NOW)
    assert other.of(evidence(host), NOW) == first
    assert len(counted) == 1
    (kept,) = tmp_path.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.write_text("nonsense")  # a worker that was killed leaves no half; but whatever it is:
    third = numbers(host, tmp_path)
    assert third.of(evidence(host), NOW) == first


def test_of_two_workers_that_computed_at_once_the_first_to_write_has_it_for_both(
    host, tmp_path, monkeypatch
):
    (host.logs / "lb.csv").write_text((host.logs / "reqlog.csv").read_text())
    one, other = numbers(host, tmp_path, "lb.csv"), numbers(host, tmp_path, "lb.csv")
    real = other._read
    answers = [None]
    monkeypatch.setattr(other, "_read", lambda key: answers.pop() if answers else real(key))
    first = one.of(evidence(host), NOW)
    with (host.logs / "lb.csv").open("a") as stream:
        stream.write(f"{host.now.isoformat()},200,1\n")
    assert other.of(evidence(host), NOW) == first  # its own would have another digest of the log
    assert numbers(host, None, "lb.csv").of(evidence(host), NOW) != first


def test_the_shared_folder_is_bounded_and_may_be_gone(host, tmp_path, monkeypatch, counted):
    monkeypatch.setattr(module, "SHARED", 3)
    made = numbers(host, tmp_path)
    for i in range(5):
        made.of(evidence(host, i), NOW)
    assert len(list(tmp_path.iterdir())) == 3
    (tmp_path / "file").write_text("")
    gone = numbers(host, tmp_path / "file")
    assert gone.of(evidence(host), NOW).state == "ready"


def test_a_judges_own_log_is_read_for_each_decision(host, counted):
    (host.logs / "lb.csv").write_text((host.logs / "reqlog.csv").read_text())
    made = numbers(host, own="lb.csv")
    first = made.of(evidence(host), NOW)
    same = NOW.astimezone(tz=None)
    assert made.of(evidence(host), same) is first
    assert len(counted) == 1
    made.of(evidence(host), NOW + timedelta(microseconds=1))
    assert len(counted) == 2


# Documents and seals


def test_a_document_is_read_once_and_a_long_one_each_time(host):
    text = host.evidence()
    assert documents.read(text) is documents.read(str(text))
    long = json.dumps({"more": "x" * documents.KEPT_CHARS})
    assert documents.read(long) is not documents.read(long)
    for _ in range(2):
        with pytest.raises(DecisionOSError, match="not JSON"):
            documents.read("{")


def test_only_a_seal_that_holds_is_kept(host, monkeypatch):
    checks = []
    real = documents.check

    def check(*args, **more):
        checks.append(1)
        return real(*args, **more)

    monkeypatch.setattr(documents, "check", check)
    monkeypatch.setattr(documents, "KEPT", 2)
    seals, ring, now = Seals(), host.keys_of_ring, datetime.now(UTC)
    good = documents.read(host.evidence())
    assert {seals.of(good, ring, now).state for _ in range(3)} == {"valid"}
    assert len(checks) == 1
    ahead = sealed(host.blocks(), ring, now=now + timedelta(seconds=60))
    ahead = documents.read(json.dumps(ahead))
    assert [seals.of(ahead, ring, now).cause for _ in range(2)] == ["out_of_range"] * 2
    assert seals.of(ahead, ring, now + timedelta(seconds=60)).state == "valid"
    assert len(checks) == 4
    for _ in range(5):
        assert (
            seals.of(documents.read(host.evidence()), ring, now + timedelta(seconds=5)).state
            == "valid"
        )
    assert len(seals._kept) == 2


def test_a_key_that_was_revoked_since_proves_nothing(host):
    from judge_host import REQUEST, SEALS

    from pytest_decisionos.trust.keys import make_ring

    seals, now = Seals(), datetime.now(UTC)
    good = documents.read(host.evidence())
    assert seals.of(good, host.keys_of_ring, now).state == "valid"
    revoked = make_ring([REQUEST, SEALS | {"state": "revoked"}], "test")
    assert seals.of(good, revoked, now).cause == "revoked_key"
    assert seals.of(good, make_ring([REQUEST], "test"), now).state == "unchecked"


# Options


def test_the_names_of_a_server(host):
    from pytest_decisionos.judge.server.options import Tls

    plain = host.options(port=80)
    assert plain.url == "http://127.0.0.1"
    assert {"127.0.0.1", "127.0.0.1:80", "localhost", "[::1]:80"} <= plain.hosts
    assert host.options(host="::1", port=8080).url == "http://[::1]:8080"
    secure = host.options(host="Judge-1", port=443, tls=Tls(host.path, host.path))
    assert secure.url == "https://judge-1"
    assert {"judge-1", "judge-1:443"} <= secure.hosts
    assert "judge-1:80" not in secure.hosts
    assert [
        host.options(host=h).loopback for h in ("127.0.0.1", "127.1.2.3", "::1", "localhost")
    ] == [True] * 4
    assert [host.options(host=h).loopback for h in ("10.0.0.1", "judge-1", "0.0.0.0")] == [
        False
    ] * 3


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        (None, None),
        ("https://judge.example", "https://judge.example"),
        ("https://judge.example/", "https://judge.example"),
        ("HTTPS".lower() + "://Judge.Example:443/a/", "https://judge.example/a"),
        ("http://judge:8080/base/x", "http://judge:8080/base/x"),
        ("http://judge:80", "http://judge"),
    ],
)
def test_a_public_url_is_spelled_as_clients_sign_it(given, spelled):
    from pytest_decisionos.cli.judge_serve import _public
    from pytest_decisionos.judge.client import JudgeClient

    assert _public(given) == spelled
    if given is not None:
        client = JudgeClient(given, None, None)
        assert client.url == f"{spelled}/judge"
        client.close()


@pytest.mark.parametrize(
    "given",
    ["ftp://x", "https://", "https://x?y", "https://u@x", "x", "https://[", "http://x:99999"],
)
def test_what_is_no_public_url(given):
    from pytest_decisionos.cli.judge_serve import _public

    with pytest.raises(UsageError, match="public-url"):
        _public(given)
