"""Without nginx its tests are skipped, or fail where services are required, and say what to do."""

import pytest
from services import nginx


@pytest.mark.parametrize(("required", "outcome"), [("", pytest.skip), ("1", pytest.fail)])
def test_without_nginx_it_says_where_it_comes_from(monkeypatch, required, outcome):
    monkeypatch.setattr(nginx, "program", lambda: None)
    monkeypatch.setenv("REQUIRE_SERVICES", required)
    with pytest.raises(outcome.Exception, match="nginx not installed: make services"):
        nginx.require_nginx()
