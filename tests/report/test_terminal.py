"""The terminal: readable at 80 columns, and nothing in it that a terminal or a CI runner obeys."""

import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_cases import (
    DECISIONS,
    LONG_ID,
    WANTED,
    hostile_text,
    large,
    poisoned,
    verdict_in_terminal,
)
from rich.console import Console

from pytest_decisionos.model.decision import Verdict, Vote
from pytest_decisionos.model.outcome import Outcome, Status
from pytest_decisionos.report.table import QuorumTable
from pytest_decisionos.report.terminal import outcome_lines, summary_lines
from pytest_decisionos.report.text import amount, cells, fold, labelled, plain

OUR_START = re.compile(
    r"(verdict|partial|target|release|decision|slo|check|dissent|reason|note|file) +\S| {8}\| ?"
)


def one(name):
    return "\n".join(summary_lines(DECISIONS[name], artifacts=[Path("var/gate/decision.json")]))


def joined(lines):
    """The lines with their folds undone."""
    return re.sub(r"\n {8}\| ", " ", "\n".join(lines))


def printed(decision, *, width=80, encoding="utf-8", color=False):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    console = Console(
        file=stream, width=width, force_terminal=color, color_system="standard" if color else None
    )
    console.print(QuorumTable(decision))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("name", DECISIONS)
def test_summary_tells_verdict_and_files(name):
    lines = summary_lines(DECISIONS[name], artifacts=[Path("var/gate/decision.json")])
    assert verdict_in_terminal(lines) == WANTED[name]
    assert "file      var/gate/decision.json" in lines
    assert all(cells(line) <= 80 for line in lines)


def test_summary_tells_quorum_votes_dissent_and_reason():
    text = joined(summary_lines(DECISIONS["go-dissent"], artifacts=[]))
    assert "결제-judge: GO, quorum 2/3, 2 of 3 pass: evidence pass, 증인 pass, peer fail" in text
    assert "dissent   peer fail, outvoted in 결제-judge" in text
    assert (
        "reason    1x judge_infra.latency.p95:over (outvoted) [reason:gate] peer: 1,260 ms is not"
        in text
    )


def test_summary_tells_checks_notes_abstentions_and_partial_runs():
    assert (
        "check     evidence.target:foreign_target (error): latest.json is about somebody-else"
        in joined(one("foreign").split("\n"))
    )
    assert "release   (the evidence names none)" in one("foreign")
    assert "reason " not in one("foreign")  # the check was told already
    assert "peer abstain (no second log is configured)" in joined(one("go").split("\n"))
    assert "partial   3 tests were deselected" in one("partial")
    assert "check     clock.skew:over (warn, failed): 2 s" in one("go-warned")
    assert "note      a waiver has expired" in one("go-warned")


def test_summary_is_short_however_much_there_is_to_say():
    decision = large(DECISIONS["foreign"], 300)
    lines = summary_lines(large(DECISIONS["slow"], 300), artifacts=[])
    assert len([line for line in lines if line.startswith("reason")]) == 11
    assert "reason    ... and 290 more reasons" in lines
    assert "slo       ... and 550 more SLOs" in lines
    assert "check     ... and 280 more checks" in summary_lines(decision, artifacts=[])


def test_cut_of_slos_never_hides_the_one_that_is_not_go():
    decision = DECISIONS["slow"]
    good = DECISIONS["go"].slos[0].model_copy(update={"slo": "fine"})
    decision = decision.model_copy(update={"slos": (*([good] * 200), decision.slos[1])})
    assert any("둘째: NO-GO" in line for line in summary_lines(decision, artifacts=[]))


@given(name=st.sampled_from(sorted(DECISIONS)), text=hostile_text())
@settings(max_examples=60, deadline=None)
def test_summary_of_hostile_text_is_tame(name, text):
    lines = summary_lines(
        poisoned(DECISIONS[name], text), artifacts=[Path("x") / text.replace("\x00", "")]
    )
    assert verdict_in_terminal(lines) == WANTED[name]
    for line in lines:
        assert cells(line) <= 80
        assert line.isprintable()
        assert OUR_START.match(line), line
        assert "##[" not in line


@given(
    text=hostile_text(), status=st.sampled_from([s for s in Status if s is not Status.SUCCESSFUL])
)
@settings(max_examples=40, deadline=None)
def test_outcome_lines_start_with_our_labels(text, status):
    hostile = Outcome(
        id=text,
        status=status,
        cause=text,
        message=text,
        observed=text,
        bound=text,
        op=text,
        source=text,
        label=text,
        waived=text,
    )
    for line in outcome_lines(hostile, text):
        assert re.match(r"(reason code|[a-z]+): +\S", line), line
        assert line.isprintable()
        assert "##[" not in line


