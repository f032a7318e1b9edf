"""Expensive content: bodies, offers, files, headers."""

from __future__ import annotations

import concurrent.futures
import json
import signal
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.attackers import answer_of, dial, growth, memory, status_of
from tests.support.bystanders import Bystanders
from tests.support.launchers import Launcher, in_one_process, until
from tests.support.offers import SDP

MAX_DELAY_SECONDS = 0.4


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher("hostile", PIPECAT_GATEWAY="1", PIPECAT_INSECURE="1") as running:
        yield running


def worst(others: Bystanders) -> float:
    """The slowest echo, in seconds."""
    return max(max(call.latencies) for call in others.calls)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" + b"[]," * 3_400_000 + b"[]]", 413),
        (b"[" + b"1," * 5_000_000 + b"1]", 413),
        (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, 413),
        (b"[" * 90_000 + b"]" * 90_000, 400),
        (b'{"text":"' + b"x" * 10_000_000 + b'"}', 200),
    ],
    ids=["arrays", "numbers", "objects", "depth", "a long text"],
)
def test_a_body_of_many_values_delays_no_other_request(launcher: Launcher, body: bytes, status: int) -> None:
    found: list[float] = []
    while len(found) < 3 and min(found, default=MAX_DELAY_SECONDS) >= MAX_DELAY_SECONDS:
        with Bystanders(launcher) as others:
            time.sleep(0.2)
            answer = launcher.http.post("/v1/public/agent/start", content=body)
            time.sleep(0.2)
        assert answer.status_code == status, answer.text
        assert others.lost == 0
        found.append(worst(others))
    assert min(found) < MAX_DELAY_SECONDS


def sdp_of(lines: str, times: int) -> str:
    return SDP + "".join(lines.replace("N", str(n)) + "\r\n" for n in range(times))


@pytest.mark.parametrize(
    "sdp",
    [
        sdp_of("a=candidate:N 1 udp 1 192.0.2.1 N typ host", 101),
        sdp_of("a=rtpmap:N opus/48000/2", 1500),
        sdp_of("a=x" + "y" * 500, 140),
        SDP + "\r".join(["a=x"] * 1600),
        sdp_of("a=rtpmap:N opus/48000/2", 129),
        sdp_of("a=rtcp-fb:* nack N", 257),
    ],
    ids=["candidates", "lines", "bytes", "returns", "codecs", "feedback"],
)
def test_an_offer_that_is_too_large_is_refused_at_once(launcher: Launcher, sdp: str) -> None:
    answer = launcher.http.post("/api/offer", json={"sdp": sdp, "type": "offer"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "sdp")


@pytest.mark.parametrize(
    "sdp",
    [
        sdp_of("a=candidate:N 1 udp 1 192.0.2.1 N typ host", 100),
        sdp_of("a=rtpmap:N opus/48000/2", 100) + sdp_of("a=rtcp-fb:* nack N", 250)[len(SDP) :],
        sdp_of("a=ssrc:N cname:x", 1300),
        sdp_of("a=fmtp:N a=1;b=2;c=3", 250),
    ],
    ids=["candidates", "codecs", "sources", "parameters"],
)
def test_the_largest_offer_delays_no_other_request(launcher: Launcher, sdp: str) -> None:
    found: list[float] = []
    while len(found) < 3 and min(found, default=MAX_DELAY_SECONDS) >= MAX_DELAY_SECONDS:
        with Bystanders(launcher) as others:
            time.sleep(0.2)
            launcher.http.post("/api/offer", json={"sdp": sdp, "type": "offer"})
            time.sleep(0.2)
        found.append(worst(others))
    assert min(found) < MAX_DELAY_SECONDS


def test_a_peer_gets_a_hundred_candidates_in_all(launcher: Launcher) -> None:
    answer = launcher.http.post("/api/offer", json={"sdp": SDP, "type": "offer"}).json()
    candidate = {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdp_mid": "0", "sdp_mline_index": 0}
    content = {"pc_id": answer["pc_id"], "candidates": [candidate] * 20}
    statuses = [launcher.http.patch("/api/offer", json=content).status_code for _ in range(6)]
    assert statuses[:4] == [200] * 4
    assert statuses[-1] == 400  # with those of the offer


# Files.


@pytest.mark.parametrize("folder", ["uploads"])
def test_a_sessions_files_stay_until_it_ends(tmp_path: Path, folder: str) -> None:
    kept = tmp_path / folder
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_UPLOADS_FOLDER=str(kept)) as launcher:
        ids = [launcher.http.post("/v1/public/a/start", json={}).json()["sessionId"] for _ in range(3)]
        for session_id in ids:
            for _ in range(10):
                answer = launcher.http.post(f"/sessions/{session_id}/files", files={"file": ("a", b"a")})
                assert answer.status_code == 200
        assert len(list(kept.iterdir())) == 30
        launcher.http.delete(f"/sessions/{ids[0]}")
        until(lambda: len(list(kept.iterdir())) == 20, "the first session's files are gone")
        for _ in range(110):
            launcher.http.post("/files", files={"file": ("loose", b"l")})
        assert len(list(kept.iterdir())) == 120  # of no session: a hundred


def test_the_count_of_a_sessions_files_is_exact(tmp_path: Path) -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_UPLOADS_FOLDER=str(tmp_path)) as launcher:
        session_id = launcher.http.post("/v1/public/a/start", json={}).json()["sessionId"]

        def upload(number: int) -> int:
            return launcher.http.post(f"/sessions/{session_id}/files", files={"file": ("a", b"a")}).status_code

        with concurrent.futures.ThreadPoolExecutor(20) as threads:
            statuses = list(threads.map(upload, range(130)))
        assert statuses.count(200) == 100
        assert set(statuses) == {200, 413}
        assert len(list(tmp_path.iterdir())) == 100


