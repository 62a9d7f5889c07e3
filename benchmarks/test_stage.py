"""Reading and verifying the stage against a bare read and HMAC of the same file: a ratio of one run.

    python -m pytest benchmarks/test_stage.py -p no:cacheprovider -s

Nothing here fails for being slow: it states what it measured, and docs/performance.md what it
should be. Both take turns in one process, and the least of all rounds counts.
"""

from __future__ import annotations

import hmac
import itertools
import time
from datetime import UTC, datetime

from pytest_decisionos.model.target import Target
from pytest_decisionos.release.audit import FILE as AUDIT
from pytest_decisionos.release.audit import AuditEntry, StageAt, record, used
from pytest_decisionos.release.stage import FILE, change_stage, read_stage
from pytest_decisionos.trust.journal import open_journal
from pytest_decisionos.trust.keys import make_ring

SECRET = "made-up for a benchmark, of 32 bytes or more"
ROUNDS = 200
TIMES = 20
ENTRIES = 10_000


def least(*acts):
    """The least seconds that one of each took; they take turns, so a busy spell hits all."""
    best = [float("inf")] * len(acts)
    for _ in range(ROUNDS):
        for number, act in enumerate(acts):
            began = time.perf_counter()
            for _ in range(TIMES):
                act()
            best[number] = min(best[number], (time.perf_counter() - began) / TIMES)
    return best


def test_reading_the_stage_to_a_bare_read_and_hmac(tmp_path, benchmark):
    key = {"key_id": "stage-1", "secret": SECRET, "state": "active", "use": ["stage"]}
    target = Target(service="checkout", environment="production", region="eu-1")
    now = datetime.now(UTC)
    how = {"target": target, "ring": make_ring([key], "here"), "state_dir": tmp_path / "state"}
    root, path = tmp_path / "var", tmp_path / "var" / FILE
    with change_stage(root, **how, now=now) as changer:
        changer.write(release="checkout@sha256:" + "0" * 64)
        changer.write(stage="canary", release="checkout@sha256:" + "1" * 64)
        changer.write(pct=25.0, decision_sha256="d" * 64)

    def stage():
        assert read_stage(root, **how, now=now).pct == 25

    def bare():
        hmac.digest(SECRET.encode(), path.read_bytes(), "sha256")

    both, alone = benchmark.pedantic(least, (stage, bare), rounds=1)
    benchmark.extra_info |= {"stage_us": both * 1e6, "bare_us": alone * 1e6, "ratio": both / alone}
    print(
        f"\nstage, read and verified: {both * 1e6:.0f} µs = {both / alone:.1f}× a bare read and"
        f" HMAC-SHA-256 of the same {path.stat().st_size} bytes ({alone * 1e6:.0f} µs)"
    )


def test_whether_a_decision_was_used_to_reading_the_journal(tmp_path, benchmark):
    at = StageAt(stage="canary", pct=5, seq=3)
    entry = AuditEntry(
        time=datetime.now(UTC), actor="somebody", scope="deploy:promote", command="step",
        allowed=True, code="go", why="x" * 80, from_=at, to=at, release="2",
        decision_sha256="a" * 64, decision_id="d1",
    )  # fmt: skip
    made = entry.model_dump(mode="json", by_alias=True)
    with open_journal(tmp_path / AUDIT) as journal:
        journal.append([made] * ENTRIES)
    path = tmp_path / AUDIT

    def measure():
        found = []
        for _ in range(5):
            times = [time.perf_counter()]
            for act in (
                path.read_bytes,
                lambda: used(tmp_path, "b" * 64),
                lambda: record(tmp_path, entry),
            ):
                act()
                times.append(time.perf_counter())
            found.append([after - before for before, after in itertools.pairwise(times)])
        return [min(column) for column in zip(*found, strict=True)]

    bare, asked, appended = benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info |= {"used_s": asked, "record_s": appended, "bare_s": bare}
    print(
        f"\naudit journal of {ENTRIES:,} entries ({path.stat().st_size / 1e6:.1f} MB): whether a"
        f" decision was used {asked:.2f} s, one entry more {appended:.2f} s"
    )
