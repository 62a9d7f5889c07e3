"""The index: what it takes up, and that every change of file, entry or head is found and named."""

import hashlib
import json
import multiprocessing
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from seeded import from_seed

from pytest_decisionos.errors import EvidenceError, RefusedError, UsageError
from pytest_decisionos.evidence import index_files, index_open, index_verify
from pytest_decisionos.evidence.config import Retention
from pytest_decisionos.evidence.index import record_locked, update
from pytest_decisionos.evidence.index_head import parse_head, signing_key, write_head
from pytest_decisionos.evidence.index_open import BrokenIndexError, anchored_at, follows, record
from pytest_decisionos.evidence.index_verify import snapshot, verify
from pytest_decisionos.model.target import Target
from pytest_decisionos.trust import dsse, ed25519, journal
from pytest_decisionos.trust.trustfile import TrustFile

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEEP = Retention()
TARGET = {"service": "checkout", "environment": "production", "region": "eu-1", "tenant": "all"}
HERE = Target(**TARGET)
STAGING = {**TARGET, "environment": "staging"}
KEY = from_seed(b"index key of tests".ljust(32, b"."))
OTHER = from_seed(b"another key".ljust(32, b"."))
INDEX, HEAD = "evidence/index.jsonl", "evidence/index.head.json"


def trusting(*keys, role="index", targets="checkout/production/*/*", **more):
    listed = [
        {
            "keyid": key.keyid,
            "role": role,
            "public_key": key.public.pem,
            "targets": [targets],
            **more,
        }
        for key in keys
    ]
    return TrustFile.model_validate(
        {"version": 1, "expires": NOW + timedelta(days=900), "keys": listed}
    )


TRUST = trusting(KEY)


def put(root, name, value=None, *, target=TARGET, release="v1"):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = {"target": target, "release": release}
    path.write_text(json.dumps({"meta": meta, "n": name if value is None else value}))
    return path


def run(root, now=NOW, key=KEY, retention=KEEP, **more):
    return update(root, now=now, retention=retention, key=key, **more)


def check(root, trust=TRUST, now=NOW, **more):
    return verify(root, trust, now=now, **more)


def causes(report):
    return [(fault.cause, fault.path) for fault in report.faults]


def entries(root):
    return [json.loads(line) for line in (root / INDEX).read_text().splitlines()]


@pytest.fixture
def root(tmp_path):
    """Two documents in work, one LOCKED, one bundle; indexed and signed."""
    root = tmp_path / "var"
    put(root, "evidence/latest.json")
    put(root, "evidence/b.json")
    put(root, "evidence/v1.locked.json")
    put(root, "gate/bundle/d1/evidence.json")
    put(root, "gate/bundle/d1/verdicts/s@j.json")
    report = run(root)
    assert report[:6] == ((), 5, 5, "signed", KEY.keyid, 5)
    return root


# What is taken up


def test_entries_tell_what_is_there(root):
    (root / "evidence/.hidden.json").write_text("x")
    (root / "evidence/notes.txt").write_text("x")
    (root / "gate/bundle/.0123456789abcdef.tmp").mkdir()
    (root / "gate/bundle/readme").write_text("x")
    assert check(root)[:5] == ((), 5, 5, "valid", KEY.keyid)
    made = {entry["path"]: entry for entry in entries(root)}
    assert list(made) == sorted(made)
    locked = made["evidence/v1.locked.json"]
    path = root / "evidence/v1.locked.json"
    modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    assert abs(datetime.fromisoformat(locked.pop("modified")) - modified) < timedelta(seconds=0.01)
    del locked["prev"], locked["seq"]
    assert locked == {
        "event": "indexed",
        "at": "2026-03-01T12:00:00.000Z",
        "path": "evidence/v1.locked.json",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "size": path.stat().st_size,
        "tier": "locked",
        "target": TARGET,
        "release": "v1",
        "retain_until": "2027-03-01T12:00:00.000Z",
    }
    tiers = [made[path]["tier"] for path in sorted(made)]
    assert tiers == ["wip", "wip", "locked", "bundle", "bundle"]
    verdict = made["gate/bundle/d1/verdicts/s@j.json"]
    assert verdict["target"] is None  # only its evidence is a document
    assert "retain_until" not in verdict


