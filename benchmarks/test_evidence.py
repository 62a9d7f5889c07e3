"""The seal against reading and writing the same document as plain JSON.

    python -m pytest benchmarks/test_evidence.py -p no:cacheprovider -s

Nothing here fails for being slow: it states what it measured, and docs/performance.md what it
should be. The two take turns, and the least of all rounds counts.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pytest_decisionos.evidence.config import Privacy
from pytest_decisionos.evidence.privacy import masked, refuse_secrets
from pytest_decisionos.evidence.seal import sealed, verify
from pytest_decisionos.model import strict_json
from pytest_decisionos.testing import NOW, healthy
from pytest_decisionos.trust.keys import make_ring

SHIPPED = Path(__file__).parents[1] / "evidence/healthy.json"
ROUNDS = 200


def of_8_kb():
    """Evidence as ``dosctl evidence build`` writes it, cut to 8 kB."""
    blocks = healthy()
    del blocks["canary"]["control_perf"], blocks["canary"]["canary_perf"]
    blocks["perf"]["groups"] = blocks["perf"]["groups"][:1]
    return blocks


@pytest.mark.parametrize("size", [8, 51])
def test_seal_and_verify(size, benchmark):
    key = {"key_id": "bench", "secret": "b64:" + "A" * 44, "state": "active", "use": ["evidence"]}
    ring = make_ring([key], "benchmark")
    blocks = of_8_kb() if size == 8 else json.loads(SHIPPED.read_bytes())
    data = strict_json.dumps(sealed(blocks, ring, now=NOW)).encode()
    assert size - 1 < len(data) / 1000 < size + 2

    def seal_and_verify():
        """From blocks in memory to a seal; from the bytes of the document to a verdict on it."""
        kept = masked(blocks, Privacy())
        refuse_secrets(kept, Privacy())
        sealed(kept, ring, now=NOW)
        assert verify(strict_json.loads(data), ring, now=NOW).state == "valid"

    def plain():
        json.dumps(json.loads(data))

    def least():
        took = {seal_and_verify: [], plain: []}
        for _ in range(ROUNDS):
            for function, times in took.items():
                began = time.perf_counter()
                function()
                times.append(time.perf_counter() - began)
        return min(took[seal_and_verify]), min(took[plain])

    ours, theirs = (seconds * 1e3 for seconds in benchmark.pedantic(least, rounds=1))
    told = {"kB": len(data) / 1000, "seal_verify_ms": ours, "to_json": ours / theirs}
    benchmark.extra_info |= {name: round(value, 3) for name, value in told.items()}
    print(
        f"\nseal + verify, {len(data) / 1000:.1f} kB: {ours:.2f} ms"
        f" = {ours / theirs:.1f}× json.loads + json.dumps ({theirs:.2f} ms)"
    )
