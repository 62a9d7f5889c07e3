"""One cutover: nginx before two releases, users that account for each request, and real commands."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from demo.nginx import Nginx
from demo.project import BASELINE, CHECKOUT, RELEASE, WINDOW_SEC
from demo.traffic import Site, free_ports
from pytest_decisionos.model.target import Target
from pytest_decisionos.release import audit
from pytest_decisionos.release.nginx_config import NginxConfig
from pytest_decisionos.release.rollout_nginx import NginxRollout
from pytest_decisionos.release.stage import read_stage
from pytest_decisionos.release.traffic import Traffic
from pytest_decisionos.trust import journal
from pytest_decisionos.trust.sources import read_ring_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Self

    from demo.project import Project
    from demo.traffic import Account
    from pytest_decisionos.release.stage_model import Reading

LAG_SEC: Final = 1
USERS: Final = 150
COMMAND_SEC: Final = 60.0
TOOK_MS: Final = (20.0, 60.0)
"""What a release takes for an answer."""
SLOW_MS: Final = 2000.0
"""What a slow one takes more: much against what a busy machine adds."""


class DemoError(Exception):
    """The demo cannot go on as it should: what happened, in words."""


class Done(NamedTuple):
    """A command that ended.

    Attributes:
        status: its exit status.
        out: what it said.
        err: what it complained of.
    """

    status: int
    out: str
    err: str


class Books(NamedTuple):
    """Every request of the users, held against the log of nginx.

    Attributes:
        sent: requests that users began.
        answered: those with an answer of the service.
        failed: those with a failure that the canary made, shown to the user as such.
        lost: those without any answer.
        wrong: what does not add up, in words.
    """

    sent: int
    answered: int
    failed: int
    lost: int
    wrong: tuple[str, ...]


class Cutover:
    """A target with its traffic, and what one does with it; all of it ends with the context."""

    def __init__(self, project: Project, say: Callable[[str], None], *, rate: float) -> None:
        self.project = project
        self.say = say
        self._rate = rate
        self._ring = read_ring_file(project.keys.ring)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.site = stack.enter_context(Site())
            self.baseline = self.site.upstream(BASELINE, took_ms=TOOK_MS)
            self.canary = self.site.upstream(RELEASE, took_ms=TOOK_MS, slow_ms=SLOW_MS)
            port, control = free_ports(2)
            where = {BASELINE: self.baseline.port, RELEASE: self.canary.port}
            settings = self.project.write_rollout(port, control, where)
            rollout = NginxRollout(
                NginxConfig.model_validate(settings),
                strategy="canary",
                root=self.project.root,
                beside=self.project.configs,
            )
            conf = rollout.prepare(Traffic(release=BASELINE))
            stack.enter_context(Nginx(conf, lambda: rollout.running() is not None))
            self.load = self.site.load(port, users=USERS, rate=self._rate)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # What there is

    @property
    def stage(self) -> Reading:
        """The stage as it is now."""
        project = self.project
        return read_stage(
            project.root,
            target=Target(**project.target),
            ring=self._ring,
            state_dir=project.state_dir,
            now=datetime.now(UTC),
        )

    @property
    def log(self) -> Path:
        """What nginx writes."""
        return self.project.root / "log/reqlog.jsonl"

    def trail(self) -> list[str]:
        """The stages that the audit journal tells of, one after another.

        Raises:
            DemoError: its chain is broken.
        """
        found = journal.read(self.project.root / audit.FILE)
        if found.fault is not None:
            raise DemoError(f"audit journal: {found.fault.message}")
        told = [e["to"] for e in found.entries if e["allowed"] and e["to"]]
        return [_words(to["stage"], to["pct"]) for to in told]

    # What one does

    def run(self, *words: object, ends: Sequence[int] = (0,)) -> Done:
        """Run a command in the checkout, as people do.

        Raises:
            DemoError: it ends with another status than ``ends``, or does not end.
        """
        given = [str(word) for word in words]
        try:
            done = subprocess.run(  # noqa: S603 - our own words, and no shell
                given,
                cwd=CHECKOUT,
                env=self.project.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=COMMAND_SEC,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DemoError(f"{' '.join(given)} takes more than {COMMAND_SEC:g} s") from None
        if done.returncode not in ends:
            said = f"{done.stdout}{done.stderr}".strip()[-1500:]
            raise DemoError(f"{' '.join(given)} ended with {done.returncode}:\n{said}")
        return Done(done.returncode, done.stdout, done.stderr)

    def script(self, name: str, *words: object, ends: Sequence[int] = (0,)) -> Done:
        """A script of pipeline/release."""
        return self.run(CHECKOUT / f"pipeline/release/{name}.sh", *words, ends=ends)

    def python(self, module: str, *words: object, ends: Sequence[int] = (0,)) -> Done:
        """``python -m MODULE``."""
        return self.run(sys.executable, "-m", module, *words, ends=ends)

    def auto(self) -> Done:
        """What cron runs each minute."""
        return self.python("jobs.canary_auto_promote", "--json", ends=(0, 2, 10))

    def build(self) -> None:
        """Evidence of this step, from the log of nginx."""
        stage = self.stage
        if stage.stage is None:
            raise DemoError(f"no stage to build evidence of: {stage.message}")
        since = stage.stage.since.isoformat(timespec="milliseconds")
        self.run(
            "dosctl", "evidence", "build",
            "--since", since, "--guardband", 0, "--window", WINDOW_SEC, "--lag", LAG_SEC,
        )  # fmt: skip

    def await_window(self, after: float = 0.0) -> float:
        """Wait until the first window is closed that begins after the step did; its end.

        Args:
            after: epoch seconds, or it must end after this.
        """
        stage = self.stage.stage
        since = stage.since.timestamp() if stage else time.time()
        end = (math.ceil(since / WINDOW_SEC) + 1) * WINDOW_SEC
        while end <= after:
            end += WINDOW_SEC
        time.sleep(max(0.0, end + LAG_SEC + 0.2 - time.time()))
        return float(end)

    # What became of it

    def books(self) -> tuple[Account, Books]:
        """End the load, and account for every request of it."""
        account = self.load.stop()
        rows = self._rows(account.answered)
        seen: Counter[str] = Counter(row["variant"] for row in rows)
        bad: Counter[str] = Counter(row["variant"] for row in rows if row["status"] >= 500)
        shown = sum(n for status, n in account.statuses.items() if status and status >= 500)
        wrong = []
        if account.lost:
            wrong.append(f"{account.lost} requests were lost")
        if seen["control"] + seen["canary"] != account.answered:
            told = seen["control"] + seen["canary"]
            wrong.append(f"users got {account.answered} answers, and nginx logged {told}")
        if bad["control"]:
            wrong.append(f"{bad['control']} failures on the baseline")
        if shown != bad["canary"]:
            wrong.append(
                f"users saw {shown} failures, and nginx logged {bad['canary']} of the canary"
            )
        answered = account.answered - shown
        return account, Books(account.sent, answered, shown, account.lost, tuple(wrong))

    def _rows(self, least: int) -> list[dict[str, Any]]:
        """The users' rows of the log. A row is written after its answer, so it may come a bit later."""
        until = time.monotonic() + 5
        while True:
            lines = self.log.read_text(encoding="utf-8").splitlines()
            rows = [
                row for row in map(json.loads, lines) if row["variant"] in {"control", "canary"}
            ]
            if len(rows) >= least or time.monotonic() > until:
                return rows
            time.sleep(0.1)


def _words(stage: str, pct: float) -> str:
    if stage != "canary":
        return stage
    return f"{pct:g} %" if pct else "shadow"
