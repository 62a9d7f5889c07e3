"""``make demo``: five cutovers with real traffic, told as they go, and a table of how they ended."""

from __future__ import annotations

import io
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from demo.lanes import play_all
from demo.nginx import program
from demo.project import make_keys
from demo.scenarios import SCENARIOS
from pytest_decisionos.report.text import COLUMNS, cells, fold, plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from demo.scenarios import Ended


class Timeline:
    """What happens, a line each; on a terminal with a last line that says what runs."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._start = time.monotonic()
        self._now: dict[str, str] = {}
        self._live = out.isatty()

    def say(self, who: str, text: str) -> None:
        """Tell of something; with an empty text, that there is nothing more to be told of ``who``."""
        sec = f"{time.monotonic() - self._start:6.1f} s"
        if text:
            self._now[who] = text
            head = f"{sec}  {who:<8} "
            first, *rest = fold(plain(text, 300), COLUMNS - cells(head))
            lines = [head + first, *(" " * cells(head) + line for line in rest)]
        else:
            self._now.pop(who, None)
            lines = []
        if self._live:
            self._out.write("\r\x1b[K")
        self._out.write("".join(f"{line}\n" for line in lines))
        if self._live and self._now:
            self._out.write(f"{sec}  under way: {', '.join(self._now)}")
        self._out.flush()


def demo(folder: Path, names: Sequence[str], out: TextIO) -> list[Ended]:
    """Play the scenarios of these names in a folder; how each ended.

    Raises:
        RuntimeError: the keys cannot be made.
    """
    timeline = Timeline(out)
    timeline.say("demo", f"keys, trust file and configurations in {folder}")
    keys = make_keys(folder / "keys")
    timeline.say("demo", "")
    return play_all(folder, names, keys, timeline.say)


_COLUMNS: Final = (("cutover", 8), ("ended", 8), ("sent", 9), ("answered", 10), ("failed", 8),
                   ("lost", 6), ("back", 8))  # fmt: skip


def table(ended: Sequence[Ended]) -> list[str]:
    """How the cutovers ended, at most 80 columns wide: a line of numbers each, and why below it."""
    lines = [_row([name for name, _ in _COLUMNS])]
    for one in ended:
        books = one.books
        counts = (books.sent, books.answered, books.failed, books.lost) if books else ()
        told = [f"{count:,}" for count in counts] or ["–"] * 4
        back = "–" if one.back_sec is None else f"{one.back_sec:.1f} s"
        lines.append(_row([one.scenario.name, "WRONG" if one.wrong else one.stage, *told, back]))
        for text in one.wrong or (one.why,):
            lines += [f"{'':<9}{line}" for line in fold(plain(text), COLUMNS - 9)]
    return lines


def _row(values: Sequence[str]) -> str:
    """Names to the left, numbers to the right."""
    pairs = list(zip(values, _COLUMNS, strict=True))
    cells_of_it = [f"{value:<{width}}" for value, (_, width) in pairs[:2]]
    return " ".join([*cells_of_it, *(f"{value:>{width}}" for value, (_, width) in pairs[2:])])


_LEGEND: Final = (
    "sent = answered + failed + lost",
    "failed: what the canary failed at, and its users were shown as that",
    "back: from the fault until all users are back on the baseline",
)


def main(names: Sequence[str]) -> int:
    """Play the scenarios of these names, or all.

    Returns:
        The exit status: 0 all ended as expected, 1 one did not, 4 unusable.
    """
    known = [one.name for one in SCENARIOS]
    unknown = [name for name in names if name not in known]
    if unknown or program() is None:
        why = "no nginx → make services"
        if unknown:
            why = f"no such cutover: {plain(unknown[0], 60)}; there are {', '.join(known)}"
        sys.stderr.write(f"error: {why}\n")
        return 4
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # signs that it cannot show
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a CI's way to interrupt
    folder = Path(tempfile.mkdtemp(prefix="decisionos-demo-"))
    keep = False
    began = time.monotonic()
    try:
        ended = demo(folder, names or known, sys.stdout)
        good = sum(not one.wrong for one in ended)
        keep = good < len(ended)
        took = f"{good} of {len(ended)} ended as expected, in {time.monotonic() - began:.0f} s"
        left = [f"everything is left in {folder}"] if keep else []
        sys.stdout.write("\n".join(["", *table(ended), "", *_LEGEND, "", took, *left, ""]))
    except RuntimeError as fault:
        sys.stderr.write(f"error: {fault}\n")
        return 4
    except KeyboardInterrupt:
        return 130
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return int(keep)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
