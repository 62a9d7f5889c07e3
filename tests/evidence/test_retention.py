"""Retention: what stays whatever happens, and that only what a plan says goes, once the index says so."""

import json
import multiprocessing
import os
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from seeded import from_seed

from pytest_decisionos.errors import EvidenceError, RefusedError
from pytest_decisionos.evidence import index_open, retention_apply
from pytest_decisionos.evidence.config import Retention
from pytest_decisionos.evidence.index import record_locked, update
from pytest_decisionos.evidence.index_head import write_head
from pytest_decisionos.evidence.index_verify import verify
from pytest_decisionos.evidence.retention import plan
from pytest_decisionos.evidence.retention_apply import apply
from pytest_decisionos.trust import files
from pytest_decisionos.trust.trustfile import TrustFile

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = from_seed(b"index key of tests".ljust(32, b"."))
RULES = Retention(wip_days=30, locked_days=100, keep_per_tenant=0)
INDEX, HEAD = "evidence/index.jsonl", "evidence/index.head.json"
TARGET = {"service": "checkout", "environment": "production", "region": "eu-1", "tenant": "acme"}


def ago(days):
    return NOW - timedelta(days=days)


def put(root, name, *, days=0.0, tenant="acme", release="v1", value=None):
    """A document in the evidence folder that was changed so many days ago."""
    path = root / "evidence" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = {"target": {**TARGET, "tenant": tenant} if tenant else None, "release": release}
    path.write_text(json.dumps({"meta": meta, "n": name if value is None else value}))
    time = ago(days).timestamp()
    os.utime(path, (time, time))
    return path


def put_locked(root, name, *, days, **more):
    """A LOCKED document, and its entry of so many days ago."""
    path = put(root, f"{name}.locked.json", days=days, **more)
    assert record_locked(root, path, now=ago(days), retention=RULES, key=KEY)
    return path


def planned(root, rules=RULES, **more):
    made = plan(root, rules, now=NOW, **more)
    return {item.path.removeprefix("evidence/"): (item.action, item.cause) for item in made.items}


def gc(root, rules=RULES, now=NOW, made=None):
    made = made or plan(root, rules, now=now)
    return apply(root, made, rules, now=now, key=KEY)


def names(root):
    return {n for n in os.listdir(root / "evidence") if not n.startswith((".", "index."))}


def events(root):
    lines = (root / INDEX).read_text().splitlines() if (root / INDEX).exists() else []
    return [
        (entry["event"], entry["path"].removeprefix("evidence/"))
        for entry in map(json.loads, lines)
    ]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "evidence").mkdir()
    return tmp_path


# What stays


def test_days_of_each_tier(root):
    put(root, "young.json", days=29.9)
    put(root, "old.json", days=30)
    put_locked(root, "young", days=99.9)
    put_locked(root, "old", days=100)
    assert planned(root) == {
        "young.json": ("keep", "young"),
        "old.json": ("delete", "expired"),
        "young.locked.json": ("keep", "locked"),
        "old.locked.json": ("delete", "expired"),
    }
    made = gc(root)
    assert names(root) == {"young.json", "young.locked.json"}
    assert {i.path.removeprefix("evidence/"): i.action for i in made.items}["old.json"] == "delete"
    deleted = [json.loads(line) for line in (root / INDEX).read_text().splitlines()][-2:]
    assert [entry["event"] for entry in deleted] == ["deleted", "deleted"]
    assert deleted[0]["why"] == "not changed for 30 days"
    assert deleted[1]["why"] == "LOCKED until 2026-03-01T12:00:00.000Z"
    found = [(fault.cause, fault.path) for fault in verify(root, now=NOW).faults]
    assert found == [("added", "evidence/young.json")]  # never indexed
    assert not [n for n in os.listdir(root / "evidence") if "old" in n]  # nor do locks stay


