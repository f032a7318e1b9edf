"""The gateway's error bodies, as in Pipecat Cloud's public API: ``{"status", "code", "message", "error", "detail"}``.

The SDK shows ``code`` and ``error``, the REST reference has ``message``, pipecat's JavaScript client shows ``detail``.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from pipecat_base.errors import AtCapacity, KeyMissing, Refusal

CODES: dict[type[Refusal], str] = {KeyMissing: "PCC-1002"}  # docs.pipecat.ai, error codes; else the status
# Clients search the text for this name: the SDK documents ``code`` as "429".
PREFIXES: dict[type[Refusal], str] = {AtCapacity: "PCC-AGENT-AT-CAPACITY: "}


def of(refusal: Refusal, launcher: str) -> JSONResponse:
    body: dict[str, object] = {
        "status": refusal.status,
        "code": CODES.get(type(refusal), str(refusal.status)),
        "message": refusal.message,
        "error": f"{PREFIXES.get(type(refusal), '')}{refusal.message}",
        "detail": refusal.message,
        "reason": refusal.code,
    }
    if refusal.field is not None:
        body["field"] = refusal.field
    return JSONResponse(body, refusal.status, refusal.headers(launcher))


def of_http(request: Request, error: Exception) -> JSONResponse:
    """The response if no route of the gateway matches, or not with this method."""
    assert isinstance(error, HTTPException)
    body = {
        "status": error.status_code,
        "code": str(error.status_code),
        "message": error.detail,
        "error": error.detail,
        "detail": error.detail,
    }
    return JSONResponse(body, error.status_code, error.headers)
