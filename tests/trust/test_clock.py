"""The verdict over readings: within the SLA only if wherever the truth lies; liars are outvoted."""

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from services.ntp import servers

from pytest_decisionos.trust import clock
from pytest_decisionos.trust.clock import (
    Reading,
    clock_fault,
    from_answer,
    measure,
    seconds,
    skew_fault,
    weigh,
)

SLA = 0.5
numbers = st.floats(-2, 2)
errors = st.floats(0, 0.2)


def said(offset, error=0.01, source="s"):
    return Reading(source=source, offset_sec=offset, error_sec=error)


def silent(why="no answer"):
    return Reading(source="quiet", fault=why)


@pytest.mark.parametrize(
    ("offset", "error", "says"),
    [
        (0.0, 0.0, None),
        (0.4, 0.1, None),
        (-0.4, 0.1, None),
        (3.0, 0.1, "3 s slow"),
        (-3.0, 0.1, "3 s fast"),
        (0.51, 0.001, "510 ms slow, at most 500 ms is the SLA"),
        (0.45, 0.1, "cannot tell: off by 450 ms, known to 100 ms"),
        (0.55, 0.1, "cannot tell"),
        (0.0, 0.6, "cannot tell"),
        (0.0, math.inf, "cannot tell"),
        (0.0, math.nan, "cannot tell"),
        (0.0, -0.1, "cannot tell"),
        (math.nan, 0.0, "cannot tell"),
        (math.inf, 0.0, "inf s slow"),
        (-math.inf, math.inf, "cannot tell"),
    ],
)
def test_one_reading(offset, error, says):
    fault = skew_fault([said(offset, error)], SLA)
    assert fault is None if says is None else says in fault


def test_a_reading_that_says_nothing_is_no_number():
    skew = weigh([silent()], SLA)
    assert skew.fault == "quiet: no answer"
    assert math.isnan(skew.offset_sec)
    assert skew.error_sec == math.inf


@pytest.mark.parametrize(
    ("offsets", "ok", "dissent", "offset"),
    [
        ((0, 0.01, 0.02), True, 0, 0.01),
        ((0, 0.01, 5), True, 1, 0.01),
        ((-5, 0.01, 0.02), True, 1, 0.01),
        ((0, 5, 5), False, 1, 5),
        ((0, 5, 7), False, 1, 5),
        ((0, 5, -5), False, 2, 0),  # the middle one is right, and nobody can know
        ((3, 3, 3), False, 0, 3),
        ((0, 0.1, 0.2, 5), True, 1, 0.2),
        ((0, 0.1, 5, 5), False, 2, 5),
        ((0, 0.1, 0.2, 5, 5), True, 2, 0.2),
        ((0, 0.1), True, 0, 0.1),
        ((0, 5), False, 1, 5),
        ((-0.4, 0.1, 0.3, 5), True, 1, 0.3),
    ],
)
def test_the_median_counts_and_more_than_half_must_agree(offsets, ok, dissent, offset):
    skew = weigh([said(one) for one in offsets], SLA)
    assert (skew.fault is None) is ok, skew
    assert skew.dissent == dissent
    assert skew.offset_sec == offset
    assert [not fault for fault in skew.faults] == [abs(one) < SLA for one in offsets]


def test_no_majority_is_said():
    assert "only 1 of 3 sources" in skew_fault([said(0), said(5), said(-5)], SLA)


@pytest.mark.parametrize(
    ("readings", "ok"),
    [
        ([], False),
        ([said(0), said(0), silent()], False),
        ([said(0), said(0), said(0), silent()], True),
        ([said(0), said(0), said(0), silent(), silent()], True),
        ([said(0), silent()], False),
        ([said(0), said(0), said(0, math.inf)], False),
        ([said(0), said(0), said(0, 0.6)], True),
        ([said(0), said(0, 0.6), said(0.01, 0.6)], False),
    ],
)
def test_three_must_say_something_or_all_of_fewer(readings, ok):
    fault = skew_fault(readings, SLA)
    assert (fault is None) is ok, fault
    if not ok:
        assert "cannot tell" in fault


def test_who_does_not_answer_is_named():
    fault = skew_fault([said(0, source="a"), silent("a broken one"), silent()], SLA)
    assert fault == (
        "cannot tell: 1 of 3 sources say something, 3 must; quiet: a broken one; quiet: no answer"
    )


