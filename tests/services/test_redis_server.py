"""Without redis-server, the tests that want one say where it comes from."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
NEEDS_IT = """
def test_it(redis_server):
    raise AssertionError("there is no server")
"""


@pytest.mark.parametrize(("required", "outcome"), [("", "skipped"), ("1", "errors")])
def test_without_the_program_it_says_where_it_comes_from(pytester, monkeypatch, required, outcome):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("REQUIRE_SERVICES", required)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makepyfile(NEEDS_IT)
    done = pytester.runpytest_subprocess(
        "-p", "services.redis_server", "-rs", "-p", "no:cacheprovider"
    )
    done.assert_outcomes(**{outcome: 1})
    assert "redis-server not installed: make services" in done.stdout.str()
