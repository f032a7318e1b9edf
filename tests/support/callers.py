"""Requests of callers to a launcher under test."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.launchers import Launcher


def post(launcher: Launcher, body: Any = None, **headers: str) -> httpx.Response:
    """``POST /bot``; header names have underscores for dashes."""
    return launcher.post(body, **headers)


def arguments(launcher: Launcher, session_id: str) -> dict[str, Any]:
    """The ``args`` that the bot of this session received, and their ``type``."""
    return launcher.told(session_id)


def encode(body: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(body).encode()).decode()


@contextlib.contextmanager
def dial(launcher: Launcher, body: Any, path: str = "/ws", **options: Any) -> Iterator[ClientConnection]:
    with connect(f"{launcher.websocket_url(path)}?body={encode(body)}", proxy=None, **options) as websocket:
        yield websocket


def close_code(websocket: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            websocket.recv(timeout=20)
    return websocket.protocol.close_code


def probe(launcher: Launcher, path: str) -> httpx.Response:
    """Probe as an orchestrator does: with a new connection and a timeout of one second."""
    return httpx.get(f"http://127.0.0.1:{launcher.port}{path}", timeout=1, trust_env=False)


def settles(another_round: Callable[[], int], within: int, rounds: int = 15) -> bool:
    """True when memory stays within so many bytes over three rounds in a row: a leak never does, arenas grow once.

    So what leaks more than a third of ``within`` in a round is found, however long the allocator takes to fill up.
    """
    sizes = [another_round() for _ in range(4)]
    while sizes[-1] - sizes[-4] >= within and len(sizes) < rounds:
        sizes.append(another_round())
    return sizes[-1] - sizes[-4] < within
