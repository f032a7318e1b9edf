"""WS /ws and /ws-client, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.frames import Opcode
from websockets.sync.client import connect

from tests.support import attackers
from tests.support.callers import arguments, close_code, dial, encode, post
from tests.support.launchers import Launcher, until


def test_the_bot_gets_the_socket_untouched(obedient: Launcher) -> None:
    with dial(obedient, {"do": "echo"}) as websocket:
        for message in ("first", "second"):
            websocket.send(message)
            assert websocket.recv(timeout=10) == message


@pytest.mark.parametrize(("path", "transport_type"), [("/ws", None), ("/ws-client", "websocket")])
def test_the_path_says_whether_it_is_a_phone_or_a_plain_client(
    obedient: Launcher, path: str, transport_type: str | None
) -> None:
    session = {"x-daily-session-id": f"ws{path}"}
    with dial(obedient, {"n": 1}, path, additional_headers=session) as websocket:
        assert close_code(websocket) == 1000
    given = arguments(obedient, f"ws{path}")
    assert given["type"] in ("WebSocketRunnerArguments", "WebSocketSessionArguments")
    assert given["args"]["transport_type"] == transport_type
    assert given["args"]["body"] == {"n": 1}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, 1000),
        ({"do": "raise"}, 1011),
        ({"do": "exit", "status": 1}, 1011),
        ({"do": "base-exception"}, 1011),
        ({"do": "cancel-itself"}, 4009),
        ({"do": "close", "code": 3001}, 3001),
    ],
)
def test_the_peer_hears_a_proper_close_code(obedient: Launcher, body: dict[str, Any], code: int) -> None:
    with dial(obedient, body) as websocket:
        assert close_code(websocket) == code


def test_the_peer_hears_that_time_is_up() -> None:
    with Launcher("obedient", MAX_SESSION_SECONDS="0.3") as launcher, dial(launcher, {"do": "hang"}) as websocket:
        assert close_code(websocket) == 4008


def test_a_client_that_leaves_ends_the_session_without_an_error() -> None:
    with Launcher("obedient") as launcher:
        with dial(launcher, {"do": "receive"}):
            launcher.wait_for_log("Session started")
        launcher.wait_for_log("Session ended: disconnected")
        assert "Traceback" not in launcher.log()


def test_a_client_that_vanishes_ends_a_session_that_listens() -> None:
    with Launcher("obedient", MAX_SESSIONS="1") as launcher:
        websocket = connect(f"{launcher.websocket_url()}?body={encode({'do': 'receive'})}", proxy=None)
        launcher.wait_for_log("Session started")
        websocket.socket.close()  # without a word
        launcher.wait_for_log("Session ended: disconnected")
        until(launcher.is_ready, "its place is free")
        with dial(launcher, {}) as again:
            assert close_code(again) == 1000


@pytest.mark.parametrize("path", ["/ws", "/ws-client"])
@pytest.mark.parametrize(("offered", "answered"), [(["audio.v2"], "audio.v2"), (["a", "b"], "a"), (None, None)])
def test_a_client_that_offers_subprotocols_is_answered_with_its_first(
    obedient: Launcher, path: str, offered: list[Any] | None, answered: str | None
) -> None:
    with dial(obedient, {"do": "echo"}, path, subprotocols=offered) as websocket:
        assert websocket.subprotocol == answered
        websocket.send("x")
        assert websocket.recv(timeout=10) == "x"


def test_an_empty_entry_is_no_subprotocol(obedient: Launcher) -> None:
    sock = attackers.dial(obedient)
    sock.sendall(
        b"GET /ws HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"sec-websocket-protocol: , ok, other\r\n\r\n"
    )
    answer = frames_of(sock, 0.5).lower()
    assert answer.startswith(b"http/1.1 101 ")
    assert b"\r\nsec-websocket-protocol: ok\r\n" in answer


def test_a_bot_chooses_the_subprotocol_of_its_own_route_and_may_accept_the_launchers_again(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "from fastapi import WebSocket\nfrom pipecatcloud_system import app\n\n\n"
        "@app.websocket('/own')\nasync def own(websocket: WebSocket):\n"
        "    await websocket.accept(subprotocol=websocket.scope['subprotocols'][-1])\n"
        "    await websocket.send_text('own')\n\n\n"
        "async def bot(args):\n    await args.websocket.accept(subprotocol=args.body.get('wants'))\n"
        "    await args.websocket.send_text('bot')\n"
    )
    with Launcher(tmp_path) as launcher:
        with dial(launcher, {}, "/own", subprotocols=["a", "b"]) as websocket:
            assert (websocket.subprotocol, websocket.recv(timeout=10)) == ("b", "own")
        for wanted in (None, "a", "b"):
            with dial(launcher, {"wants": wanted}, subprotocols=["a", "b"]) as websocket:
                assert (websocket.subprotocol, websocket.recv(timeout=10)) == ("a", "bot")
        (line,) = launcher.lines("The bot accepts subprotocol")
        assert "'b', but the launcher has accepted 'a'" in line


def frames_of(sock: socket.socket, seconds: float, *, sending: bytes = b"") -> bytes:
    """All bytes of ``seconds``, while a frame is sent now and then."""
    end, got = time.monotonic() + seconds, b""
    sock.settimeout(0.1)
    while time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            got += sock.recv(65536)
        if sending:
            sock.sendall(sending)
            time.sleep(0.02)
    return got


def opcodes(frames: bytes) -> list[int]:
    """Of frames that are small."""
    found = []
    while len(frames) > 1:
        found.append(frames[0] & 0x0F)
        frames = frames[2 + frames[1] :]
    return found


def test_a_client_that_sends_audio_but_no_pongs_is_not_cut() -> None:
    with Launcher("hostile", PIPECAT_WEBSOCKET_PING="0.3") as launcher:
        audio = attackers.upgrade(launcher)
        got = opcodes(frames_of(audio, 2.5, sending=attackers.frame(1, b"audio")))
        assert got.count(Opcode.PING) > 2
        assert Opcode.CLOSE not in got
        assert attackers.close_code_of(audio) == 1011, "it sends nothing any more"


def test_a_client_whose_audio_the_bot_does_not_receive_is_not_cut_either() -> None:
    with Launcher("hostile", PIPECAT_WEBSOCKET_PING="0.3") as launcher:
        waiting = attackers.upgrade(launcher)
        waiting.sendall(attackers.frame(1, b"sleep"))
        assert Opcode.CLOSE not in opcodes(frames_of(waiting, 2, sending=attackers.frame(1, b"audio")))


def test_clients_that_are_not_to_be_pinged_are_not() -> None:
    with Launcher("hostile", PIPECAT_WEBSOCKET_PING="0") as launcher:
        sock = attackers.upgrade(launcher)
        assert frames_of(sock, 1) == b""
        sock.sendall(attackers.frame(1, b"still here"))
        assert b"still here" in frames_of(sock, 1)


def test_a_client_that_leaves_a_task_group_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "import asyncio\n\n\nasync def bot(args):\n    async with asyncio.TaskGroup() as group:\n"
        "        group.create_task(args.websocket.receive_text())\n        group.create_task(asyncio.sleep(60))\n"
        if hasattr(asyncio, "TaskGroup")
        else "async def bot(args):\n    await args.websocket.receive_text()\n"
    )
    with Launcher(tmp_path) as launcher:
        with dial(launcher, {}):
            launcher.wait_for_log("Session started")
        launcher.wait_for_log("Session ended: disconnected")
        assert "Traceback" not in launcher.log()


@pytest.mark.needs_newest_packages
@pytest.mark.parametrize("size", [7_000, 50_000, 500_000])
def test_a_long_body_in_the_query_is_read(obedient: Launcher, size: int) -> None:
    with dial(obedient, {"do": "echo", "padding": "x" * size}) as websocket:
        websocket.send("arrived")
        assert websocket.recv(timeout=10) == "arrived"


@pytest.mark.needs_newest_packages
@pytest.mark.parametrize("command", [("serve",), ("dev",), ("dev", "--reload")], ids=" ".join)
def test_one_setting_bounds_a_body_in_the_query_whatever_the_command(command: tuple[str, ...]) -> None:
    with Launcher("obedient", command=command, PIPECAT_MAX_HEAD_BYTES="3000000", PIPECAT_ICE_SERVERS="[]") as launcher:
        for size in (9_000, 900_000, 2_000_000):
            with dial(launcher, {"do": "echo", "padding": "x" * size}) as websocket:
                websocket.send("arrived")
                assert websocket.recv(timeout=10) == "arrived"
        with pytest.raises(InvalidStatus) as refused, dial(launcher, {"padding": "x" * 2_400_000}):
            pass
        assert refused.value.response.status_code == 431


@pytest.mark.parametrize("value", ["%%%", "eyJ", "bm90IGpzb24=", "e30x", "YQ", "eyJhIjog", "eyJhIjoxZTk5OX0="])
def test_a_body_that_cannot_be_decoded_costs_no_call(obedient: Launcher, value: str) -> None:
    session_id = f"broken-{value}"
    url = f"{obedient.websocket_url()}?body={value}"
    with connect(url, proxy=None, additional_headers={"x-daily-session-id": session_id}) as websocket:
        assert close_code(websocket) == 1000
    assert obedient.arguments(session_id)["body"] == {}
    (line,) = obedient.lines(f"| {session_id} - Ignored ?body=: ")
    assert "WARNING" in line


def test_at_capacity_and_duplicates_are_refused_before_accept() -> None:
    with Launcher("obedient", MAX_SESSIONS="1") as launcher:
        named = {"x-daily-session-id": "one"}
        with dial(launcher, {"do": "receive"}, additional_headers=named):
            launcher.wait_for_log("Session started")
            with pytest.raises(InvalidStatus) as full, dial(launcher, {}):
                pass
            assert full.value.response.status_code == 429
            assert full.value.response.headers["retry-after"] == "5"
            with pytest.raises(InvalidStatus) as taken, dial(launcher, {}, additional_headers=named):
                pass
            assert taken.value.response.status_code == 409


def test_a_body_in_the_query_is_never_logged() -> None:
    with Launcher("obedient", PIPECAT_LOG_LEVEL="TRACE") as launcher:
        secret = encode({"do": "raise", "key": "value"})
        with connect(f"{launcher.websocket_url()}?body={secret}&token=t0ken", proxy=None) as websocket:
            assert close_code(websocket) == 1011
        with connect(f"{launcher.websocket_url()}?body=!!{secret}", proxy=None) as websocket:
            assert close_code(websocket) == 1000
        assert secret not in launcher.log()
        assert "t0ken" not in launcher.log()


def test_a_token_lets_one_connection_in() -> None:
    from pipecat_base.auth.tokens import Tokens

    tokens = Tokens("sh4red-key")
    with Launcher("obedient", PIPECAT_WEBSOCKET_AUTH="token", PIPECAT_WEBSOCKET_SECRET="sh4red-key") as launcher:

        def attempt(path: str, **headers: str) -> int:
            try:
                with connect(launcher.websocket_url(path), proxy=None, additional_headers=headers) as websocket:
                    return close_code(websocket) or 0
            except InvalidStatus as refused:
                return refused.response.status_code

        once = tokens.mint()
        assert attempt(f"/ws?token={once}") == 1000
        assert attempt(f"/ws?token={once}") == 403
        assert attempt(f"/ws/{tokens.mint()}") == 1000
        assert attempt(f"/ws-client/{tokens.mint()}") == 1000
        assert attempt("/ws", Authorization=f"Bearer {tokens.mint()}") == 1000
        assert attempt("/ws") == 403
        assert attempt("/ws?token=garbage") == 403
        assert attempt(f"/ws?token={Tokens('other').mint()}") == 403
        assert attempt(f"/ws?token={tokens.mint(lifetime=-1)}") == 403


def test_a_refusal_for_want_of_a_token_says_so_to_the_caller_and_in_the_log() -> None:
    with Launcher("obedient", PIPECAT_WEBSOCKET_AUTH="token") as launcher:
        with pytest.raises(InvalidStatus) as refused, dial(launcher, {}):
            pass
        response = refused.value.response
        assert (response.status_code, json.loads(response.body or b"")["error"]["code"]) == (403, "unauthorized")
        assert response.headers["x-pipecat-launcher"]
        launcher.wait_for_log("unauthorized: token: This WebSocket needs a token")
        assert "every WebSocket is refused" in launcher.log()


def test_an_unknown_websocket_is_404_and_in_the_log(obedient: Launcher) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(obedient.websocket_url("/wss"), proxy=None):
        pass
    response = refused.value.response
    assert (response.status_code, json.loads(response.body or b"")["error"]["code"]) == (404, "not_served")
    obedient.wait_for_log("Refused WebSocket /wss: not_served: ")


def test_a_refusal_is_no_error_in_the_log() -> None:
    with Launcher("obedient", DRAIN_NOTICE="0") as launcher:
        with pytest.raises(InvalidStatus), connect(launcher.websocket_url("/nowhere"), proxy=None):
            pass
        assert launcher.stop() == 0
        assert "ERROR" not in launcher.log()


def test_a_token_survives_a_refusal_for_want_of_a_slot() -> None:
    from pipecat_base.auth.tokens import Tokens

    token = Tokens("sh4red-key").mint()
    variables: dict[str, Any] = {
        "PIPECAT_WEBSOCKET_AUTH": "token",
        "PIPECAT_WEBSOCKET_SECRET": "sh4red-key",
        "MAX_SESSIONS": "1",
    }
    with Launcher("obedient", **variables) as launcher:
        url = f"{launcher.websocket_url()}?token={token}"
        with ThreadPoolExecutor() as pool:
            running = pool.submit(post, launcher, {"do": "sleep", "seconds": 0.5})
            launcher.wait_for_log("Session started")
            with pytest.raises(InvalidStatus) as full, connect(url, proxy=None):
                pass
            assert full.value.response.status_code == 429
            assert running.result().status_code == 200
        with connect(url, proxy=None) as websocket:
            assert close_code(websocket) == 1000


@pytest.mark.parametrize("path", ["/ws", "/ws-client"])
def test_a_token_in_the_path_is_not_logged_even_without_an_upgrade(obedient: Launcher, path: str) -> None:
    assert obedient.http.get(f"{path}/path-t0ken").status_code == 404
    obedient.wait_for_log(f"GET {path}/... 404")
    assert "path-t0ken" not in obedient.log()


def test_a_token_that_is_refused_is_not_logged() -> None:
    with Launcher("obedient", PIPECAT_WEBSOCKET_AUTH="token", PIPECAT_WEBSOCKET_SECRET="sh4red-key") as launcher:
        for path in ("/ws", "/ws-client"):
            with pytest.raises(InvalidStatus), connect(launcher.websocket_url(f"{path}/path-t0ken"), proxy=None):
                pass
        launcher.wait_for_log("unauthorized", times=2)
        assert "path-t0ken" not in launcher.log()


def test_other_origins_are_refused_when_origins_are_listed() -> None:
    with Launcher("obedient", PIPECAT_ALLOWED_ORIGINS="https://good.example, https://also.example") as launcher:
        with dial(launcher, {}, origin="https://GOOD.example") as websocket:
            assert close_code(websocket) == 1000
        for origin in ("https://bad.example", None):
            with pytest.raises(InvalidStatus) as refused, dial(launcher, {}, origin=origin):
                pass
            assert refused.value.response.status_code == 403


def test_http_sessions_go_on_beside_sockets(obedient: Launcher) -> None:
    with dial(obedient, {"do": "echo"}) as websocket:
        assert post(obedient, {}).status_code == 200
        websocket.send("still there")
        assert websocket.recv(timeout=10) == "still there"
