"""Loaded by schemathesis: has it use what it was given, and checks each answer."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import schemathesis  # type: ignore[import-not-found]  # it is in the environment of the clients alone

from tests.compat.clients.answers import objection

PATHS = ("any/", "any/a%20b", "api/offer", "files", "docs", "none")
TRANSPORTS = ("webrtc", "daily", "websocket", "livekit", "moq", "twilio", "plain", "no-such")

_sessions: deque[str] = deque(["none"], maxlen=10)
"""The newest: schemathesis would guess none."""


@schemathesis.hook  # type: ignore[untyped-decorator]
def after_call(context: Any, case: Any, response: Any) -> None:
    if response.status_code == 200 and case.path.endswith("/start"):
        _sessions.append(response.json().get("sessionId", "none"))


@schemathesis.hook  # type: ignore[untyped-decorator]
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    if path_parameters and "session_id" in path_parameters and _one_in(2):
        path_parameters["session_id"] = random.choice(_sessions)
        if "path" in path_parameters:
            path_parameters["path"] = random.choice(PATHS)
    return path_parameters


@schemathesis.hook  # type: ignore[untyped-decorator]
def map_body(context: Any, body: Any) -> Any:
    if isinstance(body, dict) and _one_in(2):
        body["transport"] = random.choice(TRANSPORTS)
        body["createDailyRoom"] = _one_in(2)
        if _one_in(2):
            body["dailyRoomProperties"] = {"max_participants": 2}
            body["dailyMeetingTokenProperties"] = {"user_name": "Ada"}
    return body


@schemathesis.check  # type: ignore[untyped-decorator]
def gateway_answers(ctx: Any, response: Any, case: Any) -> None:
    content_type = response.headers.get("content-type", [""])[0]
    wrong = objection(case.method.upper(), case.path, response.status_code, content_type, response.content)
    assert wrong is None, wrong


def _one_in(count: int) -> bool:
    return random.randrange(count) == 0
