"""A group whose commands are imported when they are called: start-up time is a feature."""

from __future__ import annotations

import gc
import importlib
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping


class LazyGroup(click.Group):
    """A group with commands that it knows by name only, beside those that it has."""

    def __init__(
        self, *args: Any, lazy: Mapping[str, tuple[str, str]] | None = None, **more: Any
    ) -> None:
        """Args: ``lazy`` maps a command's name to ``module:attribute`` and its short help."""
        super().__init__(*args, **more)
        self._lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, name = self._lazy[cmd_name][0].partition(":")
        gc.disable()  # a module is no garbage, and Python would look for some all the while
        try:
            command: click.Command = getattr(importlib.import_module(module), name)
        finally:
            gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """The commands with their short help, none of them imported."""
        told = {name: command.get_short_help_str(80) for name, command in self.commands.items()}
        told |= {name: text for name, (_, text) in self._lazy.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(told.items()))
