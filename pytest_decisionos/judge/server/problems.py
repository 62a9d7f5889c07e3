"""Errors as the client sees them: ``application/problem+json`` (RFC 9457) with a reason code."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

MEDIA_TYPE: Final = "application/problem+json"
TYPE: Final = "urn:decisionos:problem:"
MAX_DETAIL: Final = 2000


class ProblemError(Exception):
    """A request that is not answered.

    Attributes:
        status: HTTP status.
        reason: reason code.
        detail: for people; only what this client may know.
        headers: of the answer.
        cause: reason code that the access log and the metrics are told, and the client is not.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        cause: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.status, self.reason, self.detail, self.cause = status, reason, detail, cause
        self.headers = dict(headers or {})
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.headers.setdefault("retry-after", "1")

    def response(self) -> Response:
        """It as an answer."""
        document: dict[str, Any] = {
            "type": f"{TYPE}{self.reason}",
            "title": _title(self.status),
            "status": self.status,
            "reason": self.reason,
        }
        if self.detail:
            document["detail"] = self.detail[:MAX_DETAIL]
        content = json.dumps(document, ensure_ascii=False).encode(errors="backslashreplace")
        headers = {"cache-control": "no-store", **self.headers}
        return Response(content, self.status, headers, media_type=MEDIA_TYPE)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # 499, which nobody gets
        return "No answer"


def signature(cause: str) -> ProblemError:
    """A request that is not proven to come from somebody with a key, whatever the cause.

    The client learns no more than that: who guesses must not be told how far he got.
    """
    asks = {"www-authenticate": 'Signature realm="decisionos-judge"'}
    return ProblemError(401, "signature", headers=asks, cause=cause)