ties = st.sampled_from([-0.6, -0.45, -0.4, 0.0, 0.4, 0.45, 0.6])


@given(st.lists(st.tuples(ties | numbers, errors), min_size=3, max_size=9).flatmap(
    lambda pairs: st.tuples(st.just(pairs), st.permutations(pairs))
))  # fmt: skip
def test_neither_order_nor_direction_of_readings_matters(orders):
    pairs, shuffled = orders
    mirrored = [(-offset, error) for offset, error in pairs]
    told = {
        (skew.fault is None, skew.dissent)
        for skew in (
            weigh([said(*pair) for pair in some], SLA) for some in (pairs, shuffled, mirrored)
        )
    }
    assert len(told) == 1


@given(
    st.lists(st.tuples(numbers, errors), min_size=3, max_size=9),
    st.floats(-0.3, 0.3),
    errors,
)
def test_a_minority_decides_nothing(liars, offset, error):
    honest = [said(offset, error)] * (len(liars) + 1)
    assert skew_fault([*honest, *(said(*pair) for pair in liars)], SLA) is None
    wrong = [said(offset + 2, error)] * (len(liars) + 1)
    assert skew_fault([*wrong, *(said(*pair) for pair in liars)], SLA) is not None


@given(st.lists(st.tuples(numbers, errors), min_size=1, max_size=6), st.integers(0, 6))
def test_no_answer_never_helps(pairs, count):
    readings = [said(*pair) for pair in pairs]
    assume(skew_fault(readings, SLA) is not None)
    assert skew_fault([*readings, *[silent()] * count], SLA) is not None


# A time in an answer


@given(st.floats(0, 4e9), st.floats(0, 100), st.floats(0, 1), st.floats(-1e4, 1e4))
def test_an_answer_tells_the_offset_within_its_error(sent, took, share, ahead):
    received = sent + took
    taken = sent + took * share + ahead
    assume(0 < taken < 4e9)
    theirs = datetime.fromtimestamp(taken, UTC)
    reading = from_answer(sent, received, theirs, "judge a")
    assert abs(reading.offset_sec - ahead) <= reading.error_sec + 2e-6
    assert not reading.fault
    assert reading.source == "judge a"


def test_a_slow_answer_says_little():
    at = datetime(2026, 1, 5, 9, tzinfo=timezone(timedelta(hours=9)))
    sent = at.timestamp() - 1
    assert skew_fault([from_answer(sent, sent + 2, at, "a")], SLA).startswith("cannot tell")
    assert skew_fault([from_answer(sent, sent + 2, at, "a")], 1.1) is None


@pytest.mark.parametrize("received", [99.0, math.nan])
def test_a_clock_that_was_set_back_meanwhile(received):
    reading = from_answer(100.0, received, datetime.now(UTC), "a")
    assert "set back" in skew_fault([reading], SLA)


# For readiness


def test_readiness_by_sntp():
    with servers({}, {}, {"ahead": 9}) as three:
        names = [one.name for one in three]
        assert clock_fault(names, SLA) is None
        assert [one.source for one in measure(names)] == names
    with servers({"ahead": 9}, {}, {"ahead": 9}) as three:
        assert "s slow, at most 500 ms" in clock_fault([one.name for one in three], SLA)


@pytest.mark.parametrize(
    ("ntp", "says"),
    [
        (["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"], "Connection refused"),
        (["127.0.0.1:1"], "too few"),
        (["a b", "c", "d"], "not a server"),
    ],
)
def test_readiness_never_raises(ntp, says):
    assert says in clock_fault(ntp, SLA)


def test_readiness_asks_chrony_without_servers(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "there is no chronyc" in clock_fault([], SLA)


def test_whatever_goes_wrong_the_answer_is_no(monkeypatch):
    def broken(ntp):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(clock, "measure", broken)
    assert clock_fault([], SLA) == "cannot tell: RuntimeError"


@pytest.mark.parametrize(
    ("value", "text"), [(3.0, "3 s"), (-1.5, "-1.5 s"), (0.0123, "12.3 ms"), (4e-6, "4 µs"), (0, "0 µs")]
)  # fmt: skip
def test_spans_of_time_in_words(value, text):
    assert seconds(value) == text
