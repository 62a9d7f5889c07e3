"""Every ``DECISIONOS_*`` variable, in one model."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pytest_decisionos.errors import UsageError

MAX_SKEW_SEC: Final = 60.0
"""No clock SLA is laxer."""


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
        release: the release of a canary's first step (``DECISIONOS_RELEASE``); empty is what the
            evidence names.
        baseline_release: what everybody runs then (``DECISIONOS_BASELINE_RELEASE``).
        actor: who acts, for the audit journal (``DECISIONOS_ACTOR``); empty is who the CI's
            variables name, else the user.
        kms_param_path: SSM path of the HMAC ring (``DECISIONOS_KMS_PARAM_PATH``); the first source.
        judge_keys: the ring as JSON, or ``@FILE`` (``DECISIONOS_JUDGE_KEYS``); the second.
        judge_hmac_key: one secret alone (``DECISIONOS_JUDGE_HMAC_KEY``); the third.
        aws_region: of SSM and S3 (``AWS_REGION``).
        keys_dir: folder of Ed25519 private keys, ``<role>.key`` and ``judge-<id>.key``
            (``DECISIONOS_KEYS_DIR``).
        trust: trust file (``DECISIONOS_TRUST``).
        trust_sha256: the only digest that the trust file may have (``DECISIONOS_TRUST_SHA256``).
        state_dir: where this host remembers what it has seen (``DECISIONOS_STATE_DIR``); None
            means ``$XDG_STATE_HOME/decisionos``.
        decision_max_age: how long after the end of the evidence's window a decision may be acted
            on, seconds (``DECISIONOS_DECISION_MAX_AGE``).
        max_skew: how far clocks may differ, seconds (``DECISIONOS_MAX_SKEW``): the clock SLA.
        ntp: SNTP servers to measure this host's clock by, separated by commas
            (``DECISIONOS_NTP``); empty means that chrony is asked.
        replay: a judge's replay store (``DECISIONOS_REPLAY``): ``redis://…``, or a file for
            SQLite; None means ``<root>/judge/replay.sqlite``.
        judge_ca: certificate authorities of remote judges, PEM (``DECISIONOS_JUDGE_CA``); None
            means those of this host.
        judge_cert: certificate that remote judges know this client by, PEM
            (``DECISIONOS_JUDGE_CERT``).
        judge_cert_key: its private key, PEM (``DECISIONOS_JUDGE_CERT_KEY``).
    """

    model_config = SettingsConfigDict(
        env_prefix="DECISIONOS_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    root: Path = Path("var")
    gate: Path = Path("configs/gate.yaml")
    phase: str = Field(default="cutover", max_length=64)
    evidence: Path | None = None
    slo: str = Field(default="", max_length=16_384)
    judges: str = Field(default="", max_length=4096)
    quorum: str = Field(default="", max_length=16)
    allow_scopes: str = Field(default="", max_length=4096)
    release: str = Field(default="", max_length=256)
    baseline_release: str = Field(default="", max_length=256)
    actor: str = Field(default="", max_length=256)
    kms_param_path: str | None = Field(default=None, max_length=1024)
    judge_keys: SecretStr | None = Field(default=None, max_length=1024 * 1024)
    judge_hmac_key: SecretStr | None = Field(default=None, max_length=4096)
    aws_region: str | None = Field(
        default=None,
        max_length=64,
        validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"),
    )
    keys_dir: Path | None = None
    trust: Path | None = None
    trust_sha256: str = Field(default="", max_length=128)
    state_dir: Path | None = None
    decision_max_age: float = Field(default=900.0, gt=0, le=86_400, allow_inf_nan=False)
    max_skew: float = Field(default=0.5, gt=0, le=MAX_SKEW_SEC, allow_inf_nan=False)
    ntp: str = Field(default="", max_length=4096)
    replay: SecretStr | None = Field(default=None, max_length=2048)
    judge_ca: Path | None = None
    judge_cert: Path | None = None
    judge_cert_key: Path | None = None


def from_environment() -> Settings:
    """The settings that the environment gives.

    Raises:
        UsageError: a variable does not have the form it should.
    """
    try:
        return Settings()
    except ValidationError as fault:
        first = fault.errors(include_url=False)[0]
        place = "_".join(str(part) for part in first["loc"]).upper()
        name = place if place.startswith("AWS_") else f"DECISIONOS_{place}"
        found = (
            None if "KEY" in name or name.endswith("REPLAY") else first["input"]
        )  # a secret is never told
        raise UsageError(first["msg"], field=name, found=found) from None


def split(text: str) -> list[str]:
    """The parts of a comma or space separated list, in order, empty ones dropped."""
    return text.replace(",", " ").split()
