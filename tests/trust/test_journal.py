"""A journal that was changed says so; a crash costs nothing that anybody was told is there."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pytest_decisionos.errors import JournalError, RefusedError, UsageError
from pytest_decisionos.trust import files, journal
from pytest_decisionos.trust.journal import EMPTY, START, Head, follows, open_journal, parse, read

NAMES = ["변경", "a", "", 'quote"d', "line\nbreak", "\u2028", "\\", "😀"]
PAYLOADS = st.dictionaries(
    st.sampled_from(["path", "kind", "이름"]),
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.sampled_from(NAMES),
        st.floats(allow_nan=False, allow_infinity=False), st.lists(st.integers(), max_size=3),
    ),
)  # fmt: skip


def append(path, *payloads):
    with open_journal(path) as writer:
        return writer.append(payloads)


def bare(entries):
    return [{k: v for k, v in e.items() if k not in {"seq", "prev"}} for e in entries]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "index.jsonl"


def filled(path, count=5):
    head = append(path, *({"n": number, "kind": "lock"} for number in range(1, count + 1)))
    return path.read_bytes(), head


# What it is


def test_the_chain(path):
    assert read(path) == ([], [], None, 0)
    head = append(path, {"a": 1}, {"b": "둘"})
    one, two = path.read_bytes().splitlines()
    assert one == b'{"a":1,"prev":"' + START.encode() + b'","seq":1}'
    assert json.loads(two) == {"b": "둘", "prev": sha256(one).hexdigest(), "seq": 2}
    assert head == Head(2, sha256(two).hexdigest())
    found = read(path)
    assert found.heads == [Head(1, sha256(one).hexdigest()), head]
    assert (found.head, found.fault, found.good_bytes) == (head, None, len(one) + len(two) + 2)
    assert follows(found, head)


def test_nothing_appended_writes_nothing(path):
    assert append(path) == EMPTY
    assert not path.exists()


def test_a_writer_knows_what_is_there(path):
    append(path, {"a": 1})
    with open_journal(path) as writer:
        assert bare(writer.entries) == [{"a": 1}]
        head = writer.append([{"b": (1, 2)}])
        assert writer.head == head
        assert writer.append([{"c": 3}]).entries == 3
        assert writer.entries == read(path).entries  # also the tuple, as it will be read
    assert [entry["seq"] for entry in read(path).entries] == [1, 2, 3]


def test_entries_can_be_taken_back_while_nobody_was_told(path):
    data, head = filled(path)
    for left in (7, 5, 0):
        with open_journal(path) as writer:
            writer.append([{"n": 6}, {"n": "일곱"}, {"n": 8}])
            heads = [EMPTY, *read(path).heads]
            writer.cut(left)
            assert (writer.head, len(writer.entries)) == (heads[left], left)
            assert writer.append([{"n": "next"}]).entries == left + 1
            writer.cut(min(left, 5))
            assert writer.entries == read(path).entries
        assert path.read_bytes() == (data if left else b"")
        assert read(path).head == (head if left else EMPTY)


def test_follows():
    data = [journal._line({"seq": 1, "prev": START})]
    data.append(journal._line({"seq": 2, "prev": sha256(data[0]).hexdigest()}))
    heads = [Head(n, sha256(line).hexdigest()) for n, line in enumerate(data, 1)]
    whole = parse(b"".join(line + b"\n" for line in data))
    assert all(follows(whole, head) for head in (EMPTY, *heads))
    assert not follows(parse(data[0] + b"\n"), heads[1])
    for wrong in (Head(2, heads[0].sha256), Head(1, "0" * 64), Head(0, heads[0].sha256),
                  Head(3, heads[1].sha256), Head(-1, heads[1].sha256)):  # fmt: skip
        assert not follows(whole, wrong)


# What was changed


def with_lines(change):
    def of(data):
        lines = data.splitlines(keepends=True)
        change(lines)
        return b"".join(lines)

    return of


def swap(lines):
    lines[1], lines[2] = lines[2], lines[1]


def forged(lines):
    """Entry 3, changed and given the right hash of the line before."""
    lines[2] = lines[2].replace(b'"n":3', b'"n":9')


TAMPERED = {
    "a value": (with_lines(forged), 4, "changed"),
    "swapped": (with_lines(swap), 2, "changed"),
    "removed": (with_lines(lambda lines: lines.pop(2)), 3, "changed"),
    "the first removed": (with_lines(lambda lines: lines.pop(0)), 1, "changed"),
    "duplicated": (with_lines(lambda lines: lines.insert(2, lines[1])), 3, "changed"),
    "inserted": (
        with_lines(lambda lines: lines.insert(2, b'{"prev":"' + b"0" * 64 + b'","seq":3}\n')),
        3,
        "changed",
    ),
    "an empty line": (with_lines(lambda lines: lines.insert(2, b"\n")), 3, "unreadable"),
    "another spelling": (lambda data: data.replace(b'"n":2', b'"n": 2'), 2, "unreadable"),
    "keys in another order": (
        lambda data: data.replace(b'{"kind":"lock","n":2', b'{"n":2,"kind":"lock"'), 2, "unreadable"),
    "escaped": (lambda data: data.replace(b'"lock"', b'"\\u006cock"', 1), 1, "unreadable"),
    "a key twice": (lambda data: data.replace(b'"n":2', b'"n":1,"n":2'), 2, "unreadable"),
    "NaN": (lambda data: data.replace(b'"n":2', b'"n":NaN'), 2, "unreadable"),
    "infinite": (lambda data: data.replace(b'"n":2', b'"n":1e999'), 2, "unreadable"),
    "many digits": (lambda data: data.replace(b'"n":2', b'"n":' + b"9" * 5000), 2, "unreadable"),
    "nested deep": (lambda data: data.replace(b'"n":2', b'"n":' + b"[" * 9000), 2, "unreadable"),
    "half a surrogate": (lambda data: data.replace(b'"n":2', b'"n":"\\ud800"'), 2, "unreadable"),
    "not UTF-8": (lambda data: data.replace(b'"n":2', b'"n":"\xff"'), 2, "unreadable"),
    "UTF-16": (lambda data: data.decode().encode("utf-16"), 1, "unreadable"),
    "a byte-order mark": (lambda data: b"\xef\xbb\xbf" + data, 1, "unreadable"),
    "line ends of Windows": (lambda data: data.replace(b"\n", b"\r\n"), 1, "unreadable"),
    "no object": (with_lines(lambda lines: lines.insert(1, b"[]\n")), 2, "unreadable"),
    "a long line": (with_lines(lambda lines: lines.insert(1, b" " * 65_537 + b"\n")), 2, "unreadable"),
    "seq as text": (lambda data: data.replace(b'"seq":2', b'"seq":"2"'), 2, "changed"),
    "seq true": (lambda data: data.replace(b'"seq":1', b'"seq":true'), 1, "changed"),
    "seq as float": (lambda data: data.replace(b'"seq":2', b'"seq":2.0'), 2, "changed"),
    "no seq": (lambda data: data.replace(b',"seq":2', b""), 2, "changed"),
    "no prev": (with_lines(lambda lines: lines.insert(0, b'{"seq":1}\n')), 1, "changed"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "line", "cause"), TAMPERED.values(), ids=TAMPERED)
def test_a_change_is_found_where_it_is(path, change, line, cause):
    data, head = filled(path)
    changed = change(data)
    assert changed != data
    path.write_bytes(changed)
    found = read(path)
    assert (found.fault.line, found.fault.cause) == (line, cause)
    assert f"line {line} " in found.fault.message
    assert len(found.entries) == len(found.heads) == line - 1
    assert changed[: found.good_bytes].count(b"\n") == line - 1
    assert not follows(found, head)
    with (
        pytest.raises(JournalError, match="put the last good copy back") as caught,
        open_journal(path),
    ):
        pytest.fail("what was changed may not be appended to")
    assert (caught.value.line, caught.value.file) == (line, str(path))
    assert path.read_bytes() == changed


def test_only_a_head_knows_the_end(path):
    data, head = filled(path)
    whole = data.splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:3]))
    found = read(path)
    assert (found.fault, found.head.entries) == (None, 3)
    assert not follows(found, head)
    last = json.loads(whole[4])
    path.write_bytes(b"".join(whole[:4]) + journal._line({**last, "n": 9}) + b"\n")
    assert read(path).fault is None
    assert not follows(read(path), head)


@pytest.mark.untraced
def test_every_bit_counts(path):
    digests = (sha256(b"%d" % number).hexdigest() for number in range(1, 21))
    head = append(path, *({"path": f"증거/{d[:9]}.json", "sha256": d, "n": -0.5} for d in digests))
    data = path.read_bytes()
    assert 3500 < len(data) < 4500
    before = parse(data)
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        found = parse(bytes(changed))
        # No bit is free: found by the chain, or at the end by the head.
        assert found.fault is not None or not follows(found, head)
        good = max(len(found.entries) - 1, 0)
        assert found.entries[:good] == before.entries[:good]


# A model of it


class Journals(RuleBasedStateMachine):
    """A list of payloads, and the file that must be that list, whatever happened to it."""

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "index.jsonl"
        self.model = []
        self.head = EMPTY
        self.torn = False

    def teardown(self):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @property
    def data(self):
        return self.path.read_bytes()[: read(self.path).good_bytes] if self.path.exists() else b""

    @rule(payloads=st.lists(PAYLOADS, max_size=3))
    def append(self, payloads):
        self.head = append(self.path, *payloads)
        self.model += payloads
        self.torn = False

    @rule(payload=PAYLOADS, share=st.floats(0.01, 0.99))
    def crash(self, payload, share):
        if self.torn:  # the next append would have healed it first
            self.append([])
        line = journal._line({**payload, "seq": len(self.model) + 1, "prev": self.head.sha256})
        with self.path.open("ab") as stream:
            stream.write(line[: max(1, int(len(line) * share))])
        self.torn = True

    @rule(payload=PAYLOADS)
    def too_large(self, payload):
        with open_journal(self.path) as writer, pytest.raises(JournalError):
            writer.append([payload, {"large": "x" * journal.MAX_LINE_BYTES}])
        self.torn = False

    @precondition(lambda self: self.model)
    @rule(share=st.floats(0, 0.999))
    def cut(self, share):
        data = self.data
        found = parse(data[: int(len(data) * share)])
        assert found.fault is None or found.fault.cause == "truncated"
        assert bare(found.entries) == self.model[: len(found.entries)]
        assert not follows(found, self.head)

    @precondition(lambda self: len(self.model) > 1)
    @rule(data=st.data())
    def swap(self, data):
        first = data.draw(st.integers(0, len(self.model) - 2))
        second = data.draw(st.integers(first + 1, len(self.model) - 1))

        def change(lines):
            lines[first], lines[second] = lines[second], lines[first]

        self.is_found(change)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data):
        place = data.draw(st.integers(0, len(self.model) - 1))
        self.is_found(lambda lines: lines.pop(place))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def duplicate(self, data):
        place = data.draw(st.integers(0, len(self.model) - 1))
        to = data.draw(st.integers(0, len(self.model)))
        self.is_found(lambda lines: lines.insert(to, lines[place]))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), payload=PAYLOADS)
    def insert(self, data, payload):
        # With the right number and the right hash of the line before: the next line tells.
        place = data.draw(st.integers(0, len(self.model) - 1))
        prev = ([EMPTY, *read(self.path).heads])[place].sha256
        line = journal._line({**payload, "seq": place + 1, "prev": prev}) + b"\n"
        self.is_found(lambda lines: lines.insert(place, line), forged=place)

    def is_found(self, change, forged=None):
        """Up to the first line that differs it is as it was; a forged one may come after that."""
        before = self.data.splitlines(keepends=True)
        after = before.copy()
        change(after)
        same = next(
            (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), None
        )
        same = min(len(before), len(after)) if same is None else same
        found = parse(b"".join(after))
        good = same + (same == forged)
        assert bare(found.entries)[:same] == self.model[:same]
        assert len(found.entries) == good
        assert (found.fault.line if found.fault else None) == (
            good + 1 if good < len(after) else None
        )
        assert found.fault is not None or not follows(found, self.head)

    @invariant()
    def the_file_is_the_model(self):
        found = read(self.path)
        assert bare(found.entries) == self.model
        assert found.head == self.head
        assert follows(found, self.head)
        assert (found.fault.cause if found.fault else None) == ("truncated" if self.torn else None)


TestJournals = Journals.TestCase
TestJournals.pytestmark = pytest.mark.slow
TestJournals.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


# What cannot be appended


@pytest.mark.parametrize(
    "payload",
    [
        {"n": float("nan")},
        {"n": float("inf")},
        {"n": "\udcff"},
        {"n": b"bytes"},
        {"n": {1: 2, "b": 3}},
        {"n": 10**5000},
        {"n": Path("x")},
        {"n": "x" * 65_536},
        {1: 1},
    ],
    ids="NaN infinite surrogate bytes mixed digits path large number".split(),
)
def test_what_json_cannot_say_is_refused_before_anything_is_written(path, payload):
    data, _ = filled(path)
    with open_journal(path) as writer:
        with pytest.raises(JournalError, match="an entry"):
            writer.append([{"fine": 1}, payload])
        assert path.read_bytes() == data
        assert writer.append([{"fine": 1}]).entries == 6


def test_what_is_nested_too_deep(path):
    nested = []
    for _ in range(100_000):
        nested = [nested]
    with open_journal(path) as writer, pytest.raises(JournalError, match="an entry is nothing"):
        writer.append([{"n": nested}])
    while nested:  # else Python frees it level by level, on the stack
        nested = nested.pop()
    assert not path.exists()


def test_what_would_not_be_read_back_is_refused(path, monkeypatch):
    monkeypatch.setattr(
        journal, "_entry", lambda *_: journal.Fault(1, "unreadable", "line 1 is odd")
    )
    with (
        open_journal(path) as writer,
        pytest.raises(JournalError, match="read back: line 1 is odd"),
    ):
        writer.append([{}])
    assert not path.exists()


# Where it cannot be written


def test_a_folder_in_the_way(path):
    path.mkdir()
    with pytest.raises(JournalError, match="not a regular file"):
        append(path, {})


def test_links_are_not_written_through(tmp_path, path):
    data, _ = filled(path)
    link = tmp_path / "link.jsonl"
    link.symlink_to(path.name)
    with pytest.raises(UsageError, match="cannot be written"):
        append(link, {"n": 6})
    assert path.read_bytes() == data
    path.write_bytes(data + b'{"half')  # perhaps of a writer who is at it, under the other lock
    with pytest.raises(UsageError, match="cannot be written"):
        append(link, {"n": 6})
    assert path.read_bytes() == data + b'{"half'
    dangling = tmp_path / "dangling.jsonl"
    dangling.symlink_to("nowhere")
    with pytest.raises(JournalError, match="no such file|not a regular file"):
        append(dangling, {"n": 1})
    assert not (tmp_path / "nowhere").exists()


def test_a_disk_that_fails_leaves_what_was_there(path, monkeypatch):
    data, head = filled(path)

    def failing(_descriptor):
        raise OSError(5, "Input/output error")

    with open_journal(path) as writer:
        with monkeypatch.context() as patched:
            patched.setattr(journal.os, "fsync", failing)
            with pytest.raises(UsageError, match="cannot be written: Input/output error"):
                writer.append([{"n": 6}])
        assert path.read_bytes() == data
        assert (writer.head, len(writer.entries)) == (head, 5)
        assert writer.append([{"n": 6}]).entries == 6
    assert read(path).fault is None


FULL = """
import resource, sys
from pathlib import Path
from pytest_decisionos.errors import UsageError
from pytest_decisionos.trust.journal import open_journal
path, room = Path(sys.argv[1]), int(sys.argv[2])
size = path.stat().st_size if path.exists() else 0
with open_journal(path) as writer:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, limits[1]))
    try:
        writer.append([{"n": number, "kind": "x" * 200} for number in range(20)])
    except UsageError as fault:
        print(fault)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)  # coverage writes its own files
