"""What the tests of both replay stores share, and the process that claims many nonces at once."""

import json
import random
import sys
import time
from datetime import UTC, datetime
from subprocess import PIPE, Popen

import pytest

from pytest_decisionos.errors import ReplayStoreError, SignatureError
from pytest_decisionos.trust.replay import open_store

LIFE_SEC, SKEW_SEC = 302.0, 0.5
START = 1_790_000_000.25
"""When a test's own clock starts: a quarter into a second."""


class Clock:
    """A clock that tests set."""

    def __init__(self, now=START):
        self.now = now

    def __call__(self):
        return self.now


def at(seconds):
    return datetime.fromtimestamp(seconds, UTC)


def outcome(store, nonce, made, key_id="k1"):
    """``accepted``, the cause of a refusal, or ``error``."""
    try:
        store.claim(key_id, nonce, created=at(int(made)))
    except SignatureError as fault:
        return fault.cause
    except ReplayStoreError:
        return "error"
    return "accepted"


def soon():
    """In the real time: younger than any store that is made now."""
    return time.time() + 60


def await_fault(store, part):
    """Until it says so: what may block is asked in the background, and an answer holds a moment."""
    until = time.monotonic() + 20
    while part not in (store.fault() or ""):
        assert time.monotonic() < until, store.fault()
        time.sleep(0.05)


def await_ready(store):
    until = time.monotonic() + 20
    while store.fault() is not None:
        assert time.monotonic() < until, store.fault()
        time.sleep(0.05)


def all_claim(url, *, processes, claims, nonces):
    """Each of the processes claims nonces in an order of its own; how often each was accepted."""
    made = soon()
    command = [sys.executable, __file__, url, str(made), str(claims), str(nonces)]
    running = [
        Popen([*command, str(number)], stdin=PIPE, stdout=PIPE, text=True)
        for number in range(processes)
    ]
    try:
        for one in running:
            assert one.stdout.readline() == "open\n"
        for one in running:
            one.stdin.write("go\n")
            one.stdin.flush()
        told = [json.loads(one.stdout.readline()) for one in running]
    finally:
        for one in running:
            one.kill()
            one.communicate()
    assert [sum(one.values()) for one in told] == [claims] * processes
    return {name: sum(one.get(name, 0) for one in told) for name in set().union(*told)}


def claim_many(url, made, claims, nonces, number):
    store = open_store(url, life_sec=LIFE_SEC, skew_sec=SKEW_SEC)
    tell("open")
    sys.stdin.readline()
    counts = {}
    mine = list(range(nonces)) * (claims // nonces)
    random.Random(number).shuffle(mine)
    for nonce in mine:
        said = outcome(store, f"nonce-{nonce}", made)
        counts[said] = counts.get(said, 0) + 1
    tell(json.dumps(counts))
    store.close()


def tell(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def refused(call, error=ReplayStoreError):
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


if __name__ == "__main__":
    address, when, *numbers = sys.argv[1:]
    claim_many(address, float(when), *map(int, numbers))
