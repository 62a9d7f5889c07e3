"""The five cutovers: one canary that is promoted, and four that are taken back."""

from __future__ import annotations

import json
import stat
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from demo.cutover import Books, Cutover, DemoError
from demo.project import BASELINE, RELEASE, Project
from pytest_decisionos.errors import DecisionOSError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from demo.cutover import Done
    from demo.project import Keys
    from demo.traffic import Account, Behaviour

TRIES: Final = 6
"""Windows that a step may take: a machine that stalls makes samples too noisy to say anything."""
SETTLED_SEC: Final = 1.0
"""After this an old worker of nginx has no user any more."""


class Scenario(NamedTuple):
    """A cutover to be shown.

    Attributes:
        name: of the scenario.
        behaviour: of the canary, once it has users.
        by: what aborts it: the script around the gate, or the job that runs each minute.
        steps: the percentages of its policy.
        rate: requests of all users, a second.
        judges: of its gate: the one that recomputes the numbers from the log takes its time.
    """

    name: str
    behaviour: Behaviour
    by: str
    steps: tuple[float, ...]
    rate: float
    judges: tuple[str, ...]


class Ended(NamedTuple):
    """How a scenario ended.

    Attributes:
        scenario: which.
        stage: where it is.
        books: what became of the users' requests; None if it did not come so far.
        back_sec: from the fault until all users are back; None without a fault.
        why: reason code of the abort, or what is LOCKED.
        wrong: what is not as it should be; empty if the scenario ended as expected.
    """

    scenario: Scenario
    stage: str
    books: Books | None
    back_sec: float | None
    why: str
    wrong: tuple[str, ...]


GATE: Final = "abort_on_gate_fail.sh"
AUTO: Final = "auto-promote"
SCENARIOS: Final = (
    Scenario("healthy", "healthy", AUTO, (5.0, 25.0, 50.0), 300.0, ("evidence", "witness")),
    Scenario("slow", "slow", GATE, (25.0,), 150.0, ("evidence",)),
    Scenario("errors", "errors", GATE, (25.0,), 150.0, ("evidence",)),
    Scenario("burst", "burst", AUTO, (25.0,), 150.0, ("evidence",)),
    Scenario("dead", "dead", AUTO, (25.0,), 150.0, ("evidence",)),
)


def play(scenario: Scenario, folder: Path, keys: Keys, say: Callable[[str], None]) -> Ended:
    """Play a scenario to its end; nothing that goes wrong is raised, all is told.

    Args:
        scenario: which.
        folder: its own, which must not be there yet.
        keys: which all scenarios share.
        say: is told what happens.
    """
    try:
        project = Project(folder, scenario.name, keys, steps=scenario.steps, judges=scenario.judges)
        with Cutover(project, say, rate=scenario.rate) as cutover:
            healthy = scenario.behaviour == "healthy"
            return _promoted(scenario, cutover) if healthy else _aborted(scenario, cutover)
    except (DemoError, DecisionOSError, RuntimeError, OSError) as fault:
        return Ended(scenario, "?", None, None, "", (str(fault),))


def _promoted(scenario: Scenario, cutover: Cutover) -> Ended:
    """A healthy canary, step by step up to all of the traffic; then its evidence is LOCKED."""
    say = cutover.say
    _shadow(cutover)
    for pct in (0.0, *scenario.steps):
        _go_on(cutover, pct)
    promoted = time.time()
    cutover.python("jobs.evidence_lock")
    path = cutover.project.root / f"evidence/{RELEASE}.locked.json"
    cutover.run("dosctl", "evidence", "verify", path)
    say(f"LOCKED {path.name}")
    time.sleep(SETTLED_SEC + 0.5)
    account, books = cutover.books()
    wrong = [*books.wrong, *_ended_at(cutover, "promote")]
    if stat.S_IMODE(path.stat().st_mode) != 0o444:
        wrong.append(f"{path.name} may be written to")
    wrong += _all_on(account, promoted + SETTLED_SEC, RELEASE)
    if books.failed:
        wrong.append(f"{books.failed} failures of a healthy canary")
    return Ended(scenario, "promoted", books, None, f"LOCKED {path.name}", tuple(wrong))


def _shadow(cutover: Cutover) -> None:
    cutover.script("canary_step")
    cutover.say("canary_step.sh: shadow, the canary gets copies of requests")