def test_nothing_new_writes_nothing(root):
    before = [(root / name).read_bytes() for name in (INDEX, HEAD)]
    assert run(root, NOW + timedelta(days=1)).added == 0
    assert [(root / name).read_bytes() for name in (INDEX, HEAD)] == before


def test_work_in_progress_may_change_and_go(root):
    put(root, "evidence/latest.json", "again")
    (root / "evidence/b.json").unlink()
    put(root, "evidence/한글 \n.json")
    assert causes(check(root)) == [
        ("changed", "evidence/latest.json"),
        ("added", "evidence/한글 \n.json"),
        ("removed", "evidence/b.json"),
    ]
    report = run(root)
    assert (report.added, report.changed, report.removed, report.faults) == (1, 1, 1, ())
    assert check(root).faults == ()
    put(root, "evidence/b.json")
    assert run(root).added == 1
    assert check(root).faults == ()


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda r: put(r, "evidence/v1.locked.json", 2), ("changed", "evidence/v1.locked.json")),
        (
            lambda r: (r / "evidence/v1.locked.json").unlink(),
            ("removed", "evidence/v1.locked.json"),
        ),
        (
            lambda r: put(r, "gate/bundle/d1/evidence.json", 2),
            ("changed", "gate/bundle/d1/evidence.json"),
        ),
        (
            lambda r: (r / "gate/bundle/d1/evidence.json").unlink(),
            ("removed", "gate/bundle/d1/evidence.json"),
        ),
        (lambda r: put(r, "gate/bundle/d1/.more", 2), ("added", "gate/bundle/d1/.more")),
    ],
)
def test_locked_and_bundle_are_never_taken_up_again(root, damage, fault):
    damage(root)
    before = (root / INDEX).read_bytes()
    assert causes(run(root)) == [fault]
    assert causes(check(root)) == [fault]
    assert (root / INDEX).read_bytes() == before


def test_another_target_is_refused(root):
    put(root, "evidence/s.json", target=STAGING)
    assert causes(run(root)) == [("wrong_target", "evidence/s.json")]
    assert causes(check(root)) == [("added", "evidence/s.json")]
    with pytest.raises(RefusedError, match="another target"):
        run(root, target=Target(**STAGING))


def test_what_is_no_document_of_ours_is_taken_up_by_its_bytes(tmp_path):
    (tmp_path / "evidence").mkdir()
    for name, data in {"a": b"{", "b": b"[]", "c": b'{"meta":1}', "d": b"\xff", "e": b""}.items():
        (tmp_path / f"evidence/{name}.json").write_bytes(data)
    long = {"meta": {"release": "x" * 100_000, "target": {"tenant": "t"}}}
    (tmp_path / "evidence/f.json").write_text(json.dumps(long))
    os.utime(tmp_path / "evidence/a.json", (2**40, 2**40))
    assert run(tmp_path, target=HERE).faults == ()
    assert check(tmp_path).faults == ()
    assert [e["target"] or e["release"] for e in entries(tmp_path)] == [None] * 6


def test_what_cannot_be_taken_up_is_named(root):
    outside = root.parent / "outside.json"
    outside.write_text("{}")
    (root / "evidence/link.json").symlink_to(outside)
    (root / "evidence/folder").symlink_to(root.parent)
    (root / "evidence/dir.json").mkdir()
    os.mkfifo(root / "evidence/pipe.json")
    (root / "gate/bundle/linked").symlink_to(root)
    (root / "gate/bundle/d1/link").symlink_to(outside)
    with (root / "evidence/large.json").open("wb") as large:
        large.truncate(index_files.MAX_BYTES + 1)
    (Path(os.fsdecode(os.fsencode(root / "evidence") + b"/\xff.json"))).write_text("{}")
    deep = root / "gate/bundle/d2" / "/".join("d" * 10)
    deep.mkdir(parents=True)
    expected = {
        ("link", "evidence/link.json"),
        ("link", "evidence/folder"),
        ("not_a_file", "evidence/dir.json"),
        ("not_a_file", "evidence/pipe.json"),
        ("link", "gate/bundle/linked"),
        ("link", "gate/bundle/d1/link"),
        ("unreadable", "evidence/large.json"),
        ("name", "evidence/\\udcff.json"),
        ("too_large", "gate/bundle/d2/d/d/d/d/d/d/d/d"),
    }
    assert set(causes(run(root))) == expected
    assert set(causes(check(root))) == expected