@pytest.mark.parametrize("size", [600_000, 3_000_000], ids=["the uploads' folder", "the temporary folder too"])
def test_a_full_disk_is_reported_and_no_partial_file_is_kept(tmp_path: Path, size: int) -> None:
    folder, small = tmp_path / "uploads", ("sh", "-c", 'ulimit -f 1000; exec "$@"', "-")  # 512 bytes each
    with Launcher("gateway", prefix=small, PIPECAT_UPLOADS_FOLDER=str(folder)) as launcher:
        answer = launcher.http.post("/files", files={"file": ("a", b"x" * size)})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "storage_failed")
        assert not folder.exists() or list(folder.iterdir()) == []
        assert launcher.http.post("/files", files={"file": ("a", b"x")}).status_code == 200


@in_one_process
def test_many_files_at_once_are_not_all_in_memory(tmp_path: Path) -> None:
    with Launcher("gateway", PIPECAT_UPLOADS_FOLDER=str(tmp_path), PIPECAT_MAX_UNFINISHED_BYTES=str(2**30)) as launcher:
        with growth(launcher) as megabytes, concurrent.futures.ThreadPoolExecutor(12) as threads:
            sizes = [40_000_000] * 12
            uploads = [threads.submit(launcher.http.post, "/files", files={"file": ("a", b"x" * n)}) for n in sizes]
            assert [upload.result().status_code for upload in uploads] == [200] * 12
        assert megabytes() < 240


# Headers.


def test_control_characters_of_a_session_id_do_not_reach_the_log(launcher: Launcher) -> None:
    sock = dial(launcher)
    sock.sendall(
        b"POST /bot HTTP/1.1\r\nhost: localhost\r\nx-daily-session-id: a\x1b[31m\x85\x9b2J\r\ncontent-length: 0\r\n\r\n"
    )
    sock.settimeout(5)
    sock.recv(1000)
    log = launcher.log()
    assert "\x1b[31m" not in log
    assert "\x85" not in log
    assert "\x9b" not in log


def test_a_redirect_of_the_bot_leads_back_to_its_session(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "import asyncio\nfrom pipecatcloud_system import app\nfrom starlette.responses import RedirectResponse\n\n"
        "@app.get('/there/')\nasync def there(): return {'there': True}\n\n"
        "@app.get('/out')\nasync def out(): return RedirectResponse('https://elsewhere.example/x')\n\n"
        "async def bot(args): await asyncio.sleep(60)\n"
    )
    with Launcher(tmp_path, PIPECAT_GATEWAY="1") as launcher:
        session_id = launcher.http.post("/v1/public/a/start", json={}).json()["sessionId"]
        for prefix in (f"/sessions/{session_id}", f"/v1/public/a/sessions/{session_id}"):
            answer = launcher.http.get(f"{prefix}/there")
            assert (answer.status_code, answer.headers["location"]) == (307, f"{prefix}/there/")
            assert launcher.http.get(f"{prefix}/there", follow_redirects=True).json() == {"there": True}
            assert launcher.http.get(f"{prefix}/out").headers["location"] == "https://elsewhere.example/x"


