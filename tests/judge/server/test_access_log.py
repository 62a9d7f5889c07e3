"""The access log: whole rows, whatever becomes of its file, and what a harvest makes of it."""

import json
import os
import shutil
import threading
import time

import pytest
from judge_host import ask, until, workspace

from pytest_decisionos.cli.main import run
from pytest_decisionos.errors import UsageError
from pytest_decisionos.judge.server import access_log as module
from pytest_decisionos.judge.server.access_log import HEADER, AccessLog, Row
from pytest_decisionos.judge.server.options import ServeOptions
from pytest_decisionos.settings import Settings

HEAD = HEADER.decode()


@pytest.fixture
def dropped():
    return []


@pytest.fixture
def log(tmp_path, dropped, monkeypatch):
    monkeypatch.setattr(module, "FLUSH_SEC", 0.0)
    made = AccessLog(tmp_path / "log/judgelog.csv", dropped.append)
    yield made
    made.close()


def row(i=0, **more):
    fields = {
        "ended": 1_768_478_400.0 + i, "status": 200, "latency_ms": 1.5, "signature_error": False,
        "route": "/judge", "reason": "",
    }  # fmt: skip
    return Row(**(fields | more))


def text(log):
    return log._path.read_text() if log._path.exists() else ""


def written(log, count):
    """Wait until so many rows are in the file."""
    until(lambda: text(log).count("\n") == count + 1)


def test_a_row_is_the_judgelog_form(log):
    log.put(row(0.124, status=401, signature_error=True, reason="replayed", latency_ms=1.23456))
    written(log, 1)
    assert text(log) == HEAD + "2026-01-15T12:00:00.124Z,401,1.235,true,/judge,replayed\n"
    assert HEAD.startswith("ts,status,latency_ms,signature_error,route")


def test_renamed_it_begins_a_new_file(log):
    log.put(row())
    written(log, 1)
    log._path.rename(log._path.with_suffix(".1"))
    for i in range(3):
        log.put(row(i))
    written(log, 3)
    assert text(log).startswith(HEAD)
    assert log._path.with_suffix(".1").read_text().count("\n") == 2


def test_copied_and_truncated_it_begins_the_same_one_again(log):
    for i in range(3):
        log.put(row(i))
    written(log, 3)
    shutil.copy(log._path, log._path.with_suffix(".1"))
    os.truncate(log._path, 0)
    log.put(row(9))
    written(log, 1)
    assert text(log).startswith(HEAD)
    assert "\0" not in text(log)


def test_with_its_folder_gone_it_makes_it_again(log):
    log.put(row())
    written(log, 1)
    shutil.rmtree(log._path.parent)
    log.put(row())
    written(log, 1)


def test_processes_share_it_and_its_header_stands_once(tmp_path, dropped):
    path = tmp_path / "judgelog.csv"
    several = [AccessLog(path, dropped.append) for _ in range(4)]
    threads = [
        threading.Thread(target=lambda log=log: [log.put(row(i)) for i in range(500)])
        for log in several
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in several:
        log.close()
    lines = path.read_text().splitlines()
    assert len(lines) == 2001
    assert lines[0] + "\n" == HEAD
    assert HEAD.strip() not in lines[1:]
    assert not dropped


def test_rotated_again_and_again_no_row_is_lost(log, dropped):
    stop = threading.Event()
    kept = []

    def rotate():
        while not stop.is_set():
            target = log._path.with_suffix(f".{len(kept)}")
            if log._path.exists():
                log._path.rename(target)
                kept.append(target)
            time.sleep(0.002)

    thread = threading.Thread(target=rotate)
    thread.start()
    for i in range(2000):
        log.put(row(i))
        if i % 100 == 0:
            time.sleep(0.005)
    until(lambda: log._queue.empty())
    log.close()
    stop.set()
    thread.join()
    texts = [path.read_text() for path in [*kept, log._path] if path.exists()]
    assert all(not text or text.startswith(HEAD) for text in texts)
    assert sum(text.count("/judge") for text in texts) == 2000
    assert not dropped


def test_a_disk_that_fails_drops_and_counts_and_is_told(log, dropped, monkeypatch):
    log.put(row())
    written(log, 1)
    before = text(log)
    real = os.write
    monkeypatch.setattr(module.os, "write", lambda fd, data: real(fd, data[:7]))
    log.put(row())
    until(lambda: dropped == [1])
    assert text(log) == before  # not half a row
    until(lambda: "no space left" in (log.fault() or ""))
    monkeypatch.setattr(module.os, "write", real)
    log.put(row())
    written(log, 2)
    until(lambda: log.fault() is None)


def test_it_follows_no_link(tmp_path, dropped):
    (tmp_path / "judgelog.csv").symlink_to(tmp_path / "elsewhere")
    log = AccessLog(tmp_path / "judgelog.csv", dropped.append)
    log.put(row())
    until(lambda: dropped == [1])
    assert "judgelog.csv" in log.fault()
    log.close()
    assert not (tmp_path / "elsewhere").exists()


OTHERS = "ts,status,latency_ms,signature_error,route,tenant,variant,release\n2026-01-15,200\n"


@pytest.mark.parametrize("found", [OTHERS, HEAD[:-1], HEAD[:20], "\n", "\0"])
def test_a_log_of_somebody_else_is_not_begun_upon(tmp_path, dropped, found):
    path = tmp_path / "judgelog.csv"
    path.write_text(found)
    with pytest.raises(UsageError, match=r"judgelog\.csv: .*another header"):
        AccessLog(path, dropped.append)
    assert path.read_text() == found


def test_a_log_of_somebody_else_that_comes_later_is_left_as_it_is(log, dropped):
    log.put(row())
    written(log, 1)
    copy = log._path.with_suffix(".copy")
    copy.write_text(OTHERS)
    copy.replace(log._path)
    assert "another header" in log.fault()
    log.put(row())
    until(lambda: dropped == [1])
    assert "another header" in log._fault
    assert log._path.read_text() == OTHERS
    log._path.write_text(OTHERS)  # the same, into the file that is open
    log.put(row())
    until(lambda: dropped == [1, 1])
    assert log._path.read_text() == OTHERS
    log._path.unlink()
    log.put(row(7))
    written(log, 1)
    until(lambda: log.fault() is None)


@pytest.mark.parametrize(
    ("witness", "name"),
    [("log", "judge-j1.csv"), ("log/../log", "judge-j1.csv"), ("link", "judge-j1.csv"), ("logs", "judgelog.csv")],
)  # fmt: skip
def test_beside_the_logs_that_it_judges_by_it_has_a_name_of_its_own(tmp_path, witness, name):
    (tmp_path / "log").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "log")
    options = ServeOptions(
        judge="j1", key=tmp_path / "k", gate=tmp_path / "g", root=tmp_path,
        witness_root=tmp_path / witness, settings=Settings(),
    )  # fmt: skip
    assert options.access_log == tmp_path / "log" / name