@pytest.mark.parametrize("name", ["evidence", "gate", "gate/bundle"])
def test_a_folder_that_is_a_link_is_not_followed(root, name):
    (root / name).rename(root / "moved")
    (root / name).symlink_to(root / "moved")
    for act in (run, check):
        with pytest.raises(EvidenceError, match="cannot be used as a folder"):
            act(root)


def test_a_root_that_is_not_there(tmp_path):
    for act in (run, check):
        with pytest.raises(EvidenceError, match="no such folder"):
            act(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert causes(check(tmp_path, trust=None)) == [("missing", INDEX)]
    assert causes(check(tmp_path)) == [("missing", INDEX), ("unsigned", HEAD)]


def test_progress_is_told(root):
    told = []
    run(root, progress=lambda share, text: told.append((share, text)))
    assert told == [(1.0, "gate/bundle/d1/verdicts/s@j.json")]


# Faults of index and head, one each


def lines_of(root):
    return (root / INDEX).read_bytes().splitlines(keepends=True)


def rewrite(root, change):
    lines = lines_of(root)
    (root / INDEX).write_bytes(b"".join(change(lines)))


def replaced(number, old, new):
    def change(lines):
        assert old in lines[number]
        return [*lines[:number], lines[number].replace(old, new), *lines[number + 1 :]]

    return change


def other_head(root, head=None, key=KEY, target=TARGET, now=NOW):
    found = snapshot(root).signed.head
    write_head(root, head or found, target=target, now=now, key=key)


def spelled_otherwise(root):
    document = json.loads((root / HEAD).read_bytes())
    (root / HEAD).write_text(json.dumps(document))


def signed_twice(root):
    envelope = dsse.parse((root / HEAD).read_bytes())
    (root / HEAD).write_bytes(dsse.sign(envelope.payload, [KEY, OTHER]))


FAULTS = {
    "changed": (lambda r: rewrite(r, replaced(1, b'"v1"', b'"v2"')), "changed", 2),
    "changed with its seq": (lambda r: rewrite(r, replaced(1, b'"seq":2', b'"seq":7')), "changed", 2),
    "changed prev": (lambda r: rewrite(r, replaced(1, b'"prev":"', b'"prev":"0')), "changed", 2),
    "changed in the first line": (lambda r: rewrite(r, replaced(0, b"wip", b"wop")), "changed", 1),
    "changed in the last line": (lambda r: rewrite(r, replaced(4, b"bundle", b"bondle")), "changed", 5),
    "no longer JSON": (lambda r: rewrite(r, replaced(2, b"{", b"[")), "changed", 3),
    "spelled otherwise": (lambda r: rewrite(r, replaced(2, b'":', b'": ')), "changed", 3),
    "added: a line twice": (lambda r: rewrite(r, lambda x: [*x[:3], *x[2:]]), "added", 4),
    "added: the last line twice": (lambda r: rewrite(r, lambda x: [*x, x[-1]]), "added", 6),
    "removed": (lambda r: rewrite(r, lambda x: [*x[:2], *x[3:]]), "removed", 3),
    "removed: the first": (lambda r: rewrite(r, lambda x: x[1:]), "removed", 1),
    "reordered": (lambda r: rewrite(r, lambda x: [x[0], x[2], x[1], *x[3:]]), "reordered", 2),
    "reordered: the last": (lambda r: rewrite(r, lambda x: [*x[:3], x[4], x[3]]), "reordered", 4),
    "truncated in a line": (lambda r: rewrite(r, lambda x: [*x[:4], x[4][:20]]), "truncated", 5),
    "truncated by its newline": (lambda r: rewrite(r, lambda x: [*x[:4], x[4][:-1]]), "truncated", 5),
    "truncated": (lambda r: rewrite(r, lambda x: x[:4]), "truncated", 4),
    "truncated to nothing": (lambda r: rewrite(r, lambda x: []), "truncated", None),
    "gone": (lambda r: (r / INDEX).unlink(), "truncated", None),
    "an empty line": (lambda r: rewrite(r, lambda x: [*x[:2], b"\n", *x[2:]]), "changed", 3),
    "not UTF-8": (lambda r: rewrite(r, replaced(2, b"v1", b"\xff\xff")), "changed", 3),
    "too deep": (lambda r: rewrite(r, lambda x: [b"[" * 9999 + b"\n", *x[1:]]), "changed", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_index_is_named(root, name, monkeypatch):
    monkeypatch.setattr(index_verify, "_PAUSE_SEC", 0.001)  # nobody writes who could be waited for
    damage, cause, line = FAULTS[name]
    damage(root)
    data = (root / INDEX).read_bytes() if (root / INDEX).exists() else None
    for trust in (TRUST, None):
        report = check(root, trust)
        first = next(f for f in report.faults if f.path == INDEX)
        assert (first.cause, first.line) == (cause, line)
        assert not [f for f in report.faults if f.cause == "added" and f.path != INDEX]
    # Nothing is appended to it, nothing of it is cut off, and it is not said to be fine.
    assert run(root).faults[0].cause == cause
    with pytest.raises(BrokenIndexError, match=cause):
        record(root, [{"event": "uploaded"}], now=NOW, key=KEY)
    assert (data is None) == (not (root / INDEX).exists())
    assert data is None or (root / INDEX).read_bytes() == data
    assert anchored_at(root, "0" * 64, trust=TRUST, now=NOW) is None


def old_chain(root):
    """The head of another index of the same files."""
    copy = root.parent / "copy"
    shutil.copytree(root, copy)
    for name in (INDEX, HEAD):
        (copy / name).unlink()
    run(copy, NOW + timedelta(hours=1))
    shutil.copy(copy / HEAD, root / HEAD)


HEADS = {
    "of another index": (old_chain, "changed", INDEX),
    "gone": (lambda r: (r / HEAD).unlink(), "removed", HEAD),
    "empty": (lambda r: (r / HEAD).write_bytes(b""), "changed", HEAD),
    "no object": (lambda r: (r / HEAD).write_bytes(b"[]"), "changed", HEAD),
    "spelled otherwise": (spelled_otherwise, "changed", HEAD),
    "signed twice": (signed_twice, "changed", HEAD),
    "a link": (lambda r: ((r / HEAD).rename(r / "h"), (r / HEAD).symlink_to(r / "h")), "unreadable", HEAD),
    "too large": (lambda r: (r / HEAD).write_bytes(b" " * 70_000), "unreadable", HEAD),
    "more entries": (lambda r: other_head(r, journal.Head(9, "0" * 64)), "truncated", INDEX),
    "less than none": (lambda r: other_head(r, journal.Head(-1, "0" * 64)), "changed", HEAD),
    "none, and a hash": (lambda r: other_head(r, journal.Head(0, "1" * 64)), "changed", INDEX),
    "entries as text": (lambda r: other_head(r, journal.Head("5", "0" * 64)), "changed", HEAD),
    "no target": (lambda r: other_head(r, target={"service": 1}), "changed", HEAD),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_a_fault_of_the_head_is_named(root, name):
    damage, cause, path = HEADS[name]
    damage(root)
    for trust in (TRUST, None):
        assert (cause, path) in causes(check(root, trust))
    assert run(root).faults[0].cause == cause


@pytest.mark.parametrize(
    ("trust", "cause"),
    [
        (trusting(KEY, role="gate"), "wrong_role"),
        (trusting(KEY, targets="checkout/staging/*/*"), "wrong_target"),
        (trusting(OTHER), "unknown_key"),
        (trusting(), "unknown_key"),
        (trusting(KEY, revoked=True), "revoked_key"),
        (trusting(KEY, not_before=NOW + timedelta(days=1)), "outside_validity"),
        (trusting(KEY, not_after=NOW - timedelta(days=1)), "outside_validity"),
    ],
)
def test_a_signature_that_does_not_count(root, trust, cause):
    report = check(root, trust)
    assert causes(report) == [(cause, HEAD)]
    assert report.signature == "refused"
    assert check(root, None).faults == ()
    assert check(root, None).signature == "unchecked"
    sha256 = entries(root)[0]["sha256"]
    assert anchored_at(root, sha256, trust=trust, now=NOW) is None
    put(root, "evidence/new.json")
    with pytest.raises(RefusedError):
        run(root, trust=trust)  # what is signed next would stand for what nobody vouches for
    assert len(entries(root)) == 5


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"key": None}, "unsigned"),
        ({"key": OTHER}, "unknown_key"),
        ({"target": STAGING}, "wrong_target"),
        ({"target": None}, "wrong_target"),
        ({"target": {**TARGET, "tenant": ""}}, "wrong_target"),
        ({"now": NOW + timedelta(minutes=1)}, "outside_validity"),
    ],
)
def test_a_head_that_fits_and_does_not_count(root, change, cause):
    other_head(root, **change)
    assert causes(check(root)) == [(cause, HEAD)]
    assert check(root, None).faults == ()


