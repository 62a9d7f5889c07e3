"""How commands print: lines with our label, JSON, and what was done even if nobody can read it."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING

import click

from pytest_decisionos.report.text import labelled, plain

if TYPE_CHECKING:
    from collections.abc import Iterator


def say(label: str, text: object, *, err: bool = False) -> None:
    """``text`` behind a label of ours, folded, and safe in a CI log."""
    for line in labelled(label, plain(text, 2000)):
        click.echo(line, err=err)


def echo_json(told: object, *, indent: int | None = 2) -> None:
    """Print ``told`` as JSON; ``indent`` None prints one line.

    Where the encoding of the output lacks a character (also half a surrogate pair, which a file
    name that is not UTF-8 brings along), all is escaped: the output is valid JSON in any encoding.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(told, ensure_ascii=False, indent=indent, allow_nan=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(told, indent=indent)
    click.echo(text)


@contextlib.contextmanager
def even_unread() -> Iterator[None]:
    """Print what was done; an output that cannot be written does not change it, nor the exit status.

    For what drives traffic back: "cannot run" would tell its caller that nothing was aborted.
    """
    try:
        yield
    except OSError as fault:
        with contextlib.suppress(OSError):
            click.echo(f"note: what was done cannot be printed: {fault.strerror}", err=True)