def test_a_later_file_cannot_shorten_a_date_and_can_lengthen_it(root):
    put_locked(root, "a", days=99)
    for days, cause in ((1, "locked"), (100, "locked"), (200, "locked")):
        assert planned(root, RULES.model_copy(update={"locked_days": days})) == {
            "a.locked.json": ("keep", cause)
        }
    put_locked(root, "b", days=101)
    longer = RULES.model_copy(update={"locked_days": 102})
    assert planned(root)["b.locked.json"] == ("delete", "expired")
    assert planned(root, longer)["b.locked.json"] == ("keep", "locked")
    endless = RULES.model_copy(update={"locked_days": 10**7})
    assert planned(root, endless)["b.locked.json"] == ("keep", "locked")


def test_the_newest_of_each_tenant_stay(root):
    for tenant in ("acme", "umbrella", ""):
        for day in (50, 60, 70):
            put(root, f"{tenant}-{day}.json", days=day, tenant=tenant)
    put_locked(root, "copied", days=200)
    os.utime(root / "evidence/copied.locked.json", None)  # its time is new, its lock is old
    assert {name for name, (action, _) in planned(root, RULES.model_copy(update={"keep_per_tenant": 2})).items() if action == "delete"} == {
        "acme-70.json", "umbrella-70.json", "-70.json", "copied.locked.json"
    }  # fmt: skip


HOLDS = [
    ({"match": "a*.json"}, {"a.json", "a.locked.json"}),
    ({"match": "tenant:acme"}, {"a.json", "a.locked.json", "b.json"}),
    ({"match": "tenant:ACME"}, set()),
    ({"match": "release:v2"}, {"c.json"}),
    ({"match": "release:v*"}, set()),
    ({"match": "a.json", "until": NOW}, {"a.json"}),
    ({"match": "a.json", "until": NOW - timedelta(seconds=1)}, set()),
    (
        {"match": "*", "until": NOW + timedelta(days=1)},
        {"a.json", "a.locked.json", "b.json", "c.json"},
    ),
]


@pytest.mark.parametrize(("hold", "kept"), HOLDS)
def test_legal_holds(root, hold, kept):
    put(root, "a.json", days=400)
    put(root, "b.json", days=400)
    put(root, "c.json", days=400, tenant="other", release="v2")
    put_locked(root, "a", days=400)
    rules = Retention.model_validate(
        {"wip_days": 1, "locked_days": 1, "keep_per_tenant": 0}
        | {"legal_holds": [hold | {"owner": "legal", "reason": "case 7"}]}
    )
    made = planned(root, rules)
    assert {name for name, why in made.items() if why == ("keep", "hold")} == kept
    gc(root, rules)
    assert names(root) == kept


def test_excluded_names_stay(root):
    put(root, "base-1.json", days=400)
    put(root, "other.json", days=400)
    rules = RULES.model_copy(update={"exclude": ("base-*",)})
    assert planned(root, rules) == {
        "base-1.json": ("keep", "excluded"),
        "other.json": ("delete", "expired"),
    }


def needed_by_decision(root, path):
    import hashlib

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (root / "gate").mkdir()
    (root / "gate/decision.json").write_text(json.dumps({"evidence": {"sha256": digest}}))


def needed_by_bundle(root, path):
    bundle = root / "gate/bundle/d1"
    bundle.mkdir(parents=True)
    (bundle / "evidence.json").write_bytes(path.read_bytes())


@pytest.mark.parametrize("need", [needed_by_decision, needed_by_bundle])
def test_what_a_decision_needs_stays(root, need):
    need(root, put(root, "a.json", days=400))
    put(root, "b.json", days=400)
    put(root, "latest.json", days=400)
    locked = put_locked(root, "c", days=400)
    assert planned(root) == {
        "a.json": ("keep", "needed"),
        "b.json": ("delete", "expired"),
        "latest.json": ("keep", "needed"),
        "c.locked.json": ("delete", "expired"),
    }
    locked.chmod(0o644)
    assert gc(root).faults == ()
    assert names(root) == {"a.json", "latest.json"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda gate: (gate / "decision.json").write_text("{"),
        lambda gate: (gate / "decision.json").write_text("{}"),
        lambda gate: (gate / "decision.json").write_text('{"evidence": []}'),
        lambda gate: (gate / "decision.json").symlink_to(gate),
        lambda gate: (gate / "decision.json").mkdir(),
        lambda gate: (gate / "bundle").mkdir() or (gate / "bundle/d1").symlink_to(gate),
    ],
)
def test_where_nobody_can_tell_what_is_needed_everything_stays(root, damage):
    put(root, "a.json", days=400)
    (root / "gate").mkdir()
    damage(root / "gate")
    assert planned(root) == {"a.json": ("keep", "needed")}
    assert gc(root).deletions == []
    assert names(root) == {"a.json"}