# Other services.


@pytest.fixture
def endless() -> Iterator[str]:
    """A server of endless responses."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with_text = b'{"iceConfig": "' + b"x" * 1_000_000
            try:
                while True:
                    self.wfile.write(with_text)
            except OSError:
                pass

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_endless_list_of_ice_servers_is_not_read(endless: str) -> None:
    with Launcher("hostile", ICE_CONFIG_URL=endless) as launcher:
        launcher.http.post("/api/offer", json={"sdp": SDP, "type": "offer"})
        before = memory(launcher)
        launcher.wait_for_log("ICE_CONFIG_URL did not give ICE servers (the answer has more than 1048576 bytes)")
        assert memory(launcher) - before < 20 * 2**20


def test_an_endless_answer_of_dailys_is_not_read(endless: str) -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", DAILY_API_KEY="k", DAILY_API_URL=endless) as launcher:
        answer = launcher.http.post("/start", json={"createDailyRoom": True})
        assert answer.status_code == 502
        assert "more than 1048576 bytes" in json.dumps(answer.json())


# Time.


def test_silent_connections_are_closed_while_the_bot_is_imported(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("import time\n\ntime.sleep(5)\n\n\nasync def bot(args): ...\n")
    with Launcher(tmp_path, wait=False, PIPECAT_GATEWAY="1") as launcher:
        until(lambda: _connects(launcher), "a listener")
        silent = [dial(launcher) for _ in range(300)]
        assert answer_of(silent[0], 3) == b""
        probe = httpx.get(f"http://127.0.0.1:{launcher.port}/livez", timeout=1, trust_env=False)
        assert probe.status_code == 200
        late = dial(launcher)
        late.sendall(b"GET /status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert status_of(answer_of(late)) == 200  # it waited


def _connects(launcher: Launcher) -> bool:
    try:
        dial(launcher).close()
    except OSError:
        return False
    return True


@in_one_process
def test_a_bot_cannot_take_the_signal_that_ends_it(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "import asyncio, signal\n\n\nasync def bot(args):\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    signal.signal(signal.SIGTERM, lambda *_: None)\n    print('taken', flush=True)\n"
        "    await asyncio.sleep(60)\n"
    )
    options: dict[str, Any] = {"SHUTDOWN_TIMEOUT": "0", "SESSION_CANCEL_GRACE": "0.2"}
    for _ in range(3):
        with Launcher(tmp_path, **options) as launcher, connect(launcher.websocket_url()):
            until(lambda: "taken" in launcher.log(), "the bot has tried")
            launcher.signal(signal.SIGTERM)
            assert launcher.wait(10) == 0


def test_a_session_without_a_caller_gives_its_slot_to_a_caller_who_has_connected() -> None:
    options: dict[str, Any] = {"MAX_SESSIONS": "1", "PIPECAT_START_GRACE": "2", "PIPECAT_GATEWAY": "1"}
    with Launcher("hostile", **options) as launcher:
        session_id = launcher.http.post("/start", json={}).json()["sessionId"]
        assert launcher.http.get("/readyz").status_code == 503
        assert launcher.http.post("/start", json={}).status_code == 429
        until(lambda: launcher.http.get("/readyz").status_code == 200, "the place can be had")
        assert launcher.http.post("/start", json={}).status_code == 429  # its caller is not there either
        with connect(launcher.websocket_url("/ws-client")) as caller:
            caller.send("hello")
            assert caller.recv(10) == "hello"
            assert launcher.http.get("/readyz").status_code == 503
            late = launcher.http.post(f"/sessions/{session_id}/api/offer", json={"sdp": SDP, "type": "offer"})
            assert late.status_code == 404
            assert "another caller needed the slot" in late.json()["error"]
        report = launcher.http.get(f"/sessions/{session_id}").json()
        assert (report["outcome"], report["state"]) == ("expired", "ended")


def test_a_signature_checked_against_headers_logs_a_warning() -> None:
    options: dict[str, Any] = {"PIPECAT_GATEWAY": "1", "TWILIO_AUTH_TOKEN": "t", "PIPECAT_INSECURE": "1"}
    with Launcher("hostile", **options) as launcher:
        launcher.wait_for_log("set PIPECAT_PUBLIC_URL")
    with Launcher("hostile", PIPECAT_PUBLIC_URL="https://bot.example", **options) as launcher:
        assert "set PIPECAT_PUBLIC_URL" not in launcher.log()
