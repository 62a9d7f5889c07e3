"""Real Redis servers, each a process of one test with its own folder and settings.

The name is not `redis`: this folder stands on the path when its tests are collected, and would hide
the package.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

HONEST = {
    "appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction",
    "repl-diskless-sync-delay": "0",  # by default a replica waits five seconds for others
}  # fmt: skip


class Server:
    """A server on a port of loopback; its data outlives it, as a disk does."""

    def __init__(self, folder, **config):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.config = HONEST | {name.replace("_", "-"): value for name, value in config.items()}
        self.process = None
        self.port = _free_port()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def start(self):
        options = [
            word for name, value in self.config.items() for word in (f"--{name}", *value.split(" "))
        ]
        with (self.folder / "out").open("ab") as out:
            self.process = subprocess.Popen(
                ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                 "--dir", self.folder, "--enable-debug-command", "yes", *options],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        until = time.monotonic() + 30
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "out").read_text()[-1000:]
            assert time.monotonic() < until
            time.sleep(0.02)
        return self

    def answers(self):
        """Whether it takes commands: also one that wants a password does."""
        import redis  # not whenever pytest starts

        try:
            self("PING")
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False
        return True

    def __call__(self, *command):
        """Run a command as somebody at the console would."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        with redis.Redis(
            port=self.port, protocol=2, decode_responses=True, encoding_errors="backslashreplace",
            retry=Retry(NoBackoff(), 0),
        ) as client:  # fmt: skip
            return client.execute_command(*command)

    def info(self, field):
        return self("INFO")[field]

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None


class Forwarder:
    """A TCP port that leads to whatever it is told to, or nowhere."""

    def __init__(self):
        self.target = None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.pairs = []
        self.drop_answers = 0
        """How many parcels of answers are swallowed from now on."""
        self.accepting = threading.Thread(target=self._accept)
        self.accepting.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def lead(self, port, *, cut=True):
        """Lead new connections there, and end the old ones unless they may go on."""
        self.target = port
        if cut:
            self.cut()

    def cut(self):
        for one in [end for pair in self.pairs for end in pair]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        workers = []
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                break
            try:
                far = socket.create_connection(("127.0.0.1", self.target or 1))
            except OSError:
                near.close()
                continue
            self.pairs.append((near, far))
            for ends in ((near, far), (far, near)):
                workers.append(threading.Thread(target=self._pump, args=ends))
                workers[-1].start()
        for worker in workers:
            worker.join()

    def _pump(self, source, sink):
        answers = any(source is far for _, far in self.pairs)
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if answers and self.drop_answers:
                    self.drop_answers -= 1
                else:
                    sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()
        self.accepting.join()
        for one in [end for pair in self.pairs for end in pair]:
            one.close()


def _free_port():
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        if port < 55_000:  # a cluster's bus is 10,000 above
            return port


def require_program():
    if shutil.which("redis-server") is None:
        say = pytest.fail if os.environ.get("REQUIRE_SERVICES") == "1" else pytest.skip
        say("redis-server not installed: make services")


@pytest.fixture
def redis_server(tmp_path):
    """A function that starts a server: ``redis_server(appendonly="no", …)``; they end with the test."""
    require_program()
    servers = []

    def start(**config):
        servers.append(Server(tmp_path / f"redis-{len(servers)}", **config))
        return servers[-1].start()

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def forwarder():
    made = Forwarder()
    yield made
    made.close()