def test_a_locked_document_that_is_not_as_indexed_stays_and_is_said(root):
    put_locked(root, "changed", days=400).write_text('{"meta": 1}')
    put(root, "unknown.locked.json", days=400)
    made = plan(root, RULES, now=NOW)
    assert planned(root) == {
        "changed.locked.json": ("keep", "changed"),
        "unknown.locked.json": ("keep", "unindexed"),
    }
    assert [(f.cause, f.path) for f in made.faults] == [("changed", "evidence/changed.locked.json")]


def damaged(root):
    lines = (root / INDEX).read_text()
    (root / INDEX).write_text(lines.replace("2025", "2024"))


@pytest.mark.parametrize(
    "damage",
    [damaged, lambda root: (root / HEAD).unlink(), lambda root: (root / INDEX).unlink()],
)
def test_where_the_index_does_not_verify_everything_stays(root, damage):
    put_locked(root, "a", days=400)
    put(root, "b.json", days=400)
    damage(root)
    made = gc(root)
    assert {(i.action, i.cause) for i in made.items} == {("keep", "index")}
    assert made.faults
    assert names(root) == {"a.locked.json", "b.json"}


def test_an_index_signed_by_nobody_that_counts(root):
    put_locked(root, "a", days=400)
    keys = [
        {"keyid": KEY.keyid, "role": "index", "public_key": KEY.public.pem, "targets": ["*/*/*/*"]}
    ]
    fields = {"version": 1, "expires": NOW + timedelta(days=1)}
    assert planned(root, trust=TrustFile.model_validate({**fields, "keys": keys})) == {
        "a.locked.json": ("delete", "expired")
    }
    assert planned(root, trust=TrustFile.model_validate(fields)) == {
        "a.locked.json": ("keep", "index")
    }


def test_what_the_head_does_not_cover_says_nothing(root):
    put_locked(root, "a", days=400)
    head = (root / HEAD).read_bytes()
    put_locked(root, "b", days=400)
    (root / HEAD).write_bytes(head)
    assert planned(root)["b.locked.json"] == ("keep", "unindexed")
    gc(root)
    assert names(root) == {"b.locked.json"}
    update(root, now=NOW, retention=RULES, key=KEY)
    assert planned(root)["b.locked.json"] == ("keep", "locked")


def test_odd_files_stay(root):
    old = (ago(400).timestamp(),) * 2
    outside = root / "outside"
    outside.mkdir()
    (outside / "x.json").write_text("{}")
    os.utime(outside / "x.json", old)
    evidence = root / "evidence"
    for name, data in {
        "broken.json": "{",
        "twice.json": '{"a":1,"a":2}',
        "list.json": "[]",
    }.items():
        (evidence / name).write_text(data)
        os.utime(evidence / name, old)
    (evidence / "link.json").symlink_to(outside / "x.json")
    (evidence / "folder.json").symlink_to(outside)
    (evidence / "dir.json").mkdir()
    (evidence / "notes.txt").write_text("")
    (evidence / ".hidden.json").write_text("")
    for name in ("notes.txt", ".hidden.json", "dir.json"):
        os.utime(evidence / name, old)
    put(root, "future.json", days=-1)
    assert planned(root) == {
        "broken.json": ("keep", "unreadable"),
        "twice.json": ("keep", "unreadable"),
        "list.json": ("keep", "unreadable"),
        "link.json": ("keep", "link"),
        "folder.json": ("keep", "link"),
        "dir.json": ("keep", "not_a_file"),
        "future.json": ("keep", "future"),
    }
    before = sorted(os.listdir(evidence))
    gc(root)
    assert sorted(os.listdir(evidence)) == before
    assert (outside / "x.json").exists()


