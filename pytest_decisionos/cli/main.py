"""dosctl: the commands, each loaded when it is called, and every error as one line."""

from __future__ import annotations

import gc
import importlib
import sys

import click

import pytest_decisionos
from pytest_decisionos.errors import DecisionOSError, ExitCode, shown

COMMANDS = {
    "evidence": ("pytest_decisionos.cli.evidence:evidence", "Build evidence from request logs."),
    "init": (
        "pytest_decisionos.cli.init:init",
        "Write gates, configuration and a workflow into a repository.",
    ),
    "judge": ("pytest_decisionos.cli.judge:judge", "Judge evidence by a quorum of judges."),
    "sample": ("pytest_decisionos.cli.sample:sample", "Write realistic sample logs."),
    "slo": ("pytest_decisionos.cli.slo:slo", "Lint, explain and describe SLO files."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called: start-up time is a feature."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of the commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command of that name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        gc.disable()  # a module is no garbage, and Python would look for some all the while
        try:
            command: click.Command = getattr(importlib.import_module(module), name)
        finally:
            gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """The commands with their short help, none of them imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(COMMANDS.items())])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
    epilog="Exit status: 0 GO or done, 2 NO-GO or refused, 3 denied, 4 unusable input, 10 HOLD.",
)
@click.version_option(pytest_decisionos.__version__, prog_name="dosctl")
def cli() -> None:
    r"""DecisionOS release gate: may this release go on?

    \b
    Example:
      dosctl sample --out var/log --seed 7
      dosctl evidence build
      DECISIONOS_ALLOW_SCOPES=judge:run dosctl judge quorum \\
        --slo configs/slo/slo-judge-infra.json --quorum 2/3
    """


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
