"""A judge server of one worker against a bare Starlette that echoes the same body.

    python -m pytest benchmarks/test_judge_server.py -p no:cacheprovider -s

The clients run in this process, on a core that the server does not get, so on few cores they are
part of what is measured: for both alike. Requests are signed before the clock starts. With
DECISIONOS_BENCH_ROWS of 10 million and more it asks 50,000 times for the memory's sake, else 4,000.
"""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import statistics
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pytest_decisionos.trust.http_sign import sign_request

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/judge/server"))
from judge_host import workspace

FULL = int(os.environ.get("DECISIONOS_BENCH_ROWS", "0")) >= 10_000_000
CLIENTS = 8
ASKED = 2000
ECHO = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def echo(request):
    return Response(await request.body(), media_type="application/json")

app = Starlette(routes=[Route("/judge", echo, methods=["POST"])])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return workspace(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module")
def served(host):
    with host.serve(DECISIONOS_MAX_SKEW="0.2") as served:
        yield served


@pytest.fixture(scope="module")
def body(host):
    blocks = host.blocks()
    blocks["notes"] = {f"line {i}": "x" * 60 for i in range(1000)}
    while len(host.evidence(blocks)) > 16_000:
        blocks["notes"].popitem()
    return host.question(evidence=host.evidence(blocks))


def signed(host, url, body, count):
    """Headers of ``count`` requests, each with a nonce of its own."""
    now = datetime.now(UTC)
    key = host.keys_of_ring.signing("request", now)
    own = {"content-type": "application/json"}
    return [
        own | sign_request("POST", url, body, key, now=now, nonce=secrets.token_urlsafe(24))
        for _ in range(count)
    ]


def per_second(port, body, headers):
    """Requests a second, of clients that each ask again as soon as they are answered."""
    waiting, bad = list(headers), []

    def client():
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            try:
                mine = waiting.pop()
            except IndexError:
                break
            link.request("POST", "/judge", body, mine)
            answer = link.getresponse()
            said = answer.read()
            if answer.status != 200:
                bad.append((answer.status, said))
        link.close()

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not bad, bad[:2]
    return len(headers) / (time.perf_counter() - began)


@pytest.fixture(scope="module")
def echo():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, "-c", ECHO, str(port)]) as process:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
        process.terminate()


def test_signed_judge(host, served, echo, body, benchmark):
    url = f"{served.url}/judge"
    per_second(served.port, body, signed(host, url, body, 200))  # computes the numbers, once
    ours, bare = [], []
    for _ in range(3):
        ours.append(per_second(served.port, body, signed(host, url, body, ASKED)))
        bare.append(per_second(echo, body, [{"content-type": "application/json"}] * ASKED))
    told = {
        "evidence_bytes": 16_000,
        "asked_a_second": round(max(ours)),
        "echoed_a_second": round(max(bare)),
        "share_of_echo": round(max(ours) / max(bare), 3),
    }
    benchmark.extra_info.update(told)
    print(f"\nPOST /judge, one worker: {told}")
    benchmark.pedantic(lambda: None)


def test_readyz(served, benchmark):
    """200 a second, whatever they take: a late answer does not make the next question late."""
    seconds, rate, clients = (30 if FULL else 5), 200, 4
    took: list[float] = []

    def client(first):
        link = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        began = time.perf_counter()
        for i in range(first, seconds * rate, clients):
            due = began + i / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            link.request("GET", "/readyz")
            link.getresponse().read()
            took.append(time.perf_counter() - due)
        link.close()

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cuts = statistics.quantiles(took, n=100)
    told = {
        "asked": len(took),
        "p50_ms": round(cuts[49] * 1e3, 2),
        "p99_ms": round(cuts[98] * 1e3, 2),
    }
    benchmark.extra_info.update(told)
    print(f"\nGET /readyz at {rate}/s: {told}")
    benchmark.pedantic(lambda: None)


def resident(pid):
    """Resident memory in MiB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory(host, served, body, benchmark):
    url = f"{served.url}/judge"
    total = 50_000 if FULL else 4000
    per_second(served.port, body, signed(host, url, body, ASKED))
    before = resident(served.process.pid)
    for _ in range(total // ASKED):
        per_second(served.port, body, signed(host, url, body, ASKED))
    after = resident(served.process.pid)
    told = {"requests": total, "mib": round(after, 1), "growth": round(after / before - 1, 4)}
    benchmark.extra_info.update(told)
    print(f"\nmemory: {told}")
    benchmark.pedantic(lambda: None)
