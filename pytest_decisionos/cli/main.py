"""dosctl: the commands, each loaded when it is called, and every error as one line."""

from __future__ import annotations

import gc
import sys

import click

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
    status = run(cli, args)
    # Nor does it look now, where the process ends anyway: together that is a tenth of a short run.
    # DuckDB's modules must be collected, or they complain.
    if "duckdb" not in sys.modules:
        gc.freeze()
    sys.exit(status)


def run(command: click.Command, args: list[str] | None = None, prog_name: str = "dosctl") -> int:
    """Run a command; bad input is one line on standard error and an exit status, no traceback."""
    try:
        status = command.main(args=args, prog_name=prog_name, standalone_mode=False)
    except DecisionOSError as fault:
        return _fail(str(fault), fault.exit_code)
    except click.exceptions.Exit as fault:
        return fault.exit_code
    except click.Abort:
        return _fail("interrupted", 130)
    except click.ClickException as fault:
        where = (
            fault.ctx.command_path
            if isinstance(fault, click.UsageError) and fault.ctx
            else prog_name
        )
        return _fail(f"{shown(fault.format_message(), 500)} → {where} --help", ExitCode.UNUSABLE)
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads: Python's own complaint about it would be noise
        return 141
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    click.echo(f"error: {message}", err=True)
    return int(status)


if __name__ == "__main__":
    main()
