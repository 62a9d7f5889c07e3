"""Logs that must not be harvested: one clear line each, and nothing left behind."""

from __future__ import annotations

import gzip
import os
import tempfile
import threading

import duckdb
import pytest
from harvest_logs import START, csv_text, rows_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_decisionos.errors import DecisionOSError, EvidenceError, LogError, UsageError
from pytest_decisionos.harvest import engine as engine_module
from pytest_decisionos.harvest import source as source_module
from pytest_decisionos.harvest.blocks import combine, harvest
from pytest_decisionos.harvest.load import Given
from pytest_decisionos.harvest.options import MAX_BAD_ROWS, Options, split_filter
from pytest_decisionos.harvest.recompute import recompute
from pytest_decisionos.harvest.source import find
from pytest_decisionos.harvest.times import to_ms

HEAD = "ts,status,latency_ms\n"
ROW = "2026-01-05T09:00:00Z,200,12\n"


@pytest.fixture(autouse=True)
def _leaves_nothing(tmp_path_factory, monkeypatch):
    """Every harvest cleans up after itself, whatever happens."""
    private = tmp_path_factory.mktemp("private")
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    yield
    assert list(private.iterdir()) == []


def refusal(*logs, **options):
    with pytest.raises(DecisionOSError) as caught:
        harvest(list(logs), options=Options(**options), limits=False)
    text = str(caught.value)
    assert "\n" not in text
    assert str(logs[0]) in text or caught.type is UsageError
    return text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty file"]),
        (HEAD, ["has no rows"]),
        (HEAD[:-1], ["no finished line"]),
        ("\n", ["missing columns ts, status, latency_ms", "no column"]),
        ("ts,status\n2026-01-05T09:00:00Z,200\n", ["missing column latency_ms", "ts, status"]),
        ("시각,상태,지연\n" + ROW, ["missing columns", "시각, 상태, 지연", "latency_ms"]),
        ("ts,status,latency_ms,Status\n", ["a column twice", "status"]),
        ("ts,status,latency_ms\n".encode("utf-16"), ["not UTF-8", ":1:"]),
        ("ts,status,latency_ms\n".encode("cp949") + "\xb0\n".encode("latin-1"), ["not UTF-8"]),
        ("ts,\0status,latency_ms\n" + ROW, ["not a text file"]),
        ('ts,status,"latency_ms\n"\n' + ROW, ["not a CSV header"]),
        (",".join(["ts", "status", "latency_ms", *map(str, range(1000))]) + "\n", ["too many col"]),
        ("x" * (1 << 20) + "yz\n", ["the first line is too long"]),
        (HEAD + "2026-01-05T09:00:00Z,200\n", ["line 2: columns missing"]),
        (HEAD + ROW + "2026-01-05T09:00:00Z,200,1,2\n", ["line 3: too many columns"]),
        (HEAD + ROW + "2026-01-05T09:00:00Z,abc,2\n", ["line 3: status is not a number"]),
        (HEAD + ROW * 2 + "2026-01-05T09:00:00Z,99,2\n", ["line 4: status is not a whole number"]),
        (HEAD + "2026-01-05T09:00:00Z,200.5,2\n", ["line 2: status is not a whole number"]),
        (HEAD + "2026-01-05T09:00:00Z,,2\n", ["line 2: status is not a whole number"]),
        (HEAD + "2026-01-05T09:00:00Z,200,-1\n", ["line 2: latency_ms is not a number of 0 to"]),
        (HEAD + "2026-01-05T09:00:00Z,200,nan\n", ["latency_ms is not a number of 0 to"]),
        (HEAD + "2026-01-05T09:00:00Z,200,inf\n", ["latency_ms is not a number of 0 to"]),
        (HEAD + "2026-01-05T09:00:00Z,200,1e400\n", ["line 2: latency_ms is not a number"]),
        (HEAD + "2026-01-05T09:00:00,200,1\n", ["ts has no offset", "--assume-tz"]),
        (HEAD + "2026-01-05,200,1\n", ["ts is not a time"]),
        (HEAD + "yesterday,200,1\n", ["line 2: ts is not a time: yesterday,"]),
        (HEAD + "epoch,200,1\n", ["ts is not a time"]),
        (HEAD + "infinity,200,1\n", ["ts is not a time"]),
        (HEAD + "-5,200,1\n", ["ts is not a time"]),
        (HEAD + "1e300,200,1\n", ["ts is not a time"]),
        (HEAD + ",200,1\n", ["ts is not a time"]),
        (HEAD + "2026-02-30T00:00:00Z,200,1\n", ["ts is not a time"]),
        (HEAD + "2026-01-05T09:00:00Z Asia/Seoul,200,1\n", ["ts is not a time"]),
        (HEAD.encode() + b"2026-01-05T09:00:00Z\xff,200,1\n", ["line 2: not UTF-8"]),
        (HEAD + '"2026-01-05T09:00:00Z,200,1\n', ["line 2", "cannot be read"]),
        (HEAD + ROW + "x" * 3_000_000 + "\n", ["line 3: line too long"]),
        (
            "ts,status,latency_ms,variant\n" + "2026-01-05T09:00:00Z,200,1,blue\n",
            ["line 2: variant blue is neither control nor canary"],
        ),
        (
            HEAD.replace("\n", ",variant\n")
            + "2026-01-05T09:00:00Z,200,1,control\n2026-01-05T09:00:00Z,200,1,\n",
            ["line 3: variant  is neither"],
        ),
        (
            "ts,status,latency_ms,release\n"
            "2026-01-05T09:00:00Z,200,1,r1\n2026-01-05T09:00:00Z,200,1,r2\n",
            ["two releases in one variant", "r1 and r2"],
        ),
        (
            "ts,status,latency_ms,variant,release\n"
            "2026-01-05T09:00:00Z,200,1,canary,r1\n2026-01-05T09:00:00Z,200,1,canary,r2\n",
            ["two releases in one variant", "r1 and r2 in canary", "--since"],
        ),
        (
            "ts,status,latency_ms,route\n2026-01-05T09:00:00Z,200,1,/healthz\n",
            ["no row is left to measure", "1 rows, all of them filtered"],
        ),
        (
            "ts,status,latency_ms,signature_error\n2026-01-05T09:00:00Z,200,1,maybe\n",
            ["ts or signature_error cannot be read"],
        ),
    ],
)
def test_csv(write_log, content, words):
    text = refusal(write_log(content))
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[1, 2]\n", ["not a JSON object", "JSON lines"]),
        ("not json\n", ["not a JSON object"]),
        ("[" * 100_000 + "\n", ["not a JSON object"]),
        ('{"ts": 1767600000, "status": 200}\n', ["missing column latency_ms"]),
        ('{"ts": 1, "ts": 2, "status": 200, "latency_ms": 1}\n', ["a column twice", "ts"]),
        ('{"ts": 1767600000, "status": "200", "latency_ms": 1}\n', ["line 1: status is not"]),
        ('{"ts": 1767600000, "status": 200, "latency_ms": true}\n', ["line 1: latency_ms is not"]),
        ('{"ts": 1767600000, "status": 200, "latency_ms": 1e400}\n', ["latency_ms is not"]),
        ('{"ts": [1], "status": 200, "latency_ms": 1}\n', ["ts is not a time"]),
        ('{"ts": 1767600000, "status": 200, "latency_ms": 1}\nbroken\n', ["1 row cannot be read"]),
        ('{"ts": 1767600000, "status": 200, "latency_ms": 1}\n{}\n', ["1 row cannot be read"]),
    ],
)
def test_json_lines(write_log, content, words):
    text = refusal(write_log(content, name="log.jsonl"))
    for word in words:
        assert word in text


