"""What the stage file says, and how a reader has to take it."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from pytest_decisionos.errors import shown
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.target import Target
from pytest_decisionos.release.traffic import ReleaseName
from pytest_decisionos.release.transitions import StageName
from pytest_decisionos.trust.keys import KeyId

Digest = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]


class Stage(Frozen):
    """What the file says.

    Attributes:
        target: what is released where.
        stage: ``stable``: everybody runs ``release``. ``canary``: ``pct`` of the traffic is on
            ``release`` (0: copies of requests only), the rest on ``baseline_release``. ``promote``:
            all of it is, and the baseline is kept warm until the post-verification. ``abort``: the
            traffic is on its way back to ``baseline_release``.
        pct: per cent of the traffic on ``release`` beyond what is stable: 0 for stable and abort.
        release: None where nobody said it yet.
        baseline_release: None when stable, or where nobody said it yet.
        since: when this step began: counting a look or pausing does not change it.
        paused: no step goes on until it is resumed.
        looks: how often this step was judged.
        seq: one more with each write, whatever was lost between.
        prev: SHA-256 of the file before; None after a repair and at first.
        decision_sha256: of the decision that allowed this step; None if it needed none.
        key_id: the key of the MAC.
        mac: HMAC-SHA-256 over the RFC 8785 form of {use: "stage", and all fields above}.
    """

    target: Target
    stage: StageName
    pct: Annotated[float, Field(strict=True, ge=0, le=100, allow_inf_nan=False)]
    release: ReleaseName | None
    baseline_release: ReleaseName | None
    since: AwareDatetime
    paused: Annotated[bool, Field(strict=True)]
    looks: _Count
    seq: Annotated[_Count, Field(ge=1)]
    prev: Digest | None
    decision_sha256: Digest | None
    key_id: KeyId
    mac: Digest

    @model_validator(mode="after")
    def _consistent(self) -> Stage:
        if self.stage in {"stable", "abort"} and self.pct != 0:
            raise ValueError(f"{self.stage} with {self.pct:g} % of the traffic on the canary")
        if self.stage == "promote" and self.pct != 100:
            raise ValueError(f"promote with {self.pct:g} % of the traffic")
        if self.stage == "canary" and self.pct == 100:
            raise ValueError("canary with all of the traffic: that is promote")
        if self.stage in {"canary", "promote"} and None in {self.release, self.baseline_release}:
            raise ValueError(f"{self.stage} without a release, or without a baseline to go back to")
        return self


class Reading(NamedTuple):
    """The stage as a controller has to take it.

    Attributes:
        stage: None reads as stable.
        sha256: of the file's bytes; None unless they are valid.
        alarm: reason code why it reads as stable; empty if the file is valid.
        message: the alarm in words; without one, what a reader should know besides.
        removed: whether the file is missing and this host has seen one: there was a stage.
    """

    stage: Stage | None
    sha256: str | None
    alarm: str
    message: str
    removed: bool = False

    @property
    def name(self) -> StageName:
        """``stable`` unless a valid file says otherwise."""
        return self.stage.stage if self.stage else "stable"

    @property
    def pct(self) -> float:
        """Per cent of the traffic."""
        return self.stage.pct if self.stage else 0.0

    @property
    def release(self) -> str | None:
        """The release; None if nobody knows."""
        return self.stage.release if self.stage else None

    @property
    def baseline_release(self) -> str | None:
        """The release to go back to."""
        return self.stage.baseline_release if self.stage else None

    @property
    def paused(self) -> bool:
        """Whether it is paused."""
        return self.stage is not None and self.stage.paused

    @property
    def looks(self) -> int:
        """How often this step was judged."""
        return self.stage.looks if self.stage else 0

    @property
    def seq(self) -> int:
        """Its number; 0 if there is none."""
        return self.stage.seq if self.stage else 0


def told(stage: Stage) -> str:
    """The stage in a few words."""
    share = f" {stage.pct:g} %" if stage.stage == "canary" else ""
    which = f" of {shown(stage.release)}" if stage.release else ""
    return f"{stage.stage}{share}{which} (number {stage.seq})"
