"""The adapter ``command``: a program of your own moves traffic, and another says where it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, StringConstraints, ValidationError

from pytest_decisionos.errors import RolloutError
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.validate import first_fault
from pytest_decisionos.release import external
from pytest_decisionos.release.traffic import Traffic

if TYPE_CHECKING:
    from pytest_decisionos.model.target import Target

Word = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=4096)]
Argv = Annotated[tuple[Word, ...], Field(min_length=1, max_length=100)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=3600, allow_inf_nan=False)]


class CommandConfig(Frozen):
    """``command`` of rollout.yaml.

    Attributes:
        argv: the program and its arguments; there is no shell. What is wanted is in its environment.
        report: a program that prints what is so as JSON, such as ``{"pct": 10, "release": "v2"}``.
        timeout_sec: how long each may take.
    """

    argv: Argv
    report: Argv | None = None
    timeout_sec: Seconds = 60.0


class CommandRollout:
    """Runs ``argv`` with what is wanted in the environment; it succeeds with exit status 0."""

    name = "command"

    def __init__(
        self,
        config: CommandConfig,
        *,
        strategy: str,
        root: Path,
        target: Target,
        stickiness: str = "",
    ) -> None:
        self.strategy = strategy
        self._config = config
        self._given = {
            "DECISIONOS_ROOT": str(root.absolute()),
            "DECISIONOS_STICKINESS": stickiness,
            "DECISIONOS_STRATEGY": strategy,
            "DECISIONOS_TARGET": str(target),
            **{f"DECISIONOS_TARGET_{k.upper()}": v for k, v in target.model_dump().items()},
        }

    def apply(self, want: Traffic) -> None:
        """Run the program.

        Raises:
            RolloutError: it cannot be run, fails, or takes too long.
        """
        env = {
            **self._given,
            "DECISIONOS_PCT": f"{want.pct:g}",
            "DECISIONOS_SHADOW": str(int(want.shadow)),
            "DECISIONOS_KEEP_WARM": str(int(want.keep_warm)),
            "DECISIONOS_RELEASE": want.release or "",
            "DECISIONOS_BASELINE_RELEASE": want.baseline_release or "",
        }
        external.must(self._config.argv, timeout_sec=self._config.timeout_sec, env=env)

    def running(self) -> Traffic | None:
        """What the report says; None without one.

        Raises:
            RolloutError: the report fails, or does not say what it should.
        """
        report = self._config.report
        if report is None:
            return None
        ran = external.must(report, timeout_sec=self._config.timeout_sec, env=self._given)
        document = strict_json.loads(ran.out, file=Path(report[0]))
        try:
            return Traffic.model_validate(document)
        except ValidationError as fault:
            first = first_fault(fault)
            raise RolloutError(
                f"a report of traffic that cannot be: {first.words}",
                file=report[0],
                field=first.field,
                expected='JSON such as {"pct": 10, "release": "v2", "baseline_release": "v1"}',
            ) from None
