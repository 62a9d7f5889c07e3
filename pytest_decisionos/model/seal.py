"""What the seal of an evidence document proves, once somebody with the keys has looked at it."""

from __future__ import annotations

from typing import Literal

from pytest_decisionos.model.base import Frozen


class Seal(Frozen):
    """The seal as checked; the key itself stays where it was.

    Attributes:
        state: ``unchecked`` (no keys here: only the digest speaks), ``valid`` (a MAC by a key that
            may), or ``refused``.
        key_id: the key that made the MAC, where there is one.
        created: when it says that it was made.
        cause: why it is refused: ``tampered``, ``unknown_key``, ``missing`` …
        message: in words.
    """

    state: Literal["unchecked", "valid", "refused"] = "unchecked"
    key_id: str = ""
    created: str = ""
    cause: str = ""
    message: str = ""