def test_a_signature_under_other_bytes(root):
    document = json.loads((root / HEAD).read_bytes())
    put(root, "evidence/new.json")
    run(root)
    newer = json.loads((root / HEAD).read_bytes())
    newer["signatures"] = document["signatures"]
    (root / HEAD).write_text(json.dumps(newer, indent=2) + "\n")
    assert causes(check(root)) == [("bad_signature", HEAD)]


def test_the_key_id_is_part_of_the_head(root):
    document = json.loads((root / HEAD).read_bytes())
    document["signatures"][0]["keyid"] = "f" * 64  # only a hint, for DSSE
    (root / HEAD).write_text(json.dumps(document, indent=2) + "\n")
    assert causes(check(root)) == [("changed", HEAD)]


def test_the_target_that_is_asked_for(root):
    assert check(root, target=HERE).faults == ()
    assert causes(check(root, target=Target(**STAGING))) == [("wrong_target", HEAD)]
    anchored = entries(root)[0]["sha256"]
    assert anchored_at(root, anchored, trust=TRUST, now=NOW, target=Target(**STAGING)) is None


@pytest.mark.untraced
def test_every_bit_of_index_and_head(tmp_path):
    put(tmp_path, "evidence/a.json")
    put(tmp_path, "evidence/b.locked.json")
    put(tmp_path, "evidence/c.json", release="한글")
    run(tmp_path)
    count = 0
    for name in (INDEX, HEAD):
        good = (tmp_path / name).read_bytes()
        for bit in range(8 * len(good)):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            parts = {INDEX: (tmp_path / INDEX).read_bytes(), HEAD: (tmp_path / HEAD).read_bytes()}
            parts[name] = bytes(bad)
            assert faults_of(parts[HEAD], parts[INDEX]), (name, bit)
            count += 1
        assert not faults_of(*((tmp_path / n).read_bytes() for n in (HEAD, INDEX)))
    assert count > 8 * 2000


