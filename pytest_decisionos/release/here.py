"""What every change of a release works with: who asks, and where the files lie that it is held against."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pytest_decisionos.errors import KeysError, RefusedError
from pytest_decisionos.release.stage import FILE, read_stage
from pytest_decisionos.trust import rbac

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pytest_decisionos.model.outcome import Outcome
    from pytest_decisionos.release.repair import Asked
    from pytest_decisionos.release.stage import Changer, Reading
    from pytest_decisionos.trust.keys import KeyRing
    from pytest_decisionos.trust.trustfile import TrustFile

LATEST: Final = "latest"
"""The newest decision of a phase."""
Scope = Literal["deploy:promote", "deploy:abort", "judge:run"]
CLOCKS: Final = timedelta(seconds=5)
"""How far the clock of who signed something may be ahead of this one."""


class ConditionsError(RefusedError):
    """A change that was refused, with everything that was asked.

    Attributes:
        outcomes: every condition; the first that does not hold is the one that is told.
    """

    def __init__(self, what: str, *, outcomes: tuple[Outcome, ...], **where: Any) -> None:
        super().__init__(what, **where)
        self.outcomes = outcomes


class AbortedError(RefusedError):
    """Traffic could not be moved, so the release was aborted."""


class Here(NamedTuple):
    """Who asks for a change, and where everything lies.

    Attributes:
        asked: who asks, of which target, with which keys, when.
        command: what was called, for the audit journal.
        gate: gate.yaml; beside it lie canary/policy.json, freeze.yaml and rollout.yaml.
        evidence: the evidence document.
        trust: gives the trust file, or raises why not.
        max_age_sec: how long after the end of its evidence's window a decision may be acted on.
    """

    asked: Asked
    command: str
    gate: Path
    evidence: Path
    trust: Callable[[], TrustFile]
    max_age_sec: float

    @property
    def policy_file(self) -> Path:
        """The canary policy."""
        return self.gate.parent / "canary/policy.json"

    @property
    def freeze_file(self) -> Path:
        """When nothing may go on."""
        return self.gate.parent / "freeze.yaml"

    @property
    def rollout_file(self) -> Path:
        """What moves traffic."""
        return self.gate.parent / "rollout.yaml"

    def keys(self) -> KeyRing:
        """The keys of the stage.

        Raises:
            DecisionOSError: there are none, or they cannot be had.
        """
        ring = self.asked.ring()
        if ring is None:
            raise KeysError(
                "no keys are configured, so no stage can be believed or written",
                file=self.asked.root / FILE,
                next_step="configure a ring: DECISIONOS_KMS_PARAM_PATH or DECISIONOS_JUDGE_KEYS",
            )
        return ring

    def look(self, ring: KeyRing | None) -> Reading:
        """The stage as it is now."""
        asked = self.asked
        return read_stage(
            asked.root, target=asked.target, ring=ring, state_dir=asked.state_dir, now=asked.now
        )

    def change(self, ring: KeyRing | None, **more: float) -> AbstractContextManager[Changer]:
        """``change_stage`` of this target."""
        return self.asked.change(ring, **more)

    def record(self, scope: str, *, allowed: bool, code: str, **more: Any) -> str:
        """``Asked.record`` of this command."""
        return self.asked.record(self.command, scope, allowed=allowed, code=code, **more)

    def must_record(self, scope: str, *, code: str, **more: Any) -> None:
        """Record that something is allowed; what the journal does not tell is not done.

        Raises:
            RefusedError: it could not be written.
        """
        fault = self.record(scope, allowed=True, code=code, **more)
        if fault:
            raise RefusedError(
                f"not done, because the audit journal cannot tell of it: {fault}",
                next_step="mend the journal; an abort works without it",
            )

    def require(self, scope: Scope) -> None:
        """Let pass only who holds ``scope``, and record who does not.

        Raises:
            DeniedError: it is not granted.
        """
        if not rbac.allows(self.asked.scopes, scope):
            self.record(scope, allowed=False, code="denied", why=f"scope {scope} is not granted")
        rbac.require(self.asked.scopes, scope)
