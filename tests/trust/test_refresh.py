"""The ring that is read again: taken up, kept for a while, then refused, then healed."""

from __future__ import annotations

import signal
import threading
import time
from datetime import UTC, datetime

import pytest

from pytest_decisionos.errors import KeysError, RemoteError
from pytest_decisionos.trust import refresh
from pytest_decisionos.trust.keys import make_ring
from pytest_decisionos.trust.refresh import RefreshingRing

SECRET = "correct horse battery staple, and more"


def ring(name):
    return make_ring([{"key_id": name, "secret": SECRET, "state": "active"}], "somewhere")


class Source:
    """Gives what it is told to; a test waits until it was asked."""

    def __init__(self):
        self.answers = [ring("first")]
        self.asked = 0
        self.now = 1000.0
        self._asked = threading.Semaphore(0)

    def __call__(self):
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self._asked.release()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def was_asked(self):
        assert self._asked.acquire(timeout=30)


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def keys(source):
    """Reads again when it is told to, never by itself: an hour is longer than a test."""
    made = RefreshingRing(source, interval_sec=3600, grace_sec=900, clock=lambda: source.now)
    source.was_asked()
    yield made
    made.close()


def settled(made):
    """Until what was begun is done: a closed one has no thread that could change it."""
    made.close()
    assert not made._thread.is_alive()
    return made


def name(made):
    return made.ring().keys[0].key_id


def test_a_new_ring_is_taken_up(keys, source):
    assert name(keys) == "first"
    source.answers = [ring("second")]
    assert name(keys) == "first"
    keys.refresh_now()
    source.was_asked()
    assert name(settled(keys)) == "second"


def test_it_reads_again_by_itself(source):
    source.answers = [ring("first"), ring("second")]
    made = RefreshingRing(source, interval_sec=0.001)
    for _ in range(3):  # at the third question the second answer has been taken up
        source.was_asked()
    assert name(settled(made)) == "second"


def test_nothing_starts_without_keys(source):
    source.answers = [RemoteError("SSM cannot be asked")]
    before = threading.active_count()
    with pytest.raises(RemoteError):
        RefreshingRing(source)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (
            RemoteError("SSM cannot be asked", found="EndpointConnectionError"),
            "EndpointConnectionError",
        ),
        (KeysError("not JSON", file="SSM /a"), "SSM /a: not JSON"),
        (RuntimeError(f"a bug that tells {SECRET}"), "RuntimeError"),
    ],
)
def test_the_last_good_one_is_kept_for_the_grace_and_no_longer(keys, source, fault, told):
    source.answers = [fault]
    keys.refresh_now()
    source.was_asked()
    settled(keys)
    source.now += 3600 + 900
    assert name(keys) == "first"
    source.now += 0.1
    with pytest.raises(KeysError) as caught:
        keys.ring()
    said = str(caught.value)
    assert said.startswith(f"somewhere: could not be read again since {datetime.now(UTC):%Y-}")
    assert told in said
    assert "within 4500 s" in said
    assert SECRET not in said
    assert "\n" not in said


def test_a_read_that_hangs_counts_like_one_that_fails(source):
    stuck = threading.Event()

    def hangs():
        if source.asked:
            source.was_asked()
            stuck.wait(30)
        return source()

    made = RefreshingRing(hangs, interval_sec=60, grace_sec=900, clock=lambda: source.now)
    made.refresh_now()
    source.now += 961
    with pytest.raises(KeysError, match="could not be read again since .*: no answer"):
        made.ring()
    stuck.set()
    settled(made)


def test_age_counts_from_the_question_not_from_the_answer(source):
    """A read that took long is as old as what it saw."""

    def slow():
        source.now += 50
        return ring("slow")

    made = RefreshingRing(slow, interval_sec=60, grace_sec=0, clock=lambda: source.now)
    source.now += 11
    with pytest.raises(KeysError):
        made.ring()
    made.close()