def faults_of(head, data):
    """As ``verify`` has it, without the files and the waiting for a writer."""
    from pytest_decisionos.evidence.index_head import signature_fault
    from pytest_decisionos.evidence.index_verify import _snapshot

    found = _snapshot(head, data)
    if found.faults or found.rest:
        return True
    return signature_fault(found.signed, TRUST, now=NOW) is not None


@pytest.mark.parametrize(
    "more",
    [
        {"event": "renamed", "path": "evidence/b.json"},
        {"event": "indexed", "path": "evidence/b.json"},
        {"event": "indexed", "path": 7, "sha256": "0" * 64, "tier": "wip"},
        {"event": "indexed", "path": "evidence/x.json", "sha256": "0" * 64, "tier": "locked"},
        {"event": "indexed", "path": "evidence/x.json", "sha256": "x" * 64, "tier": "wip"},
        {"event": "changed", "path": "evidence/v1.locked.json"},
        {"event": "removed", "path": "evidence/v1.locked.json"},
        {"event": "locked", "path": "evidence/v1.locked.json", "sha256": "0" * 64},
        {"event": "deleted", "path": "evidence/v1.locked.json"},
        {"event": "deleted", "path": "evidence/v1.locked.json", "retain_until": "2026"},
    ],
)
def test_a_signed_entry_that_this_index_never_makes(root, more):
    if more["event"] in {"changed", "removed", "locked", "deleted"}:
        more = {"sha256": entries(root)[2]["sha256"], "tier": "locked"} | more
    with journal.open_journal(root / INDEX) as writer:
        head = writer.append([more | {"at": "2026-03-01T12:00:00.000Z"}])
    other_head(root, head)
    faults = check(root).faults
    assert faults[0].line == 6
    assert run(root).faults
    assert len(entries(root)) == 6


