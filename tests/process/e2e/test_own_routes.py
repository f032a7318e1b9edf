"""Routes of the bot's own beside the launcher's: which of them are the launcher's, and lines about a clash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pipecat_base.api.clashes import warn_of_clashes
from pipecat_base.auth.tokens import Tokens
from pipecat_base.logs.logger import logger
from tests.support.launchers import Launcher

BOT = """
from fastapi import APIRouter, WebSocket
from pipecatcloud_system import app

router = APIRouter()

@router.websocket("/ws/{room}/{seat}")
async def seat(websocket: WebSocket, room: str, seat: str):
    await websocket.accept()
    await websocket.send_text(f"seat {seat}")
    await websocket.close()

@app.websocket("/ws/sales")
async def sales(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text("sales")
    await websocket.close()

@app.websocket("/ws-client/{name}")
async def client(websocket: WebSocket, name: str):
    await websocket.accept()
    await websocket.send_text(f"client {name}")
    await websocket.close()

@router.get("/sessions/mine")
async def mine():
    return {"mine": True}

app.include_router(router)

async def bot(args):
    print("a session", flush=True)
"""
OWN = {"/ws/sales": "sales", "/ws-client/ann": "client ann", "/ws/a/b": "seat b", "/ws/twilio/b": "seat b"}
SECRET = "sh4red-key-of-the-test"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bot.py").write_text(BOT)
    return tmp_path


@pytest.mark.parametrize(
    "variables",
    [{}, {"PIPECAT_GATEWAY": "1"}, {"PIPECAT_POD_TOKEN": "p0d-token-of-the-test"}],
    ids=["pod", "gateway", "pod token"],
)
def test_websockets_below_ws_are_the_bots_where_no_token_is_used(folder: Path, variables: dict[str, Any]) -> None:
    with Launcher(folder, **variables) as launcher:
        for path, says in OWN.items():
            with connect(launcher.websocket_url(path), proxy=None) as websocket:
                assert websocket.recv(timeout=10) == says
        assert "a session" not in launcher.log()
        assert "is reserved for the launcher (WebSocket)" not in launcher.log()


@pytest.mark.parametrize("variables", [{}, {"PIPECAT_GATEWAY": "1"}], ids=["pod", "gateway"])
def test_with_tokens_the_path_after_ws_is_a_token_and_the_clash_is_named(
    folder: Path, variables: dict[str, Any]
) -> None:
    auth: dict[str, Any] = {"PIPECAT_WEBSOCKET_AUTH": "token", "PIPECAT_WEBSOCKET_SECRET": SECRET}
    with Launcher(folder, **auth, **variables) as launcher:
        for path in ("/ws/sales", "/ws-client/ann"):
            with pytest.raises(InvalidStatus) as refused:
                connect(launcher.websocket_url(path), proxy=None)
            assert refused.value.response.status_code == 403
        with connect(launcher.websocket_url(f"/ws/{Tokens(SECRET).mint()}"), proxy=None):
            launcher.wait_for_log("a session")
        for path, name in (("/ws/{token}", "sales"), ("/ws-client/{token}", "client")):
            line = f"{path} is reserved for the launcher (WebSocket): your {name}() is not served there"
            assert len(launcher.lines(line)) == 1


def test_the_gateways_patterns_are_named_too(folder: Path) -> None:
    with Launcher(folder, PIPECAT_GATEWAY="1") as launcher:
        line = "/sessions/{session_id} is reserved for the launcher (GET): your mine() is not served there"
        assert len(launcher.lines(line)) == 1
        assert launcher.http.get("/sessions/mine").status_code == 404


async def page(*arguments: Any) -> None: ...


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []
    number = logger.add(lambda message: found.append(message.record["message"]), level="WARNING")
    yield found
    logger.remove(number)


@pytest.mark.parametrize(
    ("ours", "theirs", "is_named"),
    [
        ("/ws/{token}", "/ws/sales", True),
        ("/ws/{token}", "/ws/{room}", True),
        ("/ws/{token}", "/ws/room-{n:int}", True),
        ("/ws/{token}", "/ws/{rest:path}", True),
        ("/ws/{token}", "/ws", False),
        ("/ws/{token}", "/ws/a/b", False),
        ("/ws/{token}", "/{page}/{n:int}", True),
        ("/ws/{token}", "/{page:int}/x", False),
        ("/ws/{token}", "/{rest:path}", False),
        ("/sessions/{id}/ws-client", "/sessions/mine/{action}", True),
        ("/sessions/{id}/ws-client", "/sessions/mine/other", False),
        ("/sessions/{id}/{path:path}", "/sessions/mine/a/b", True),
        ("/sessions/{id}/{path:path}", "/sessions", False),
        ("/ws", "/{page}", True),
        ("/ws", "/{rest:path}", True),
        ("/ws", "/ws/", False),
    ],
)
def test_a_clash_is_named_where_one_path_matches_both(lines: list[str], ours: str, theirs: str, is_named: bool) -> None:
    warn_of_clashes([WebSocketRoute(ours, page)], [WebSocketRoute(theirs, page)])
    expected = f"{ours} is reserved for the launcher (WebSocket): your page() is not served there"
    assert lines == ([expected] if is_named else [])


@pytest.mark.parametrize(
    "theirs",
    [
        Route("/ws/{room}", page, methods=["POST"]),
        Mount("/ws", app=Starlette()),
        Mount("/", app=Starlette()),
    ],
)
def test_another_method_and_a_mount_are_no_clash(lines: list[str], theirs: BaseRoute) -> None:
    warn_of_clashes([WebSocketRoute("/ws/{token}", page), Route("/ws/{token}", page, methods=["GET"])], [theirs])
    assert lines == []