def _go_on(cutover: Cutover, pct: float) -> None:
    """From ``pct`` on to the next step, as evidence and gate say: with the commands of people."""
    end = 0.0
    for _ in range(TRIES):
        end = cutover.await_window(after=end)
        cutover.build()
        judged = cutover.python("pytest", "gates/", "-p", "no:cacheprovider", ends=(0, 1, 10))
        if judged.status:
            told = _line(judged, "NO-GO", "HOLD").partition(" (/")[0]
            cutover.say(f"gates: {told}; the next window")
            continue
        cutover.run("dosctl", "decision", "sign")
        if pct == cutover.project.last:
            owner = cutover.project.keys.folder / "deploy-owner.key"
            cutover.run("dosctl", "release", "approve", "latest", "--key", owner)
        done = cutover.auto()
        if done.status == 0:
            told = json.loads(done.out)
            cutover.say(
                f"gates GO, signed, {told['action']} {told['from_pct']:g} → {told['to_pct']:g} %"
            )
            return
        if done.status == 2:
            raise DemoError(f"a healthy canary was aborted: {_reason(done)}")
        cutover.say(f"auto-promote waits: {_reason(done)}")
    raise DemoError(f"{TRIES} windows, and it did not go on from {pct:g} %")


def _aborted(scenario: Scenario, cutover: Cutover) -> Ended:
    """A canary that fails when it has a quarter of the users."""
    _shadow(cutover)
    _first_users(cutover)
    time.sleep(1.0)
    fault = cutover.site.become(cutover.canary, scenario.behaviour)
    cutover.say(f"the canary becomes: {scenario.behaviour}")
    done = _until_back(scenario, cutover, fault)
    back = time.time()
    why = _reason(done)
    cutover.say(f"{scenario.by}: aborted after {back - fault:.1f} s, {why}")
    time.sleep(SETTLED_SEC + 1.0)
    account, books = cutover.books()
    wrong = [*books.wrong, *_ended_at(cutover, "stable")]
    wrong += _all_on(account, back + SETTLED_SEC, BASELINE)
    if scenario.behaviour != "slow" and not books.failed:
        wrong.append("nobody saw the fault")
    return Ended(scenario, "aborted", books, back - fault, why, tuple(wrong))


def _first_users(cutover: Cutover) -> None:
    """From shadow to the first percentage, without the tests: they are in the healthy cutover."""
    end = 0.0
    for _ in range(TRIES):
        end = cutover.await_window(after=end)
        cutover.build()
        signed = cutover.run("dosctl", "decision", "sign", "--without-tests", ends=(0, 2, 10))
        if signed.status:
            told = [" ".join(line.split()) for line in signed.out.splitlines()[:2]]
            cutover.say(f"decision: {' '.join(told).partition(' (/')[0]}; the next window")
            continue
        pct = f"{cutover.project.last:g}"
        stepped = cutover.script("canary_step", pct, "--json", ends=(0, 2))
        if stepped.status == 0:
            cutover.say(f"decision signed, canary_step.sh {pct}")
            return
        cutover.say(f"canary_step.sh {pct}: {_reason(stepped)}")
    raise DemoError(f"{TRIES} windows, and it did not get users")


def _until_back(scenario: Scenario, cutover: Cutover, fault: float) -> Done:
    """Judge again and again until the canary is taken back."""
    end = fault
    for _ in range(2 * TRIES):
        if scenario.by == GATE:
            cutover.build()
            done = cutover.script("abort_on_gate_fail", ends=(0, 2, 10))
        else:
            end = cutover.await_window(after=end)
            cutover.build()
            done = cutover.auto()
        if cutover.stage.name == "stable":
            return done
    raise DemoError(f"it was not taken back:\n{done.out}")


def _ended_at(cutover: Cutover, stage: str) -> list[str]:
    reading, trail = cutover.stage, cutover.trail()
    wrong = []
    if reading.alarm or reading.name != stage:
        wrong.append(f"the stage is {reading.name} {reading.alarm}, not {stage}")
    if not trail or trail[-1] != stage:
        wrong.append(f"the audit journal tells of {' → '.join(trail)}")
    return wrong


def _all_on(account: Account, since: float, release: str) -> list[str]:
    """What is wrong with the requests after everybody was moved to ``release``."""
    after = account.since(since)
    if after.sent and set(after.releases) == {release} and set(after.statuses) == {200}:
        return []
    return [f"afterwards: {dict(after.releases)} {dict(after.statuses)}, not {release} alone"]


def _reason(done: Done) -> str:
    """The code of the first reason that a command gives, in JSON or in words."""
    if not done.out.startswith("{"):
        return _line(done, "reason").removeprefix("reason ").partition(": ")[0]
    bad = [one["reason"] for one in json.loads(done.out)["conditions"] if one["cause"]]
    of_canary = [reason for reason in bad if reason.startswith("canary.")]
    return str(next(iter(of_canary or bad), "it does not say why"))


def _line(done: Done, *starts: str) -> str:
    """The first line that starts so, in one spacing."""
    lines = (" ".join(line.split()) for line in f"{done.out}\n{done.err}".splitlines())
    return next((line for line in lines if line.startswith(starts)), "it does not say why")