def test_several_bad_rows_are_counted_and_the_first_quoted(write_log):
    text = HEAD + ROW * 3 + "2026-01-05T09:00:00Z,999,1\n" * 5 + "a,b\n" + ROW + "x,200,1\n"
    said = refusal(write_log(text))
    assert "7 rows cannot be read: line 5: status" in said
    assert said.count("999") == 3
    assert "expected at most 0 (--max-bad-rows)" in said


def test_bad_rows_can_be_tolerated_and_are_counted(write_log):
    text = HEAD + ROW * 3 + "2026-01-05T09:00:00Z,999,1\n" + "a,b\n"
    [entry] = harvest([write_log(text)], options=Options(max_bad_rows=2)).sources
    assert (entry["rows"], entry["bad_rows"]) == (3, 2)
    assert "2 rows cannot be read" in refusal(write_log(text), max_bad_rows=1)
    variants = HEAD.replace("\n", ",variant\n") + "".join(
        f"2026-01-05T09:00:00Z,200,1,{v}\n" for v in ("control", "blue", "shadow")
    )
    [entry] = harvest([write_log(variants)], options=Options(max_bad_rows=1)).sources
    assert (entry["rows"], entry["bad_rows"]) == (1, 1)
    assert [f["rows"] for f in entry["filters"] if f["text"] == "variant=shadow"] == [1]


