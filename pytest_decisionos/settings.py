"""Every ``DECISIONOS_*`` variable, in one model."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pytest_decisionos.errors import UsageError


class Settings(BaseSettings):
    """What the environment says; an option on the command line wins over it.

    Attributes:
        root: root folder of the target (``DECISIONOS_ROOT``).
        gate: gate configuration (``DECISIONOS_GATE``).
        phase: phase of the gate: preflight, cutover, post, drill (``DECISIONOS_PHASE``).
        evidence: evidence document; None means ``<root>/evidence/latest.json``.
        slo: further SLO files or globs, separated by commas (``DECISIONOS_SLO``).
        judges: the judges to ask, separated by commas; empty means all (``DECISIONOS_JUDGES``).
        quorum: ``k/n`` to demand at least; empty means what the files say (``DECISIONOS_QUORUM``).
        allow_scopes: RBAC scopes granted (``DECISIONOS_ALLOW_SCOPES``); empty grants nothing.
    """

    model_config = SettingsConfigDict(env_prefix="DECISIONOS_", extra="ignore", frozen=True)

    root: Path = Path("var")
    gate: Path = Path("configs/gate.yaml")
    phase: str = Field(default="cutover", max_length=64)
    evidence: Path | None = None
    slo: str = Field(default="", max_length=16_384)
    judges: str = Field(default="", max_length=4096)
    quorum: str = Field(default="", max_length=16)
    allow_scopes: str = Field(default="", max_length=4096)


def from_environment() -> Settings:
    """The settings that the environment gives.

    Raises:
        UsageError: a variable does not have the form it should.
    """
    try:
        return Settings()
    except ValidationError as fault:
        first = fault.errors(include_url=False)[0]
        name = "DECISIONOS_" + "_".join(str(part) for part in first["loc"]).upper()
        raise UsageError(first["msg"], field=name, found=first["input"]) from None


def split(text: str) -> list[str]:
    """The parts of a comma or space separated list, in order, empty ones dropped."""
    return text.replace(",", " ").split()