def test_outcome_lines_tell_every_number():
    slow = Outcome(
        id="latency.p95",
        status=Status.FAILED,
        cause="over",
        message="too slow",
        observed=1260.0,
        unit="ms",
        op="<=",
        bound=1200.0,
        limit=1244.5,
        margin=-60.0,
        samples=80_000,
        effective=64_000.4,
        needed=1500,
        source="latest.json",
        label="reason:perf",
        severity="warn",
    )
    assert outcome_lines(slow, "peer") == [
        "reason code: latency.p95:over",
        "status:      failed, warn only",
        "judge:       peer",
        "message:     too slow",
        "observed:    1,260 ms",
        "limit:       1,244 ms",
        "bound:       <= 1,200 ms",
        "margin:      -60 ms",
        "samples:     80,000",
        "effective:   64,000",
        "needed:      about 1,500 more samples",
        "source:      latest.json",
        "label:       reason:perf",
    ]
    bare = outcome_lines(Outcome(id="keys", status=Status.ERROR), None)
    assert bare == [
        "reason code: keys",
        "status:      error",
        "message:     (nothing)",
        "observed:    nothing",
    ]


@pytest.mark.parametrize("name", DECISIONS)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp949"])
def test_table_tells_the_verdict_and_fits_80_columns(name, encoding):
    text = printed(DECISIONS[name], encoding=encoding)
    assert verdict_in_terminal([text.rstrip("\n").split("\n")[-1]]) == WANTED[name]
    assert "\x1b" not in text
    if encoding == "utf-8":
        assert all(cells(line.rstrip()) <= 80 for line in text.split("\n"))


def test_table_has_a_row_per_rule_and_a_mark_per_judge():
    text = printed(DECISIONS["go-dissent"], width=100)
    (row,) = [line for line in text.split("\n") if line.startswith("|judge_infra.latency.p95")]
    assert re.search(r"1,260 ms +<= 1,200 ms +-60 ms +✓  ✓  ✗ *$", row)
    assert "1 evidence pass, 2 증인 pass, 3 peer fail" in text
    assert "✓ pass, ✗ fail, ? inconclusive, ! error, – no vote" in text
    assert re.search(r"^\|rule .* 1  2  3 *$", text, re.MULTILINE)


@pytest.mark.slow
def test_table_tells_each_fault_once_and_ends_no_line_with_blanks():
    text = printed(DECISIONS["slow"], color=True)
    told = joined(printed(DECISIONS["slow"]).split("\n"))
    assert "reason    " in told
    assert told.count("judge_infra.latency.p95:over") == 1
    for line in re.findall(r"(?m)^rule .*", told):
        assert "(warn)" in line  # which is no reason
    plain_lines = re.sub(r"\x1b\[[0-9;]*m", "", text).split("\n")
    assert [line for line in plain_lines if line != line.rstrip()] == []
    many = printed(large(DECISIONS["slow"], 300))  # more than are told as reasons
    assert re.search(r"(?m)^rule  ", many)


def test_table_in_ascii():
    text = printed(DECISIONS["go-dissent"], encoding="ascii", width=100)
    (row,) = [line for line in text.split("\n") if line.startswith("|judge_infra.latency.p95")]
    assert re.search(r"\+  \+  x *$", row)
    assert "\\uc99d\\uc778 pass" in text  # 증인


def test_table_in_a_korean_code_page_keeps_korean():
    assert "증인 pass" in joined(printed(DECISIONS["go-dissent"], encoding="cp949").split("\n"))


def test_table_folds_a_long_rule_id_without_losing_any_of_it():
    text = printed(DECISIONS["go"])
    assert len(LONG_ID) > 150
    cut = "".join(line[1:].split(" ")[0] for line in text.split("\n") if line.startswith("|"))
    assert LONG_ID in cut
    assert "(warn)" in text


def test_table_tells_samples_and_how_many_more_are_needed():
    text = joined(printed(DECISIONS["thin"]).split("\n"))
    assert (
        "judge_infra.latency.p95:samples_insufficient [reason:gate] evidence, 증인: 7 samples say"
        " too little, 93 more are needed" in text
    )
    alone = joined(printed(DECISIONS["thin"].model_copy(update={"reasons": ()})).split("\n"))
    assert "(7 samples, about 93 more are needed)" in alone
    missed = limits_missed().model_copy(update={"reasons": ()})
    assert "effective" in joined(printed(missed).split("\n"))
    waived = joined(printed(DECISIONS["go-waived"], width=120).split("\n"))
    assert "judge_infra.latency.p95 (waived)" in waived
    assert "waived by sre@example.com until 2026-01-20: INC-7 | known" in waived


