"""Sample sizes: against the limits they promise, and without loading scipy."""

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_decisionos.stats.limits import rate_limits
from pytest_decisionos.stats.samples import MAX_NEEDED, samples_needed, smallest_n


@pytest.mark.parametrize(
    ("bound", "level", "n"),
    [
        (0.05, 0.95, 59),
        (0.01, 0.95, 299),
        (0.005, 0.95, 598),
        (0.001, 0.95, 2995),
        (0.5, 0.75, 2),
        (0.9, 0.99, 2),
        (0.999, 0.5, 1),
    ],
)
def test_smallest_n(bound, level, n):
    assert smallest_n(bound, level) == n


@settings(max_examples=80, deadline=None)
@given(st.floats(1e-6, 0.5), st.sampled_from([0.9, 0.95, 0.99, 0.9975]))
def test_smallest_n_is_where_the_limit_reaches_the_bound(bound, level):
    n = smallest_n(bound, level)
    assert rate_limits(0, n, level)[1] <= bound * (1 + 1e-9)
    assert n == 1 or rate_limits(0, n - 1, level)[1] > bound * (1 - 1e-9)


@pytest.mark.parametrize("bound", [0.0, 1.0, -0.1, math.nan, math.inf])
def test_no_sample_proves_this_bound(bound):
    with pytest.raises(ValueError, match="bound"):
        smallest_n(bound, 0.95)


@pytest.mark.parametrize("level", [0.4, 1.0, math.nan])
def test_bad_level(level):
    with pytest.raises(ValueError, match="level"):
        smallest_n(0.01, level)


def test_needed():
    # The limit is twice as far as the bound: four times the sample.
    assert samples_needed(1000, 200.0, 300.0, 250.0, 0) == 3000
    # The same below the estimate.
    assert samples_needed(1000, 200.0, 100.0, 150.0, 0) == 3000
    # The floor asks for more.
    assert samples_needed(1000, 200.0, 300.0, 250.0, 9000) == 8000
    # Within the bound already: only the floor counts.
    assert samples_needed(1000, 200.0, 220.0, 250.0, 1500) == 500
    assert samples_needed(1000, 200.0, 220.0, 250.0, 900) == 0


def test_needed_without_a_limit():
    assert samples_needed(0, 0.0, None, 0.01, 299) == 299
    assert samples_needed(40, 0.0, None, 0.0, 299) == 259
    assert samples_needed(299, 0.0, None, 0.01, 299) is None


def test_needed_never_settles():
    assert samples_needed(1000, 250.0, 300.0, 250.0, 9000) is None
    assert samples_needed(1000, 250.0, 300.0, 250.000001, 9000) is None


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 10**9),
    st.floats(),
    st.floats() | st.none(),
    st.floats(),
    st.integers(0, 10**9),
)
def test_needed_is_total(n, estimate, limit, bound, floor):
    more = samples_needed(n, estimate, limit, bound, floor)
    assert more is None or max(0, floor - n) <= more <= MAX_NEEDED + 1


@settings(max_examples=60, deadline=None)
@given(st.integers(20_000, 200_000), st.floats(0.005, 0.02), st.floats(1.05, 1.3))
def test_needed_is_about_right_for_rates(n, rate, room):
    events = round(n * rate)
    bound = events / n * room
    limit = rate_limits(events, n, 0.95)[1]
    more = samples_needed(n, events / n, limit, bound, 0)
    if more:
        factor = (n + more) / n
        reached = rate_limits(round(events * factor), n + more, 0.95)[1]
        assert reached == pytest.approx(bound, rel=0.03)


@pytest.mark.parametrize(("n", "floor"), [(-1, 0), (0, -1)])
def test_needed_bad_counts(n, floor):
    with pytest.raises(ValueError, match="negative"):
        samples_needed(n, 0.0, 0.0, 1.0, floor)


def test_loads_no_scipy():
    code = (
        "import sys, pytest_decisionos.stats.samples, pytest_decisionos.stats.dispersion;"
        "sys.exit(bool({'scipy', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
