"""Limits against scipy's own tests, published examples and their definitions."""

import math

import duckdb
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from pytest_decisionos.stats.limits import (
    LEVELS,
    difference_limits,
    quantile_ranks,
    rate_limits,
    ratio_limits,
)

levels = st.sampled_from(LEVELS)
dispersions = st.floats(1, 50)


@st.composite
def counts(draw, largest=200_000):
    n = draw(st.integers(1, largest))
    return draw(st.integers(0, n)), n


def rank(fraction, n):
    return None if fraction is None else math.ceil(fraction * n)


class TestRate:
    @settings(max_examples=80, deadline=None)
    @given(counts(), levels)
    def test_is_scipys_exact_interval(self, sample, level):
        events, n = sample
        lower, upper = rate_limits(events, n, level)
        less = stats.binomtest(events, n, alternative="less")
        greater = stats.binomtest(events, n, alternative="greater")
        assert lower == pytest.approx(greater.proportion_ci(level, "exact").low, rel=1e-7)
        assert upper == pytest.approx(less.proportion_ci(level, "exact").high, rel=1e-7)

    @settings(max_examples=50, deadline=None)
    @given(counts(), levels, st.integers(2, 40))
    def test_d_shrinks_the_sample(self, sample, level, d):
        events, n = sample
        assert rate_limits(events * d, n * d, level, float(d)) == pytest.approx(
            rate_limits(events, n, level)
        )

    @settings(max_examples=80, deadline=None)
    @given(counts(), levels, dispersions)
    def test_order(self, sample, level, d):
        events, n = sample
        lower, upper = rate_limits(events, n, level, d)
        assert 0 <= lower <= events / n <= upper <= 1
        wider = rate_limits(events, n, level, d * 2)
        assert wider[0] <= lower
        assert upper <= wider[1]
        if events < n:
            worse = rate_limits(events + 1, n, level, d)
            assert lower <= worse[0]
            assert upper <= worse[1]

    def test_ends(self):
        assert rate_limits(0, 0, 0.95) == (None, None)
        assert rate_limits(0, 10, 0.95)[0] == 0.0
        assert rate_limits(10, 10, 0.95)[1] == 1.0
        # 1 − 0.05^(1/299), the rule of three
        assert rate_limits(0, 299, 0.95)[1] == pytest.approx(1 - 0.05 ** (1 / 299))
        assert rate_limits(0, 299, 0.95)[1] <= 0.01 < rate_limits(0, 298, 0.95)[1]

    def test_huge(self):
        lower, upper = rate_limits(10**10, 10**12, 0.99)
        assert lower < 0.01 < upper
        assert upper - lower < 1e-6


