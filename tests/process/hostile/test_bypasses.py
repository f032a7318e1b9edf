"""Attempts to bypass a key by a path, and the body of a pending session by a query."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.attackers import answer_of, dial, status_of
from tests.support.callers import encode
from tests.support.launchers import Launcher

KEY = {"authorization": "Bearer pk_one"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """A bot that serves files at ``/``; ``/public/`` needs no key."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "files").mkdir()
    (folder / "files" / "private.txt").write_text("private")
    (folder / "bot.py").write_text(
        "from pathlib import Path\n\nfrom pipecatcloud_system import app\n"
        "from starlette.staticfiles import StaticFiles\n\n"
        "app.mount('/', StaticFiles(directory=Path(__file__).parent / 'files'))\n\n\nasync def bot(args): ...\n"
    )
    options = {"PIPECAT_GATEWAY": "1", "PIPECAT_PUBLIC_API_KEYS": "pk_one", "PIPECAT_OPEN_ROUTES": "/public/*"}
    with Launcher(folder, **options) as launcher:  # type: ignore[arg-type]
        yield launcher


def test_a_file_needs_a_key(site: Launcher) -> None:
    assert site.http.get("/private.txt").status_code == 401
    assert site.http.get("/private.txt", headers=KEY).text == "private"


@pytest.mark.parametrize(
    "path",
    ["/ws/../private.txt", "/ws-client/%2e%2e/private.txt", "/public/../private.txt", "/public/%2e%2e/private.txt"],
)
def test_no_path_bypasses_the_key(site: Launcher, path: str) -> None:
    sock = dial(site)
    sock.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
    assert status_of(answer_of(sock)) in (400, 401, 404)


def test_a_caller_cannot_choose_the_body_of_a_pending_session() -> None:
    options = {"PIPECAT_GATEWAY": "1", "PIPECAT_PUBLIC_API_KEYS": "pk_one", "PIPECAT_WEBSOCKET_AUTH": "token"}
    with Launcher("gateway", **options) as launcher:  # type: ignore[arg-type]
        content = {"transport": "websocket", "body": {"role": "user"}}
        promised = launcher.http.post("/start", json=content, headers=KEY).json()
        query = f"token={promised['token']}&body={encode({'role': 'admin'})}"
        named = {"x-daily-session-id": promised["sessionId"]}
        with pytest.raises(InvalidStatus):
            connect(f"{launcher.websocket_url('/ws-client')}?{query}", additional_headers=named, proxy=None)
