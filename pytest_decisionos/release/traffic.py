"""What share of the traffic which release gets, and what moves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Protocol

from pydantic import Field, StringConstraints, ValidationError, model_validator

from pytest_decisionos.errors import RolloutError
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.validate import first_fault

if TYPE_CHECKING:
    from pytest_decisionos.release.stage import Reading, Stage

ReleaseName = Annotated[
    str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/+~-]{0,199}$")
]
"""A version, an image tag or a digest. It goes into configurations and command lines of others, so
it has no character that means something there."""

_WANTED: Final = "a version, tag or digest of letters, digits and . _ : @ / + ~ -"


class Traffic(Frozen):
    """Who is served by which release.

    Attributes:
        pct: share of the users on ``release``, percent, when there is a baseline.
        shadow: whether ``release`` gets copies of the others' requests, which nobody waits for.
        release: the canary; without a baseline the release that everybody runs. None (without a
            baseline only): the one that served before there was a canary, whichever that is.
        baseline_release: what everybody else runs; None when there is no canary.
        keep_warm: the baseline gets no users, and must be able to take all of them back at once.
    """

    pct: Annotated[float, Field(strict=True, ge=0, le=100, allow_inf_nan=False)] = 0.0
    shadow: bool = False
    release: ReleaseName | None = None
    baseline_release: ReleaseName | None = None
    keep_warm: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Traffic:
        alone = self.baseline_release is None
        if alone and (self.pct or self.shadow or self.keep_warm):
            raise ValueError("a share of traffic without a baseline to take it from")
        if not alone and self.release is None:
            raise ValueError("a baseline without a release beside it")
        if self.shadow and self.pct:
            raise ValueError("shadow traffic is before the first percentage")
        return self

    @property
    def is_way_back(self) -> bool:
        """Whether this takes all users off a canary, or leaves them where they are."""
        return self.baseline_release is None

    @property
    def serving(self) -> str | None:
        """The release of most users: of all, but for those of a canary below 100 %."""
        return self.release if self.pct == 100 else self.served

    @property
    def served(self) -> str | None:
        """The release of whoever is not on the canary."""
        return self.release if self.is_way_back else self.baseline_release


class Rollout(Protocol):
    """What moves traffic: an adapter of ``configs/rollout.yaml``.

    Attributes:
        name: of the adapter.
        strategy: ``canary``, or ``blue-green``: nothing between shadow and all.
    """

    name: str
    strategy: str

    def apply(self, want: Traffic) -> None:
        """Bring ``want`` about, and return when it is so. Twice is the same as once.

        Raises:
            RolloutError: it is not so, or that cannot be told.
        """
        ...

    def running(self) -> Traffic | None:
        """What is so now, as told by what carries the traffic; None if it cannot be told."""
        ...


def traffic_of(stage: Stage | Reading) -> Traffic:
    """The traffic that a stage asks for.

    A stage that cannot be read is ``stable`` of whatever release served before.

    Raises:
        RolloutError: its releases have impossible names, or a canary has no baseline.
    """
    known = stage if isinstance(stage.stage, str) else stage.stage
    if known is None:
        return Traffic()
    try:
        match known.stage:
            case "stable":
                return Traffic(release=known.release)
            case "abort":
                return Traffic(release=known.baseline_release)
        if known.baseline_release is None:
            raise RolloutError("no baseline to take traffic from", field="baseline_release")
        return Traffic(
            pct=100.0 if known.stage == "promote" else float(known.pct),
            shadow=known.stage == "canary" and known.pct == 0,
            release=known.release,
            baseline_release=known.baseline_release,
            keep_warm=known.stage == "promote",
        )
    except ValidationError as fault:
        first = first_fault(fault)
        named = first.field in {"release", "baseline_release"}
        raise RolloutError(
            "not the name of a release" if named else first.words,
            field=first.field,
            found=first.found if named else None,
            expected=_WANTED if named else None,
        ) from None
