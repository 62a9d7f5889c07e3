"""Overdispersion against scipy's contingency table, and its edges."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pytest_decisionos.stats.dispersion import MIN_BUCKETS, dispersion

buckets = st.integers(1, 1000).flatmap(lambda t: st.tuples(st.integers(0, t), st.just(t)))


@settings(max_examples=80, deadline=None)
@given(st.lists(buckets, min_size=MIN_BUCKETS, max_size=60))
def test_is_pearsons_chi_squared(pairs):
    events, trials = (list(column) for column in zip(*pairs, strict=True))
    d = dispersion(events, trials)
    clean = [t - e for e, t in pairs]
    if sum(events) and sum(clean):
        chi2 = stats.chi2_contingency([events, clean], correction=False).statistic
        assert d == pytest.approx(max(1.0, chi2 / (len(pairs) - 1)))
    else:
        assert d == 1.0


def test_too_few_buckets():
    assert dispersion([], []) is None
    assert dispersion([1] * 9, [10] * 9) is None
    assert dispersion([0] * 9, [10] * 9) is None
    assert dispersion([1] * 9 + [0] * 20, [10] * 9 + [0] * 20) is None
    assert dispersion([1] * 10 + [0], [10] * 10 + [0]) == 1.0


def test_nothing_varies():
    assert dispersion([0] * 10, [10] * 10) == 1.0
    assert dispersion([10] * 10, [10] * 10) == 1.0


def test_all_events_in_one_bucket():
    # e = t in one of k equal buckets: χ² = k·t, whatever t.
    assert dispersion([50] + [0] * 9, [50] * 10) == pytest.approx(10 * 50 / 9)


def test_independent_near_one_clustered_far_above():
    rng = np.random.default_rng(3)
    one = [dispersion(rng.binomial(200, 0.05, 30).tolist(), [200] * 30) for _ in range(200)]
    assert 1.0 <= np.mean(one) < 1.2
    rates = rng.beta(1, 19, 30)  # every bucket its own rate, 5 % on average
    assert dispersion(rng.binomial(200, rates).tolist(), [200] * 30) > 5


@pytest.mark.parametrize(
    ("events", "trials"),
    [([2], [1]), ([-1], [1]), ([0], [-1]), ([1], [1, 1]), ([math.nan], [1]), ([1], [math.inf])],
)
def test_bad_counts(events, trials):
    with pytest.raises(ValueError, match=r"events must be|zip"):
        dispersion(events, trials)
