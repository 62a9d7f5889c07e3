"""The burst test against scipy's negative binomial, and what must or must not be a burst."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pytest_decisionos.stats.burst import D_MARGIN, WINDOW_ALPHA, bursts

ALPHA = WINDOW_ALPHA / 60


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 3000).flatmap(lambda t: st.tuples(st.integers(0, t), st.just(t))),
    st.integers(1, 50_000).flatmap(lambda t: st.tuples(st.integers(0, t), st.just(t))),
    st.floats(1, 20),
)
def test_is_the_negative_binomial_tail(bucket, reference, d):
    (count, requests), (events, trials) = bucket, reference
    mean = requests * (events + D_MARGIN * d / 2) / trials
    variance = mean * D_MARGIN * d * (1 + requests / trials)
    tail = stats.nbinom.sf(count - 1, mean**2 / (variance - mean), mean / variance)

    def found(alpha):
        args = ([count], [requests], events, trials, d)
        return bursts(*args, alpha=alpha, min_excess=0, min_relative=0)[0]

    if count <= mean:
        assert not found(0.999)
    elif tail > 1e-250:
        assert found(min(0.999, tail * 1.001))
        assert not found(tail * 0.999)


def test_the_margin_is_the_chi_squared_limit():
    assert pytest.approx(29 / stats.chi2.ppf(0.05, 29), abs=0.005) == D_MARGIN


def test_a_clean_reference_still_sees_a_burst():
    events = [0, 3, 60, 0]
    assert bursts(events, [180] * 4, 0, 12_600, 1.0, alpha=ALPHA) == [False, False, True, False]


def test_a_constant_fault_is_not_forgiven():
    assert bursts([20] * 30, [180] * 30, 63, 12_600, 1.2, alpha=ALPHA) == [True] * 30


def test_the_same_fault_on_both_sides_is_no_burst():
    assert not any(bursts([20] * 30, [180] * 30, 1400, 12_600, 1.2, alpha=ALPHA))


def test_excesses_are_both_needed():
    def found(count, **least):
        return bursts([count], [10_000], 1000, 1_000_000, 1.0, alpha=ALPHA, **least)[0]

    assert found(40)  # expected 10
    assert not found(40, min_excess=31)
    assert not found(40, min_relative=3.1)
    # 4 events where nearly none are expected are unlikely, and not worth an alarm
    assert not bursts([4], [1000], 0, 10**9, 1.0, alpha=ALPHA)[0]
    assert bursts([4], [1000], 0, 10**9, 1.0, alpha=ALPHA, min_excess=3)[0]


def test_dispersion_and_a_thin_reference_cost_power():
    def found(events, trials, d):
        return bursts([24], [180], events, trials, d, alpha=ALPHA)[0]

    assert found(315, 12_600, 1.0)
    assert not found(315, 12_600, 8.0)
    assert not found(5, 200, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 180), st.integers(0, 12_600), st.floats(1, 20))
def test_more_events_never_end_a_burst(count, reference, d):
    found = bursts(
        list(range(count, 181)), [180] * (181 - count), reference, 12_600, d, alpha=ALPHA
    )
    assert found == sorted(found)


def test_healthy_windows_stay_quiet():
    rng = np.random.default_rng(11)
    quiet = 0
    for _ in range(300):
        control = int(rng.binomial(12_600, 0.05))
        canary = rng.binomial(180, 0.05, 30).tolist()
        quiet += not any(bursts(canary, [180] * 30, control, 12_600, 1.0, alpha=ALPHA))
    assert quiet == 300


def test_empty():
    assert bursts([], [], 1, 10, 1.0, alpha=ALPHA) == []
    assert bursts([0], [0], 1, 10, 1.0, alpha=ALPHA, min_excess=0, min_relative=0) == [False]


@pytest.mark.parametrize(
    "change",
    [
        {"events": [2, 1], "trials": [1, 1]},
        {"events": [-1]},
        {"trials": [1, 1]},
        {"reference_events": 11},
        {"reference_events": -1},
        {"reference_events": 0, "reference_trials": 0},
        {"reference_d": 0.5},
        {"reference_d": math.nan},
        {"reference_d": math.inf},
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"alpha": math.nan},
        {"min_excess": -1.0},
        {"min_relative": math.nan},
    ],
    ids=str,
)
def test_bad_arguments(change):
    good = {
        "events": [1],
        "trials": [10],
        "reference_events": 1,
        "reference_trials": 10,
        "reference_d": 1.0,
        "alpha": 0.01,
    }
    assert bursts(**good) == [False]
    with pytest.raises(ValueError, match=r"must|needs|zip"):
        bursts(**good | change)
