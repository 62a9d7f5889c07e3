"""A real S3 server with Object Lock: Ceph's gateway on loopback, one for all workers of a run.

Whoever uses it holds a shared lock (flock) on one file. A guard process, which is the parent of the
daemons, waits for the exclusive lock: it gets it when the last user has ended, however that ended,
and then stops everything. The monitor, one OSD in memory and the gateway take about a second.

    python tests/services/ceph.py FOLDER [SECONDS]     starts one to play with, and says where
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import NamedTuple

import pytest

PROGRAMS = (
    "ceph",
    "ceph-authtool",
    "ceph-mon",
    "ceph-osd",
    "monmaptool",
    "radosgw",
    "radosgw-admin",
)
START_SEC = 90
ATTEMPTS = 3  # a port that was free may be taken by the time that a daemon binds it

CONF = """\
[global]
fsid = {fsid}
keyring = {folder}/keyring
mon host = v2:127.0.0.1:{mon_port}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
setuser match path =
# One copy in one placement group: nothing to spread, nothing to wait for.
mon allow pool size one = true
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon max pg per osd = 1000
osd objectstore = memstore
memstore device bytes = 1073741824
# Each command to the monitor waits for a proposal, by default up to a second.
paxos propose interval = 0.02
paxos min wait = 0.01
# Sockets in long folder names do not work, and nobody asks there.
admin socket =
pid file =
run dir = {folder}
log file = {folder}/log/$name.log
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
[client.rgw]
rgw data = {folder}/rgw
# Without tcp_nodelay each answer with a body waits 40 ms for an acknowledgement.
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw enable ops log = false
rgw enable usage log = false
# Each such object is one more to make at the start.
rgw gc max objs = 1
rgw lc max objs = 1
rgw objexp hints num shards = 1
rgw usage max shards = 1
rgw data log num shards = 1
rgw md log max shards = 1
rgw run sync thread = false
rgw enable quota threads = false
"""


class User(NamedTuple):
    """Credentials of one user of the gateway; the tests' own words, no secret."""

    access_key: str
    secret_key: str


class Gateway(NamedTuple):
    """A gateway that runs: its address, and two users: one that owns the buckets, one that does not."""

    url: str
    port: int
    owner: User = User("owner", "owner-secret-0123456789")
    guest: User = User("guest", "guest-secret-0123456789")


def require_programs():
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        say = pytest.fail if os.environ.get("REQUIRE_SERVICES") == "1" else pytest.skip
        say(f"{', '.join(missing)} not installed: make services")


@pytest.fixture(scope="session")
def ceph(tmp_path_factory):
    """The gateway. Without its programs the test is skipped; with REQUIRE_SERVICES=1 it fails."""
    require_programs()
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with in_use(shared / "ceph") as gateway:
        yield gateway


@contextlib.contextmanager
def in_use(folder):
    """Use the gateway of ``folder``; it is started if it does not run, and runs meanwhile."""
    folder.mkdir(exist_ok=True)
    with (folder / "users.lock").open("a") as users:
        with (folder / "start.lock").open("a") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)  # waits for a guard that is just stopping
            state = folder / "state.json"
            if not state.exists():
                _start_guard(folder)
            gateway = Gateway(**json.loads(state.read_text()))
        yield gateway
    # The guard is woken by the closing of the file, and stops the daemons if we were the last.


def _start_guard(folder):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COVERAGE_", "COV_"))}
    done = subprocess.run(
        [sys.executable, __file__, "--guard", str(folder)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_SEC * ATTEMPTS,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"Ceph's gateway does not start: {done.stderr[-3000:]}")


# In the guard


def guard(folder):
    """Start the daemons, tell that they run, wait until nobody uses them, stop them."""
    # The lock is opened here and not inherited: an inherited one would be the user's own.
    users = (folder / "users.lock").open("a")
    reading, writing = os.pipe()
    if os.fork():  # the starter waits for the word of its child, and leaves
        os.close(writing)
        with os.fdopen(reading) as pipe:
            said = pipe.read()
        if said != "ready":
            sys.stderr.write(said)
        os._exit(0 if said == "ready" else 1)
    os.close(reading)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the users is what counts
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence, descriptor)
    cluster, said = None, "ready"
    for _ in range(ATTEMPTS):
        cluster = Cluster(folder / "run")
        try:
            cluster.start()
        except Exception as fault:  # noqa: BLE001 - whatever it is, the one who waits shall read it
            said = f"{fault}\n{cluster.last_words()}"
            cluster.stop()
        else:
            said = "ready"
            state = {"url": f"http://127.0.0.1:{cluster.port}", "port": cluster.port}
            (folder / "state.tmp").write_text(json.dumps(state))
            (folder / "state.tmp").rename(folder / "state.json")
            break
    with os.fdopen(writing, "w") as pipe:
        pipe.write(said)
    if said == "ready":
        fcntl.flock(users, fcntl.LOCK_EX)
        (folder / "state.json").unlink(missing_ok=True)
        cluster.stop()
    os._exit(0)


