"""What both replay stores do: one claim succeeds, and what may have been forgotten is refused."""

import sys
import threading

import pytest
from replay_cases import LIFE_SEC, SKEW_SEC, START, Clock, at, outcome, refused

from pytest_decisionos.errors import SignatureError, UsageError
from pytest_decisionos.trust import replay
from pytest_decisionos.trust.replay import Probe, name_of, open_store
from pytest_decisionos.trust.replay_redis import LEASE_SEC, RedisStore
from pytest_decisionos.trust.replay_sqlite import SqliteStore

NOW = int(START)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.slow)])
def opened(request, tmp_path):
    """A function that opens the same store again and again; its clock; how far ahead it is born."""
    clock, stores = Clock(), []
    if request.param == "redis":
        url = request.getfixturevalue("redis_server")().url
        ahead = 2 * SKEW_SEC + LEASE_SEC
    else:
        ahead = SKEW_SEC

    def open_it():
        kind = {"life_sec": LIFE_SEC, "skew_sec": SKEW_SEC, "clock": clock}
        if request.param == "redis":
            stores.append(RedisStore(url, **kind))
        else:
            stores.append(SqliteStore(tmp_path / "judge/replay.sqlite", **kind))
        return stores[-1]

    open_it.clock, open_it.ahead = clock, ahead
    yield open_it
    for store in stores:
        store.close()


def test_each_nonce_of_a_key_is_accepted_once(opened):
    store = opened()
    made = NOW + 10
    assert outcome(store, "n", made) == "accepted"
    assert outcome(store, "n", made) == "replayed"
    assert outcome(store, "n", made + 1) == "replayed"
    assert outcome(store, "n", made, key_id="k2") == "accepted"
    assert outcome(store, "n", made, key_id="k2") == "replayed"
    # Where the key id ends is part of the name.
    assert outcome(store, "2x", made) == "accepted"
    assert outcome(store, "x", made, key_id="k12") == "accepted"


HOSTILE = [
    "", "\x00", "a\x00", "a", "'); DROP TABLE nonce; --", "birth:0", "\ud800", "나비", "*", "\r\nFLUSHALL\r\n",
    "é", "e\u0301", "𝒏" * 256,
]  # fmt: skip