def test_bad_rows_of_several_files_name_their_file(write_log):
    good = write_log(HEAD + ROW, name="a.csv")
    bad = write_log(HEAD + "x,200,1\n", name="b.csv")
    assert "b.csv line 2: ts is not a time" in refusal(bad, good)


def test_an_unfinished_last_line_is_no_row(write_log):
    text = HEAD + ROW + "2026-01-05T09:00:01Z,200,12"
    h = harvest([write_log(text + "50")])
    [entry] = h.sources
    assert (entry["rows"], entry["unterminated"]) == (1, 1)
    assert entry["bytes"] == len(HEAD + ROW)
    packed = write_log(gzip.compress(text.encode()), name="log.csv.gz")
    [entry] = harvest([packed]).sources
    assert (entry["rows"], entry["unterminated"]) == (1, 1)
    assert entry["bytes"] == packed.stat().st_size


def test_damaged_gzip(write_log):
    packed = gzip.compress(csv_text(rows_of(500)).encode())
    assert "truncated gzip" in refusal(write_log(packed[:-200], name="a.csv.gz"))
    assert "damaged gzip" in refusal(write_log(b"no gzip at all", name="a.csv.gz"))
    broken = packed[:50] + bytes([packed[50] ^ 255]) + packed[51:]
    assert "gzip" in refusal(write_log(broken, name="a.csv.gz"))
    assert "empty file" in refusal(write_log(gzip.compress(b""), name="a.csv.gz"))
    assert "Parquet compresses itself" in refusal(write_log(packed, name="a.parquet.gz"))


def test_a_gzip_bomb_is_refused(write_log, monkeypatch):
    monkeypatch.setattr(source_module, "MAX_UNPACKED", 1000)
    packed = gzip.compress(csv_text(rows_of(500)).encode())
    assert "unpacks to too much" in refusal(write_log(packed, name="a.csv.gz"))


def test_parquet(tmp_path, write_log):
    def parquet(query):
        path = tmp_path / "a.parquet"
        duckdb.connect().execute(f"COPY ({query}) TO '{path}'")
        return path

    row = "TIMESTAMPTZ '2026-01-05 09:00:00+00' AS ts, 200 AS status, 1.5 AS latency_ms"
    assert harvest([parquet(f"SELECT {row}")]).perf["count"] == 1
    naive = "TIMESTAMP '2026-01-05 09:00:00' AS ts, 200 AS status, 1.5 AS latency_ms"
    assert "1 row cannot be read" in refusal(parquet(f"SELECT {naive}"))
    seoul = harvest([parquet(f"SELECT {naive}")], options=Options(assume_tz="Asia/Seoul"))
    assert seoul.since == to_ms(START) - 9 * 3_600_000
    assert "not a column of numbers" in refusal(
        parquet(f"SELECT * REPLACE (true AS latency_ms) FROM (SELECT {row})")
    )
    assert "missing column status" in refusal(parquet("SELECT now() AS ts, 1 AS latency_ms"))
    assert "cannot be read" in refusal(write_log(b"PAR1 nothing", name="b.parquet"))