class TestQuantile:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(2, 5000), st.sampled_from([0.5, 0.95, 0.99]), levels)
    def test_is_scipys_quantile_test(self, n, p, level):
        x = np.arange(1, n + 1)
        low = stats.quantile_test(x, p=p, alternative="greater").confidence_interval(level).low
        high = stats.quantile_test(x, p=p, alternative="less").confidence_interval(level).high
        lower, upper = quantile_ranks(n, p, level)
        assert (rank(lower, n) or math.nan, rank(upper, n) or math.nan) == pytest.approx(
            (low, high), nan_ok=True
        )

    @settings(max_examples=60, deadline=None)
    @example(1, 0.95, 0.95)  # a tie, where scipy's quantile_test rounds to "no limit"
    @given(st.integers(1, 10**7), st.sampled_from([0.5, 0.95, 0.99]), levels)
    def test_definition(self, n, p, level):
        lower, upper = (rank(f, n) for f in quantile_ranks(n, p, level))
        binomial = stats.binom(n, p)
        if upper is None:
            assert binomial.cdf(n - 1) < level
        else:
            assert binomial.cdf(upper - 1) >= level
            assert upper == 1 or binomial.cdf(upper - 2) < level
        if lower is None:
            assert binomial.sf(0) < level
        else:
            assert binomial.sf(lower - 1) >= level
            assert binomial.sf(lower) < level

    @pytest.mark.parametrize(("p", "least"), [(0.95, 59), (0.99, 299)])
    def test_smallest_sample_with_an_upper_limit(self, p, least):
        assert quantile_ranks(least - 1, p, 0.95)[1] is None
        assert rank(quantile_ranks(least, p, 0.95)[1], least) == least
        assert quantile_ranks(2 * least - 1, p, 0.95, 2.0)[1] is None
        assert rank(quantile_ranks(2 * least, p, 0.95, 2.0)[1], 2 * least) == 2 * least

    def test_none(self):
        assert quantile_ranks(0, 0.95, 0.95) == (None, None)
        assert quantile_ranks(5, 0.95, 0.95, 6.0) == (None, None)
        assert quantile_ranks(1, 0.5, 0.95) == (None, None)
        assert quantile_ranks(1, 0.01, 0.95) == (None, 0.5)

    @settings(max_examples=100, deadline=None)
    @given(st.integers(1, 10**6), st.sampled_from([0.5, 0.95, 0.99]), levels, dispersions)
    def test_d_widens(self, n, p, level, d):
        lower, upper = (rank(f, n) for f in quantile_ranks(n, p, level, d))
        if lower is not None:
            assert 1 <= lower <= p * n + 1
            assert lower <= rank(quantile_ranks(n, p, level)[0], n)
        if upper is not None:
            assert p * n <= upper <= n
            assert upper >= rank(quantile_ranks(n, p, level)[1], n)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 10**5), levels, dispersions)
    def test_the_median_is_symmetric(self, n, level, d):
        lower, upper = (rank(f, n) for f in quantile_ranks(n, 0.5, level, d))
        assert (lower is None) == (upper is None)
        if lower is not None and upper is not None:
            assert lower + upper == n + 1

    def test_duckdb_reads_the_very_rank(self):
        base = duckdb.connect()
        for n in (59, 299, 1000, 4097, 99_991):
            for p in (0.5, 0.95, 0.99):
                for fraction in quantile_ranks(n, p, 0.9, 1.0 if n < 1000 else 3.7):
                    if fraction is None:
                        continue
                    found = base.execute(
                        f"SELECT quantile_disc(i, {fraction!r}) FROM range(1, {n + 1}) t(i)"
                    ).fetchone()
                    assert found == (rank(fraction, n),)


# Newcombe, Statistics in Medicine 17:873 (1998), table II, method 10, 95 % two-sided.
NEWCOMBE = [
    ((56, 70), (48, 80), 0.0524, 0.3339),
    ((9, 10), (3, 10), 0.1705, 0.8090),
    ((6, 7), (2, 7), 0.0582, 0.8062),
    ((5, 56), (0, 29), -0.0381, 0.1926),
    ((0, 10), (0, 20), -0.1611, 0.2775),
    ((0, 10), (0, 10), -0.2775, 0.2775),
    ((10, 10), (0, 20), 0.6791, 1.0),
    ((10, 10), (0, 10), 0.6075, 1.0),
]


class TestDifference:
    @pytest.mark.parametrize(("canary", "control", "lower", "upper"), NEWCOMBE)
    def test_published(self, canary, control, lower, upper):
        found = difference_limits(*control, 1.0, *canary, 1.0, 0.975)
        assert found == pytest.approx((lower, upper), abs=5.1e-5)

    @settings(max_examples=80, deadline=None)
    @given(counts(), counts(), levels)
    def test_from_scipys_wilson_limits(self, one, two, level):
        (x1, n1), (x2, n2) = one, two
        two_sided = 2 * level - 1
        a = stats.binomtest(x1, n1).proportion_ci(two_sided, "wilson")
        b = stats.binomtest(x2, n2).proportion_ci(two_sided, "wilson")
        p1, p2 = x1 / n1, x2 / n2
        lower, upper = difference_limits(x1, n1, 1.0, x2, n2, 1.0, level)
        assert lower == pytest.approx(p2 - p1 - math.sqrt((p2 - b.low) ** 2 + (a.high - p1) ** 2))
        assert upper == pytest.approx(p2 - p1 + math.sqrt((b.high - p2) ** 2 + (p1 - a.low) ** 2))

    @settings(max_examples=80, deadline=None)
    @given(counts(), counts(), dispersions, dispersions, levels)
    def test_order_and_mirror(self, one, two, d1, d2, level):
        lower, upper = difference_limits(*one, d1, *two, d2, level)
        assert -1 <= lower <= two[0] / two[1] - one[0] / one[1] + 1e-12
        assert two[0] / two[1] - one[0] / one[1] - 1e-12 <= upper <= 1
        mirrored = difference_limits(*two, d2, *one, d1, level)
        assert (lower, upper) == pytest.approx((-mirrored[1], -mirrored[0]))
        wider = difference_limits(*one, 2 * d1, *two, 2 * d2, level)
        assert wider[0] <= lower + 1e-12
        assert wider[1] >= upper - 1e-12

    def test_d_shrinks_each_side(self):
        assert difference_limits(30, 3000, 3.0, 14, 700, 2.0, 0.95) == pytest.approx(
            difference_limits(10, 1000, 1.0, 7, 350, 1.0, 0.95)
        )

    def test_none(self):
        assert difference_limits(0, 0, 1.0, 1, 10, 1.0, 0.95) == (None, None)
        assert difference_limits(1, 10, 1.0, 0, 0, 1.0, 0.95) == (None, None)


