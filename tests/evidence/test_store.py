"""The life of a document: merged into, sealed, LOCKED; many writers at once lose nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import time
from datetime import UTC, datetime

import pytest

from pytest_decisionos.errors import (
    EvidenceError,
    KeysError,
    RefusedError,
    SignatureError,
    UsageError,
)
from pytest_decisionos.evidence import store
from pytest_decisionos.evidence.config import Privacy
from pytest_decisionos.evidence.digest import digest
from pytest_decisionos.evidence.document import publish, write_evidence
from pytest_decisionos.evidence.seal import sealed, verify
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.evidence import read_evidence
from pytest_decisionos.model.seal import Seal
from pytest_decisionos.testing import TARGET, healthy
from pytest_decisionos.trust.keys import fingerprint, make_ring

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
KEY = {"key_id": "k1", "secret": "made-up for tests, of 32 bytes or more", "state": "active"}
RING = make_ring([KEY], "test ring")
OTHER = make_ring([KEY | {"key_id": "k2", "secret": "x" * 32}], "test ring")
NOBODY = make_ring([KEY | {"state": "grace"}], "test ring")
PRIVACY = Privacy()


def with_(ring=RING, privacy=PRIVACY, now=NOW):
    return {"ring": ring, "privacy": privacy, "now": now}


def put(path, blocks=None, ring=RING, **meta):
    """Write a sealed document."""
    blocks = healthy(NOW) if blocks is None else blocks
    write_evidence(path, sealed(blocks | {"meta": blocks["meta"] | meta}, ring, now=NOW))
    return path


@pytest.fixture
def latest(tmp_path):
    return put(tmp_path / "latest.json")


def left(folder):
    return sorted(name for name in os.listdir(folder) if not name.endswith(".lock"))


# Writing


def test_what_no_reader_takes_is_not_written(tmp_path):
    deep: dict = {}
    for _ in range(strict_json.MAX_DEPTH):
        deep = {"a": deep}
    for document in ({"meta": deep}, {"meta": "\ud800"}, {"meta": "x" * strict_json.MAX_BYTES}):
        with pytest.raises((EvidenceError, UnicodeEncodeError)):
            publish(tmp_path / "x.json", document)
    assert left(tmp_path) == []


def test_nothing_is_written_over_a_locked_document(latest, tmp_path):
    locked = store.lock(latest, "r", **with_()).path
    before = locked.read_bytes()
    for write in (
        lambda: publish(locked, {}),
        lambda: write_evidence(locked, {}),
        lambda: store.merge(locked, {"budget": {}}, **with_()),
        lambda: store.seal(locked, **with_()),
        lambda: store.lock(locked, **with_()),
        lambda: store.lock(locked, "other", **with_()),
    ):
        with pytest.raises(RefusedError, match="LOCKED"):
            write()
    assert locked.read_bytes() == before
    assert left(tmp_path) == ["latest.json", "r.locked.json"]


# Merging


def test_merge_puts_a_block_in_and_seals_again(latest):
    before = read_evidence(latest).blocks
    later = NOW.replace(minute=5)
    made = store.merge(latest, {"budget": {"level": "low"}, "새것": {"값": 1}}, **with_(now=later))
    found = read_evidence(latest).blocks
    assert found == made
    assert found["budget"] == {"level": "low"}
    assert found["새것"] == {"값": 1}
    same = set(before) - {"budget", "integrity"}
    assert {name: found[name] for name in same} == {name: before[name] for name in same}
    seal = verify(found, RING, now=later)
    assert (seal.state, seal.created) == ("valid", "2026-01-15T12:05:00.000Z")


def test_merge_without_keys_keeps_a_right_digest(tmp_path):
    path = put(tmp_path / "e.json", ring=None)
    store.merge(path, {"budget": {"level": "low"}}, **with_(ring=None))
    found = read_evidence(path).blocks
    assert found["integrity"] == {"signature_sha256": digest(found)}


def test_merge_masks_and_refuses_secrets(latest):
    before = latest.read_bytes()
    with pytest.raises(EvidenceError, match="/usage/api_key: a value under the name of a secret"):
        store.merge(latest, {"usage": {"api_key": "hunter2"}}, **with_())
    assert latest.read_bytes() == before
    privacy = Privacy(mask=("/usage/api_key", "/rating/*/who"))
    store.merge(
        latest, {"usage": {"api_key": "a"}, "rating": {"x": {"who": "b"}}}, **with_(privacy=privacy)
    )
    found = read_evidence(latest).blocks
    assert found["usage"] == {"api_key": "[masked]"}
    assert found["rating"] == {"x": {"who": "[masked]"}}
    assert verify(found, RING, now=NOW).state == "valid"


@pytest.mark.parametrize(
    ("blocks", "error", "says"),
    [
        *(
            ({name: {}}, UsageError, "made from the logs")
            for name in ("meta", "perf", "perf_judge", "canary", "witness", "integrity")
        ),
        ({"a b": {}}, UsageError, "not a block name"),
        ({"": {}}, UsageError, "not a block name"),
        ({"x" * 65: {}}, UsageError, "not a block name"),
        ({"usage": {"n": 2**60}}, EvidenceError, "/usage/n: has no RFC 8785 form"),
        ({"usage": {"token": "x"}}, EvidenceError, "/usage/token"),
        ({"usage": {"x": "y" * strict_json.MAX_BYTES}}, EvidenceError, "too large"),
    ],
)
def test_blocks_that_are_not_merged(latest, tmp_path, blocks, error, says):
    before = latest.read_bytes()
    with pytest.raises(error) as caught:
        store.merge(latest, {"budget": {"level": "low"}} | blocks, **with_())
    assert says in str(caught.value)
    assert latest.read_bytes() == before
    assert left(tmp_path) == ["latest.json"]


def change(path, *, digested=False):
    """Change a number in a document, as a cheat would."""
    document = json.loads(path.read_bytes())
    document["perf"]["count"] += 1
    if digested:
        document["integrity"]["signature_sha256"] = digest(document)
    path.write_text(json.dumps(document))
    return path


def unsigned(path):
    return put(path, ring=None)


BROKEN = [
    (change, RING, "tampered"),
    (change, None, "tampered"),
    (lambda path: change(path, digested=True), RING, "tampered"),
    (lambda path: path, OTHER, "unknown_key"),
    (lambda path: path.write_text('{"meta": {}}'), None, "missing"),
    (lambda path: path.write_text('{"integrity": {"signature_sha256": "X"}}'), None, "wrong_type"),
]


@pytest.mark.parametrize(("spoil", "ring", "cause"), [*BROKEN, (unsigned, RING, "missing")])
@pytest.mark.parametrize("do", [store.merge, store.lock])
def test_what_was_changed_is_neither_merged_into_nor_locked(
    latest, tmp_path, spoil, ring, cause, do
):
    spoil(latest)
    before = latest.read_bytes()
    with pytest.raises(SignatureError) as caught:
        do(latest, {"budget": {}} if do is store.merge else "x", **with_(ring=ring))
    assert caught.value.cause == cause
    assert caught.value.exit_code == 2
    assert str(latest) in str(caught.value)
    assert ("dosctl evidence seal" in str(caught.value)) is (cause == "missing")
    assert latest.read_bytes() == before
    assert left(tmp_path) == ["latest.json"]


def test_a_mac_is_not_lost_by_merging_without_keys(latest):
    before = latest.read_bytes()
    with pytest.raises(RefusedError, match="no key here could renew"):
        store.merge(latest, {"budget": {}}, **with_(ring=None))
    assert latest.read_bytes() == before


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1, "a": 2}', None])
@pytest.mark.parametrize("do", [store.merge, store.seal, store.lock])
def test_what_cannot_be_read(tmp_path, text, do):
    path = tmp_path / "e.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(EvidenceError) as caught:
        do(path, *([{"budget": {}}] if do is store.merge else []), **with_())
    if text is None:
        assert "dosctl evidence build" in str(caught.value)
        assert os.listdir(tmp_path) == []


def test_another_writer_for_too_long(latest, monkeypatch):
    from pytest_decisionos.trust import files

    monkeypatch.setattr(store, "locked", lambda path: files.locked(path, timeout_sec=0.05))
    with files.locked(latest), pytest.raises(RefusedError, match="another writer"):
        store.merge(latest, {"budget": {}}, **with_())


# Sealing


def test_seal_puts_a_mac_on_a_document_with_a_right_digest(tmp_path):
    path = unsigned(tmp_path / "e.json")
    before = read_evidence(path).blocks
    store.seal(path, **with_())
    found = read_evidence(path).blocks
    assert verify(found, RING, now=NOW).state == "valid"
    assert digest(found) == digest(before)
    # And again, with the key that is active by now.
    rotated = make_ring([KEY | {"state": "grace"}, KEY | {"key_id": "k2"}], "test ring")
    store.seal(path, **with_(ring=rotated))
    assert read_evidence(path).blocks["integrity"]["mac"]["key_id"] == "k2"


@pytest.mark.parametrize(("spoil", "ring", "cause"), [row for row in BROKEN if row[1] and row[2]])
@pytest.mark.parametrize("new", [False, True])
def test_what_was_changed_is_not_sealed(latest, spoil, ring, cause, new):
    spoil(latest)
    before = latest.read_bytes()
    with pytest.raises(SignatureError) as caught:
        store.seal(latest, **with_(ring=ring), new=new)
    assert caught.value.cause == cause
    assert latest.read_bytes() == before


def test_a_document_without_digest_is_sealed_only_if_somebody_vouches_for_it(tmp_path):
    path = tmp_path / "e.json"
    for integrity in ({}, {"integrity": None}):
        path.write_text(json.dumps(healthy(NOW) | integrity))
        with pytest.raises(RefusedError, match="--new"):
            store.seal(path, **with_())
        store.seal(path, **with_(), new=True)
        assert verify(read_evidence(path).blocks, RING, now=NOW).state == "valid"
    path.write_text(json.dumps(healthy(NOW) | {"integrity": {}}))
    with pytest.raises(SignatureError, match="signature_sha256 is missing"):
        store.seal(path, **with_(), new=True)


def test_sealing_masks_refuses_secrets_and_needs_an_active_key(tmp_path):
    path = put(tmp_path / "e.json", healthy(NOW) | {"rating": {"token": "hunter2"}}, ring=None)
    before = path.read_bytes()
    with pytest.raises(EvidenceError, match="/rating/token"):
        store.seal(path, **with_())
    with pytest.raises(KeysError, match="no key is active for evidence"):
        store.seal(path, **with_(ring=NOBODY, privacy=Privacy(allow=("/rating/token",))))
    assert path.read_bytes() == before
    store.seal(path, **with_(privacy=Privacy(mask=("/rating/token",))))
    assert read_evidence(path).blocks["rating"] == {"token": "[masked]"}


# Locking


def test_lock(latest, tmp_path):
    data = latest.read_bytes()
    made = store.lock(latest, **with_())
    assert made.path == tmp_path / "2026.01.1.locked.json"
    assert made.path.read_bytes() == data
    assert latest.read_bytes() == data
    info = made.path.lstat()
    assert stat.S_IMODE(info.st_mode) == 0o444
    assert info.st_nlink == 1
    assert made == store.Locked(
        path=made.path,
        sha256=fingerprint(data),
        digest=digest(json.loads(data)),
        size=len(data),
        release="2026.01.1",
        target=TARGET,
        seal=Seal(state="valid", key_id="k1", created="2026-01-15T12:00:00.000Z"),
        created=True,
    )
    assert left(tmp_path) == ["2026.01.1.locked.json", "latest.json"]


def test_locking_twice_does_nothing(latest):
    first = store.lock(latest, **with_())
    before = first.path.stat()
    assert store.lock(latest, **with_()) == first._replace(created=False)
    # The same values, sealed anew and spelled otherwise, are the same document.
    store.seal(latest, **with_(now=NOW.replace(hour=13)))
    latest.write_text(json.dumps(json.loads(latest.read_bytes()), indent=7))
    assert store.lock(latest, **with_(now=NOW.replace(hour=13))) == first._replace(created=False)
    assert first.path.stat() == before


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o446])
def test_locking_twice_makes_it_read_only_again(latest, mode):
    first = store.lock(latest, **with_())
    first.path.chmod(mode)
    assert store.lock(latest, **with_()) == first._replace(created=False, writable=True)
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o444
    assert store.lock(latest, **with_()) == first._replace(created=False)
    first.path.chmod(0o400)  # others need not read it
    assert not store.lock(latest, **with_()).writable
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o400


def test_a_locked_document_that_stays_writable_is_said(latest, monkeypatch):
    made = store.lock(latest, **with_()).path
    made.chmod(0o600)
    change = os.fchmod

    def refuse(descriptor, mode):
        if os.path.samestat(os.fstat(descriptor), made.stat()):
            raise PermissionError(1, "Operation not permitted")
        change(descriptor, mode)

    monkeypatch.setattr(store.os, "fchmod", refuse)
    with pytest.raises(UsageError, match=r"locked\.json: is LOCKED, and cannot be made read-only"):
        store.lock(latest, **with_())


def test_of_other_values_the_mode_is_left(latest):
    first = store.lock(latest, **with_())
    first.path.chmod(0o600)
    store.merge(latest, {"budget": {"level": "low"}}, **with_())
    with pytest.raises(RefusedError):
        store.lock(latest, **with_())
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600


def test_locking_twice_says_what_the_locked_one_proves(tmp_path):
    path = unsigned(tmp_path / "e.json")
    assert store.lock(path, **with_(ring=None)).seal.state == "unchecked"
    store.seal(path, **with_())
    again = store.lock(path, **with_())
    assert (again.created, again.seal.state, again.seal.cause) == (False, "refused", "missing")


def test_locking_a_changed_document_names_both_digests(latest):
    first = store.lock(latest, **with_())
    before = first.path.read_bytes()
    changed = store.merge(latest, {"budget": {"level": "low"}}, **with_())
    with pytest.raises(RefusedError) as caught:
        store.lock(latest, **with_())
    assert caught.value.exit_code == 2
    assert digest(changed) in str(caught.value)
    assert first.digest in str(caught.value)
    assert "--name" in str(caught.value)
    assert first.path.read_bytes() == before
    assert store.lock(latest, "2026.01.1-b", **with_()).digest == digest(changed)


def test_a_locked_document_that_was_changed_is_no_locked_document(latest):
    locked = store.lock(latest, **with_()).path
    os.chmod(locked, 0o644)
    change(locked)
    with pytest.raises(SignatureError, match="a LOCKED document was changed"):
        store.lock(latest, **with_())


@pytest.mark.parametrize("points_to", ["latest.json", "nowhere", "."])
def test_a_link_in_the_way(latest, tmp_path, points_to):
    link = tmp_path / "r.locked.json"
    link.symlink_to(points_to)
    before = latest.read_bytes()
    with pytest.raises(RefusedError, match="a symbolic link is in the way"):
        store.lock(latest, "r", **with_())
    assert latest.read_bytes() == before
    assert link.is_symlink()
    assert left(tmp_path) == ["latest.json", "r.locked.json"]


def test_a_folder_in_the_way(latest, tmp_path):
    (tmp_path / "r.locked.json").mkdir()
    with pytest.raises(EvidenceError, match="not a regular file"):
        store.lock(latest, "r", **with_())


@pytest.mark.parametrize(
    ("file", "release", "name"),
    [
        ("latest.json", "2026.01.1", "2026.01.1"),
        ("latest.json", "v1/rc 2+x", "v1-rc-2-x"),
        ("latest.json", "../../etc/passwd", "etc-passwd"),
        ("latest.json", ".hidden", "hidden"),
        ("latest.json", "-rf", "rf"),
        ("latest.json", "한글_1", "한글_1"),
        ("latest.json", "a\0b\nc\u202ed", "a-b-c-d"),
        ("latest.json", "x" * 200, "x" * 200),
        ("latest.json", "latest", "latest"),
        ("before.json", "2026.01.1", "before"),
        ("before.wip.json", None, "before.wip"),
        ("릴리스.json", None, "릴리스"),
        ("a b.json", None, "a-b"),
        ("latest.json", None, "/meta/release: every release has a latest.json"),
        ("latest.json", "", "/meta/release: every release has a latest.json"),
        ("latest.json", 5, "/meta/release: every release has a latest.json"),
        ("latest.json", "...", "/meta/release: every release has a latest.json"),
        ("latest.json", "x" * 201, "too long"),
        ("latest.json", "한" * 67, "too long"),
        ("---.json", None, "its name gives no other name"),
    ],
)
def test_names(tmp_path, file, release, name):
    path = put(tmp_path / file, release=release)
    locked = tmp_path / f"{name}.locked.json"
    try:
        made = store.lock(path, **with_())
    except UsageError as fault:
        assert name in str(fault)
        assert "--name" in str(fault)
        assert left(tmp_path) == [file]
    else:
        assert made.path == locked
        assert left(tmp_path) == sorted([file, locked.name])


@pytest.mark.parametrize(
    "name", ["", ".a", "-a", "a/b", "../a", "a b", "a\0", "a\n", "/etc/x", "x" * 201]
)
def test_names_that_are_none(latest, tmp_path, name):
    with pytest.raises(UsageError, match="--name"):
        store.lock(latest, name, **with_())
    assert left(tmp_path) == ["latest.json"]


def test_locking_checks_privacy_again(tmp_path):
    path = put(tmp_path / "e.json", healthy(NOW) | {"rating": {"token": "x", "who": "y"}})
    with pytest.raises(EvidenceError, match="/rating/token"):
        store.lock(path, **with_())
    privacy = Privacy(allow=("/rating/token",), mask=("/rating/who",))
    with pytest.raises(RefusedError, match="is not masked"):
        store.lock(path, **with_(privacy=privacy))
    store.seal(path, **with_(privacy=privacy))
    assert store.lock(path, **with_(privacy=privacy)).created


def test_a_document_about_nothing_can_be_locked_without_keys(tmp_path):
    path = tmp_path / "e.json"
    write_evidence(path, sealed({"usage": {}}))
    made = store.lock(path, **with_(ring=None))
    assert (made.release, made.target) == (None, None)


# Many at once

WRITERS, EACH = 16, 50
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["pytest_decisionos.evidence.store", "pytest_decisionos.testing"])


def merge_many(path, writer, start):
    start.wait()
    for i in range(EACH):
        store.merge(path, {f"w{writer}_{i}": {"값": i}}, **with_())


@pytest.mark.untraced
def test_sixteen_writers_lose_nothing(tmp_path):
    blocks = healthy(NOW)
    path = put(tmp_path / "latest.json", {name: blocks[name] for name in ("meta", "budget")})
    start = processes.Event()
    writers = [processes.Process(target=merge_many, args=(path, n, start)) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    start.set()
    reads = set()
    while any(writer.is_alive() for writer in writers):
        found = read_evidence(path)
        assert verify(found.blocks, RING, now=NOW).state == "valid"
        reads.add(found.sha256)
        # Each writer's merges appear in their order, and none goes away again.
        for n in range(WRITERS):
            seen = [f"w{n}_{i}" in found.blocks for i in range(EACH)]
            assert seen == sorted(seen, reverse=True)
        time.sleep(0.005)
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    assert len(reads) > 20
    found = read_evidence(path).blocks
    merged = {f"w{n}_{i}": {"값": i} for n in range(WRITERS) for i in range(EACH)}
    assert {
        name: found[name] for name in found if name not in {"meta", "budget", "integrity"}
    } == merged
    assert verify(found, RING, now=NOW).state == "valid"
    assert left(tmp_path) == ["latest.json"]


def lock_many(path, start, results):
    start.wait()
    results.put([store.lock(path, f"r{i}", **with_()).created for i in range(20)])


@pytest.mark.slow
def test_of_many_who_lock_one_makes_it(tmp_path):
    path = put(tmp_path / "latest.json")
    start, results = processes.Event(), processes.SimpleQueue()
    lockers = [processes.Process(target=lock_many, args=(path, start, results)) for _ in range(4)]
    for locker in lockers:
        locker.start()
    start.set()
    made = [results.get() for _ in lockers]
    for locker in lockers:
        locker.join()
    assert [sum(column) for column in zip(*made, strict=True)] == [1] * 20
    results.close()