def test_a_read_that_succeeds_heals(keys, source):
    source.answers = [RemoteError("away"), ring("second")]
    keys.refresh_now()
    source.was_asked()
    source.now += 5000
    with pytest.raises(KeysError):
        keys.ring()
    keys.refresh_now()
    source.was_asked()
    assert name(settled(keys)) == "second"
    source.now += 4501
    with pytest.raises(KeysError, match="no answer"):  # the fault before the healing is forgotten
        keys.ring()


def test_it_lives_on_after_a_fault(keys, source):
    source.answers = [RuntimeError("a bug"), KeysError("bad"), ring("third")]
    for _ in range(3):
        keys.refresh_now()
        source.was_asked()
    assert name(settled(keys)) == "third"


def test_many_calls_at_once_are_one_read(source):
    inside, leave = threading.Event(), threading.Event()

    def slow():
        if source.asked:
            inside.set()
            assert leave.wait(30)
        return source()

    made = RefreshingRing(slow, interval_sec=3600)
    made.refresh_now()
    assert inside.wait(30)
    for _ in range(1000):
        made.refresh_now()
    leave.set()
    settled(made)
    assert source.asked <= 3  # the first, the one that was slow, and at most one for all the rest


def test_close_ends_it_though_calls_wait(keys):
    for _ in range(10):
        keys.refresh_now()
    settled(keys)
    keys.refresh_now()
    assert name(keys) == "first"
    keys.close()


def test_from_a_signal_handler(keys, source):
    source.answers = [ring("second")]
    before = signal.signal(signal.SIGHUP, lambda *_: keys.refresh_now())
    try:
        signal.raise_signal(signal.SIGHUP)
        source.was_asked()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert name(settled(keys)) == "second"


def test_threads_share_it(keys, source):
    source.answers = [ring("second")]
    seen = set()

    def look():
        for _ in range(500):
            seen.add(name(keys))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    keys.refresh_now()
    for thread in threads:
        thread.join()
    assert seen <= {"first", "second"}
    source.was_asked()
    assert name(settled(keys)) == "second"


def test_who_waits_for_a_read_gets_one_that_begins_afterwards(keys, source):
    source.answers = [ring("second")]
    waiting = keys.read_again()
    assert waiting.result(timeout=30) is True
    assert name(keys) == "second"


@pytest.mark.slow
def test_who_waits_is_told_that_a_read_failed(keys, source):
    source.answers = [RemoteError("away")]
    assert keys.read_again().result(timeout=30) is False
    source.answers = [RuntimeError("a bug")]
    assert keys.read_again().result(timeout=30) is False
    assert name(keys) == "first"


def test_many_who_wait_share_one_read_in_a_while(keys, source, monkeypatch):
    monkeypatch.setattr(refresh, "GAP_SEC", 0.3)
    assert keys.read_again().result(timeout=30) is True
    asked, began = source.asked, time.monotonic()
    waiting = [keys.read_again() for _ in range(1000)]
    assert all(one.result(timeout=30) for one in waiting)
    assert source.asked == asked + 1
    assert time.monotonic() - began >= 0.25  # it was not earlier; how much later says nothing


def test_a_signal_does_not_wait_for_the_gap(keys, source, monkeypatch):
    monkeypatch.setattr(refresh, "GAP_SEC", 3600)
    keys._began = time.monotonic()
    waiting = keys.read_again()
    keys.refresh_now()
    assert waiting.result(timeout=30) is True


def test_who_waits_no_more_stops_nobody(keys, source, monkeypatch):
    monkeypatch.setattr(refresh, "GAP_SEC", 0.2)
    assert keys.read_again().result(timeout=30) is True
    gone, stays = keys.read_again(), keys.read_again()
    gone.cancel()
    assert stays.result(timeout=30) is True
    assert keys.read_again().result(timeout=30) is True


def test_who_waits_when_it_ends_is_told(keys, monkeypatch):
    monkeypatch.setattr(refresh, "GAP_SEC", 3600)
    keys._began = time.monotonic()
    waiting = keys.read_again()
    keys.close()
    assert waiting.result(timeout=30) is False
