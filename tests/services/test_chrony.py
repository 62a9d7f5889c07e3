"""chronyd is started for the tests that ask for it, and its absence is said."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
NEEDS_IT = """
def test_it(chronyd):
    raise AssertionError("there is no chronyd")
"""


@pytest.mark.parametrize(("required", "outcome"), [("", "skipped"), ("1", "errors")])
def test_without_the_programs_it_says_where_they_come_from(
    pytester, monkeypatch, required, outcome
):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("REQUIRE_SERVICES", required)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makepyfile(NEEDS_IT)
    done = pytester.runpytest_subprocess("-p", "services.chrony", "-rs", "-p", "no:cacheprovider")
    done.assert_outcomes(**{outcome: 1})
    assert "chronyc not installed: make services" in done.stdout.str()
