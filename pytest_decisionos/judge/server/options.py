"""What a judge server is told at its start; its workers get the same."""

from __future__ import annotations

import ipaddress
import os.path
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_decisionos.settings import Settings


@dataclass(frozen=True)
class Tls:
    """Files of TLS, all PEM; with ``client_ca`` clients must show a certificate of it."""

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True)
class ServeOptions:
    """What a judge server is told.

    Attributes:
        judge: its name.
        key: its private key.
        gate: gate.yaml, whose target is the only one that it judges for.
        root: root folder: replay store and access log lie in it.
        witness_root: folder of its logs; nothing else is opened.
        settings: what the environment says: ring, replay store, clock SLA, scopes.
        host: name or address that it listens on.
        port: 0 takes a free one.
        workers: processes.
        public_url: what clients ask for and sign, without ``/judge``; None: this very address.
        peer: name of a log of its own in ``witness_root``; None: the logs that evidence names.
        max_body: bytes of a request's body.
        concurrency: questions that one worker has in work at a time.
        timeout_sec: how long a body may take to come, and an answer to be made.
        tls: None speaks plain HTTP.
        shared: private folder that workers share; None where there is one only.
    """

    judge: str
    key: Path
    gate: Path
    root: Path
    witness_root: Path
    settings: Settings
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    public_url: str | None = None
    peer: str | None = None
    max_body: int = 8 * 1024 * 1024
    concurrency: int = 32
    timeout_sec: float = 10.0
    tls: Tls | None = None
    shared: Path | None = None

    @property
    def access_log(self) -> Path:
        """Where its own traffic is written.

        In the folder of the logs that it judges by, ``judgelog.csv`` is a log that evidence names,
        so there its own has a name that no evidence names unless it is about this judge.
        """
        folder = self.root / "log"
        shared = os.path.realpath(folder) == os.path.realpath(self.witness_root)
        return folder / (f"judge-{self.judge}.csv" if shared else "judgelog.csv")

    @property
    def loopback(self) -> bool:
        """Whether only processes of this host can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        """The address that it listens on, as its clients spell it: without the usual port."""
        return f"{'https' if self.tls else 'http'}://{self._name}{self._port}"

    @property
    def hosts(self) -> frozenset[str]:
        """The ``Host`` headers that name this very server: its address, and this host's own names."""
        names = {self._name, "localhost", "127.0.0.1", "[::1]"}
        ports = {self._port, f":{self.port}"}
        return frozenset(f"{name}{port}" for name in names for port in ports)

    @property
    def _name(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host.lower()

    @property
    def _port(self) -> str:
        return "" if self.port == (443 if self.tls else 80) else f":{self.port}"