def test_clock_changes(write_log):
    zone = {"assume_tz": "America/New_York"}
    skipped = write_log(HEAD + "2026-03-08 02:30:00,200,1\n")
    assert "clock change skips or repeats" in refusal(skipped, **zone)
    twice = write_log(HEAD + "2026-11-01 01:30:00,200,1\n")
    assert "clock change skips or repeats" in refusal(twice, **zone)
    clear = write_log(HEAD + "2026-03-08 03:00:00,200,1\n")
    assert harvest([clear], options=Options(**zone)).perf["count"] == 1
    assert "unknown time zone" in refusal_of_options(assume_tz="Mars/Olympus")
    assert "unknown time zone" in refusal_of_options(assume_tz="../../etc/passwd")
    assert "unknown time zone" in refusal_of_options(assume_tz=7)


def refusal_of_options(**options):
    with pytest.raises(UsageError) as caught:
        Options(**options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window_sec": 5}, "window_sec: out of range; found 5; expected 10 to 86,400"),
        ({"window_sec": 301}, "not a whole number of sub-buckets"),
        ({"window_sec": 300.0}, "wrong type"),
        ({"lag_sec": True}, "wrong type"),
        ({"guardband_minutes": float("nan")}, "out of range"),
        ({"guardband_minutes": "10"}, "wrong type"),
        ({"max_bad_rows": MAX_BAD_ROWS + 1}, "out of range"),
        ({"since": 5, "until": 5}, "since is not before until"),
        ({"filters": ("route",)}, "not a filter"),
        ({"filters": ("status=5*",)}, "expected COLUMN=GLOB with a column of route, tenant"),
        ({"filters": (5,)}, "not a filter"),
        ({"filters": ("route=x",) * 101}, "too many filters"),
    ],
)
def test_impossible_options(options, words):
    assert words in refusal_of_options(**options)


def test_filters(write_log):
    assert split_filter("route=/a=b") == ("route", "/a=b")
    log = write_log(
        n=10, route=lambda i: f"/v1/{i}", tenant=lambda i: "it's [me]" if i < 3 else "t"
    )
    h = harvest([log], options=Options(filters=("tenant=it's ?me?", "route=/v1/[0-5]")))
    assert [f["rows"] for f in h.sources[0]["filters"]] == [3, 3]
    assert h.perf["count"] == 4


def test_rows_from_the_future(write_log):
    log = write_log(n=10)
    now = to_ms(START) + 9000
    harvest([log], now=now - 5000)
    with pytest.raises(LogError, match="rows from the future.*2026-01-05T09:00:09"):
        harvest([log], now=now - 5001)


def test_files_that_are_none(tmp_path, write_log):
    assert "No such file" in refusal(tmp_path / "nothing.csv")
    assert "Is a directory" in refusal(tmp_path) or "not a regular" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")
    assert "not a regular file" in refusal(tmp_path / "pipe.csv")
    with pytest.raises(LogError, match="not a file name"):
        harvest([tmp_path / "a\0b"])
    with pytest.raises(LogError, match="no file matches"):
        find(tmp_path / "none-*.csv")
    with pytest.raises(UsageError, match="not a glob"):
        find(tmp_path / "a**b/*.csv")


def test_too_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "MAX_FILES", 1)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(HEAD)
    with pytest.raises(LogError, match="too many files"):
        find(tmp_path / "*.csv")


@pytest.mark.parametrize(
    "name", ["a*.csv", "it's.csv", "[b].csv", "q?.csv", "한글 로그.csv", "x.log"]
)
def test_names_mean_nothing(write_log, name):
    write_log(HEAD + ROW * 5, name="a1.csv")
    [entry] = harvest([write_log(HEAD + ROW, name=name)]).sources
    assert (entry["name"], entry["rows"]) == (name, 1)


