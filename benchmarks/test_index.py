"""Verifying the index against sha256sum of the same files: a ratio of one run.

    python -m pytest benchmarks/test_index.py -p no:cacheprovider -s

Nothing here fails for being slow: it states what it measured, and docs/performance.md what it
should be. Whole processes take turns, and the least of all rounds counts.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta

import pytest

from pytest_decisionos.testing import healthy, sealed
from pytest_decisionos.trust import ed25519

DOCUMENTS = 10_000
SIZE = 8192
ROUNDS = 7
VERIFY = ("-m", "pytest_decisionos.cli.main", "evidence", "index", "--verify")
TARGET = {"service": "checkout", "environment": "production", "region": "eu-1", "tenant": "all"}


def documents(folder):
    """Sealed documents of different values, each filled up to the same size."""
    folder.mkdir(parents=True)
    numbers = random.Random(7)
    blocks = healthy(datetime.now(UTC))
    blocks["meta"]["target"] = TARGET
    bare = len(json.dumps(sealed(blocks | {"pad": {"text": ""}})))
    for number in range(DOCUMENTS):
        text = f"{numbers.getrandbits(4 * SIZE):x}"[: SIZE - bare]
        data = json.dumps(sealed(blocks | {"pad": {"text": text}}))
        (folder / f"doc-{number:05}.json").write_text(data)


def trust_file(project):
    key = ed25519.generate()
    ed25519.write_private(project.path / "keys/index.key", key)
    entry = {"keyid": key.keyid, "role": "index", "public_key": key.public.pem}
    expires = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    keys = [entry | {"targets": ["*/*/*/*"]}]
    return project.write("trust.json", json.dumps({"version": 1, "expires": expires, "keys": keys}))


def wall(*command, cwd):
    began = time.perf_counter()
    subprocess.run(command, cwd=cwd, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum (coreutils)")
def test_verifying_an_index_to_sha256sum(project, benchmark):
    project._env["DECISIONOS_STATE_DIR"] = str(project.path / "state")
    documents(project.path / "var/evidence")
    trust = trust_file(project)
    names = sorted(str(path) for path in (project.path / "var/evidence").glob("*.json"))
    assert len(names) == DOCUMENTS
    project.cost("-m", "pytest_decisionos.cli.main", "evidence", "index", "--keys", "keys")
    options = {"plain": (), "signed": ("--trust", str(trust))}

    def least():
        rows = [
            {"sum": wall("sha256sum", "--", *names, cwd=project.path)}
            | {name: project.cost(*VERIFY, *more).wall for name, more in options.items()}
            for _ in range(ROUNDS)
        ]
        return {name: min(row[name] for row in rows) for name in rows[0]}

    took = benchmark.pedantic(least, rounds=1)
    plain, signed = took["plain"] / took["sum"], took["signed"] / took["sum"]
    benchmark.extra_info |= {f"{name}_s": round(value, 4) for name, value in took.items()}
    benchmark.extra_info |= {"plain_to_sum": round(plain, 3), "signed_to_sum": round(signed, 3)}
    print(
        f"\ndosctl evidence index --verify of {DOCUMENTS:,} documents of {SIZE:,} bytes:"
        f" {took['plain']:.2f} s = {plain:.2f}× sha256sum ({took['sum']:.2f} s);"
        f" with the signature checked against a trust file {took['signed']:.2f} s = {signed:.2f}×"
    )
