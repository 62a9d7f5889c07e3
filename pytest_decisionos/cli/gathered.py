"""What a command judges, and its verdict; a progress bar for people while other hosts are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_decisionos.checks.run import with_checks
from pytest_decisionos.errors import ExitCode
from pytest_decisionos.judge.decide import decide
from pytest_decisionos.judge.gather import gather
from pytest_decisionos.model.decision import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_decisionos.judge.decide import GateInputs
    from pytest_decisionos.judge.gather import Request
    from pytest_decisionos.model.decision import Decision

EXIT: Final[Mapping[Verdict, int]] = {
    Verdict.GO: ExitCode.GO,
    Verdict.HOLD: ExitCode.HOLD,
    Verdict.NO_GO: ExitCode.NO_GO,
}


def judged(request: Request) -> tuple[GateInputs, Decision]:
    """What is judged, the phase's checks among it, and the decision on it.

    Raises:
        DecisionOSError: as ``gather``.
    """
    checks = request.loaded_gate.phase(request.phase).check_list()
    inputs = with_checks(_gathered(request), checks, request.root)
    return inputs, decide(inputs)


def _gathered(request: Request) -> GateInputs:
    """``gather(request)``; on a terminal a bar shows how far the remote judges are."""
    if all(judge.url is None for judge in request.loaded_gate.spec.judges):
        return gather(request)
    from pytest_decisionos.cli.progress import progress_bar  # noqa: PLC0415 - slow to load

    with progress_bar() as bar:
        return gather(request, progress=bar)
