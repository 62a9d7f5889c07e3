"""What one judge sees: the sealed evidence, with the blocks that it recomputed laid over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_decisionos.model import strict_json
from pytest_decisionos.model.strict_json import MISSING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from pytest_decisionos.model.policy import Rule


_DIMENSIONS = ("route", "tenant")


class View:
    """The document that a judge's rules are evaluated on.

    Attributes:
        source: what people are told that the numbers come from.
        document: block name → value.
        integrity: fault of the evidence's own integrity (cause, message), None if it is right.
        proof: what its integrity proves, in words.
        now: the time that ages are counted to.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        *,
        source: str,
        integrity: tuple[str, str] | None,
        proof: str = "",
        now: datetime,
    ) -> None:
        self.document = document
        self.source = source
        self.integrity = integrity
        self.proof = proof
        self.now = now
        self._groups: dict[str, dict[tuple[str, str], Any]] = {}

    def at(self, rule: Rule, pointer: str) -> Any:
        """What ``pointer`` names, read inside the rule's group if it has one."""
        if rule.group is None:
            return strict_json.at(self.document, pointer)
        block = strict_json.block_of(pointer)
        found = self.groups(block).get((rule.group.by, rule.group.name), MISSING)
        return found if found is MISSING else strict_json.at(found, pointer[len(block) + 1 :])

    def groups(self, block: str) -> dict[tuple[str, str], Any]:
        """The groups of ``block``, by dimension and name; of two with one name neither is there."""
        if block not in self._groups:
            made: dict[tuple[str, str], Any] = {}
            for key, group in self._listed(block):
                made[key] = MISSING if key in made else group
            self._groups[block] = made
        return self._groups[block]

    def groups_fault(self, block: str) -> str | None:
        """What is wrong with the list of groups as such; None if every entry says what it is."""
        listed = strict_json.at(self.document, f"/{block}/groups")
        if not isinstance(listed, list):
            return "is not a list of groups"
        found = self._listed(block)
        if len(found) != len(listed):
            return f"has {len(listed) - len(found)} entries that name no route or tenant"
        if len({key for key, _ in found}) != len(found):
            return "has two groups of one name"
        return None

    def _listed(self, block: str) -> list[tuple[tuple[str, str], Any]]:
        listed = strict_json.at(self.document, f"/{block}/groups")
        return [
            ((group["by"], group["name"]), group)
            for group in (listed if isinstance(listed, list) else [])
            if isinstance(group, dict)
            and group.get("by") in _DIMENSIONS
            and isinstance(group.get("name"), str)
        ]
