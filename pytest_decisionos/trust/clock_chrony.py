"""What chronyd on this host says of the clock, by ``chronyc -c tracking``.

Fields and the bound of the error: chronyc(1), *tracking*.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from typing import Final

from pytest_decisionos.errors import shown
from pytest_decisionos.trust.clock import RESOLUTION_SEC, Reading

TIMEOUT_SEC: Final = 5.0
MAX_OUTPUT: Final = 4096
MAX_AGE_SEC: Final = 8 * 1024.0
"""Eight polls at the longest usual interval: then NTP calls a source unreachable (RFC 5905 §9.2)."""
_SET_BACK_SEC: Final = 60.0
# -n: a name for the address would be asked of DNS, which may hang.
_COMMAND: Final = ("chronyc", "-n", "-c", "tracking")
_LEAPS: Final = frozenset({"Normal", "Insert second", "Delete second"})
_NUMBER: Final = re.compile(r"-?[0-9]{1,12}\.[0-9]{1,12}")
_NEXT: Final = "`chronyc sources` tells which sources it reaches"


class _NoOutputError(Exception):
    """chronyc gave nothing that could be read."""


def ask_chrony() -> Reading:
    """What chronyd says of this host's clock. Any user may ask."""
    try:
        text = _output()
    except _NoOutputError as fault:
        return _cannot_tell(str(fault))
    return read_tracking(text, now=time.time())


def read_tracking(text: str, *, now: float) -> Reading:
    """What the output of ``chronyc -c tracking`` says.

    The offset is what chronyd still has to correct; its error is root dispersion + root delay / 2.

    Args:
        text: the output.
        now: this host's time, seconds since 1970.
    """
    fields = text.removesuffix("\n").split(",")
    numbers = fields[3:13]
    if (
        len(fields) != 14
        or not re.fullmatch(r"[0-9A-F]{8}", fields[0])
        or not re.fullmatch(r"[0-9]{1,3}", fields[2])
        or not all(map(_NUMBER.fullmatch, numbers))
    ):
        return _cannot_tell(f"chronyc says {shown(text.strip() or 'nothing')}")
    reference, name, stratum, leap = fields[0], fields[1], int(fields[2]), fields[13]
    updated, offset, delay, dispersion = (float(numbers[i]) for i in (0, 1, 7, 8))
    if leap == "Not synchronised" or not 1 <= stratum <= 15:
        return _fault(f"chronyd is not synchronised; {_NEXT}")
    if leap not in _LEAPS:
        return _cannot_tell(f"chronyc knows a leap status {shown(leap)}")
    if reference.startswith("7F7F") or not name:
        # The `local` directive: chronyd serves this host's own time as if it were right.
        return _fault(f"chronyd is not synchronised: it follows its own clock; {_NEXT}")
    if delay < 0 or dispersion < 0:
        return _cannot_tell("chronyc tells a negative delay or dispersion")
    age = now + offset - updated  # by the clock that chronyd follows
    if age > MAX_AGE_SEC:
        return _fault(f"chronyd heard from its source {age:,.0f} s ago the last time; {_NEXT}")
    if age < -_SET_BACK_SEC:
        return _cannot_tell(f"chronyd's last update lies {-age:,.0f} s ahead: was the clock set?")
    return Reading(
        source=f"chrony via {shown(name, 64)}",
        offset_sec=offset,
        error_sec=dispersion + delay / 2 + RESOLUTION_SEC,
    )


def _output() -> str:
    """The output of chronyc.

    Raises:
        _NoOutputError: it is not there, fails, takes too long or says too much.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - no shell, and nothing in it is from outside
            _COMMAND,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise _NoOutputError(
            "there is no chronyc on PATH: install chrony, or name SNTP servers with DECISIONOS_NTP"
        ) from None
    except OSError as fault:
        raise _NoOutputError(f"chronyc does not start: {fault.strerror}") from None
    with process:
        try:
            text = _read(process).decode("ascii", "replace")
        finally:
            # Not after it has ended: the number could be somebody else's by then.
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise _NoOutputError(
            f"chronyc ended with status {process.returncode}: {shown(text.strip())}; does chronyd run?"
        )
    return text


def _read(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None  # noqa: S101 - it is a pipe; for the type checker
    until = time.monotonic() + TIMEOUT_SEC
    data = b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0 and waiting.select(left):
            piece = os.read(process.stdout.fileno(), MAX_OUTPUT)
            data += piece
            if len(data) > MAX_OUTPUT:
                raise _NoOutputError(f"chronyc says more than {MAX_OUTPUT:,} bytes")
            if not piece:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, until - time.monotonic()))
                    return data
                break
    raise _NoOutputError(f"chronyc took longer than {TIMEOUT_SEC:g} s")


def _fault(why: str) -> Reading:
    return Reading(source="chrony", fault=why)


def _cannot_tell(why: str) -> Reading:
    return _fault(f"cannot tell: {why}")
