"""The gateway that tests share: one for all, gone with the last of them, and asked for by name."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from services.ceph import in_use, require_programs

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
NEEDS_IT = """
def test_it(ceph):
    raise AssertionError("there is no gateway")
"""


@pytest.mark.parametrize(("required", "outcome"), [("", "skipped"), ("1", "errors")])
def test_without_the_programs_it_says_where_they_come_from(
    pytester, monkeypatch, required, outcome
):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("REQUIRE_SERVICES", required)
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent))
    pytester.makepyfile(NEEDS_IT)
    done = pytester.runpytest_subprocess("-p", "services.ceph", "-rs", "-p", "no:cacheprovider")
    done.assert_outcomes(**{outcome: 1})
    assert "radosgw-admin not installed: make services" in done.stdout.str()


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def test_all_use_one_and_it_is_gone_with_the_last_even_a_killed_one(tmp_path):
    require_programs()
    command = [sys.executable, HERE / "ceph.py", tmp_path, "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            url = json.loads(other.stdout.readline())["url"]
            with in_use(tmp_path) as gateway:
                assert gateway.url == url
                os.kill(other.pid, signal.SIGKILL)
                other.wait()
                assert listens(gateway.port)
        finally:
            other.kill()
    until = time.monotonic() + 60
    while listens(gateway.port) or (tmp_path / "run/mon").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not (tmp_path / "state.json").exists()
