"""Following the stage: what a controller has to obey, each time that it is something else."""

from __future__ import annotations

import contextlib
import signal
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from pytest_decisionos.errors import DecisionOSError
from pytest_decisionos.release import external
from pytest_decisionos.release.stage import Reading, read_stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import FrameType

    from pytest_decisionos.model.target import Target
    from pytest_decisionos.trust.keys import KeyRing


class Command(NamedTuple):
    """What is run for each change.

    Attributes:
        argv: the program and its arguments; there is no shell.
        timeout_sec: then it and its children are killed.
    """

    argv: Sequence[str]
    timeout_sec: float


class Change(NamedTuple):
    """What a controller has to obey from now on.

    Attributes:
        at: when it was seen.
        reading: the stage.
        fault: why the command did not do it; empty if it did, None if there is none.
    """

    at: datetime
    reading: Reading
    fault: str | None


def look(
    root: Path, *, target: Target, ring: Callable[[], KeyRing | None], state_dir: Path | None
) -> Reading:
    """The stage here and now; keys that cannot be had make it an alarm, never an error."""
    now = datetime.now(UTC)
    try:
        keys = ring()
    except DecisionOSError as fault:
        found = read_stage(root, target=target, ring=None, state_dir=state_dir, now=now)
        message = f"{found.message}; the keys: {fault}"
        return found._replace(message=message)
    return read_stage(root, target=target, ring=keys, state_dir=state_dir, now=now)


def environment(reading: Reading, root: Path, target: Target) -> dict[str, str]:
    """The variables that tell a command the stage; what is not known is empty."""
    return {
        "DECISIONOS_ROOT": str(root),
        "DECISIONOS_TARGET": str(target),
        "DECISIONOS_STAGE": reading.name,
        "DECISIONOS_PCT": f"{reading.pct:g}",
        "DECISIONOS_RELEASE": reading.release or "",
        "DECISIONOS_BASELINE_RELEASE": reading.baseline_release or "",
        "DECISIONOS_PAUSED": str(int(reading.paused)),
        "DECISIONOS_SEQ": str(reading.seq),
        "DECISIONOS_ALARM": reading.alarm,
    }


def follow(
    see: Callable[[], Reading],
    command: Command | None,
    *,
    root: Path,
    target: Target,
    interval_sec: float,
    once: bool = False,
) -> Iterator[Change]:
    """Each change of what a controller has to obey, the first look included, after its command ran.

    A command that fails is not tried again before the next change, unless it was to take all users
    off the canary: then it is at each look. It is given no DECISIONOS_*
    variable but those of ``environment``, so no key.

    Args:
        see: gives the stage.
        command: run for each change; None only tells.
        root: root folder, told to the command.
        target: what is released where, told to the command.
        interval_sec: seconds between two looks.
        once: end after the first look.
    """
    last = None
    while True:
        reading = see()
        obeyed = environment(reading, root, target) | {"DECISIONOS_SEQ": ""}
        if obeyed != last:
            last = obeyed
            fault = None
            if command is not None:
                fault = _run(command, environment(reading, root, target))
                if fault and reading.name in {"stable", "abort"}:
                    last = None
            yield Change(datetime.now(UTC), reading, fault)
        if once:
            return
        time.sleep(interval_sec)


def _run(command: Command, variables: dict[str, str]) -> str:
    try:
        external.must(command.argv, timeout_sec=command.timeout_sec, env=variables)
    except DecisionOSError as fault:
        return str(fault)
    return ""


class _StopError(BaseException):
    """SIGTERM or SIGINT: not an Exception, so nothing on the way takes it for a fault."""


@contextlib.contextmanager
def until_stopped() -> Iterator[None]:
    """Let SIGTERM and SIGINT end the block, as if it had come to its end.

    A command that runs is killed. Whatever the block writes, it writes so that a kill does no harm.
    """

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _StopError

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except _StopError:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