@pytest.mark.parametrize("name", ["..json", "...json", "a\nb.json", "한글.json", "-rf.json", "%s.json", "a" * 200 + ".json"])  # fmt: skip
def test_hostile_names(root, name):
    (root / "kept.json").write_text("{}")
    path = put(root, name, days=400)
    if name.startswith("."):
        assert planned(root) == {}
        return
    assert planned(root) == {name: ("delete", "expired")}
    gc(root)
    assert not path.exists()
    assert ("deleted", name) in events(root)
    assert (root / "kept.json").exists()


def test_a_name_too_long_to_be_locked_stays(root):
    name = "a" * 250 + ".json"
    put(root, name, days=400)
    (item,) = gc(root).items
    assert (item.action, item.cause, names(root)) == ("keep", "busy", {name})
    assert "deleted" not in dict(events(root))


def test_the_other_name_of_a_file_stays(root):
    path = put(root, "a.json", days=400)
    path.with_name("b.txt").hardlink_to(path)
    (item,) = gc(root).items
    assert (item.action, item.freed) == ("delete", 0)
    assert names(root) == {"b.txt"}


def test_the_evidence_folder_itself_is_no_link(root):
    put(root, "a.json", days=400)
    (root / "evidence").rename(root / "elsewhere")
    (root / "evidence").symlink_to(root / "elsewhere")
    for act in (planned, gc):
        with pytest.raises(EvidenceError):
            act(root)
    assert (root / "elsewhere/a.json").exists()


def test_what_killed_writers_left_is_cleaned(root):
    evidence = root / "evidence"
    times = {
        ".0123456789abcdef.tmp": 1.1,
        ".0123456789abcdee.tmp": 0.9,
        ".x.tmp": 9,
        ".a.json.lock": 9,
    }
    for name, hours in times.items():
        (evidence / name).write_text("12345")
        os.utime(evidence / name, (ago(hours / 24).timestamp(),) * 2)
    (evidence / ".0123456789abcded.tmp").symlink_to(root)
    made = plan(root, RULES, now=NOW)
    assert [(i.path, i.action, i.freed) for i in made.deletions] == [
        ("evidence/.0123456789abcdef.tmp", "delete", 5)
    ]
    gc(root)
    left = set(os.listdir(evidence))
    assert ".0123456789abcdef.tmp" not in left
    assert {".0123456789abcdee.tmp", ".x.tmp", ".0123456789abcded.tmp"} <= left


# Between plan and apply


def swapped(path):
    outside = path.parent.parent / "outside.json"
    outside.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(outside)


def touched(path):
    os.utime(path, (ago(50).timestamp(),) * 2)


def rewritten(path):
    time = path.stat().st_mtime
    path.write_bytes(path.read_bytes().replace(b"v1", b"v2"))
    os.utime(path, (time, time))


def copied(path):
    stat, data = path.stat(), path.read_bytes()
    path.with_name("moved").write_bytes(data)
    path.with_name("moved").replace(path)
    os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))


def became_folder(path):
    path.unlink()
    path.mkdir()


CHANGES = [swapped, touched, rewritten, copied, became_folder]


@pytest.mark.parametrize("change", [swapped, rewritten, became_folder])
def test_what_changed_since_the_plan_stays(root, change):
    path = put(root, "a.json", days=400)
    put(root, "b.json", days=400)
    made = plan(root, RULES, now=NOW)
    change(path)
    result = gc(root, made=made)
    assert os.path.lexists(path)
    assert names(root) == {"a.json"}
    assert [i.path for i in result.deletions] == ["evidence/b.json"]
    assert ("deleted", "a.json") not in events(root)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("when", [1, 2])
