"""Every ``DECISIONOS_*`` variable, in one model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pytest_decisionos.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_SKEW_SEC: Final = 60.0
"""No clock SLA is laxer."""
MAY_BE_EMPTY: Final = frozenset({"allow_scopes", "actor", "release", "baseline_release"})
"""Variables that may be set and empty. A secret that a CI does not have is an empty variable, so any
other is refused then: to take it for unset would drop what somebody asked for. Empty scopes grant
nothing, and an empty actor asks for nothing; an empty release is what ``rollout.command`` and
``dosctl stage watch`` hand on where there is none, and no release is called that."""
_PREFIX: Final = "DECISIONOS_"
_RING: Final = ("kms_param_path", "judge_keys", "judge_hmac_key")
"""Sources of the ring, in the order of ``trust.sources``: the first that is configured is asked."""


class Settings(BaseSettings):
    """What the environment says; an option on the command line wins over it.

    A variable that is set and empty is refused, but those in ``MAY_BE_EMPTY``; an empty region counts
    as none, as it does for the AWS tools.

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
        env_prefix=_PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True
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

    @field_validator("aws_region", mode="before")
    @classmethod
    def _none_is_said(cls, region: object) -> object:
        return None if isinstance(region, str) and not region.strip() else region


def from_environment() -> Settings:
    """The settings that the environment gives.

    Raises:
        UsageError: a variable does not have the form it should, or is set and empty.
    """
    settings, faults = what_can_be_used()
    if faults:
        raise faults[0]
    return settings


def what_can_be_used() -> tuple[Settings, list[UsageError]]:
    """The settings without the variables that cannot be used, and what is wrong with each of those.

    Where a source of the ring cannot be used, those after it are not taken instead.
    """
    faults = _empty()
    try:
        return _without(faults), list(faults.values())
    except ValidationError as fault:
        for error in fault.errors(include_url=False):
            place = str(error["loc"][0])
            name = place if place.startswith("AWS_") else f"{_PREFIX}{place.upper()}"
            secret = "KEY" in name or name.endswith("REPLAY")  # a secret is never told
            found = None if secret else error["input"]
            faults[_field(name)] = UsageError(error["msg"], field=name, found=found)
    return _without(faults), list(faults.values())


def _empty() -> dict[str, UsageError]:
    """Field → that its variable is set and empty."""
    names = [name for name, value in os.environ.items() if not value.strip()]
    return {
        _field(name): UsageError(
            "is set and empty", field=name, next_step="unset it, or say what it should be"
        )
        for name in names
        if name.upper().startswith(_PREFIX)
        and _field(name) in Settings.model_fields.keys() - MAY_BE_EMPTY
    }


def _field(name: str) -> str:
    """The field that a variable sets."""
    upper = name.upper()
    return "aws_region" if upper.startswith("AWS_") else upper.removeprefix(_PREFIX).lower()


def _without(fields: Collection[str]) -> Settings:
    """The settings as if nothing were said of ``fields``."""
    first = next((at for at, name in enumerate(_RING) if name in fields), len(_RING))
    # What is given here comes before the environment.
    defaults: dict[str, Any] = {
        name: Settings.model_fields[name].default for name in {*fields, *_RING[first:]}
    }
    return Settings(**defaults)


def split(text: str) -> list[str]:
    """The parts of a comma or space separated list, in order, empty ones dropped."""
    return text.replace(",", " ").split()