def test_its_traffic_is_not_written_into_the_log_that_it_judges_by(opened, tmp_path):
    host = workspace(tmp_path)
    copy = host.root / "log/judgelog.csv"
    shutil.copytree(host.logs, copy.parent)
    before = copy.read_bytes()
    judge = opened(own=host, witness_root=copy.parent)
    body = host.question()
    assert ask(judge.app, "POST", b"/judge", host.signed(body), body)[0] == 200
    own = host.root / "log/judge-j1.csv"
    until(lambda: own.exists() and ",/judge," in own.read_text())
    assert copy.read_bytes() == before


def test_a_full_disk_is_told_before_a_row_is_lost(log, monkeypatch):
    class Full:
        f_bavail = 0

    assert log.fault() is None
    monkeypatch.setattr(module.os, "statvfs", lambda path: Full)
    assert "no space left" in log.fault()


def test_a_request_never_waits_for_it(tmp_path, dropped, monkeypatch):
    monkeypatch.setattr(module, "QUEUE", 10)
    log = AccessLog(tmp_path / "judgelog.csv", dropped.append)
    hold, inside = threading.Event(), threading.Event()
    real = log._write

    def slow(lines):
        inside.set()
        hold.wait(30)
        real(lines)

    monkeypatch.setattr(log, "_write", slow)
    log.put(row())
    assert inside.wait(30)
    for i in range(25):
        log.put(row(i))
    assert len(dropped) == 15
    hold.set()
    log.close()
    assert (tmp_path / "judgelog.csv").read_text().count("\n") == 12


@pytest.mark.slow
def test_ending_it_does_not_wait_for_ever(tmp_path, dropped, monkeypatch):
    monkeypatch.setattr(module, "QUEUE", 1)
    log = AccessLog(tmp_path / "judgelog.csv", dropped.append)
    hold, inside = threading.Event(), threading.Event()
    monkeypatch.setattr(log, "_write", lambda lines: (inside.set(), hold.wait(30)))
    monkeypatch.setattr(log._thread, "join", lambda timeout: None)
    log.put(row())
    assert inside.wait(30)
    log.put(row())
    log.close()
    hold.set()
    until(lambda: log._queue.empty())
    log._queue.put(None)
    until(lambda: not log._thread.is_alive())


def test_its_own_traffic_is_harvested_without_the_probes(judge, tmp_path, capfd):
    body = judge.host.question()
    path = judge.host.root / "log/judgelog.csv"
    for _ in range(10):
        assert ask(judge.app, "POST", b"/judge", judge.host.signed(body), body)[0] == 200
        assert ask(judge.app)[0] in {200, 503}
        ask(judge.app, target=b"/healthz")
        ask(judge.app, target=b"/metrics")
    for _ in range(2):
        ask(judge.app, "POST", b"/judge", judge.host.signed(body), b"changed")
    until(lambda: path.exists() and path.read_text().count("\n") == 43)
    for line in path.read_text().splitlines():
        assert "hex:" not in line
        assert "nonce" not in line
    out = tmp_path / "perf_judge.json"
    # What `python -m jobs.evidence_harvest_judgelog` runs.
    from pytest_decisionos.cli.main import cli

    arguments = [
        "evidence",
        "harvest",
        "--role",
        "judgelog",
        "--csv",
        str(path),
        "--out",
        str(out),
        "--lag",
        "0",
    ]
    assert run(cli, arguments) == 0, capfd.readouterr().err
    block = json.loads(out.read_text())
    block = block.get("perf_judge", block)
    assert block["count"] == 12
    assert block["signature_errors"] == 2
    assert block["availability"] == 1.0
    assert block["errors"] == 0