"""


@pytest.mark.slow
@pytest.mark.parametrize("room", [1, 300, 350, 4000])
@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_leaves_no_part_of_an_entry(path, room, there):
    data, head = filled(path) if there else (b"", EMPTY)
    result = subprocess.run(
        [sys.executable, "-c", FULL, path, str(room)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "cannot be written: File too large" in result.stdout
    assert path.read_bytes() == data
    assert append(path, {"n": 6}).entries == head.entries + 1


# Processes

APPENDER = """
import sys
from pathlib import Path
from pytest_decisionos.trust.journal import open_journal
path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(count):
    with open_journal(path) as writer:
        payloads = [{"by": name, "n": number, "part": p, "pad": "x" * (number * 37 % 900)} for p in (1, 2)]
        head = writer.append(payloads)
    print(number, head.entries, head.sha256, flush=True)
"""


def start(path, name, count):
    return subprocess.Popen(
        [sys.executable, "-c", APPENDER, path, name, str(count)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_processes_that_append_at_once_lose_nothing(path):
    appenders = [start(path, f"p{number}", 25) for number in range(8)]
    while any(appender.poll() is None for appender in appenders):
        found = read(path)
        assert found.fault is None or found.fault.cause == "truncated"
    told = [line for appender in appenders for line in appender.communicate()[0].splitlines()]
    assert [appender.returncode for appender in appenders] == [0] * 8
    found = read(path)
    assert found.fault is None
    listed = [(entry["by"], entry["n"], entry["part"]) for entry in found.entries]
    assert sorted(listed) == [(f"p{p}", n, q) for p in range(8) for n in range(25) for q in (1, 2)]
    assert len(told) == 200
    for line in told:
        _, entries, digest = line.split()
        assert follows(found, Head(int(entries), digest))


@pytest.mark.untraced
def test_kill_9_costs_nothing_that_was_told(path):
    draw = random.Random(7)
    told = []
    seen = read(path)
    for number in range(20):
        appenders = [start(path, f"k{number}.{one}", 10_000) for one in range(2)]
        for appender in appenders:
            appender.stdout.readline()  # it runs
        end = time.monotonic() + draw.uniform(0, 0.15)
        while time.monotonic() < end:
            found = read(path)
            assert found.fault is None or found.fault.cause == "truncated"
            assert follows(found, seen.head)
            seen = found
        for appender in appenders:
            appender.send_signal(signal.SIGKILL)
            told += [
                line.split()
                for line in appender.communicate()[0].splitlines(keepends=True)
                if line[-1] == "\n"
            ]
        # Who died held the lock, perhaps in the middle of a line: the next one heals it at once.
        head = append(path, {"by": "healer"})
        found = read(path)
        assert found.fault is None
        assert found.head == head
    assert len(told) > 20
    heads = set(found.heads)
    assert {Head(int(entries), digest) for _, entries, digest in told} <= heads


def test_a_torn_line_is_healed_and_was_told_to_nobody(path):
    data, head = filled(path)
    for torn in (
        b"{",
        b'{"n":6',
        journal._line({"n": 6, "seq": 6, "prev": head.sha256}),
        b"\xff\0",
    ):
        path.write_bytes(data + torn)
        found = read(path)
        assert (found.fault.cause, found.fault.line, found.head) == ("truncated", 6, head)
        assert found.good_bytes == len(data)
        with open_journal(path) as writer:
            assert path.read_bytes() == data
            assert writer.head == head
    assert append(path, {"n": 6}).entries == 6


def test_one_writer_at_a_time(path, monkeypatch):
    monkeypatch.setattr(files, "_wait", _impatient(files._wait))
    with (
        open_journal(path),
        pytest.raises(RefusedError, match="another writer"),
        open_journal(path),
    ):
        pytest.fail("two writers")
    append(path, {})


def _impatient(wait):
    return lambda descriptor, path, _: wait(descriptor, path, 0.0)


def test_a_file_that_cannot_be_read(path, monkeypatch):
    filled(path)
    monkeypatch.setattr(journal, "MAX_BYTES", 10)
    with pytest.raises(JournalError, match="too large"):
        read(path)
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(JournalError, match="not a regular file"):
        read(path)
