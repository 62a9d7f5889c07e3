"""dosctl: the commands, each loaded when it is called, and every error as one line."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
from typing import IO

import click
from click.exceptions import NoArgsIsHelpError

import pytest_decisionos
from pytest_decisionos.cli.lazy import LazyGroup
from pytest_decisionos.errors import DecisionOSError, ExitCode, shown

COMMANDS = {
    "clock": ("pytest_decisionos.cli.clock:clock", "Measure this host's clock."),
    "decision": ("pytest_decisionos.cli.decision:decision", "Sign decisions."),
    "evidence": (
        "pytest_decisionos.cli.evidence:evidence",
        "Build, seal, lock, index and archive evidence.",
    ),
    "init": (
        "pytest_decisionos.cli.init:init",
        "Write gates, configuration and a workflow into a repository.",
    ),
    "judge": ("pytest_decisionos.cli.judge:judge", "Judge evidence by a quorum of judges."),
    "keys": ("pytest_decisionos.cli.keys:keys", "Make, list, check, rotate and revoke keys."),
    "release": (
        "pytest_decisionos.cli.release:release",
        "Step, promote, pause, abort and finish a release.",
    ),
    "sample": ("pytest_decisionos.cli.sample:sample", "Write realistic sample logs."),
    "slo": ("pytest_decisionos.cli.slo:slo", "Lint, explain and describe SLO files."),
    "stage": (
        "pytest_decisionos.cli.stage:stage",
        "Show, check, repair and follow the stage.",
    ),
    "trust": ("pytest_decisionos.cli.trust:trust", "Make, show and verify the trust file."),
    "verify": ("pytest_decisionos.cli.verify:verify", "Check a decision's bundle, offline."),
}


_EPILOG = """\b
Example:
  dosctl sample --out var/log --seed 7
  dosctl evidence build
  DECISIONOS_ALLOW_SCOPES=judge:run dosctl judge quorum \\
    --slo configs/slo/slo-judge-infra.json --quorum 2/3

\b
Exit status: 0 GO or done, 2 NO-GO or refused, 3 denied, 4 unusable input,
10 HOLD.
"""


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
    epilog=_EPILOG,
)
@click.version_option(pytest_decisionos.__version__, prog_name="dosctl")
def cli() -> None:
    """DecisionOS release gate: may this release go on?"""


def main(args: list[str] | None = None) -> None:
    """Run dosctl and exit with the status that errors.py gives."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale without Korean is no fault
    status = run(cli, args)
    for stream in (sys.stdout, sys.stderr):
        _let_go(stream)
    # Nor does it look now, where the process ends anyway: together that is a tenth of a short run.
    # DuckDB's modules must be collected, or they complain.
    if "duckdb" not in sys.modules:
        gc.freeze()
    sys.exit(status)


def _let_go(stream: IO[str] | None) -> None:
    """Drop what could not be written: Python would try again at its end, and exit with 120."""
    if stream is None:  # the process was started without
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run(command: click.Command, args: list[str] | None = None, prog_name: str = "dosctl") -> int:
    """Run a command; bad input is one line on standard error and an exit status, no traceback.

    An output that cannot be written is 4; one that nobody reads any longer is 141, without a word,
    as the shell has it.
    """
    streams = sys.stdout, sys.stderr
    try:
        status = command.main(args=args, prog_name=prog_name, standalone_mode=False)
    except DecisionOSError as fault:
        return _fail(str(fault), fault.exit_code)
    except click.exceptions.Exit as fault:
        return fault.exit_code
    except click.Abort:
        return _fail("interrupted", 130)
    except NoArgsIsHelpError as fault:
        _complain(fault.format_message())
        return int(ExitCode.UNUSABLE)
    except click.ClickException as fault:
        where = (
            fault.ctx.command_path
            if isinstance(fault, click.UsageError) and fault.ctx
            else prog_name
        )
        told = " ".join(fault.format_message().split())  # click lists choices a line each
        return _fail(f"{shown(told, 500)} → {where} --help", ExitCode.UNUSABLE)
    except OSError as fault:
        return _fail(_trouble(fault), ExitCode.UNUSABLE)
    except SystemExit as fault:  # click's own
        if sys.stdout is not streams[0]:  # nobody reads it: click has put others in their place
            sys.stdout, sys.stderr = streams
            return 141
        return fault.code if isinstance(fault.code, int) else 1  # the completion of a shell
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    _complain(f"error: {message}")
    return int(status)


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):  # then the exit status alone says it
        click.echo(text, err=True)


def _trouble(fault: OSError) -> str:
    what = fault.strerror or str(fault)
    if fault.filename is None:  # a stream, and what commands write elsewhere they name
        return f"{what} → see where standard output goes"
    return f"{shown(str(fault.filename), 300)}: {what}"


if __name__ == "__main__":
    main()