# Keys


def test_without_a_key_it_is_unsigned(tmp_path):
    put(tmp_path, "evidence/a.json")
    assert run(tmp_path, key=None).signature == "unsigned"
    put(tmp_path, "evidence/b.json")
    assert run(tmp_path, key=None).added == 1
    report = check(tmp_path, None)
    assert (report.signature, report.keyid, report.faults) == ("unsigned", "", ())
    assert causes(check(tmp_path)) == [("unsigned", HEAD)]


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (None, KEY, "is unsigned, and here is a key"),
        (KEY, OTHER, "not signed by the key here"),
        (KEY, None, "the key is not here"),
    ],
)
def test_a_head_that_may_not_be_replaced(tmp_path, before, after, says):
    put(tmp_path, "evidence/a.json")
    run(tmp_path, key=before)
    head = (tmp_path / HEAD).read_bytes()
    put(tmp_path, "evidence/b.json")
    with pytest.raises(RefusedError, match=says):
        run(tmp_path, key=after)
    assert (tmp_path / HEAD).read_bytes() == head
    assert len(entries(tmp_path)) == 1


def test_a_key_follows_another_that_the_trust_file_knows(root):
    both = trusting(KEY, OTHER)
    put(root, "evidence/new.json")
    with pytest.raises(RefusedError, match="does not count as index"):
        run(root, key=OTHER, trust=TRUST)
    assert run(root, key=OTHER, trust=both).added == 1
    assert check(root, both).faults == ()
    assert causes(check(root)) == [("unknown_key", HEAD)]


def test_the_key_is_found_in_its_folder(tmp_path):
    assert signing_key(None) is None
    assert signing_key(tmp_path) is None
    ed25519.write_private(tmp_path / "index.key", KEY)
    assert signing_key(tmp_path).keyid == KEY.keyid


# Crashes


class Killed(BaseException):
    pass


