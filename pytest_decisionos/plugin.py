"""pytest's face: options, fixtures, parametrisation, exit status. What a run does is in gate_run.py.

A run without gates pays for this module and nothing more, so everything heavy loads on first use.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Never

    from pytest_decisionos.gate_run import GateRun
    from pytest_decisionos.judge.gather import Request
    from pytest_decisionos.model.evidence import Evidence

OPTIONS: Final = {
    "slo": "SLO file or glob beside those of gate.yaml (repeatable)",
    "evidence": "evidence document (default: <root>/evidence/latest.json)",
    "judges": "judges to ask, separated by commas; the others abstain (default: all)",
    "quorum": "k/n to demand at least; never less than the files say",
    "gate": "gate configuration (default: configs/gate.yaml)",
    "root": "root folder of the target (default: var)",
    "phase": "phase of gate.yaml (default: cutover)",
}
OURS: Final = ("slo", "rule", "judge", "check")
GATE: Final = "configs/gate.yaml"
RUN: Final = pytest.StashKey["GateRun"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """One option each, with an ini twin and a ``DECISIONOS_*`` variable."""
    group = parser.getgroup("decisionos", "DecisionOS release gate")
    for name, text in OPTIONS.items():
        flag, dest = f"--decisionos-{name}", f"decisionos_{name}"
        if name == "slo":
            group.addoption(flag, dest=dest, action="append", default=[], metavar="FILE", help=text)
            parser.addini(dest, f"{text}; or {flag}", type="linelist", default=[])
        else:
            group.addoption(flag, dest=dest, default=None, metavar=name.upper(), help=text)
            parser.addini(dest, f"{text}; or {flag}", default="")


def setting(config: pytest.Config, name: str) -> str:
    """An option's value: command line, then environment, then ini; empty if none says."""
    given = getattr(config.known_args_namespace, f"decisionos_{name}", None)
    if given:
        return ",".join(given) if isinstance(given, list) else str(given)
    environment = os.environ.get(f"DECISIONOS_{name.upper()}", "")
    if environment:
        return environment
    ini = config.getini(f"decisionos_{name}")
    return ",".join(ini) if isinstance(ini, list) else str(ini or "")


def request_of(config: pytest.Config) -> Request:
    """What is to be judged, as the options say."""
    from datetime import UTC, datetime

    from pytest_decisionos.judge.gather import Request
    from pytest_decisionos.settings import from_environment, split
    from pytest_decisionos.trust.sources import ring_of

    evidence, settings = setting(config, "evidence"), from_environment()
    return Request(
        root=root_of(config),
        gate=gate_of(config),
        phase=setting(config, "phase") or "cutover",
        now=datetime.now(UTC),
        evidence=Path(evidence) if evidence else None,
        more_slos=tuple(split(setting(config, "slo"))),
        judges=tuple(split(setting(config, "judges"))),
        quorum=setting(config, "quorum"),
        ring=ring_of(settings),
        settings=settings,
    )


def base_of(config: pytest.Config) -> Path:
    """Where default paths begin: here, or in pytest's root folder when run in a folder below it."""
    return Path() if Path(GATE).is_file() else Path(os.path.relpath(config.rootpath))


def root_of(config: pytest.Config) -> Path:
    """The target's root folder."""
    return Path(setting(config, "root") or base_of(config) / "var")


def gate_of(config: pytest.Config) -> Path:
    """The gate configuration."""
    return Path(setting(config, "gate") or base_of(config) / GATE)


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def gate_folders(config: pytest.Config) -> list[Path]:
    """The folders named ``gates`` that this run is asked for, or that lie in what it is asked for."""
    named = (
        getattr(config.known_args_namespace, "file_or_dir", None)
        or config.getini("testpaths")
        or ["."]
    )
    base = base_of(config)
    found: list[Path] = []
    for arg in named:
        # Relative to the base: a checkout may lie below a folder that is named gates too.
        path = Path(os.path.relpath(str(arg).partition("::")[0], base))
        if "gates" in path.parts:
            found.append(base.joinpath(*path.parts[: path.parts.index("gates") + 1]))
        elif (base / path / "gates").is_dir():
            found.append(base / path / "gates")
    return found


