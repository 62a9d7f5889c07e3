"""configs/rollout.yaml → what moves traffic: the adapters, ours and those of installed packages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from pytest_decisionos import hookspecs
from pytest_decisionos.errors import DecisionOSError, PolicyError, RolloutError, shown
from pytest_decisionos.model.base import Frozen
from pytest_decisionos.model.policy_text import read_policy
from pytest_decisionos.model.validate import validate
from pytest_decisionos.release.nginx_config import NginxConfig
from pytest_decisionos.release.rollout_argo import ArgoConfig, ArgoRollout
from pytest_decisionos.release.rollout_command import CommandConfig, CommandRollout
from pytest_decisionos.release.rollout_nginx import NginxRollout
from pytest_decisionos.release.rollout_none import NoRollout
from pytest_decisionos.release.traffic import Rollout, Traffic, traffic_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_decisionos.model.target import Target

__all__ = ["RolloutFile", "load_rollout", "traffic_of"]

OURS = ("none", "command", "argo", "nginx")


class RolloutFile(Frozen):
    """A whole rollout.yaml.

    Attributes:
        adapter: ``none``, ``command``, ``argo``, ``nginx``, or one of an installed package.
        strategy: ``canary``, or ``blue-green``: shadow, then all at once.
        command: settings of that adapter.
        argo: the same.
        nginx: the same.
        params: settings of an installed package's adapter.
    """

    version: Literal[1] = 1
    adapter: Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    strategy: Literal["canary", "blue-green"] = "canary"
    command: CommandConfig | None = None
    argo: ArgoConfig | None = None
    nginx: NginxConfig | None = None
    params: dict[str, Any] = Field(default={}, max_length=100)

    @model_validator(mode="after")
    def _settings_are_there(self) -> RolloutFile:
        if self.adapter in OURS[1:] and getattr(self, self.adapter) is None:
            raise ValueError(f"adapter {self.adapter} without its settings, {self.adapter}: …")
        if self.params and self.adapter in OURS:
            raise ValueError("params are for adapters of installed packages")
        return self


def load_rollout(
    path: Path, *, root: Path, target: Target, stickiness: str | None = None
) -> Rollout:
    """The adapter that a rollout.yaml asks for.

    Args:
        path: the file; it must be there, because ``none`` has to be meant.
        root: root folder of the target.
        target: what is released where.
        stickiness: what the canary policy says its users are told apart by: nginx has to do so, and
            a command is told. None where no policy is asked, such as in an abort.

    Raises:
        PolicyError: the file is missing or not what it should be.
        UsageError: an installed package fails.
    """
    document, data = read_policy(path, next_step="dosctl init writes one")
    config = validate(RolloutFile, document, path, data)
    if stickiness is not None and config.adapter == "nginx" and config.nginx is not None:
        _same_stickiness(config.nginx, stickiness, path)
    adapter = _adapter(config, path, root=root, target=target, stickiness=stickiness or "")
    return _Guarded(adapter, config.strategy)


def _adapter(
    config: RolloutFile, path: Path, *, root: Path, target: Target, stickiness: str
) -> Rollout:
    strategy = config.strategy
    if config.adapter == "command" and config.command is not None:
        return CommandRollout(
            config.command, strategy=strategy, root=root, target=target, stickiness=stickiness
        )
    if config.adapter == "argo" and config.argo is not None:
        return ArgoRollout(config.argo, strategy=strategy)
    if config.adapter == "nginx" and config.nginx is not None:
        return NginxRollout(config.nginx, strategy=strategy, root=root, beside=path.parent)
    if config.adapter == "none":
        return NoRollout(strategy)
    installed: dict[str, Callable[[Any], Any]] = hookspecs.added("decisionos_rollouts")
    if config.adapter not in installed:
        known = ", ".join((*OURS, *sorted(installed)))
        raise PolicyError(
            "no such adapter", file=path, field="adapter", found=config.adapter, expected=known
        )
    request = hookspecs.RolloutRequest(config.params, strategy, root, target)
    try:
        made: Rollout = installed[config.adapter](request)
    except Exception as fault:
        if isinstance(fault, DecisionOSError):
            raise
        raise PolicyError(
            f"adapter {config.adapter} cannot be made", file=path, found=_named(fault)
        ) from None
    return made


def _same_stickiness(config: NginxConfig, stickiness: str, path: Path) -> None:
    if config.sticky != stickiness:
        raise PolicyError(
            "not what the canary policy says", file=path, field="nginx.sticky",
            found=config.sticky, expected=stickiness,
        )  # fmt: skip


class _Guarded:
    """An adapter, asked only for what its strategy allows, and failing only in one way."""

    def __init__(self, inner: Rollout, strategy: str) -> None:
        self._inner = inner
        self.name = str(inner.name)
        self.strategy = strategy

    def apply(self, want: Traffic) -> None:
        if self.strategy == "blue-green" and want.pct not in {0, 100}:
            raise RolloutError(
                "blue-green has nothing between shadow and all", field="pct", found=want.pct
            )
        if round(want.pct, 2) != want.pct:
            raise RolloutError(
                "too exact", field="pct", found=want.pct, expected="at most two decimals"
            )
        self._asked(self._inner.apply, want)

    def running(self) -> Traffic | None:
        told = self._asked(self._inner.running)
        if told is not None and not isinstance(told, Traffic):
            raise RolloutError(f"{self.name} reports no traffic", found=told)
        return told

    def _asked(self, ask: Callable[..., Any], *args: Traffic) -> Any:
        try:
            return ask(*args)
        except (RolloutError, KeyboardInterrupt):
            raise
        except DecisionOSError as fault:  # a lock that somebody holds, a full disk
            raise RolloutError(f"{self.name}: {fault}") from None
        except BaseException as fault:  # noqa: BLE001 - SystemExit(0) would look like a success
            raise RolloutError(f"{self.name} fails", found=_named(fault)) from None


def _named(fault: BaseException) -> str:
    return f"{type(fault).__name__}: {shown(str(fault), 200)}"
