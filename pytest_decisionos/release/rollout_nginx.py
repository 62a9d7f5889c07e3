"""The adapter ``nginx``: a tested configuration, swapped in, loaded, and heard from before it counts."""

from __future__ import annotations

import contextlib
import http.client
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import ValidationError

from pytest_decisionos.errors import DecisionOSError, RolloutError
from pytest_decisionos.model import strict_json
from pytest_decisionos.release import external
from pytest_decisionos.release.nginx_render import render
from pytest_decisionos.release.traffic import Traffic
from pytest_decisionos.trust.files import locked, sync_folder, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_decisionos.release.nginx_config import NginxConfig

STATUS: Final = "/.decisionos/rollout"
_PROGRAM_SEC: Final = 30.0
BACK_LOCK_SEC: Final = 5.0
"""How long the way back waits for another run of this: one that hangs must not keep traffic on a bad
canary. One that is only slow looks at the stage again when it is done, and comes back too."""
_IN_A_ROW: Final = 3
"""How many answers of the new generation: while old workers leave, both take connections."""


class _Says(NamedTuple):
    generation: str
    traffic: Traffic


class NginxRollout:
    """One nginx that runs with ``<root>/rollout/nginx.conf``.

    Beside that file lie ``nginx.conf.old``, what was there before, and ``nginx.conf.back``: all
    users off the canary, written and tested before the first one goes on it, so that the way back
    needs no disk space.
    """

    name = "nginx"

    def __init__(self, config: NginxConfig, *, strategy: str, root: Path, beside: Path) -> None:
        self.strategy = strategy
        self._config = config
        self._folder = (root / "rollout").absolute()
        self._log = (root / "log").absolute()
        self._template = beside / config.template if config.template else None
        self.conf = self._folder / "nginx.conf"

    def apply(self, want: Traffic) -> None:
        """Make nginx do it, and hear from its new workers that they do.

        Raises:
            RolloutError: a release that runs nowhere, a configuration that nginx refuses, a nginx
                that does not run or does not take it. The configuration from before is then back,
                unless what was wanted is the way back.
        """
        with self._locked(want):
            before = self._ask()
            want = self._resolved(want, before)
            text, generation = self._rendered(want)
            there = self._is(self.conf, text)  # also after a crash between swap and reload
            if there and before and before.generation == generation:
                return
            if not there:
                self._swap(want, text)
            try:
                if before is None:  # who signals a process must know that it is nginx
                    raise RolloutError(
                        "nginx does not answer", field="nginx.control", found=self._config.control,
                        next_step=f"see that it runs: nginx -c {self.conf}",
                    )  # fmt: skip
                self._load(generation)
            except DecisionOSError:
                self._undo(want, before)
                raise

    def prepare(self, want: Traffic) -> Path:
        """Write the tested configuration only: what a nginx that does not run yet is started with.

        Raises:
            RolloutError: as ``apply``.
        """
        with locked(self.conf):
            want = self._resolved(want, self._ask())
            self._swap(want, self._rendered(want)[0])
        return self.conf

    def running(self) -> Traffic | None:
        """What nginx says that it does; None if it does not answer."""
        said = self._ask()
        return said.traffic if said else None

    @contextlib.contextmanager
    def _locked(self, want: Traffic) -> Iterator[None]:
        """Be the only writer of nginx.conf; on the way back also if another one never ends."""
        with contextlib.ExitStack() as held:
            if want.is_way_back:
                with contextlib.suppress(DecisionOSError):
                    held.enter_context(locked(self.conf, timeout_sec=BACK_LOCK_SEC))
            else:
                held.enter_context(locked(self.conf))
            yield

    def _resolved(self, want: Traffic, before: _Says | None) -> Traffic:
        """``want`` with the release that served, where nobody says which: abort needs no more."""
        if want.release is not None:
            return want
        served = before.traffic.served if before else self._served_by_file()
        if served is None:
            raise RolloutError(
                "nobody says which release serves", file=self.conf,
                next_step="step or reconcile with a stage that names it",
            )  # fmt: skip
        return Traffic(release=served)

    def _served_by_file(self) -> str | None:
        """The release that nginx.conf says to serve, for when nginx cannot be asked."""
        with contextlib.suppress(OSError, ValueError):
            for line in self.conf.read_text(encoding="utf-8").splitlines():
                _, found, rest = line.partition("return 200 '")
                if found and (said := _read(rest.rpartition("'")[0].encode())):
                    return said.traffic.served
        return None

    def _rendered(self, want: Traffic) -> tuple[str, str]:
        return render(
            self._config, want, folder=self._folder, log=self._log, template=self._template
        )

    def _swap(self, want: Traffic, text: str) -> None:
        """nginx.conf is ``text``, which nginx finds right; the one before is nginx.conf.old."""
        back, new = self._beside("back"), self._beside("new")
        for folder in (self._log, self._folder / "nginx-temp"):
            folder.mkdir(parents=True, exist_ok=True)
        if want.is_way_back and self._is(back, text):
            candidate = back
        else:
            if not want.is_way_back:
                self._write(back, self._rendered(Traffic(release=want.served))[0])
            self._write(new, text)
            candidate = new
        with contextlib.suppress(OSError):  # then there is nothing to go back to
            self._beside("old").unlink(missing_ok=True)
            self._beside("old").hardlink_to(self.conf)
        try:
            candidate.replace(self.conf)
            sync_folder(self._folder)
        except OSError as fault:
            raise RolloutError(f"cannot be replaced: {fault.strerror}", file=self.conf) from None

    def _write(self, path: Path, text: str) -> None:
        """A configuration that nginx finds right, or no file."""
        write_atomic(path, text.encode())
        try:
            self._nginx(path, "-t")
        except RolloutError:
            path.unlink(missing_ok=True)
            raise

    def _load(self, generation: str) -> None:
        self._nginx(self.conf, "-s", "reload")
        until = time.monotonic() + self._config.timeout_sec
        heard = 0
        while heard < _IN_A_ROW:
            said = self._ask()
            heard = heard + 1 if said and said.generation == generation else 0
            if time.monotonic() > until and heard < _IN_A_ROW:
                raise RolloutError(
                    f"nginx did not take its new configuration within {self._config.timeout_sec:g} s",
                    file=self.conf,
                    found=self._complaint(),
                    expected=f"generation {generation} from {self._config.control}",
                )
            time.sleep(0.01)

    def _undo(self, want: Traffic, before: _Says | None) -> None:
        """The old configuration back, on disk and in nginx; but never forward to a canary."""
        if want.is_way_back:
            return
        old = self._beside("old")
        with contextlib.suppress(OSError, RolloutError):  # the first fault is the one to tell
            (old if old.exists() else self._beside("back")).replace(self.conf)
            sync_folder(self._folder)
            if before is not None:
                self._load(before.generation)

    def _ask(self) -> _Says | None:
        """What nginx says of itself, through a new connection."""
        connection = http.client.HTTPConnection(self._config.control, timeout=2)
        try:
            connection.request("GET", STATUS, headers={"Connection": "close"})
            answer = connection.getresponse()
            return _read(answer.read(65_536)) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _nginx(self, conf: Path, *words: str) -> None:
        external.must([*self._config.program, "-c", str(conf), *words], timeout_sec=_PROGRAM_SEC)

    def _complaint(self) -> str | None:
        """The last emergency that nginx logged."""
        with contextlib.suppress(OSError), (self._log / "nginx-error.log").open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - 65_536))
            lines = log.read().decode("utf-8", "replace").splitlines()
            return next((line for line in reversed(lines) if "[emerg]" in line), None)
        return None

    def _beside(self, suffix: str) -> Path:
        return self.conf.with_name(f"nginx.conf.{suffix}")

    def _is(self, path: Path, text: str) -> bool:
        with contextlib.suppress(OSError):
            return path.read_bytes() == text.encode()
        return False


def _read(data: bytes) -> _Says | None:
    """What nginx said, if it is ours."""
    try:
        document = strict_json.loads(data)
        return _Says(document.pop("generation"), Traffic.model_validate(document))
    except (DecisionOSError, ValidationError, LookupError, AttributeError, TypeError):
        return None