def test_a_link_to_a_log_is_read(write_log, tmp_path):
    (tmp_path / "current.csv").symlink_to(write_log(HEAD + ROW))
    assert harvest([tmp_path / "current.csv"]).sources[0]["name"] == "current.csv"


def test_a_temporary_folder_that_cannot_be_used(write_log, tmp_path, monkeypatch):
    log = write_log(HEAD + ROW)
    (tmp_path / "a[1]").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a[1]"))
    with pytest.raises(UsageError, match="TMPDIR"):
        harvest([log])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="TMPDIR"):
        harvest([log])


def test_a_log_that_grows_meanwhile(write_log, monkeypatch):
    log = write_log(n=50)
    size = log.stat().st_size
    original = source_module.Source.digest
    grown = []

    def digest(self):
        if not grown:
            with log.open("a") as stream:
                stream.write("2026-01-05T09:59:59Z,500,9\n2026-01-05T09:59:59Z,50")
            grown.append(1)
        return original(self)

    monkeypatch.setattr(source_module.Source, "digest", digest)
    h = harvest([log])
    # Read again from a copy, which has the new finished row.
    assert (h.perf["count"], h.sources[0]["unterminated"]) == (51, 1)
    assert h.sources[0]["bytes"] == size + len("2026-01-05T09:59:59Z,500,9\n")


@pytest.mark.slow
def test_a_log_under_a_writer(tmp_path):
    log = tmp_path / "busy.csv"
    lines = csv_text(rows_of(20_000)).splitlines(keepends=True)
    log.write_text("".join(lines[:5000]))
    done = threading.Event()

    def write():
        with log.open("a", buffering=700) as stream:
            for line in lines[5000:]:
                stream.write(line)
                if done.is_set():
                    return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = [harvest([log], limits=False) for _ in range(5)]
    finally:
        done.set()
        writer.join()
    for h in found:
        [entry] = h.sources
        assert entry["rows"] == log.read_bytes()[: entry["bytes"]].count(b"\n") - 1
        again = harvest([Given(log, entry["bytes"], entry["sha256"])], limits=False)
        assert combine(again, None, limits=False) == combine(h, None, limits=False)