class TestRatio:
    def test_takes_the_opposite_limits(self):
        assert ratio_limits((100.0, 125.0), (150.0, 180.0)) == pytest.approx((0.2, 0.8))

    @pytest.mark.parametrize(
        ("control", "canary", "expected"),
        [
            ((None, 100.0), (110.0, 120.0), (pytest.approx(0.1), None)),
            ((100.0, None), (110.0, 120.0), (None, pytest.approx(0.2))),
            ((100.0, 100.0), (None, 120.0), (None, pytest.approx(0.2))),
            ((100.0, 100.0), (110.0, None), (pytest.approx(0.1), None)),
            ((0.0, 100.0), (110.0, 120.0), (pytest.approx(0.1), None)),
            ((-1.0, 0.0), (110.0, 120.0), (None, None)),
            ((5e-324, 100.0), (110.0, 1e300), (pytest.approx(0.1), None)),
            ((None, None), (None, None), (None, None)),
        ],
    )
    def test_none_where_a_side_is_missing(self, control, canary, expected):
        assert ratio_limits(control, canary) == expected

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_refuses_non_finite(self, bad):
        with pytest.raises(ValueError, match="finite"):
            ratio_limits((1.0, 1.0), (bad, 1.0))
        with pytest.raises(ValueError, match="finite"):
            ratio_limits((bad, 1.0), (1.0, 1.0))


@pytest.mark.parametrize(
    ("events", "n", "level", "d"),
    [
        (-1, 10, 0.95, 1.0),
        (11, 10, 0.95, 1.0),
        (0, -1, 0.95, 1.0),
        (1, 0, 0.95, 1.0),
        (1, 10, 0.49, 1.0),
        (1, 10, 1.0, 1.0),
        (1, 10, math.nan, 1.0),
        (1, 10, 0.95, 0.99),
        (1, 10, 0.95, math.nan),
        (1, 10, 0.95, math.inf),
        (math.nan, 10, 0.95, 1.0),
        (1, math.inf, 0.95, 1.0),
        (1, math.nan, 0.95, 1.0),
    ],
)
def test_bad_arguments(events, n, level, d):
    with pytest.raises(ValueError, match="must be"):
        rate_limits(events, n, level, d)
    with pytest.raises(ValueError, match="must be"):
        difference_limits(1, 10, 1.0, events, n, d, level)
    with pytest.raises(ValueError, match="must be"):
        difference_limits(events, n, d, 1, 10, 1.0, level)


@pytest.mark.parametrize(
    ("n", "p", "level", "d"),
    [
        (-1, 0.95, 0.95, 1.0),
        (10, 0.0, 0.95, 1.0),
        (10, 1.0, 0.95, 1.0),
        (10, math.nan, 0.95, 1.0),
        (10, 0.95, 0.4, 1.0),
        (10, 0.95, 0.95, 0.5),
    ],
)
def test_bad_quantile_arguments(n, p, level, d):
    with pytest.raises(ValueError, match="must be"):
        quantile_ranks(n, p, level, d)
