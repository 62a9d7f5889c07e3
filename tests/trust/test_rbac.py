"""Default-deny scopes."""

import pytest

from pytest_decisionos.errors import DeniedError, ExitCode
from pytest_decisionos.trust import rbac


@pytest.mark.parametrize(
    ("granted", "scope", "allowed"),
    [
        ("", "judge:run", False),
        ("judge:run", "judge:run", True),
        ("ops:read,judge:run", "judge:run", True),
        ("ops:read  judge:run,", "judge:run", True),
        ("deploy:*", "deploy:abort", True),
        ("deploy:*", "judge:run", False),
        ("*", "deploy:abort", True),
        ("*:run", "judge:run", False),
        ("judge:ru?", "judge:run", False),
        ("JUDGE:RUN", "judge:run", False),
        ("judge", "judge:run", False),
    ],
)
def test_scopes(granted, scope, allowed):
    assert rbac.allows(granted, scope) is allowed
    if allowed:
        rbac.require(granted, scope)
    else:
        with pytest.raises(DeniedError, match=f"scope {scope} is not granted") as caught:
            rbac.require(granted, scope)
        assert caught.value.exit_code is ExitCode.DENIED


@pytest.mark.parametrize(
    ("granted", "said"),
    [(" ", "deploy:abort"), ("judge:run", '"$DECISIONOS_ALLOW_SCOPES,deploy:abort"')],
)
def test_what_to_export_keeps_the_scopes_that_one_has(granted, said):
    with pytest.raises(DeniedError) as caught:
        rbac.require(granted, "deploy:abort")
    assert caught.value.next_step == f"export DECISIONOS_ALLOW_SCOPES={said}"
