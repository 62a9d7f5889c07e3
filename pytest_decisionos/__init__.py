"""DecisionOS release gate: SLO rules as tests, a quorum of judges, one decision.

The public names are re-exported lazily (PEP 562): importing this package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_decisionos.judge.decide import GateInputs, decide
    from pytest_decisionos.model.decision import Action, Decision, Verdict
    from pytest_decisionos.model.evidence import Evidence
    from pytest_decisionos.model.outcome import Outcome, Status
    from pytest_decisionos.model.policy import Rule, Slo
    from pytest_decisionos.slo.compile import load_slo

_HOMES = {
    "Action": "model.decision",
    "Decision": "model.decision",
    "Evidence": "model.evidence",
    "GateInputs": "judge.decide",
    "Outcome": "model.outcome",
    "Rule": "model.policy",
    "Slo": "model.policy",
    "Status": "model.outcome",
    "Verdict": "model.decision",
    "decide": "judge.decide",
    "load_slo": "slo.compile",
}

__all__ = [
    "Action",
    "Decision",
    "Evidence",
    "GateInputs",
    "Outcome",
    "Rule",
    "Slo",
    "Status",
    "Verdict",
    "decide",
    "load_slo",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