def test_what_changes_while_it_is_looked_at_stays(root, monkeypatch, change, when):
    """``when`` it changes: before the index says that it was deleted, or right before it is."""
    path = put(root, "a.json", days=400)
    real, count = retention_apply._is_same, iter(range(1, 9))

    def is_same(*args):
        if next(count) == when:
            change(path)
        return real(*args)

    monkeypatch.setattr(retention_apply, "_is_same", is_same)
    (item,) = gc(root).items
    assert (item.action, item.cause) == ("keep", "busy")
    assert os.path.lexists(path)
    assert dict(events(root)).get("deleted") == (None if when == 1 else "a.json")


def test_what_was_needed_or_locked_since_the_plan_stays(root):
    path = put(root, "a.json", days=400)
    made = plan(root, RULES, now=NOW)
    needed_by_bundle(root, path)
    assert gc(root, made=made).deletions == []
    assert names(root) == {"a.json"}


def test_a_document_that_somebody_writes_stays(root):
    path = put(root, "a.json", days=400)
    with files.locked(path):
        (item,) = gc(root).items
        assert (item.action, item.cause) == ("keep", "busy")
    assert path.exists()
    assert gc(root).deletions
    assert not path.exists()


def fail_to_unlink(patch, fault):
    """In the evidence folder; what others delete goes on."""
    real = os.unlink

    def unlink(path, *, dir_fd=None):
        if dir_fd is not None:
            raise fault
        real(path)

    patch.setattr(os, "unlink", unlink)


def test_a_folder_that_nobody_may_write(root, monkeypatch):
    put(root, "a.json", days=400)

    with monkeypatch.context() as patch:
        fail_to_unlink(patch, PermissionError(13, "Permission denied"))
        (item,) = gc(root).items
    assert (item.action, item.reason) == ("keep", "cannot be deleted: Permission denied")


def test_without_the_key_of_a_signed_index_nothing_goes(root):
    put_locked(root, "a", days=400)
    with pytest.raises(RefusedError, match="the key is not here"):
        apply(root, plan(root, RULES, now=NOW), RULES, now=NOW)
    assert names(root) == {"a.locked.json"}


# Crashes


class Killed(BaseException):
    pass


