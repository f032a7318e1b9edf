"""What the gateway answers when it refuses: flat, as Pipecat Cloud's public API does and its SDK reads it.

``{"status", "code", "message", "error", "detail"}``: the SDK shows ``code`` and ``error``, the REST reference has
``message``, pipecat's JavaScript client shows ``detail``.
``code`` is the status as text, except where the documentation names another one.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from pipecat_base.errors import AtCapacity, KeyMissing, Refusal

CODES: dict[type[Refusal], str] = {KeyMissing: "PCC-1002"}
"""docs.pipecat.ai, error codes."""
PREFIXES: dict[type[Refusal], str] = {AtCapacity: "PCC-AGENT-AT-CAPACITY: "}
"""The capacity error's name is looked for in its text: the SDK documents ``code`` as "429"."""


def of(refusal: Refusal, launcher: str) -> JSONResponse:
    """The answer to a request that the gateway refuses."""
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
    """The answer where no route of the gateway fits, or not with this method."""
    assert isinstance(error, HTTPException)
    body = {
        "status": error.status_code,
        "code": str(error.status_code),
        "message": error.detail,
        "error": error.detail,
        "detail": error.detail,
    }
    return JSONResponse(body, error.status_code, error.headers)
