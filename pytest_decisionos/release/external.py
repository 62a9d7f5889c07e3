"""Run somebody else's program: no shell, limited time, limited output, none of our secrets."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_decisionos.errors import RolloutError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_OUTPUT: Final = 1024 * 1024
"""Bytes of a program's output that are kept; what comes after is read and dropped."""

_SBIN: Final = ":/usr/local/sbin:/usr/sbin:/sbin"
"""Where daemons lie, and where a user's PATH often does not look."""


class Ran(NamedTuple):
    """What a program did.

    Attributes:
        status: its exit status; negative is the signal that ended it.
        out: its standard output, at most ``MAX_OUTPUT`` bytes.
        complaint: the last of its standard error, or of its output if it said nothing there.
    """

    status: int
    out: bytes
    complaint: str


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without any DECISIONOS_* (keys are among them), and ``more``."""
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith("DECISIONOS_")}
    kept["PATH"] = kept.get("PATH", os.defpath) + _SBIN
    return {**kept, **(more or {})}


def run(argv: Sequence[str], *, timeout_sec: float, env: Mapping[str, str] | None = None) -> Ran:
    """Run ``argv`` until it ends; what it leaves in the background is not waited for.

    Args:
        argv: the program and its arguments.
        timeout_sec: then it and its children are killed.
        env: variables to add to the environment.

    Raises:
        RolloutError: it cannot be started, or takes too long.
    """
    until = time.monotonic() + timeout_sec
    variables = environment(env)
    try:
        process = subprocess.Popen(  # noqa: S603 - a list from rollout.yaml, and no shell
            list(argv),
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that its children can be killed with it
        )
    except (OSError, ValueError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else str(fault)
        raise RolloutError(f"cannot be started: {why}", file=argv[0]) from None
    with process:
        try:
            out, err = _read(process, until)
            status = process.wait(max(0.01, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise RolloutError(
                f"did not end within {timeout_sec:g} s and was stopped", file=argv[0]
            ) from None
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    return Ran(status, bytes(out), _tail(bytes(err)) or _tail(bytes(out)))


def must(argv: Sequence[str], *, timeout_sec: float, env: Mapping[str, str] | None = None) -> Ran:
    """Like ``run``, for a program that has to succeed.

    Raises:
        RolloutError: it does not.
    """
    ran = run(argv, timeout_sec=timeout_sec, env=env)
    if ran.status:
        how = f"status {ran.status}" if ran.status > 0 else f"signal {-ran.status}"
        words = " ".join(argv)
        raise RolloutError(f"{words} failed with {how}: {ran.complaint or 'it said nothing'}")
    return ran


def _read(process: subprocess.Popen[bytes], until: float) -> tuple[bytearray, bytearray]:
    """Its output and its errors, until both end or the program has ended."""
    kept: dict[int, bytearray] = {}
    with selectors.DefaultSelector() as waiting:
        for stream in (process.stdout, process.stderr):
            if stream is not None:  # they are pipes; mypy does not know
                os.set_blocking(stream.fileno(), False)
                waiting.register(stream.fileno(), selectors.EVENT_READ)
                kept[stream.fileno()] = bytearray()
        while waiting.get_map():
            ended = process.poll() is not None  # before reading: what it wrote is then all there
            ready = waiting.select(0 if ended else min(0.05, max(0.0, until - time.monotonic())))
            for key, _ in ready:
                data = os.read(key.fd, 65_536)
                if not data:
                    waiting.unregister(key.fd)
                kept[key.fd] += data[: MAX_OUTPUT - len(kept[key.fd])]
            if ended and not ready:
                break  # a child of its own keeps the pipe open
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(process.args, 0)
    out, err = kept.values()
    return out, err


def _tail(data: bytes, limit: int = 800) -> str:
    """The last of what a program said."""
    text = data[-4 * limit :].decode("utf-8", "replace").strip()
    return " / ".join(text[-limit:].splitlines())
