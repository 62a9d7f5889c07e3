"""Cutovers side by side: each lane a process of its own, so that no one's traffic waits for another's."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import signal
import time
from typing import TYPE_CHECKING, Any, Final

from demo.project import WINDOW_SEC
from demo.scenarios import SCENARIOS, Ended, Scenario, play

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from demo.project import Keys

LANES: Final = (
    (0.0, ("healthy",)),
    (WINDOW_SEC, ("errors", "burst")),
    (WINDOW_SEC, ("slow", "dead")),
)
"""Cutovers that follow each other, and when they begin, s. All work when a window closes, so two lanes
begin a window later than the one that takes longest."""


def play_all(
    folder: Path, names: Sequence[str], keys: Keys, say: Callable[[str, str], None]
) -> list[Ended]:
    """Play the scenarios of these names; how each ended.

    Args:
        folder: each gets one of its own in it.
        names: of the scenarios.
        keys: which all share.
        say: is told who does what; with an empty text that nothing is going on there.
    """
    context = multiprocessing.get_context("spawn")
    lanes = [(after, [one for one in SCENARIOS if one.name in lane and one.name in names])
             for after, lane in LANES]  # fmt: skip
    lanes = [(after, scenarios) for after, scenarios in lanes if scenarios]
    first = min(after for after, _ in lanes)
    said: Any = context.Queue()
    running = [
        context.Process(target=_lane, args=(folder, keys, after - first, scenarios, said))
        for after, scenarios in lanes
    ]
    ended: dict[str, Ended] = {}
    with _ends(running):
        for lane in running:
            lane.start()
        while True:
            over = not any(lane.is_alive() for lane in running)
            try:
                who, told = said.get(timeout=0.0 if over else 0.5)
            except queue.Empty:
                if over:
                    break
                say("", "")
                continue
            if isinstance(told, Ended):
                ended[who] = told
                for what in told.wrong:
                    say(who, f"WRONG: {what}")
                say(who, "")
            else:
                say(who, told)
    wanted = [one for one in SCENARIOS if one.name in names]
    return [ended.get(one.name) or _died(one) for one in wanted]


def _died(scenario: Scenario) -> Ended:
    return Ended(scenario, "?", None, None, "", ("its process died",))


@contextlib.contextmanager
def _ends(running: Sequence[Any]) -> Iterator[None]:
    """Whatever happens, no process stays."""
    try:
        yield
    finally:
        for lane in running:
            if lane.is_alive():
                lane.terminate()
            if lane.pid is not None:
                lane.join(30)


def _lane(folder: Path, keys: Keys, after: float, scenarios: Sequence[Scenario], said: Any) -> None:
    """The process of a lane."""
    # Also who is told to end must stop nginx, which is no child of the terminal.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(after)
        for scenario in scenarios:
            name = scenario.name

            def say(text: str, name: str = name) -> None:
                said.put((name, text))

            said.put((name, play(scenario, folder / name, keys, say)))