def test_a_log_that_was_cut(write_log):
    log = write_log(n=50)
    size = log.stat().st_size
    [entry] = harvest([log]).sources
    given = Given(log, entry["bytes"], entry["sha256"])
    data = log.read_bytes()
    log.write_bytes(data.replace(b"200", b"201", 1))
    with pytest.raises(LogError, match="was changed since the evidence was made"):
        harvest([given])
    log.write_bytes(data[: size // 2])
    with pytest.raises(LogError, match="shorter than the evidence says"):
        harvest([given])
    log.write_bytes(data)
    assert harvest([given]).sources[0]["sha256"] == entry["sha256"]
    with pytest.raises(LogError, match="empty file"):
        harvest([Given(log, 0)])


def _evidence(h):
    return combine(h, None) | {
        "meta": {"window": h.perf["window"]},
        "witness": {"sources": h.sources, "harvest": h.options.as_block()},
    }


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ({"name": "../reqlog.csv"}, EvidenceError, "not a plain file name"),
        ({"name": ".."}, EvidenceError, "not a plain file name"),
        ({"name": "a\0b"}, EvidenceError, "not a plain file name"),
        ({"name": 5}, EvidenceError, "not a plain file name"),
        ({"name": "x" * 300}, EvidenceError, "not a plain file name"),
        ({"name": "/etc/passwd"}, EvidenceError, "not a plain file name"),
        ({"name": "outside.csv"}, EvidenceError, "leaves the log folder"),
        ({"name": "loop.csv"}, DecisionOSError, "loop.csv"),
        ({"name": "none.csv"}, LogError, "No such file"),
        ({"role": "admin"}, EvidenceError, "not a role"),
        ({"bytes": "9"}, EvidenceError, "not a length"),
        ({"bytes": True}, EvidenceError, "not a length"),
        ({"bytes": -1}, EvidenceError, "not a length"),
        ({"bytes": 10**15}, LogError, "shorter than the evidence says"),
        ({"sha256": None}, LogError, "states no digest"),
        ({"sha256": 5}, EvidenceError, "not a digest"),
        ({"sha256": "한"}, LogError, "was changed"),
    ],
)
def test_sources_that_evidence_must_not_name(write_log, tmp_path, source, error, words):
    log = write_log(n=50)
    h = harvest([log])
    (tmp_path / "outside.csv").symlink_to("/etc/passwd")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    with pytest.raises(error, match=words):
        recompute([h.sources[0] | source], tmp_path, _evidence(h), limits=False, exact=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"witness": {"harvest": [1]}}, "not an object"),
        ({"witness": {"harvest": {"threads": 1}}}, "unknown harvest options"),
        ({"witness": {"harvest": {"filters": "x"}}}, "unknown harvest options"),
        ({"witness": {"harvest": {"window_sec": -1}}}, "witness.harvest.window_sec: out of range"),
        ({"canary": {"step_start": "soon"}}, "canary.step_start: not a time"),
        ({"canary": {"step_start": "0001-01-01T00:00:00+23:00"}}, "canary.step_start: not a time"),
        ({"meta": {"window": None}}, "says no time to compare logs over"),
        ({"meta": 5}, "says no time to compare logs over"),
        (
            {"meta": {"window": {"start": "2026-01-05T09:00:00Z", "end": "2026-01-05T09:00:00Z"}}},
            "says no",
        ),
    ],
)
def test_evidence_that_does_not_say_how(write_log, tmp_path, change, words):
    h = harvest([write_log(n=50)])
    with pytest.raises(EvidenceError, match=words):
        recompute(
            [{"role": "peer", "name": "reqlog.csv"}],
            tmp_path,
            _evidence(h) | change,
            limits=False,
            exact=False,
        )


def test_too_many_sources(tmp_path):
    with pytest.raises(EvidenceError, match="too many sources"):
        recompute([{}] * 1001, tmp_path, {}, limits=False, exact=True)


def test_a_peer_is_cut_to_the_window_of_the_evidence(write_log, tmp_path):
    h = harvest([write_log(n=600, step_ms=1000)])
    write_log(name="lb.csv", n=2000, step_ms=1000)
    own = recompute(
        [{"role": "peer", "name": "lb.csv"}], tmp_path, _evidence(h), limits=True, exact=False
    ).blocks
    assert own["perf"]["count"] == 600
    assert own["perf"]["window"] == h.perf["window"]
    assert own["anomaly"] == h.anomaly


@pytest.mark.slow
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.binary(max_size=200), st.sampled_from(["csv", "jsonl", "csv.gz", "parquet"]), st.booleans()
)
def test_no_bytes_give_a_traceback(tmp_path, data, ending, headed):
    path = tmp_path / f"log.{ending}"
    start = {"csv": HEAD + ROW, "jsonl": '{"ts": 1, "status": 200, "latency_ms": 1}\n'}
    path.write_bytes((start.get(ending, "").encode() if headed else b"") + data)
    try:
        h = harvest([path], limits=False)
    except DecisionOSError as fault:
        assert "\n" not in str(fault)
    else:
        assert h.perf["count"] >= 1


def test_too_little_memory(write_log, monkeypatch):
    monkeypatch.setattr(engine_module, "MEMORY_MB", 1)
    with pytest.raises(LogError, match="too large for the memory"):
        harvest([write_log(n=5000)])


def test_too_little_room_and_a_log_cut_while_it_is_read(write_log, tmp_path):
    log = write_log(n=50)
    with pytest.raises(LogError, match="no copy of it can be made"):
        source_module.open_source(log, tmp_path / "nowhere", 0, copy=True)
    opened = source_module.open_source(log, tmp_path, 0)
    log.write_text(HEAD)
    with pytest.raises(LogError, match="was cut while it was read"):
        opened.digest()
    opened.close()
