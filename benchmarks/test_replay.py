"""Claims on each replay store against the least that its server could do: ratios of one run.

    python -m pytest benchmarks/test_replay.py -p no:cacheprovider -s

Nothing here fails for being slow: it states what it measured, and docs/performance.md what it
should be. The two take turns, and the least of all rounds counts.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from datetime import UTC, datetime

import pytest

from pytest_decisionos.trust.replay import name_of, open_store

CLAIMS = 1000
ROUNDS = 7
MINUTE = 60.0


def claiming(store, threads=1):
    """A function that claims new nonces, by so many threads, younger than the store."""
    created = datetime.fromtimestamp(int(time.time() + MINUTE), UTC)

    def claim(count):
        for _ in range(count):
            store.claim("bench", secrets.token_urlsafe(24), created=created)

    def run():
        workers = [
            threading.Thread(target=claim, args=(CLAIMS // threads,)) for _ in range(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return run


def rates(**functions):
    """Calls per second of each."""

    def took(function):
        began = time.perf_counter()
        function()
        return time.perf_counter() - began

    rows = [{name: took(one) for name, one in functions.items()} for _ in range(ROUNDS)]
    return {name: CLAIMS / min(row[name] for row in rows) for name in functions}


def tell(benchmark, what, found):
    benchmark.extra_info |= {f"{name}_per_s": round(rate) for name, rate in found.items()}
    benchmark.extra_info["share"] = round(found["claim"] / found["bare"], 3)
    print(
        f"\n{what}: {found['claim']:,.0f} claims/s = {found['claim'] / found['bare']:.0%} of"
        f" {found['bare']:,.0f}/s; by 8 threads {found['eight']:,.0f} claims/s"
    )


def test_sqlite_to_a_bare_insert(tmp_path, benchmark):
    store = open_store(str(tmp_path / "replay.sqlite"), life_sec=302, skew_sec=0.5)
    bare = sqlite3.connect(tmp_path / "bare.sqlite", isolation_level=None)
    bare.execute("PRAGMA journal_mode = WAL")
    bare.execute("PRAGMA synchronous = FULL")
    bare.execute("CREATE TABLE nonce (name BLOB PRIMARY KEY) WITHOUT ROWID")

    def insert():
        for _ in range(CLAIMS):
            name = name_of("bench", secrets.token_urlsafe(24))
            bare.execute("INSERT INTO nonce VALUES (?)", (name,))

    with contextlib.closing(store), contextlib.closing(bare):
        found = benchmark.pedantic(
            lambda: rates(claim=claiming(store), bare=insert, eight=claiming(store, 8)), rounds=1
        )
    tell(benchmark, "SQLite, each claim synced, to a bare INSERT", found)


@pytest.fixture
def redis_port(tmp_path):
    """A server of its own, as the store wants it."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server not installed: make services")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(
        [*command, "--dir", tmp_path, "--appendonly", "yes"], stdout=subprocess.DEVNULL
    ) as server:
        try:
            until = time.monotonic() + 30
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                assert time.monotonic() < until
                time.sleep(0.05)
            yield port
        finally:
            server.kill()


def test_redis_to_a_bare_set(redis_port, benchmark):
    redis = pytest.importorskip("redis")
    store = open_store(f"redis://127.0.0.1:{redis_port}", life_sec=302, skew_sec=0.5)
    bare = redis.Redis(port=redis_port, protocol=2)

    def set_one():
        for _ in range(CLAIMS):
            name = name_of("bench", secrets.token_urlsafe(24))
            assert bare.set(name, 1, nx=True, px=302_000)

    with contextlib.closing(store), contextlib.closing(bare):
        found = benchmark.pedantic(
            lambda: rates(claim=claiming(store), bare=set_one, eight=claiming(store, 8)), rounds=1
        )
    tell(benchmark, "Redis, appendfsync everysec, to a bare SET NX PX", found)
