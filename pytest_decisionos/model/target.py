"""The target: what is released where. One root folder per target; a foreign one is refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from pytest_decisionos.model.base import Frozen

Part = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=128)]


class Target(Frozen):
    """What is released where.

    Attributes:
        service: what is released.
        environment: such as ``production``.
        region: such as ``eu-1``; ``all`` where it has none.
        tenant: such as ``acme``; ``all`` where it has none.
    """

    service: Part
    environment: Part
    region: Part = "all"
    tenant: Part = "all"

    def __str__(self) -> str:
        return f"{self.service}/{self.environment}/{self.region}/{self.tenant}"
