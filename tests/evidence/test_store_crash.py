"""kill -9 at random points of merges and locks: what a reader finds is always whole."""

from __future__ import annotations

import multiprocessing
import os
import random
import stat
import time
from datetime import UTC, datetime

import pytest

from pytest_decisionos.evidence import store
from pytest_decisionos.evidence.config import Privacy
from pytest_decisionos.evidence.digest import digest
from pytest_decisionos.evidence.document import write_evidence
from pytest_decisionos.evidence.seal import sealed, verify
from pytest_decisionos.model.evidence import read_evidence
from pytest_decisionos.testing import healthy
from pytest_decisionos.trust.keys import make_ring

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
KEY = {"key_id": "k1", "secret": "made-up for tests, of 32 bytes or more", "state": "active"}
RING = make_ring([KEY], "test ring")
HOW = {"ring": RING, "privacy": Privacy(), "now": NOW}
WORKERS = 3
OPERATIONS = 1000
KILLS = 200  # one in five operations

# A worker starts in a moment: what it imports is loaded once.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["pytest_decisionos.evidence.store", "pytest_decisionos.testing"])


def work(folder, worker, first):
    """Merge and lock until killed; tell what was begun, and what had its answer."""
    told = os.open(folder / "told" / f"{worker}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    path = folder / "evidence" / "latest.json"
    for number in range(first, first + 10 * OPERATIONS):
        os.write(told, f"begun {number}\n".encode())
        if number % 3 == 2:
            # Without its own document, another worker's merges would come in between.
            own = path.with_name(f"own{worker}.json")
            write_evidence(own, sealed({**BLOCKS, "n": {"n": number}}, RING, now=NOW))
            made = store.lock(own, f"w{worker}-{number}", **HOW)
            os.write(told, f"locked {number} {made.digest}\n".encode())
        else:
            store.merge(path, {f"w{worker}": {"n": number}}, **HOW)
            os.write(told, f"merged {number}\n".encode())


BLOCKS = {name: healthy(NOW)[name] for name in ("meta", "budget", "usage")}


def last(folder, worker, word):
    """(number, rest) of what ``worker`` told last with ``word``; whole lines only."""
    told = folder / "told" / f"{worker}"
    lines = told.read_text().splitlines() if told.exists() else []
    found = [line.split() for line in lines if line.startswith(word)]
    return [(int(parts[1]), *parts[2:]) for parts in found]


@pytest.mark.untraced
def test_kill_9_at_random_points(tmp_path):
    (tmp_path / "told").mkdir()
    folder = tmp_path / "evidence"
    path = folder / "latest.json"
    write_evidence(path, sealed(BLOCKS, RING, now=NOW))
    draw = random.Random(7)
    running = {}
    kills = within = 0
    reads = set()
    while (
        kills < KILLS or sum(len(last(tmp_path, n, "begun")) for n in range(WORKERS)) < OPERATIONS
    ):
        for n in range(WORKERS):
            if n not in running:
                begun = last(tmp_path, n, "begun")
                # What was cut off is done again.
                first = begun[-1][0] if begun else 0
                running[n] = processes.Process(target=work, args=(tmp_path, n, first))
                running[n].start()
        time.sleep(draw.uniform(0.01, 0.07))
        n = draw.randrange(WORKERS)
        running[n].kill()
        running.pop(n).join()
        kills += 1
        begun = last(tmp_path, n, "begun")
        answered = last(tmp_path, n, "merged") + last(tmp_path, n, "locked")
        within += bool(begun) and begun[-1][0] not in {number for number, *_ in answered}
        reads.add(look(path, tmp_path))
    for process in running.values():
        process.kill()
        process.join()
    look(path, tmp_path)
    assert within > KILLS / 4  # in the middle of an operation
    assert len(reads) > KILLS / 4

    # Every LOCKED document is whole, and what was answered is there.
    locked = {file.name: file for file in folder.glob("*.locked.json")}
    for file in locked.values():
        assert stat.S_IMODE(file.lstat().st_mode) == 0o444
        assert verify(read_evidence(file).blocks, RING, now=NOW).state == "valid"
    for n in range(WORKERS):
        for number, digested in last(tmp_path, n, "locked"):
            assert digest(read_evidence(locked[f"w{n}-{number}.locked.json"]).blocks) == digested
    assert len(locked) > 100

    # And nothing that was killed blocks what comes after it.
    store.merge(path, {"after": {"all": True}}, **HOW)
    assert read_evidence(path).blocks["after"] == {"all": True}
    assert store.lock(path, "after", **HOW).created
    assert not store.lock(path, "after", **HOW).created
    rest = {name for name in os.listdir(folder) if not name.endswith((".json", ".lock"))}
    assert all(name.startswith(".") and name.endswith(".tmp") for name in rest)


def look(path, folder):
    """Read the document as anybody would; it holds what was answered, or what came after it."""
    answered = [last(folder, n, "merged") for n in range(WORKERS)]
    found = read_evidence(path)
    assert verify(found.blocks, RING, now=NOW).state == "valid"
    assert {name: found.blocks[name] for name in BLOCKS} == BLOCKS
    for n, told in enumerate(answered):
        if told:
            assert found.blocks[f"w{n}"]["n"] >= told[-1][0]
    return found.sha256
