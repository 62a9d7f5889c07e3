"""The adapter ``argo``: an Argo Rollout, moved from pause to pause by its kubectl plugin.

Argo Rollouts has no command that sets a weight. The Rollout's own steps name the weights, each
followed by a pause without end, and ``promote`` goes on to the next pause. So the steps of the
Rollout must hold every percentage of the canary policy, and 100::

    steps: [{pause: {}}, {setWeight: 5}, {pause: {}}, … {setWeight: 100}, {pause: {}}]

The first pause is shadow; at the pause of 100 the old ReplicaSet still stands. After it the Rollout
is promoted, and the old one may go. Commands: kubectl-argo-rollouts ``promote [--full]``,
``abort``, ``retry rollout``, ``set image``; fields: Rollout v1alpha1, status.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from pydantic import Field, StringConstraints

from pytest_decisionos.errors import DecisionOSError, RolloutError
from pytest_decisionos.model import strict_json
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.release import external
from pytest_decisionos.release.rollout_command import Argv, Seconds
from pytest_decisionos.release.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable

Read = TypeVar("Read")
_KUBECTL_SEC: Final = 60.0
Name = Annotated[
    str, StringConstraints(strict=True, pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")
]


class ArgoConfig(Frozen):
    """``argo`` of rollout.yaml.

    Attributes:
        rollout: name of the Rollout.
        namespace: where it is.
        container: the container whose image is the release.
        image: repository of that image; a release is its tag, or its digest ``sha256:…``.
        kubectl: the program, and options such as ``--context``.
        timeout_sec: how long the cluster may take for one change.
        poll_sec: how often it is asked meanwhile.
    """

    rollout: Name
    namespace: Name
    container: Name
    image: Annotated[
        str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}$")
    ]
    kubectl: Argv = ("kubectl",)
    timeout_sec: Seconds = 300.0
    poll_sec: Annotated[float, Field(strict=True, gt=0, le=60)] = 2.0


class _State:
    """What the Rollout says of itself."""

    def __init__(self, document: Any, container: str) -> None:
        spec, status = document["spec"], document.get("status") or {}
        self.image: str = _image(spec["template"]["spec"], container)
        self.steps: list[dict[str, Any]] = (spec["strategy"].get("canary") or {}).get("steps") or []
        self.stable: str = status.get("stableRS") or ""
        self.current: str = status.get("currentPodHash") or ""
        self.index: int = status.get("currentStepIndex") or 0
        self.paused = bool(status.get("pauseConditions"))
        self.aborted = bool(status.get("abort"))
        self.weights: dict[str, Any] = (status.get("canary") or {}).get("weights") or {}
        # The controller writes it as text; until it has seen the newest spec, status is of before.
        seen = str(status.get("observedGeneration", ""))
        self.settled = seen == str(document["metadata"].get("generation", seen))

    @property
    def has_canary(self) -> bool:
        return self.current != self.stable

    def weight_at(self, index: int) -> float:
        """The weight that the steps up to ``index`` set."""
        before = [step["setWeight"] for step in self.steps[:index] if "setWeight" in step]
        return float(before[-1]) if before else 0.0

    @property
    def weight(self) -> float:
        """The weight that it has: as told by its traffic router, else by its steps."""
        if self.aborted or not self.has_canary:
            return 0.0
        told = (self.weights.get("canary") or {}).get("weight")
        return self.weight_at(self.index) if told is None else float(told)

    @property
    def pauses(self) -> str:
        """The weights that it pauses at."""
        pauses = (index for index, step in enumerate(self.steps) if "pause" in step)
        return ", ".join(f"{self.weight_at(index):g}" for index in pauses) or "no pause"

    def pause_of(self, pct: float) -> int | None:
        """The first endless pause at this weight."""
        for index, step in enumerate(self.steps):
            endless = "pause" in step and not (step["pause"] or {}).get("duration")
            if endless and self.weight_at(index) == pct:
                return index
        return None


class ArgoRollout:
    """Drives one Rollout."""

    name = "argo"

    def __init__(self, config: ArgoConfig, *, strategy: str) -> None:
        self.strategy = strategy
        self._config = config

    def apply(self, want: Traffic) -> None:
        """Bring the Rollout to the pause that ``want`` means.

        Raises:
            RolloutError: kubectl fails, the Rollout has no such pause, or it does not get there in
                time.
        """
        if want.is_way_back:
            self._all_on(want.release)
        else:
            self._share(want)

    def running(self) -> Traffic:
        """What the Rollout says.

        Raises:
            RolloutError: it cannot be asked.
        """
        state = self._state()
        release = self._release(state.image)
        if not state.has_canary:
            return Traffic(release=release)
        name = f"{self._config.rollout}-{state.stable}"
        baseline = self._get(
            "replicaset",
            name,
            lambda d: _image(d["spec"]["template"]["spec"], self._config.container),
        )
        if state.aborted:
            return Traffic(release=self._release(baseline))
        return Traffic(
            pct=state.weight,
            shadow=state.weight == 0,
            release=release,
            baseline_release=self._release(baseline),
            keep_warm=state.weight == 100,
        )

    def _all_on(self, release: str | None) -> None:
        """No canary: everybody on ``release``, or on what is stable now."""
        state = self._state()
        if state.has_canary and release is not None and self._is(state.image, release):
            self._plugin("promote", self._config.rollout, "--full")
            self._wait(lambda s: not s.has_canary, "be promoted")
            return
        if state.has_canary:
            self._plugin("abort", self._config.rollout)
            self._wait(lambda s: s.aborted and s.weight == 0, "be aborted")
        if release is not None and not self._is(state.image, release):
            # The aborted template would come back with the next change of the Rollout.
            self._set_image(release)
            state = self._wait(lambda s: s.settled, "take the image")
            if state.has_canary:  # not the stable one: back to it without the steps
                self._plugin("promote", self._config.rollout, "--full")
            self._wait(lambda s: not s.has_canary, "be back")

    def _share(self, want: Traffic) -> None:
        """A canary of ``want.release`` at ``want.pct``."""
        release = want.release or ""  # Traffic with a baseline has one
        state = self._state()
        wanted = state.pause_of(want.pct)
        if wanted is None:
            raise RolloutError(
                "the Rollout has no endless pause at this weight",
                file=self._config.rollout,
                field="spec.strategy.canary.steps",
                found=state.pauses,
                expected=f"setWeight {want.pct:g}, then pause without duration",
            )
        if not self._is(state.image, release):
            if state.has_canary and not state.aborted:
                raise RolloutError(
                    "another canary is under way", file=self._config.rollout, found=state.image
                )
            self._set_image(release)
            state = self._wait(lambda s: s.settled and s.has_canary, "start the canary")
        elif state.aborted:
            self._plugin("retry", "rollout", self._config.rollout)
            state = self._wait(lambda s: not s.aborted, "start again")
        elif not state.has_canary:
            raise RolloutError(
                "everybody runs it already", file=self._config.rollout, found=release
            )
        if state.index > wanted:
            raise RolloutError(
                "a Rollout goes only forward", file=self._config.rollout,
                found=f"{state.weight:g} %", expected=f"at most {want.pct:g} %", next_step="abort",
            )  # fmt: skip
        while True:
            state = self._wait(lambda s: s.paused or s.index > wanted, "come to its pause")
            if state.index >= wanted:
                break
            self._plugin("promote", self._config.rollout)
            self._wait(partial(_is_beyond, state.index), "go on")
        if state.index > wanted or state.weight != want.pct:
            raise RolloutError(
                "the Rollout is not where it was sent", file=self._config.rollout,
                found=f"{state.weight:g} %", expected=f"{want.pct:g} %",
            )  # fmt: skip

    def _set_image(self, release: str) -> None:
        sign = "@" if release.startswith("sha256:") else ":"
        image = f"{self._config.container}={self._config.image}{sign}{release}"
        self._plugin("set", "image", self._config.rollout, image)

    def _release(self, image: str) -> str | None:
        """The release that an image is; None if it is not one of ours."""
        for sign in "@:":
            prefix = f"{self._config.image}{sign}"
            if image.startswith(prefix):
                return image.removeprefix(prefix)
        return None

    def _is(self, image: str, release: str) -> bool:
        return self._release(image) == release

    def _plugin(self, *words: str) -> None:
        self._kubectl("argo", "rollouts", *words)

    def _kubectl(self, *words: str) -> bytes:
        argv = (*self._config.kubectl, *words, "-n", self._config.namespace)
        return external.must(argv, timeout_sec=_KUBECTL_SEC).out

    def _state(self) -> _State:
        return self._get(
            "rollouts.argoproj.io",
            self._config.rollout,
            lambda d: _State(d, self._config.container),
        )

    def _get(self, kind: str, name: str, read: Callable[[Any], Read]) -> Read:
        out = self._kubectl("get", kind, name, "-o", "json")
        try:
            return read(strict_json.loads(out, file=Path(name)))
        except (LookupError, TypeError, AttributeError, ValueError, DecisionOSError) as fault:
            raise RolloutError(
                f"not a {kind} that can be read",
                file=name,
                found=f"{type(fault).__name__}: {fault}",
            ) from None

    def _wait(self, until: Callable[[_State], bool], what: str) -> _State:
        end = time.monotonic() + self._config.timeout_sec
        while True:
            state = self._state()
            if until(state):
                return state
            if time.monotonic() > end:
                raise RolloutError(
                    f"did not {what} within {self._config.timeout_sec:g} s",
                    file=self._config.rollout,
                    found=f"step {state.index}, weight {state.weight:g} %",
                    next_step=f"kubectl argo rollouts get rollout {self._config.rollout}",
                )
            time.sleep(self._config.poll_sec)


def _is_beyond(index: int, state: _State) -> bool:
    return state.index > index


def _image(pod: Any, container: str) -> str:
    for one in pod["containers"]:
        if one["name"] == container:
            return str(one["image"])
    raise LookupError(f"no container {container}")