def test_a_crash_before_the_head_deletes_nothing(root, monkeypatch):
    put_locked(root, "a", days=400)
    count = iter(range(9))

    def write(*args, **more):
        if next(count) == 0:
            raise Killed
        write_head(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(index_open, "write_head", write)
        with pytest.raises(Killed):
            gc(root)
    assert names(root) == {"a.locked.json"}
    assert gc(root).deletions
    assert names(root) == set()
    assert [event for event, _ in events(root)] == ["locked", "deleted"]
    assert verify(root, now=NOW).faults == ()


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("name", ["a.json", "a.locked.json"])
@pytest.mark.parametrize("indexed", [False, True])
def test_a_crash_before_the_unlink_heals(root, monkeypatch, held, name, indexed):
    if name == "a.json":
        put(root, name, days=400)
    else:
        put_locked(root, "a", days=400)

    with monkeypatch.context() as patch:
        fail_to_unlink(patch, Killed())
        with pytest.raises(Killed):
            gc(root)
    assert events(root)[-1] == ("deleted", name)
    assert [fault.cause for fault in verify(root, now=NOW).faults] == ["added"]
    if indexed:  # it is there, so the index says so again, with the date that it had
        assert update(root, now=NOW, retention=RULES, key=KEY).added == 1
    rules = RULES.model_copy(update={"exclude": ("a*",)}) if held else RULES
    assert bool(gc(root, rules).deletions) != held
    assert names(root) == ({name} if held else set())
    if held:
        update(root, now=NOW, retention=RULES, key=KEY)
    assert verify(root, now=NOW).faults == ()


# Many at once


def _collect(root):
    gc(root)


def _lock_more(root):
    for number in range(20):
        path = put(root, f"new{number}.locked.json")
        record_locked(root, path, now=NOW, retention=RULES, key=KEY)


def _merge_more(root):
    for number in range(50):
        path = root / f"evidence/doc{number}.json"
        with files.locked(path):
            if path.exists():
                files.write_atomic(path, b'{"merged": true}')


@pytest.mark.slow
def test_two_collectors_and_writers_lose_nothing(root):
    for number in range(300):
        put(root, f"doc{number}.json", days=400)
    context = multiprocessing.get_context("fork")
    jobs = [_collect, _collect, _lock_more, _merge_more]
    workers = [context.Process(target=job, args=(root,)) for job in jobs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    left = names(root)
    assert {f"new{n}.locked.json" for n in range(20)} <= left
    for name in left - {f"new{n}.locked.json" for n in range(20)}:
        assert (root / "evidence" / name).read_bytes() == b'{"merged": true}'
    told = Counter(path for event, path in events(root) if event == "deleted")
    assert set(told) >= {f"doc{n}.json" for n in range(300)} - left
    update(root, now=NOW, retention=RULES, key=KEY)
    assert verify(root, now=NOW).faults == ()


# Properties

DOCUMENT = st.fixed_dictionaries(
    {
        "tier": st.sampled_from(["wip", "locked", "unknown"]),
        "days": st.integers(-5, 250),
        "tenant": st.sampled_from(["acme", "umbrella", ""]),
        "release": st.sampled_from(["v1", "v2"]),
    }
)
RULE = st.builds(
    Retention,
    wip_days=st.integers(1, 200),
    locked_days=st.integers(1, 200),
    keep_per_tenant=st.integers(0, 3),
    exclude=st.sampled_from([(), ("d0*",), ("*.locked.json",)]),
    legal_holds=st.lists(
        st.fixed_dictionaries(
            {
                "match": st.sampled_from(["tenant:acme", "release:v2", "d1*"]),
                "owner": st.just("legal"),
                "reason": st.just("case"),
                "until": st.sampled_from([None, NOW, NOW - timedelta(days=1)]),
            }
        ),
        max_size=2,
    ),
)


@hypothesis_settings(max_examples=60)
@given(documents=st.lists(DOCUMENT, max_size=8), rules=RULE)
def test_what_no_plan_deletes(tmp_path_factory, documents, rules):
    root = tmp_path_factory.mktemp("root")
    (root / "evidence").mkdir()
    made = {}
    for number, document in enumerate(documents):
        facts = {name: document[name] for name in ("tenant", "release")}
        name = f"d{number}.json" if document["tier"] == "wip" else f"d{number}.locked.json"
        path = put(root, name, days=document["days"], **facts)
        if document["tier"] == "locked":
            with_foreign = {"now": ago(document["days"]), "retention": RULES}
            # One target for a root; tenants here stand for documents without a whole target.
            meta = {"target": {"tenant": document["tenant"]}, "release": document["release"]}
            path.write_text(json.dumps({"meta": meta, "n": number}))
            assert record_locked(root, path, **with_foreign)
        made[name] = document
    before = {n: (root / "evidence" / n).read_bytes() for n in os.listdir(root / "evidence")}
    found = plan(root, rules, now=NOW)
    assert {
        n: (root / "evidence" / n).read_bytes() for n in os.listdir(root / "evidence")
    } == before
    apply(root, found, rules, now=NOW)
    left = names(root)
    gone = set(made) - left
    assert gone == {item.path.removeprefix("evidence/") for item in found.deletions}
    for name in gone:
        document = made[name]
        assert document["tier"] != "unknown"
        if document["tier"] == "locked":
            assert document["days"] >= max(RULES.locked_days, rules.locked_days)
        else:
            assert document["days"] >= rules.wip_days
        assert not (rules.exclude == ("d0*",) and name.startswith("d0"))
        assert not (rules.exclude == ("*.locked.json",) and name.endswith(".locked.json"))
        for hold in rules.legal_holds:
            if hold.until is None or hold.until >= NOW:
                assert hold.match not in {
                    f"tenant:{document['tenant']}",
                    f"release:{document['release']}",
                }
                assert not (hold.match == "d1*" and name.startswith("d1"))
    for tenant in {document["tenant"] for document in documents}:
        of = {name for name, document in made.items() if document["tenant"] == tenant}
        assert len(of & left) >= min(len(of), rules.keep_per_tenant)
