"""Where other packages plug in (pluggy): judges, sources, checks, reporters, rollouts.

A package names a module of hook implementations in its entry points, group ``decisionos``::

    [project.entry-points.decisionos]
    our-traces = "our_traces.decisionos"

Only installed packages are asked, never a checkout's ``conftest.py``: what decides must be the same
for ``pytest gates/``, ``dosctl judge quorum`` and the signer. See docs/extending.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from pytest_decisionos.errors import DecisionOSError, UsageError, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from pytest_decisionos.judge.gate import JudgeConfig
    from pytest_decisionos.model.decision import Decision
    from pytest_decisionos.model.outcome import Outcome
    from pytest_decisionos.model.target import Target
    from pytest_decisionos.release.traffic import Rollout

PROJECT = "decisionos"
hookimpl = pluggy.HookimplMarker(PROJECT)
_hookspec = pluggy.HookspecMarker(PROJECT)


class SourceRequest(NamedTuple):
    """What a source is asked: compute your own numbers for this evidence.

    Attributes:
        judge: id of the judge that asks.
        params: what gate.yaml gives that judge.
        root: root folder of the target.
        blocks: the sealed evidence. Not to be changed.
    """

    judge: str
    params: Mapping[str, Any]
    root: Path
    blocks: Mapping[str, Any]


class CheckRequest(NamedTuple):
    """What a check is asked.

    Attributes:
        params: what gate.yaml gives it.
        root: root folder of the target.
        target: what is released where.
        blocks: the sealed evidence. Not to be changed.
        now: the time of the decision.
    """

    params: Mapping[str, Any]
    root: Path
    target: Target
    blocks: Mapping[str, Any]
    now: datetime


class RolloutRequest(NamedTuple):
    """What an adapter is made with.

    Attributes:
        params: what rollout.yaml gives it.
        strategy: ``canary`` or ``blue-green``.
        root: root folder of the target.
        target: what is released where.
    """

    params: Mapping[str, Any]
    strategy: str
    root: Path
    target: Target


class Specs:
    """The hooks. Each is called once per run."""

    @_hookspec
    def decisionos_judges(self) -> list[JudgeConfig]:  # type: ignore[empty-body]
        """Judges beside those of gate.yaml; each counts in n like any other."""

    @_hookspec
    def decisionos_sources(self) -> Mapping[str, Callable[[SourceRequest], dict[str, Any] | None]]:  # type: ignore[empty-body]
        """Sources by name, for ``judges: [{id: …, source: NAME}]``.

        A source returns evidence blocks with the numbers that it computed itself (the rest is
        taken from the sealed evidence), or None if it has nothing to look at: its judge abstains.
        An exception makes its judge's vote an error.
        """

    @_hookspec
    def decisionos_checks(self) -> Mapping[str, Callable[[CheckRequest], Outcome]]:  # type: ignore[empty-body]
        """Checks by name, for ``checks: [NAME]`` of a phase. An exception is an error outcome."""

    @_hookspec
    def decisionos_rollouts(self) -> Mapping[str, Callable[[RolloutRequest], Rollout]]:  # type: ignore[empty-body]
        """Adapters by name, for ``adapter: NAME`` of rollout.yaml; what each makes moves traffic.

        An exception of ``apply`` or ``running`` is a change of traffic that failed.
        """

    @_hookspec
    def decisionos_report(self, decision: Decision, folder: Path) -> None:
        """Report ``decision``; files go to ``folder``. An exception is told and changes nothing."""


@cache
def plugins() -> pluggy.PluginManager:
    """The manager with every installed package of the entry point group ``decisionos``.

    Raises:
        UsageError: one cannot be loaded, or implements a hook that there is not.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Specs)
    with _in_words("an installed package of the entry point group decisionos cannot be loaded"):
        manager.load_setuptools_entrypoints(PROJECT)
        manager.check_pending()
    return manager


def answers(hook: str) -> Iterator[tuple[str, Any]]:
    """Each installed package's name, and what its ``hook``, which takes nothing, gives.

    Raises:
        UsageError: a package cannot be loaded, or its hook fails.
    """
    for implementation in getattr(plugins().hook, hook).get_hookimpls():
        with _in_words(f"{hook} of {implementation.plugin_name} fails"):
            answer = implementation.function()
        yield implementation.plugin_name, answer


def added(hook: str) -> dict[str, Callable[[Any], Any]]:
    """The functions, by name, that installed packages answer to a hook of that kind.

    Raises:
        UsageError: a package cannot be loaded, its hook fails or gives something else, or two
            packages add one name.
    """
    made: dict[str, Callable[[Any], Any]] = {}
    for who, answer in answers(hook):
        if not isinstance(answer, Mapping) or not all(map(callable, answer.values())):
            expected = "a mapping of names to functions"
            raise UsageError(f"{hook} of {who} is wrong", found=answer, expected=expected)
        if twice := made.keys() & answer.keys():
            raise UsageError(f"{who} adds a name that is taken", field=hook, found=min(twice))
        made.update(answer)
    return made


@contextlib.contextmanager
def _in_words(what: str) -> Iterator[None]:
    """Another package's exception as one line of ours, also one that would end the process."""
    try:
        yield
    except (DecisionOSError, KeyboardInterrupt):
        raise
    except BaseException as fault:  # noqa: BLE001 - SystemExit(0) would look like a GO
        why = f"{type(fault).__name__}: {shown(str(fault), 200)}"
        raise UsageError(what, found=why, next_step="mend it, or uninstall it") from None
