"""RBAC: default-deny scopes. Guard rails against mistakes; authority is possession of keys."""

from __future__ import annotations

from pytest_decisionos.errors import DeniedError
from pytest_decisionos.settings import split


def allows(granted: str, scope: str) -> bool:
    """Whether ``granted`` (comma or space separated) holds ``scope``.

    ``deploy:*`` grants every scope of that family and ``*`` grants all; nothing else is a pattern.
    """
    family = scope.partition(":")[0]
    return bool({scope, f"{family}:*", "*"} & set(split(granted)))


def require(granted: str, scope: str) -> None:
    """Let pass only who holds ``scope``.

    Raises:
        DeniedError: it is not granted.
    """
    if not allows(granted, scope):
        also = f'"$DECISIONOS_ALLOW_SCOPES,{scope}"' if granted.strip() else scope
        raise DeniedError(
            f"scope {scope} is not granted",
            field="DECISIONOS_ALLOW_SCOPES",
            found=granted or "nothing",
            expected=scope,
            next_step=f"export DECISIONOS_ALLOW_SCOPES={also}",
        )
