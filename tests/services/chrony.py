"""Real chronyd processes on loopback, none of which ever touches this host's clock (``-x``)."""

import contextlib
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

PROGRAMS = ("chronyd", "chronyc")
PLACES = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin"
START_SEC = 30
ATTEMPTS = 3  # a port that was free may be taken by the time that a daemon binds it


class Chronyd:
    """A chronyd, and a folder with a ``chronyc`` that asks this one instead of the host's own."""

    def __init__(self, *lines, port=0):
        # Not pytest's folder: the names of Unix sockets are short.
        self._open = contextlib.ExitStack()
        self.folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="chrony-")))
        me = pwd.getpwuid(os.geteuid())
        os.chown(self.folder, -1, me.pw_gid)  # or chronyd makes no socket in it
        self.port = port
        self._socket = self.folder / "sock"
        conf = [*lines, f"port {port}", "cmdport 0", f"bindcmdaddress {self._socket}"]
        conf += [f"pidfile {self.folder}/pid", "bindaddress 127.0.0.1"]
        (self.folder / "conf").write_text("\n".join(conf) + "\n")
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        asks = shlex.join([which("chronyc"), "-h", str(self._socket)])
        (self.bin / "chronyc").write_text(f'#!/bin/sh\nexec {asks} "$@"\n')
        (self.bin / "chronyc").chmod(0o700)
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [which("chronyd"), "-x", "-U", "-d", "-u", me.pw_name, "-f", str(self.folder / "conf")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def chronyc(self, *command):
        return subprocess.run(
            [self.bin / "chronyc", "-n", "-c", *command],
            capture_output=True, text=True, timeout=START_SEC, check=False,
        )  # fmt: skip

    def runs(self):
        """Wait until it answers; False if it ended instead."""
        until = time.monotonic() + START_SEC
        while self.chronyc("tracking").returncode:
            if self._process.poll() is not None:
                return False
            if time.monotonic() > until:
                pytest.fail(f"chronyd does not answer: {(self.folder / 'log').read_text()}")
            time.sleep(0.02)
        return True

    def synchronised(self):
        """Wait until it follows its source, and has heard enough of it to be sure."""
        done = self.chronyc("waitsync", str(START_SEC * 20), "0", "1000", "0.05")
        assert done.returncode == 0, (self.folder / "log").read_text()
        return self

    def stop(self):
        self._process.terminate()
        self._process.wait(START_SEC)

    def close(self):
        self.stop()
        self._open.close()


def which(program):
    return shutil.which(program, path=PLACES)


def require_programs():
    missing = [name for name in PROGRAMS if which(name) is None]
    if missing:
        say = pytest.fail if os.environ.get("REQUIRE_SERVICES") == "1" else pytest.skip
        say(f"{', '.join(missing)} not installed: make services")


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("127.0.0.1", 0))
        return link.getsockname()[1]


@pytest.fixture(scope="session")
def chronyd():
    """A function that starts a chronyd with lines of configuration: ``chronyd(*lines, serves=…)``."""
    require_programs()
    with contextlib.ExitStack() as running:

        def start(*lines, serves=False):
            for _ in range(ATTEMPTS):
                daemon = Chronyd(*lines, port=free_port() if serves else 0)
                running.callback(daemon.close)
                if daemon.runs():
                    return daemon
            pytest.fail(f"chronyd does not start: {(daemon.folder / 'log').read_text()}")

        yield start


@pytest.fixture(scope="session")
def time_server(chronyd):
    """A chronyd that serves this host's time, as if it were a reference clock."""
    return chronyd("allow 127.0.0.1", "local stratum 1", serves=True)


@pytest.fixture(scope="session")
def follower(chronyd, time_server):
    """A chronyd that follows it."""
    return chronyd(follow(time_server.port)).synchronised()


def follow(port):
    """The line of configuration that follows a server on loopback, and quickly."""
    return f"server 127.0.0.1 port {port} iburst minpoll -6 maxpoll -6"
