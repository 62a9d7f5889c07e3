"""What crosses the network between gate and judge: the question and the answer of POST /judge.

Documents travel as the text of their files, so that both sides digest the very same bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AwareDatetime, StringConstraints

from pytest_decisionos.model.base import Frozen

PATH: Final = "/judge"
MAX_BODY: Final = 8 * 1024 * 1024
MAX_ANSWER: Final = 8 * 1024 * 1024
MAX_AGE_SEC: Final = 300.0
"""How old a request may be; the design's bound."""

Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=MAX_BODY)]
SloName = Annotated[
    str, StringConstraints(strict=True, pattern=r"^[^/\\\x00-\x1f]{1,200}\.(json|ya?ml)$")
]


class SloText(Frozen):
    """An SLO file: its name without folders (the stem names the SLO), and its text."""

    file: SloName
    text: Text


class Question(Frozen):
    """The body of POST /judge.

    Attributes:
        evidence: text of the evidence document.
        slo: what to judge it by.
        phase: of the gate.
        as_of: the time of the decision: ages count to it, and waivers are held against it. Every
            judge of one decision judges as of the same time, so that it can be judged again.
    """

    evidence: Text
    slo: SloText
    phase: Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z]{1,32}$")]
    as_of: AwareDatetime


class Answer(Frozen):
    """The answer to it.

    Attributes:
        verdict: DSSE envelope of the verdict, as ``trust.dsse`` reads it.
        numbers: text of the judge's ``JudgeInput``: what it computed itself. The verdict holds its
            digest; the gate judges again from it, and must come to the same outcomes.
    """

    verdict: dict[str, Any]
    numbers: Text
