"""An nginx of one's own: started with a configuration, stopped with whoever started it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

START_SEC: Final = 20.0


def program() -> str | None:
    """nginx, which Debian puts where a user's PATH does not look; None if there is none."""
    return shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")


class Nginx:
    """A master and its workers, as children of this process.

    Args:
        conf: its whole configuration; an absolute path.
        ready: a function that says whether it answers.
    """

    def __init__(self, conf: Path, ready: Callable[[], bool]) -> None:
        self.conf = conf
        self._ready = ready
        self._master: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the master."""
        return self._master.pid if self._master else 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: it ends, or does not answer in time.
        """
        found = program()
        if found is None:
            raise RuntimeError("no nginx: make services")
        command = [found, "-c", str(self.conf), "-g", "daemon off;"]
        self._master = subprocess.Popen(  # noqa: S603 - our own words, and no shell
            command, stdin=subprocess.DEVNULL, start_new_session=True
        )
        until = time.monotonic() + START_SEC
        while not self._ready():
            if self._master.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"nginx does not start with {self.conf}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it as an administrator would, and if that takes long, at once."""
        if self._master is None:
            return
        self._master.send_signal(signal.SIGTERM)
        try:
            self._master.wait(10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._master.pid, signal.SIGKILL)
            self._master.wait()
        self._master = None