def limits_missed():
    decision = DECISIONS["slow"]
    slo = decision.slos[0]
    ballots = [
        b.model_copy(
            update={
                "outcomes": tuple(o.model_copy(update={"effective": 64_000.0}) for o in b.outcomes)
            }
        )
        for b in slo.ballots
    ]
    return decision.model_copy(
        update={"slos": (slo.model_copy(update={"ballots": tuple(ballots)}),)}
    )


def test_table_takes_colour_on_a_terminal_only_and_the_consoles_width():
    assert "\x1b[1;31m" in printed(DECISIONS["slow"], color=True)
    lines = printed(DECISIONS["slow"], width=70).split("\n")
    assert all(cells(line) <= 70 for line in lines)


def test_table_of_many_judges_and_many_failures_still_fits():
    decision = DECISIONS["slow"]
    slo = decision.slos[0]
    ballot = slo.ballots[0]
    outcomes = tuple(
        ballot.outcomes[0].model_copy(update={"id": f"rules.r{i:03}", "status": Status.FAILED})
        for i in range(60)
    )
    ballots = tuple(
        ballot.model_copy(update={"judge": f"judge-{i}", "outcomes": outcomes}) for i in range(99)
    )
    decision = decision.model_copy(update={"slos": (slo.model_copy(update={"ballots": ballots}),)})
    text = printed(decision)
    assert all(cells(line.rstrip()) <= 80 for line in text.split("\n"))
    assert text.count("✗") >= 60 * 99
    assert "rule      ... and 10 more that are not successful" in text


def test_table_of_nothing_but_abstentions():
    decision = DECISIONS["slow"]
    slo = decision.slos[0]
    ballots = tuple(
        b.model_copy(update={"outcomes": (), "vote": Vote.ABSTAIN, "reason": "no log"})
        for b in slo.ballots
    )
    text = printed(
        decision.model_copy(update={"slos": (slo.model_copy(update={"ballots": ballots}),)})
    )
    assert "1 evidence abstain (no log)" in text
    assert "legend" not in text
    none = slo.model_copy(update={"ballots": ()})
    lines = summary_lines(
        decision.model_copy(update={"slos": (none,), "verdict": Verdict.NO_GO}), artifacts=[]
    )
    assert any("0 of 0 pass: no judge voted" in line for line in lines)


@given(
    name=st.sampled_from(sorted(DECISIONS)),
    text=hostile_text(),
    encoding=st.sampled_from(["utf-8", "ascii"]),
)
@settings(max_examples=40, deadline=None)
def test_table_of_hostile_text_is_tame(name, text, encoding):
    lines = printed(poisoned(DECISIONS[name], text), encoding=encoding).rstrip("\n").split("\n")
    assert verdict_in_terminal(lines[-1:]) == WANTED[name]
    for line in lines:
        assert line.isprintable()
        assert (
            not line.strip() or re.match(r"\||(votes|rule|legend) ", line) or OUR_START.match(line)
        ), line
        assert "##[" not in line


@given(text=st.text(max_size=200), width=st.integers(2, 40))
@settings(max_examples=60)
def test_fold_keeps_every_character_within_the_width(text, width):
    lines = fold(plain(text), width)
    assert all(cells(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == plain(text).replace(" ", "")


def test_fold_breaks_between_words_where_it_can():
    assert fold("하나 둘 셋", 7) == ["하나 둘", "셋"]
    assert fold("abcdef gh", 4) == ["abcd", "ef", "gh"]
    assert fold("", 4) == [""]
    assert fold("한", 1) == ["한"]  # never an endless loop
    assert labelled("note", "a b", 1) == ["note      a", "        | b"]


def test_plain_text_is_cut_and_escaped():
    assert plain("a\nb\x1b\ud800\u202e") == r"a\nb\x1b\ud800\u202e"
    assert plain("x" * 1000, 10) == "x" * 9 + "…"
    assert plain(" ") == plain("") == "(nothing)"
    assert plain("###[x]") == r"##\x23[x]"


def test_amounts_that_no_rule_accepts_can_be_told():
    assert amount(float("nan"), "ms") == "NaN"
    assert amount(10**5000) == amount(-(10**19)) == "beyond 1e18"
    assert amount(float("inf"), "ms") == "inf ms"
    assert amount(True) == "true"
    assert amount(12.5, "ms") == "12.5 ms"