class Cluster:
    """One monitor, one OSD that keeps everything in memory, one gateway."""

    def __init__(self, folder):
        shutil.rmtree(folder, ignore_errors=True)
        self.folder = folder
        for name in ("mon", "osd", "rgw", "log"):
            (folder / name).mkdir(parents=True)
        self.mon_port, self.port = _free_ports(2)
        self.fsid = str(uuid.uuid4())
        self.environment = {**os.environ, "CEPH_CONF": f"{folder}/ceph.conf"}
        self.daemons = []
        (folder / "ceph.conf").write_text(
            CONF.format(folder=folder, fsid=self.fsid, mon_port=self.mon_port, port=self.port)
        )

    def start(self):
        ring, mons = self.folder / "keyring", self.folder / "monmap"
        entities = {
            "mon.": {"mon": "allow *"},
            "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
            "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
            "client.rgw": {"mon": "allow *", "osd": "allow *"},
        }
        for number, (name, rights) in enumerate(entities.items()):
            caps = [word for daemon, cap in rights.items() for word in ("--cap", daemon, cap)]
            create = () if number else ("--create-keyring",)
            self.run("ceph-authtool", *create, ring, "--gen-key", "-n", name, *caps)
        address = f"[v2:127.0.0.1:{self.mon_port}]"
        self.run("monmaptool", "--create", "--fsid", self.fsid, "--addv", "a", address, mons)
        # The monitor takes all keys of the ring over: nothing to import later.
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", mons, "--keyring", ring)
        self.daemon("ceph-mon", "-f", "-i", "a")
        osd = str(uuid.uuid4())
        self.run("ceph", "-n", "client.admin", "--connect-timeout", 20, "osd", "new", osd, 0)
        self.run("ceph-osd", "-i", 0, "--mkfs", "--osd-uuid", osd)
        self.daemon("ceph-osd", "-f", "-i", 0)
        self.daemon("radosgw", "-f", "-n", "client.rgw")
        self.wait()
        for user, name in ((Gateway("", 0).owner, "owner"), (Gateway("", 0).guest, "guest")):
            self.run(
                "radosgw-admin", "-n", "client.rgw", "user", "create", f"--uid={name}",
                f"--display-name={name}", f"--access-key={user.access_key}",
                f"--secret-key={user.secret_key}",
            )  # fmt: skip

    def run(self, *command):
        done = subprocess.run(
            [*map(str, command)], env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr[-1000:]}")

    def daemon(self, *command):
        with (self.folder / "log" / f"{command[0]}.out").open("ab") as out:
            daemon = subprocess.Popen(
                [*map(str, command)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.daemons.append(daemon)

    def wait(self):
        until = time.monotonic() + START_SEC / 2
        while True:
            ended = [daemon.args[0] for daemon in self.daemons if daemon.poll() is not None]
            if ended:
                raise RuntimeError(f"{', '.join(ended)} ended")
            address = f"http://127.0.0.1:{self.port}/"
            with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
                return
            if time.monotonic() > until:
                raise RuntimeError("no answer")
            time.sleep(0.05)

    def stop(self):
        for daemon in self.daemons:  # all data is in memory, and nobody wants it
            daemon.kill()
        for daemon in self.daemons:
            daemon.wait()
        for name in ("mon", "osd", "rgw"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def last_words(self):
        return "\n".join(
            f"{path.name}: {line}"
            for path in sorted((self.folder / "log").iterdir())
            for line in path.read_text(errors="replace").splitlines()[-5:]
        )


def _free_ports(count):
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]


if __name__ == "__main__":
    if sys.argv[1] == "--guard":
        guard(Path(sys.argv[2]))
    else:
        with in_use(Path(sys.argv[1]).resolve()) as gateway:
            sys.stdout.write(json.dumps({"url": gateway.url, **gateway.owner._asdict()}) + "\n")
            sys.stdout.flush()
            time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 3600)
