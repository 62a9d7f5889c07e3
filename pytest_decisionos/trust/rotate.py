"""The rotation of HMAC keys, one step a call, told in words; and what a ring lacks.

The overlap dance, in which no reader ever meets a key that it does not know yet:

1. the new key joins in ``grace``, valid from ``now + overlap``: every reader learns it meanwhile;
2. once that time has come it is ``active``, and the old one is in ``grace`` until ``now + overlap``;
3. after that the old one is ``retired``.

Which step is due is told by the ring alone: a key in ``grace`` with ``not_before`` and without
``not_after`` waits to become active; one with ``not_after`` was active before.

A key that serves several uses has one state for all of them, so they are rotated together: a new key
of its own joins for each use, and they take over in one write. That is also the way out of keys
without ``use``.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pytest_decisionos.errors import KeysError, RefusedError, UsageError
from pytest_decisionos.trust.keys import (
    MIN_SECRET_BYTES,
    USES,
    KeyEntry,
    KeyRing,
    Use,
    make_ring,
)
from pytest_decisionos.trust.refresh import GRACE_SEC, INTERVAL_SEC

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

MIN_OVERLAP: Final = timedelta(seconds=INTERVAL_SEC + GRACE_SEC)
"""So long a reader may go on with the ring that it has."""
MAX_OVERLAP: Final = timedelta(days=366)
EXPIRES_SOON: Final = timedelta(days=7)
_UNITS: Final = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
"""Seconds of each unit that a duration is stated in, the largest first."""


class Step(NamedTuple):
    """What was done to a ring.

    Attributes:
        ring: as it is now.
        changed: whether it must be written.
        done: what was done, in words.
        then: what comes next, in words.
        at: when that may be done; None means at any time.
    """

    ring: KeyRing
    changed: bool
    done: str
    then: str
    at: datetime | None = None


def next_step(ring: KeyRing, use: Use, *, now: datetime, overlap: timedelta) -> Step:
    """The step of the rotation of ``use`` that is due; too early, nothing changes.

    Without a valid active key there is nothing to overlap with: the key that waits, or a new one,
    signs at once.

    Args:
        ring: as it is.
        use: whose key is to be rotated; with it every use that shares a key with it.
        now: what the time is.
        overlap: how long old and new key both verify before and after they change places.

    Raises:
        UsageError: ``overlap`` is too short or too long.
        RefusedError: two keys wait for one use, so it is not told which is to sign.
        KeysError: the new ring would have too many keys.
    """
    if not MIN_OVERLAP <= overlap <= MAX_OVERLAP:
        raise UsageError(
            "not a time in which every reader learns of a new key",
            field="--overlap",
            found=_span(overlap),
            expected=f"{_span(MIN_OVERLAP)} to {_span(MAX_OVERLAP)}",
        )
    if not any(key.state == "active" and not _over(key, now) for key in ring.of(use)):
        return _at_once(ring, use, now)
    together = _together(ring, use)
    mine = [key for key in ring.keys if _uses(key) & together]
    waiting = [key for key in mine if _waits(key)]
    _one_each(waiting, ring)
    lacking = [one for one in USES if one in together - _served(waiting)]
    ending = [key for key in mine if key.state == "grace" and key.not_after is not None]
    retiring = [key for key in ending if _over(key, now)]
    # An active key that is not valid yet is waited for too: something may be wrong with this clock.
    signing = [key for key in mine if key.state == "active"]
    ready = max((key.not_before for key in (*signing, *waiting) if key.not_before), default=now)
    if waiting and not lacking and ready <= now:
        return _take_over(ring, use, waiting, together, _whole_second(now + overlap))
    if retiring:
        return Step(
            _with(ring, {key.key_id: {"state": "retired"} for key in retiring}),
            changed=True,
            done=f"{_names(retiring)}: retired; verifies only what the index took up in its time",
            then=f"the rotation is done; `{_command(use)}` begins another",
        )
    if ready > now and not lacking:
        return _too_early(ring, f"`{_command(use)}` makes {_names(waiting or mine)} sign", ready)
    if not waiting and ending:
        until = max(key.not_after for key in ending if key.not_after)
        return _too_early(ring, f"`{_command(use)}` retires {_names(ending)}", until)
    begin = _whole_second(now + overlap)
    joining = [_new(one, "grace", begin, now) for one in lacking]
    return Step(
        make_ring([*ring.keys, *joining], ring.origin),
        changed=True,
        done=f"{_names(joining)}: joined, verifies only" + _shared(together, use),
        then=f"`{_command(use)}` makes it sign",
        at=begin,
    )


def add(ring: KeyRing | None, uses: Sequence[Use], *, now: datetime, origin: str) -> Step:
    """Add an active key of its own for each of ``uses``; ``ring`` None makes a new ring.

    Raises:
        RefusedError: a use has an active key already.
        KeysError: the new ring would have too many keys.
    """
    there = ring.keys if ring else ()
    for use in uses:
        active = [key for key in there if key.state == "active" and key.serves(use)]
        if active:
            raise RefusedError(
                f"a key is active for {use} already",
                file=origin,
                found=_names(active),
                next_step=f"replace it with `{_command(use)}`",
            )
    made = [_new(use, "active", now.replace(microsecond=0), now) for use in dict.fromkeys(uses)]
    return Step(
        make_ring([*there, *made], origin),
        changed=True,
        done=f"{_names(made)}: new, signs",
        then="`dosctl keys check` tells what else the ring needs",
    )


def revoke(ring: KeyRing, key_id: str) -> Step:
    """Revoke a key, whatever its state: from now on it verifies nothing.

    Raises:
        UsageError: no key has that name.
    """
    key = next((key for key in ring.keys if key.key_id == key_id), None)
    if key is None:
        raise UsageError(
            "no such key", file=ring.origin, found=key_id, next_step="see `dosctl keys list`"
        )
    told = "readers of the ring take it up when they read it again"
    if key.state == "revoked":
        return Step(ring, changed=False, done=f"{key_id}: is revoked already", then=told)
    done = f"{key_id}: revoked; verifies nothing"
    if key.state == "active":
        uses = [use for use in USES if key.serves(use)]
        done += f", and nothing signs for {', '.join(uses)} now"
        told = f"{_commands(uses)} makes a key sign at once"
    return Step(_with(ring, {key_id: {"state": "revoked"}}), changed=True, done=done, then=told)


class Health(NamedTuple):
    """What a ring is good for.

    Attributes:
        signing: by use, the key that signs.
        faults: by use, why none does.
        warnings: what should be better, in words.
    """

    signing: dict[Use, str]
    faults: dict[Use, str]
    warnings: list[str]


def health(ring: KeyRing, *, now: datetime, plain: bool) -> Health:
    """What ``ring`` is good for at ``now``; ``plain`` if it lies in a plain variable."""
    found = Health({}, {}, [])
    if plain:
        found.warnings.append("the ring lies in a variable, which every child process can read")
    for key in ring.keys:
        if key.state in {"active", "grace"} and not key.use:
            found.warnings.append(f"{key.key_id} serves every use: rotate it into one for each")
        if key.state == "grace" and not key.not_before and not key.not_after:
            found.warnings.append(f"{key.key_id} is in grace without an end: revoke it one day")
    for use in USES:
        try:
            key = ring.signing(use, now)
        except KeysError as fault:
            found.faults[use] = fault.what
            continue
        found.signing[use] = key.key_id
        if key.not_after is not None and key.not_after - now <= EXPIRES_SOON:
            soon = f"signs for {use} only until {key.not_after.isoformat()}"
            found.warnings.append(f"{key.key_id} {soon}: `{_command(use)}`")
        if not any(other.state == "grace" for other in ring.of(use)):
            alone = f"{use} has no key in grace: nothing is ready to take over"
            found.warnings.append(f"{alone}; `{_command(use)}` adds one")
    return found


def _at_once(ring: KeyRing, use: Use, now: datetime) -> Step:
    """No key is valid for ``use``: the one that waits, or a new one, signs from now on."""
    begin = now.replace(microsecond=0)
    busy = {
        one for one in USES for key in ring.of(one) if key.state == "active" and not _over(key, now)
    }
    # One that would push out the valid key of another use is not taken.
    able = [key for key in ring.of(use) if _waits(key) and not _uses(key) & busy]
    changed: dict[str, dict[str, Any]] = {}
    more: list[KeyEntry] = []
    if able:
        chosen = min(able, key=lambda key: key.not_before or now)
        start = min(chosen.not_before or begin, begin)
        changed[chosen.key_id] = {"state": "active", "not_before": start}
    else:
        chosen = _new(use, "active", begin, now)
        more.append(chosen)
    for key in ring.keys:  # one that had run out
        if key.state == "active" and _uses(key) & _uses(chosen):
            changed[key.key_id] = {"state": "grace"}
    made = make_ring([*_with(ring, changed).keys, *more], ring.origin)
    without = [one for one in USES if not any(key.state == "active" for key in made.of(one))]
    serves = [one for one in USES if chosen.serves(one)]
    return Step(
        made,
        changed=True,
        done=f"{chosen.key_id}: signs for {', '.join(serves)} at once, as no key did",
        then=f"no key signs for {', '.join(without)}: {_commands(without)}"
        if without
        else f"`{_command(use)}` lets the next key join",
    )


def _take_over(
    ring: KeyRing, use: Use, waiting: list[KeyEntry], together: set[Use], until: datetime
) -> Step:
    old = [key for key in ring.keys if key.state == "active" and _uses(key) & together]
    changed: dict[str, dict[str, Any]] = {key.key_id: {"state": "active"} for key in waiting}
    ends = {key.key_id: min(key.not_after or until, until) for key in old}
    changed |= {name: {"state": "grace", "not_after": end} for name, end in ends.items()}
    uses = [one for one in USES if one in together]
    return Step(
        _with(ring, changed),
        changed=True,
        done=f"{_names(waiting)}: signs now for {', '.join(uses)}; {_names(old)}: verifies only",
        then=f"`{_command(use)}` retires {_names(old)}",
        at=max(ends.values()),
    )


def _too_early(ring: KeyRing, then: str, at: datetime) -> Step:
    return Step(ring, changed=False, done="too early: nothing is changed", then=then, at=at)


def _together(ring: KeyRing, use: Use) -> set[Use]:
    """The uses that share an active or waiting key with ``use``, directly or through another."""
    found = {use}
    linking = [_uses(key) for key in ring.keys if key.state == "active" or _waits(key)]
    for _ in USES:
        for uses in linking:
            if uses & found:
                found |= uses
    return found


def _one_each(waiting: list[KeyEntry], ring: KeyRing) -> None:
    for use in USES:
        several = [key for key in waiting if key.serves(use)]
        if len(several) > 1:
            raise RefusedError(
                f"several keys wait to sign for {use}",
                file=ring.origin,
                found=_names(several),
                next_step="revoke all but one with `dosctl keys revoke`",
            )


def _waits(key: KeyEntry) -> bool:
    return key.state == "grace" and key.not_before is not None and key.not_after is None


def _over(key: KeyEntry, now: datetime) -> bool:
    return key.not_after is not None and now > key.not_after


def _uses(key: KeyEntry) -> set[Use]:
    return set(key.use or USES)


def _served(keys: Collection[KeyEntry]) -> set[Use]:
    return {use for key in keys for use in _uses(key)}


def _new(use: Use, state: str, not_before: datetime, now: datetime) -> KeyEntry:
    secret = b64encode(secrets.token_bytes(MIN_SECRET_BYTES)).decode()
    return KeyEntry.model_validate(
        {
            "key_id": f"{use}-{now:%Y%m%d}-{secrets.token_hex(3)}",
            "secret": f"b64:{secret}",
            "state": state,
            "use": [use],
            "not_before": not_before,
        }
    )


def _with(ring: KeyRing, changed: dict[str, dict[str, Any]]) -> KeyRing:
    keys = [
        KeyEntry.model_validate({**dict(key), **changed[key.key_id]})
        if key.key_id in changed
        else key
        for key in ring.keys
    ]
    return make_ring(keys, ring.origin)


def _whole_second(when: datetime) -> datetime:
    """Never earlier than ``when``."""
    return when if not when.microsecond else when.replace(microsecond=0) + timedelta(seconds=1)


def _span(time: timedelta) -> str:
    """A time as ``--overlap`` states it, such as 90m or 7d."""
    seconds = time.total_seconds()
    unit, size = next((u, size) for u, size in _UNITS.items() if seconds % size == 0 or u == "s")
    return f"{seconds / size:g}{unit}"


def _names(keys: Collection[KeyEntry]) -> str:
    return ", ".join(key.key_id for key in keys)


def _shared(together: set[Use], use: Use) -> str:
    others = [one for one in USES if one in together and one != use]
    return f"; {', '.join(others)} shares the old key, and is rotated with {use}" if others else ""


def _command(use: Use) -> str:
    return f"dosctl keys rotate --use {use}"


def _commands(uses: Collection[Use]) -> str:
    return ", ".join(f"`{_command(use)}`" for use in uses)