def killed(monkeypatch, act, *, after=0):
    """``act``, in a process that ends before it writes the head that comes after so many others."""
    count = iter(range(10))

    def write(*args, **more):
        if next(count) >= after:
            raise Killed
        write_head(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(index_open, "write_head", write)
        with pytest.raises(Killed):
            act()


def test_entries_that_no_head_covers_are_made_again(root, monkeypatch):
    put(root, "evidence/new.json")
    put(root, "evidence/v2.locked.json")
    put(root, "gate/bundle/d2/evidence.json")
    put(root, "gate/bundle/d2/more.json")
    killed(monkeypatch, lambda: run(root, retention=Retention(locked_days=700)))
    assert len(entries(root)) == 9
    assert causes(check(root)) == [("uncovered", INDEX)]
    rewrite(root, lambda lines: [*lines[:-1], lines[-1][:-9]])  # nor did the append end
    assert causes(check(root))[:2] == [("uncovered", INDEX), ("truncated", INDEX)]
    later = NOW + timedelta(days=1)
    report = run(root, later)
    assert (report.faults, report.added, report.redone) == ((), 4, 3)
    assert check(root, now=later).faults == ()
    assert {entry["at"] for entry in entries(root)[5:]} == {"2026-03-02T12:00:00.000Z"}
    # A date that was said once is not shortened, though nobody signed it.
    (date,) = [e["retain_until"] for e in entries(root) if e["path"].endswith("v2.locked.json")]
    assert date == "2028-01-30T12:00:00.000Z"


def test_the_first_append_without_its_head(tmp_path, monkeypatch):
    put(tmp_path, "evidence/a.json")
    for after in (0, 1):
        killed(monkeypatch, lambda: run(tmp_path), after=after)
    assert causes(check(tmp_path, None)) == [("uncovered", INDEX)]
    report = run(tmp_path)
    assert (report.faults, report.added, report.redone) == ((), 1, 1)
    assert check(tmp_path).faults == ()


def forged(root, **entry):
    """An entry that somebody without the key appended."""
    with journal.open_journal(root / INDEX) as writer:
        writer.append([{"at": "2020-01-01T00:00:00.000Z", "tier": "wip"} | entry])


def test_a_forged_entry_is_never_signed(root):
    path = put(root, "evidence/x.locked.json")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    early = "2020-01-02T00:00:00.000Z"
    forged(
        root,
        event="locked",
        path="evidence/x.locked.json",
        sha256=sha256,
        tier="locked",
        retain_until=early,
    )
    assert anchored_at(root, sha256, trust=TRUST, now=NOW) is None
    assert run(root).redone == 1
    assert anchored_at(root, sha256, trust=TRUST, now=NOW) == NOW
    assert entries(root)[-1]["retain_until"] == "2027-03-01T12:00:00.000Z"


def test_a_forged_upload_is_never_signed(root):
    forged(root, event="uploaded", path="evidence/b.json", version_id="7")
    assert run(root).redone == 1
    assert len(entries(root)) == 5
    assert check(root).faults == ()


@pytest.mark.parametrize("gone", [False, True])
def test_a_locked_document_that_is_not_as_an_uncovered_entry_says(root, gone):
    """The head was put back to an older one, to have a changed document taken up anew."""
    head = (root / HEAD).read_bytes()
    path = put(root, "evidence/v2.locked.json")
    run(root)
    (root / HEAD).write_bytes(head)
    path.unlink() if gone else path.write_text("{}")
    assert causes(run(root)) == [("removed" if gone else "changed", "evidence/v2.locked.json")]
    assert len(entries(root)) == 6


def test_an_old_index_with_its_old_head_does_not_follow(root):
    old = {name: (root / name).read_bytes() for name in (INDEX, HEAD)}
    anchored = snapshot(root).signed.head
    put(root, "evidence/new.json")
    run(root)
    newer = snapshot(root).signed.head
    assert follows(root, anchored)
    assert follows(root, newer)
    (root / "evidence/new.json").unlink()
    for name, data in old.items():
        (root / name).write_bytes(data)
    assert check(root).faults == ()  # nothing here can tell
    assert follows(root, anchored)
    assert not follows(root, newer)


# LOCKED


def test_a_locked_document_has_its_date_from_the_day_it_was_locked(root):
    path = put(root, "evidence/v2.locked.json")
    day = timedelta(days=1)
    assert record_locked(root, path, now=NOW, retention=Retention(locked_days=10), key=KEY)
    (entry,) = entries(root)[5:]
    assert (entry["event"], entry["retain_until"]) == ("locked", "2026-03-11T12:00:00.000Z")
    for days in (1, 100):
        again = {"now": NOW + day, "retention": Retention(locked_days=days), "key": KEY}
        assert record_locked(root, path, **again)
        assert run(root, NOW + day, retention=Retention(locked_days=days)).added == 0
    assert len(entries(root)) == 6
    assert check(root, now=NOW + day).faults == ()
    put(root, "evidence/v2.locked.json", "changed")
    with pytest.raises(RefusedError, match="was changed since it was indexed"):
        record_locked(root, path, now=NOW, retention=KEEP, key=KEY)


def test_what_is_not_recorded_as_locked(root):
    how = {"now": NOW, "retention": KEEP, "key": KEY}
    elsewhere = put(root.parent, "else/v2.locked.json")
    assert not record_locked(root, elsewhere, **how)
    with pytest.raises(UsageError, match="not the name of a LOCKED document"):
        record_locked(root, root / "evidence/b.json", **how)
    with pytest.raises(EvidenceError, match="no such file"):
        record_locked(root, root / "evidence/none.locked.json", **how)
    (root / "evidence/link.locked.json").symlink_to(elsewhere)
    with pytest.raises(EvidenceError, match="cannot be read"):
        record_locked(root, root / "evidence/link.locked.json", **how)
    foreign = put(root, "evidence/f.locked.json", target=STAGING)
    with pytest.raises(RefusedError, match="another target"):
        record_locked(root, foreign, **how)
    assert len(entries(root)) == 5


def test_when_a_document_was_taken_up(root):
    sha256 = entries(root)[0]["sha256"]
    assert anchored_at(root, sha256, trust=TRUST, now=NOW) == NOW
    assert anchored_at(root, sha256, trust=None, now=NOW) is None
    assert anchored_at(root, "0" * 64, trust=TRUST, now=NOW) is None


def test_uploads_are_recorded(root):
    record(
        root,
        [{"event": "uploaded", "path": "evidence/b.json", "version_id": "7"}],
        now=NOW,
        key=KEY,
    )
    record(root, [], now=NOW, key=KEY)
    assert entries(root)[-1]["version_id"] == "7"
    assert check(root).faults == ()
    with pytest.raises(ValueError, match="not an event"):
        record(root, [{"event": "deleted"}], now=NOW, key=KEY)


# Many at once


def _lock_some(root, start):
    for number in range(5):
        path = put(root, f"evidence/p{start}-{number}.locked.json")
        record_locked(root, path, now=NOW, retention=KEEP, key=KEY)


@pytest.mark.untraced
def test_many_writers_lose_nothing(root):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_lock_some, args=(root, n)) for n in range(6)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        # A reader never sees a broken index; a file may be ahead of its entry.
        assert {cause for cause, _ in causes(check(root))} <= {"added"}
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert check(root)[:3] == ((), 35, 35)


