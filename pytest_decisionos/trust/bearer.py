"""``Authorization: Bearer scope=…``: scopes for whoever works on this very host, and nobody else.

It is no proof of anything, so it counts only where no other host can come from: on a listener of
the loopback, from a request that no proxy brought and that no foreign web page made a browser send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_decisionos.trust.rbac import allows

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_FORWARDING: Final = ("forwarded", "via", "x-real-ip")
_SCHEME: Final = "bearer scope="
MAX_TOKEN: Final = 4096


def local_fault(
    headers: Sequence[tuple[str, str]], *, loopback: bool, hosts: Collection[str]
) -> str | None:
    """Why a request cannot be taken for one of this host; None if it can.

    Args:
        headers: every header line.
        loopback: whether the server listens on the loopback only.
        hosts: the ``Host`` headers, in small letters, that name this server. Another one is a
            foreign web page's, whose name was made to lead here (DNS rebinding).
    """
    if not loopback:
        return "the server does not listen on the loopback alone"
    names = [name.lower() for name, _ in headers]
    for name in names:
        if name in _FORWARDING or name.startswith("x-forwarded-"):
            return f"a proxy brought it: it has the header {name}"
    given = [value.strip().lower() for name, value in headers if name.lower() == "host"]
    if len(given) != 1 or given[0] not in hosts:
        return "it names another host"
    return None


def scope_fault(
    headers: Sequence[tuple[str, str]],
    scope: str,
    *,
    granted: str,
    loopback: bool,
    hosts: Collection[str],
) -> str | None:
    """Why a request does not have ``scope``; None if it has.

    Args:
        headers: every header line; one ``Authorization: Bearer scope=…`` asks for scopes.
        scope: what is needed.
        granted: ``DECISIONOS_ALLOW_SCOPES`` of the server: nobody gets more.
        loopback: see ``local_fault``.
        hosts: the same.
    """
    fault = local_fault(headers, loopback=loopback, hosts=hosts)
    if fault is not None:
        return fault
    given = [value.strip() for name, value in headers if name.lower() == "authorization"]
    if len(given) != 1 or not given[0].lower().startswith(_SCHEME) or len(given[0]) > MAX_TOKEN:
        return f"it asks for no scope: expected Authorization: Bearer scope={scope}"
    if not allows(given[0][len(_SCHEME) :], scope):
        return f"it does not ask for the scope {scope}"
    return None if allows(granted, scope) else f"scope {scope} is not granted here"
