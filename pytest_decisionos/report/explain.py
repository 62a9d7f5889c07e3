"""The rules of an SLO file in words, for people at 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_decisionos.errors import shown
from pytest_decisionos.model.outcome import quantity
from pytest_decisionos.report.text import below, cells, fold, row
from pytest_decisionos.slo.waivers import waiver_fault

if TYPE_CHECKING:
    from datetime import datetime

    from pytest_decisionos.model.policy import Rule, Slo

WIDTH: Final = 80
_ID_WIDTH: Final = 34


def explain(slo: Slo, *, now: datetime) -> str:
    """What ``slo`` asks for, in words, at most 80 columns wide, with a final newline.

    Args:
        slo: a compiled SLO.
        now: the time that waivers are held against, with a zone.
    """
    rows = [("RULE", "MUST HOLD"), *((shown(rule.id), _words(rule)) for rule in slo.rules)]
    ids = min(_ID_WIDTH, max(cells(one) for one, _ in rows))
    lines = [f"SLO {shown(slo.stem)} ({shown(slo.version)}), {len(slo.rules)} rules"]
    lines += [f"in {shown(slo.file, 300)}", ""]
    for texts in rows:
        lines += row(texts, (ids, WIDTH - ids - 2))
    lines.append("")
    for line in (*_votes(slo), *_waivers(slo, now)):
        first = fold(line, WIDTH)[0]
        rest = " ".join(line.split())[len(first) :]
        lines += [first, *(below(rest) if rest else ())]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _words(rule: Rule) -> str:
    words = shown(rule.text, 1000)
    if rule.missing == "inconclusive":
        words += "; not measured is inconclusive"
    if rule.severity == "warn":
        words += " [warns only]"
    if not rule.waivable:
        words += " [cannot be waived]"
    return f"{words} [{shown(rule.label)}]" if rule.label else words


def _votes(slo: Slo) -> list[str]:
    if slo.quorum is None:
        quorum = "Quorum: as gate.yaml says."
    else:
        quorum = f"Quorum: at least {slo.quorum.k} of {slo.quorum.n} judges must vote pass"
        quorum += "; a judge in error makes it NO-GO." if slo.quorum.fail_closed_on_degrade else "."
    verdict = "HOLD" if slo.on_inconclusive == "hold" else "NO-GO"
    wait = quantity(slo.max_wait_sec, "s")
    return [quorum, f"Too little evidence: {verdict}; wait at most {wait} in a step, then abort."]


def _waivers(slo: Slo, now: datetime) -> list[str]:
    lines = []
    for waiver in slo.waivers:
        fault = waiver_fault(waiver, now)
        state = f"until {waiver.expires}" if fault is None else f"IGNORED, {fault}"
        line = f"Waiver of {waiver.rule}, by {waiver.owner}, {state}: {waiver.reason}"
        lines.append(shown(line, 1000))
    return lines