NAMES = [f"evidence/{name}" for name in ("a.json", "b.json", "latest.json", "c.locked.json")]


@hypothesis_settings(max_examples=40)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(NAMES), st.none() | st.integers(0, 3), st.booleans()), max_size=12
    )
)
def test_after_an_update_only_what_may_not_change_is_a_fault(tmp_path_factory, steps):
    root = tmp_path_factory.mktemp("root")
    (root / "evidence").mkdir()
    first, there = None, {}  # what the LOCKED document was when it was taken up
    for name, value, look in steps:
        if value is None:
            (root / name).unlink(missing_ok=True)
        else:
            put(root, name, value)
        there[name] = value
        if look:
            report = run(root, target=HERE)
            locked = there.get(NAMES[3])
            first = locked if first is None else first
            wrong = [] if locked == first else [NAMES[3]]
            assert [fault.path for fault in report.faults] == wrong
            if len(entries(root) if (root / INDEX).exists() else []):
                assert [f.path for f in check(root).faults] == wrong


def test_a_head_is_parsed_to_what_was_written(root):
    signed = parse_head((root / HEAD).read_bytes())
    assert signed.head == journal.read(root / INDEX).head
    assert (signed.target, signed.at, signed.keyid) == (
        TARGET,
        "2026-03-01T12:00:00.000Z",
        KEY.keyid,
    )


@pytest.mark.parametrize(
    "entry",
    [
        {"event": []},
        {"event": {}},
        {"event": 1},
        {"event": "indexed", "path": "gate/bundlex", "tier": "bundle"},
        {"event": "indexed", "path": [], "tier": "wip"},
    ],
)
def test_a_hostile_entry_is_a_fault_and_no_traceback(root, entry):
    with journal.open_journal(root / INDEX) as writer:
        writer.append([{"sha256": "0" * 64, "size": 1, "at": "2026-01-15T12:00:00.000Z", **entry}])
        write_head(root, writer.head, target=TARGET, now=NOW, key=KEY)
    assert check(root).faults
    assert run(root).faults
