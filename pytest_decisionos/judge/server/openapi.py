"""The server's description, OpenAPI 3.1: by hand, because it binds clients and not our code."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest_decisionos
from pytest_decisionos.judge.server.problems import MEDIA_TYPE


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _problem(told: str) -> dict[str, Any]:
    return {"description": told, "content": {MEDIA_TYPE: {"schema": _ref("Problem")}}}


def _json(told: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": told, "content": {"application/json": {"schema": schema}}}


_COMMON: Final = {
    "400": _problem("Not HTTP, or not JSON."),
    "414": _problem("The target is too long."),
    "431": _problem("The headers are too many or too large."),
}
_UNAVAILABLE: Final = _problem(
    "Not now: `busy`, `timeout`, `keys`, `replay_store`. Ask again after Retry-After, with a new nonce."
)
_TIME: Final = {"type": "string", "format": "date-time"}


def _signing_header(name: str, told: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": True,
        "description": told,
        "schema": {"type": "string", "maxLength": 8192},
    }


_JUDGE: Final = {
    "operationId": "judge",
    "summary": "Judge evidence by one SLO, from this judge's own logs.",
    "description": "Signed by RFC 9421 with HMAC-SHA-256 over @method, @target-uri and "
    "content-digest, with created, nonce and keyid, tag decisionos-judge.",
    "parameters": [
        _signing_header("Content-Digest", "SHA-256 of the body (RFC 9530)."),
        _signing_header("Signature-Input", "What is signed (RFC 9421)."),
        _signing_header("Signature", "The signature (RFC 9421)."),
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _ref("Question")}},
    },
    "responses": {
        **_COMMON,
        "200": _json("The signed verdict.", _ref("Answer")),
        "401": _problem("The request is not proven to come from somebody with a key."),
        "408": _problem("The body did not come in time."),
        "413": _problem("The body is too large."),
        "415": _problem("Not application/json."),
        "422": _problem(
            "Signed, and not to be judged: `question`, `as_of`, `evidence`, `slo`, `foreign_target`."
        ),
        "503": _UNAVAILABLE,
    },
}

_READY: Final = {
    "operationId": "readyz",
    "summary": "Whether this judge may be asked.",
    "parameters": [
        {
            "name": "explain",
            "in": "query",
            "description": "1: details, for who has the scope ops:read on this host.",
            "schema": {"type": "string", "enum": ["1"]},
        }
    ],
    "responses": {
        **_COMMON,
        "200": _json("Ready.", _ref("Readiness")),
        "503": _json("Not ready.", _ref("Readiness")),
    },
}

_SCHEMAS: Final = {
    "Question": {
        "type": "object",
        "additionalProperties": False,
        "required": ["evidence", "slo", "phase", "as_of"],
        "properties": {
            "evidence": {"type": "string", "minLength": 1, "description": "Its file's text."},
            "slo": {
                "type": "object",
                "additionalProperties": False,
                "required": ["file", "text"],
                "properties": {
                    "file": {
                        "type": "string",
                        "pattern": r"^[^/\\\x00-\x1f]{1,200}\.(json|ya?ml)$",
                    },
                    "text": {"type": "string", "minLength": 1},
                },
            },
            "phase": {"type": "string", "pattern": "^[a-z]{1,32}$"},
            "as_of": {**_TIME, "description": "The time of the decision; at most 5 minutes ago."},
        },
    },
    "Answer": {
        "type": "object",
        "additionalProperties": False,
        "required": ["verdict", "numbers"],
        "properties": {
            "verdict": {
                "type": "object",
                "description": "DSSE envelope of an in-toto test-result.",
            },
            "numbers": {"type": "string", "description": "What this judge computed itself."},
        },
    },
    "Readiness": {
        "type": "object",
        "required": ["status"],
        "properties": {
            "status": {"enum": ["ready", "not_ready"]},
            "reasons": {
                "type": "array",
                "items": {
                    "enum": [
                        "keys",
                        "active_key",
                        "witness_root",
                        "access_log",
                        "replay_store",
                        "clock",
                    ]
                },
            },
            "details": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
    "Problem": {
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "reason"],
        "properties": {
            "type": {"type": "string", "pattern": "^urn:decisionos:problem:"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "reason": {"type": "string", "pattern": "^[a-z_]+$"},
            "detail": {"type": "string"},
        },
    },
}


def _get(name: str, summary: str, **responses: dict[str, Any]) -> dict[str, Any]:
    found = {code.removeprefix("s"): said for code, said in responses.items()}
    return {
        "get": {"operationId": name, "summary": summary, "responses": {**_COMMON, **found}},
    }


_ANY: Final[dict[str, Any]] = {"type": "object"}
_TEXT: Final = {"description": "Prometheus' text form.", "content": {"text/plain": {"schema": {}}}}

DOCUMENT: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {
        "title": "DecisionOS judge",
        "version": pytest_decisionos.__version__,
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    "paths": {
        "/judge": {"post": _JUDGE},
        "/readyz": {"get": _READY},
        "/healthz": _get("healthz", "This process answers.", s200=_json("It does.", _ANY)),
        "/metrics": _get(
            "metrics",
            "What it counts, for this host only.",
            s200=_TEXT,
            s403=_problem("Not from this host, or behind a proxy without the scope ops:read."),
            s503=_UNAVAILABLE,
        ),
        "/openapi.json": _get("openapi", "This description.", s200=_json("It.", _ANY)),
    },
    "components": {"schemas": _SCHEMAS},
}
DESCRIPTION: Final = json.dumps(DOCUMENT).encode()
