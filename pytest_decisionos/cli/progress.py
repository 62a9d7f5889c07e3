"""A progress bar for people, on work that takes a while."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from pytest_decisionos.errors import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AFTER_SEC = 2.0


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[float, str], None] | None]:
    """A progress bar on standard error: only for people, only for work that takes a while."""
    from rich.console import Console  # noqa: PLC0415 - slow to load
    from rich.progress import Progress  # noqa: PLC0415

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    bar = Progress(console=console, transient=True)
    task = bar.add_task("", total=1.0)
    # A timer and not the next report: one large log reports nothing while it is parsed.
    timer = threading.Timer(AFTER_SEC, bar.start)
    timer.start()
    try:
        yield lambda share, text: bar.update(task, completed=share, description=shown(text, 40))
    finally:
        timer.cancel()
        timer.join()
        bar.stop()