def gate_files(config: pytest.Config) -> list[str]:
    """Node ids of the test files in the gates folders: each must give a test, or one is missing."""
    patterns = config.getini("python_files")
    return [
        Path(os.path.relpath(file, config.rootpath)).as_posix()
        for folder in gate_folders(config)
        for file in folder.rglob("*.py")
        if any(file.match(pattern) for pattern in patterns)
    ]


def names_gates(config: pytest.Config) -> bool:
    """Whether this run is asked for gates: a ``gates`` folder is named, and there is a gate.yaml."""
    return gate_of(config).is_file() and bool(gate_folders(config))


def run_of(config: pytest.Config) -> GateRun:
    """This process's gate run, begun when it is first asked for."""
    run = config.stash.get(RUN, None)
    if run is None:
        from pytest_decisionos.gate_run import GateRun

        run = config.stash[RUN] = GateRun(config, is_worker(config))
        config.pluginmanager.register(run, "decisionos-run")
    return run


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Take an earlier decision away before any code of the checkout runs."""
    if names_gates(early_config):
        from pytest_decisionos.errors import DecisionOSError
        from pytest_decisionos.report.publish import withdraw

        try:
            withdraw(root_of(early_config) / "gate")
        except DecisionOSError as fault:
            raise pytest.UsageError(str(fault)) from None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, Any, Any]:
    """Have the last word on the exit status, whatever a conftest did to it, and publish."""
    if is_worker(config):
        return (yield)
    if names_gates(config) and not (config.option.help or config.option.version):
        run_of(config).begin()
    status = yield
    run = config.stash.get(RUN, None)
    return status if run is None else run.finish(int(status or 0))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a new worker what was gathered, so that logs are read once and all judge the same."""
    if gate_of(node.config).is_file():
        run_of(node.config).hand_over(node)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise over SLO × rule × judge, or checks, whichever a test takes of our fixtures."""
    taken = [name for name in OURS if name in metafunc.fixturenames and _is_ours(metafunc, name)]
    if not taken:
        return
    rows, ids = run_of(metafunc.config).parameters(taken)
    metafunc.parametrize(taken, rows, ids=ids)


def _is_ours(metafunc: pytest.Metafunc, name: str) -> bool:
    """Whether ``name`` is this plugin's fixture: not overridden, not parametrised by the test."""
    for mark in metafunc.definition.iter_markers("parametrize"):
        argnames = mark.args[0] if mark.args else mark.kwargs.get("argnames", "")
        if name in (argnames.replace(",", " ").split() if isinstance(argnames, str) else argnames):
            return False
    definitions = metafunc._arg2fixturedefs.get(name, ())  # noqa: SLF001 - pytest tells it nowhere else
    return bool(definitions) and definitions[-1].func.__module__ == __name__


@pytest.fixture(scope="session")
def evidence(pytestconfig: pytest.Config) -> Evidence:
    """The evidence that is judged: ``evidence.blocks["perf"]["latency_ms"]["p95"]``."""
    return run_of(pytestconfig).evidence


def _unparametrised(name: str) -> Never:
    raise pytest.UsageError(
        f"take the fixture {name} as an argument of the test itself: it is parametrised"
    )


@pytest.fixture
def slo() -> Never:
    """One compiled SLO after the other: ``slo.rules``, ``slo.stem``."""
    _unparametrised("slo")


@pytest.fixture
def rule() -> Never:
    """One rule after the other: ``rule.id``, ``rule.metric``, ``rule.bound``, ``rule.text``."""
    _unparametrised("rule")


@pytest.fixture
def judge() -> Never:
    """One judge after the other: ``judge.id``, ``judge.document``, ``judge.vote(rule)``.

    A test that takes it is part of that judge's vote.
    """
    _unparametrised("judge")


@pytest.fixture
def check() -> Never:
    """One condition after the other that must pass, without vote: ``check.pass_or_fail()``."""
    _unparametrised("check")
