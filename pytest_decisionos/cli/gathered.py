"""What a command judges, with a progress bar for people while judges on other hosts are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_decisionos.judge.gather import gather

if TYPE_CHECKING:
    from pytest_decisionos.judge.decide import GateInputs
    from pytest_decisionos.judge.gather import Request


def gathered(request: Request) -> GateInputs:
    """``gather(request)``; on a terminal a bar shows how far the remote judges are.

    Raises:
        DecisionOSError: as ``gather``.
    """
    if all(judge.url is None for judge in request.loaded_gate.spec.judges):
        return gather(request)
    from pytest_decisionos.cli.progress import progress_bar  # noqa: PLC0415 - slow to load

    with progress_bar() as bar:
        return gather(request, progress=bar)