def test_any_characters_name_a_nonce_and_no_other(opened):
    store = opened()
    assert [outcome(store, nonce, NOW + 10) for nonce in HOSTILE] == ["accepted"] * len(HOSTILE)
    assert [outcome(store, nonce, NOW + 10) for nonce in HOSTILE] == ["replayed"] * len(HOSTILE)
    assert len({name_of("k1", nonce) for nonce in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("part", [0.0, 0.25, 0.5, 0.75, 0.999])
def test_what_may_be_older_than_the_store_is_refused(opened, part):
    opened.clock.now = NOW + part
    store = opened()
    born = int(NOW + part + opened.ahead)
    for made in (0, NOW - 3600, NOW, born - 1, born):
        assert outcome(store, f"n{made}", made) == "older_than_store"
    assert outcome(store, "n", born + 1) == "accepted"
    # Of those that were accepted before the store was made, none said a later second than `born`:
    # it was made, by a clock that may be as far ahead, at the store's birth at the latest.
    assert born + 1 > NOW + part + opened.ahead


def test_it_is_not_ready_before_it_accepts_what_is_made_now(opened, monkeypatch):
    monkeypatch.setattr(replay, "FRESH_SEC", 0.0)
    store = opened()
    for tenth in range(50):
        opened.clock.now = START + tenth / 10
        if store.fault() is None:
            break
        assert "too young" in store.fault()
    assert outcome(store, "n", int(opened.clock.now)) == "accepted"
    assert outcome(store, "m", int(opened.clock.now - SKEW_SEC)) == "accepted"
    assert 0 < tenth < 49


def test_it_remembers_when_it_is_opened_again(opened):
    store = opened()
    assert outcome(store, "n", NOW + 10) == "accepted"
    store.close()
    assert outcome(store, "m", NOW + 10) == "error"
    assert "closed" in store.fault()
    opened.clock.now += 5  # still before what was claimed
    again = opened()
    assert outcome(again, "n", NOW + 10) == "replayed"
    assert outcome(again, "m", NOW + 10) == "accepted"
    other = opened()
    assert outcome(other, "m", NOW + 10) == "replayed"
    again.close()
    assert outcome(other, "m", NOW + 10) == "replayed"
    assert outcome(other, "l", NOW + 10) == "accepted"


def test_a_clock_that_jumps_makes_it_forget_nothing(opened):
    store = opened()
    assert outcome(store, "n", NOW + 10) == "accepted"
    for jump in (86_400 * 400, -86_400 * 400, 3600, -3600, 0):
        opened.clock.now = START + jump
        again = opened()
        for number in range(100):  # several purges
            assert outcome(again, f"{jump}-{number}", NOW + 11) == "accepted"
        assert outcome(again, "n", NOW + 10) == "replayed"
        assert outcome(store, "n", NOW + 10) == "replayed"


def test_what_it_forgot_it_refuses_whatever_the_clock_says(opened):
    store = opened()
    assert outcome(store, "n", NOW + 10) == "accepted"
    later = NOW + 10 + int(LIFE_SEC)
    for number in range(100):
        assert outcome(store, f"a{number}", later - 1) == "accepted"
    assert outcome(store, "n", NOW + 10) == "replayed"  # a second is left
    for number in range(100):
        assert outcome(store, f"b{number}", later) == "accepted"
    for now in (START, later, later + 3600):
        opened.clock.now = now
        assert outcome(store, "n", NOW + 10) == "older_than_store"
        assert outcome(opened(), "n", NOW + 10) == "older_than_store"
    assert outcome(store, "c", NOW + 11) == "accepted"


def test_a_refusal_says_what_to_do(opened):
    store = opened()
    store.claim("k1", "n", created=at(NOW + 10))
    text = refused(lambda: store.claim("k1", "n", created=at(NOW + 10)), SignatureError)
    assert "used before" in text
    assert "n of k1" in text
    text = refused(lambda: store.claim("k1", "m", created=at(NOW)), SignatureError)
    assert "before the replay store began to remember" in text
    assert at(NOW).isoformat() in text
    assert "sign and send it anew" in text


def test_a_time_that_no_calendar_has_is_told_too():
    assert "10000000000000000 s" in str(replay.refusal("k", "n", 0, 10**16))


def test_of_eight_threads_one_is_accepted(opened):
    store = opened()
    said, start = [], threading.Barrier(8)

    def run():
        start.wait()
        said.extend([outcome(store, f"n{number}", NOW + 10) for number in range(50)])

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (said.count("accepted"), said.count("replayed")) == (50, 350)


# Which store


def test_an_address_opens_the_store_of_its_kind(tmp_path, redis_server):
    for url, kind in (
        (str(tmp_path / "replay.sqlite"), SqliteStore),
        (redis_server().url, RedisStore),
    ):
        store = open_store(url, life_sec=LIFE_SEC, skew_sec=SKEW_SEC)
        assert isinstance(store, kind)
        store.close()


@pytest.mark.parametrize("url", ["", "postgres://u:hunter2@h/d", "REDIS://h", "file:///tmp/x"])
def test_what_names_no_store_is_refused_and_not_told(url):
    text = refused(lambda: open_store(url, life_sec=LIFE_SEC, skew_sec=SKEW_SEC), UsageError)
    assert "no replay store" in text
    assert "hunter2" not in text


def test_without_the_extra_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "pytest_decisionos.trust.replay_redis")
    text = refused(
        lambda: open_store("redis://h", life_sec=LIFE_SEC, skew_sec=SKEW_SEC), UsageError
    )
    assert "pip install 'pytest-decisionos[redis]'" in text


def test_another_module_that_is_missing_is_not_called_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest_decisionos.trust.replay_redis", None)
    with pytest.raises(ModuleNotFoundError):
        open_store("redis://h", life_sec=LIFE_SEC, skew_sec=SKEW_SEC)


# Asking what may block


def test_a_probe_that_hangs_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(replay, "PATIENCE_SEC", 0.05)
    monkeypatch.setattr(replay, "FRESH_SEC", 0.0)
    release, asked = threading.Event(), []

    def ask():
        asked.append(threading.current_thread())
        release.wait()

    probe = Probe(ask)
    for _ in range(5):
        assert "does not answer" in probe()
    assert len(asked) == 1  # the others wait for the same answer
    release.set()
    asked[0].join()
    monkeypatch.setattr(replay, "PATIENCE_SEC", 30.0)
    assert probe() is None
    for thread in asked:
        thread.join()


def test_a_probe_asks_again_only_after_a_while(monkeypatch):
    monkeypatch.setattr(replay, "PATIENCE_SEC", 30.0)
    monkeypatch.setattr(replay, "FRESH_SEC", 3600.0)
    asked = []
    probe = Probe(lambda: asked.append(1) or "out of order")
    assert [probe(), probe(), probe()] == ["out of order"] * 3
    assert len(asked) == 1
    monkeypatch.setattr(replay, "FRESH_SEC", 0.0)
    assert probe() == "out of order"
    assert len(asked) == 2


def test_whatever_a_probe_meets_is_a_fault(monkeypatch):
    monkeypatch.setattr(replay, "PATIENCE_SEC", 30.0)

    def ask():
        raise RuntimeError("what nobody thought of")

    assert Probe(ask)() == "what nobody thought of"

    def no_more(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)
    assert "no thread" in Probe(lambda: None)()
