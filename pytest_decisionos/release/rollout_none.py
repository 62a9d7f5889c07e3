"""The adapter ``none``: the stage file says what should be, and somebody else makes it so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_decisionos.release.traffic import Traffic


class NoRollout:
    """Moves nothing: a rollout controller of your own follows the stage file."""

    name = "none"

    def __init__(self, strategy: str) -> None:
        self.strategy = strategy

    def apply(self, want: Traffic) -> None:
        """Leave it to whoever follows the stage."""

    def running(self) -> Traffic | None:
        """Nobody tells."""
        return None
