"""The checks that a phase asks for → outcomes, added to what the decision is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_decisionos.errors import UsageError, shown
from pytest_decisionos.hookspecs import CheckRequest, added
from pytest_decisionos.model.outcome import Outcome, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_decisionos.judge.decide import GateInputs
    from pytest_decisionos.judge.gate import CheckConfig


def with_checks(inputs: GateInputs, checks: Sequence[CheckConfig], root: Path) -> GateInputs:
    """``inputs`` with the outcome of each of ``checks``, under the id ``check.<name>``.

    Raises:
        UsageError: no installed package adds a check of that name.
    """
    known = added("decisionos_checks")
    outcomes: list[Outcome] = []
    for check in checks:
        if check.name not in known:
            raise UsageError(
                "no installed package adds this check",
                file=inputs.gate.file,
                field="checks",
                found=check.name,
                expected=", ".join(sorted(known)) or "none is installed",
            )
        request = CheckRequest(check.params, root, inputs.target, inputs.blocks, inputs.now)
        outcomes.append(_run(f"check.{check.name}", known[check.name], request))
    return inputs.model_copy(update={"checks": (*inputs.checks, *outcomes)})


def _run(check_id: str, check: Callable[[CheckRequest], Any], request: CheckRequest) -> Outcome:
    try:
        outcome = check(request)
    except KeyboardInterrupt:
        raise
    except BaseException as fault:  # noqa: BLE001 - another package's code; even SystemExit is an error
        message = f"raised {type(fault).__name__}: {shown(str(fault), 200)}"
        return Outcome(id=check_id, status=Status.ERROR, cause="raised", message=message)
    if not isinstance(outcome, Outcome):
        message = f"gave {shown(outcome)}, not an outcome"
        return Outcome(id=check_id, status=Status.ERROR, cause="wrong_type", message=message)
    # Its id is the name it was asked by, and nothing but gate.yaml may make it less than blocking.
    return outcome.model_copy(update={"id": check_id, "severity": "block", "waived": None})
