"""ICE_CONFIG_URL over real HTTP, STUN and TURN servers over real UDP: none is in an offer's way."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aioice.stun import Class, Message, Method, parse_message

from tests.support.launchers import ROOT, Launcher, measured, until
from tests.support.offers import SDP, wait_for_offer
from tests.support.stun import StunServer

WEBRTC_BOT = ROOT / "examples" / "echo"  # has aiortc imported at the start
OFFER = {"sdp": SDP, "type": "offer", "requestData": {"do": "return"}}


class IceConfig:
    """Answers with ``content``, and counts."""

    def __init__(self, content: bytes) -> None:
        self.fetched = 0
        config = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                config.fetched += 1
                self.send_response(200)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/ice-servers"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def stun() -> Iterator[int]:
    """The port of a STUN server, which says that every address is 192.0.2.7."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    data, address = sock.recvfrom(2048)
                    request = parse_message(data)
                    answer = Message(Method.BINDING, Class.RESPONSE, transaction_id=request.transaction_id)
                    answer.attributes["XOR-MAPPED-ADDRESS"] = ("192.0.2.7", address[1])
                    sock.sendto(bytes(answer), address)

        threading.Thread(target=serve, daemon=True).start()
        yield sock.getsockname()[1]


@pytest.fixture
def good(stun: int) -> Iterator[IceConfig]:
    servers = [{"urls": [f"stun:127.0.0.1:{stun}"]}, {"urls": "https://not-ice"}]
    # With a BOM, as editors write one.
    config = IceConfig(codecs.BOM_UTF8 + json.dumps({"iceConfig": {"iceServers": servers}}).encode())
    yield config
    config.close()


def offer(launcher: Launcher, count: int = 1) -> None:
    for _ in range(count):
        assert launcher.http.post("/api/offer", json=OFFER).status_code == 200


def test_the_servers_are_fetched_once_for_many_offers(good: IceConfig) -> None:
    with Launcher("obedient", ICE_CONFIG_URL=good.url) as launcher:
        for _ in range(3):
            assert "192.0.2.7" in launcher.http.post("/api/offer", json=OFFER).json()["sdp"]
        assert good.fetched == 1
        warnings = [line for line in launcher.log().splitlines() if "An ICE server was dropped" in line]
        assert len(warnings) == 1


@pytest.fixture
def port_9090() -> Iterator[None]:
    """The port for this test alone: others of the same name may run at the same time."""
    with open(Path(tempfile.gettempdir()) / "pipecat-base-port-9090.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def platforms(port_9090: None, good: IceConfig) -> Iterator[None]:
    """The good one at the address where the platform has its own."""
    try:
        server = ThreadingHTTPServer(("127.0.0.1", 9090), good.server.RequestHandlerClass)
    except OSError as error:
        pytest.fail(f"port 9090 is taken on this machine: {error}")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("platforms")
def test_in_the_image_the_platforms_address_is_the_default(good: IceConfig) -> None:
    with Launcher("obedient", IMAGE_VERSION="1") as launcher:
        assert "192.0.2.7" in launcher.http.post("/api/offer", json=OFFER).json()["sdp"]
    assert good.fetched == 1
    # Elsewhere, and where another address or a list is set, it is not asked.
    elsewhere: list[dict[str, str]] = [{}, {"PIPECAT_ICE_SERVERS": "[]"}, {"ICE_CONFIG_URL": "http://127.0.0.1:1/"}]
    for variables in elsewhere:
        settings: dict[str, Any] = {"IMAGE_VERSION": "1" if variables else None, **variables}
        with Launcher("obedient", **settings) as launcher:
            offer(launcher)
    assert good.fetched == 1


@pytest.mark.usefixtures("port_9090")
def test_in_the_image_without_anybody_at_that_address_offers_are_answered_as_ever() -> None:
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 9090)), "nobody listens there on this machine"
    with Launcher("obedient", IMAGE_VERSION="1", PIPECAT_LOG_LEVEL="INFO") as launcher:
        offer(launcher, 3)
        # On a busy machine the import of aiortc can block the loop for a second.
        assert not [line for line in launcher.lines("WARNING") if "loop_monitor" not in line]
        assert not launcher.lines("ice-servers")


def test_a_session_that_waits_for_its_offer_has_them_fetched_meanwhile(good: IceConfig) -> None:
    with Launcher("obedient", ICE_CONFIG_URL=good.url, WEBRTC_OFFER_TIMEOUT="2") as launcher:
        waiting = threading.Thread(target=wait_for_offer, args=(launcher, "w", {}))
        waiting.start()
        until(lambda: good.fetched == 1, "the fetch")
        waiting.join()


def test_a_bot_that_speaks_of_webrtc_has_them_before_its_first_call(good: IceConfig) -> None:
    with Launcher(ROOT / "examples" / "echo", ICE_CONFIG_URL=good.url):
        until(lambda: good.fetched == 1, "the fetch")


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"iceConfig": {"iceServers": [5]}}'])
def test_garbage_is_one_warning_and_no_500(content: bytes) -> None:
    config = IceConfig(content)
    with Launcher("obedient", ICE_CONFIG_URL=config.url) as launcher:
        offer(launcher, 3)
        assert launcher.log().count("ICE_CONFIG_URL did not give ICE servers") == 1
    config.close()


def test_a_url_that_hangs_delays_only_the_first_offer_and_the_stop_not_at_all() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with Launcher("obedient", ICE_CONFIG_URL=url, DRAIN_NOTICE="0") as launcher:
            with Launcher("obedient", PIPECAT_ICE_SERVERS="[]") as other, measured() as seconds:
                offer(other)
                usual = seconds()
            with measured() as seconds:
                offer(launcher)
                # A fetch gives up after 10 s; an offer waits for it PIPECAT_ICE_TIMEOUT at most, and once.
                assert 0.7 < seconds() < usual + 2
            with measured() as seconds:
                offer(launcher, 3)
                assert seconds() < 0.7 + 3 * usual
            with measured() as seconds:
                assert launcher.stop() == 0
                assert seconds() < 5


@pytest.fixture(scope="module")
def silent() -> Iterator[StunServer]:
    with StunServer(loses=10**9) as server:
        yield server


@pytest.mark.parametrize(
    "url", ["stun:127.0.0.1:{port}", "turn:127.0.0.1:{port}", "turn:127.0.0.1:{tcp_port}?transport=tcp"]
)
def test_a_server_that_does_not_answer_delays_no_offer_and_is_named_once(silent: StunServer, url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent_tcp:
        url = url.format(port=silent.port, tcp_port=silent_tcp.getsockname()[1])
        servers = json.dumps([{"urls": url, "username": "user", "credential": "s3cr3t-credential"}])
        with Launcher(WEBRTC_BOT, PIPECAT_ICE_SERVERS=servers) as launcher:
            offer(launcher)
            for _ in range(3):
                with measured() as seconds:
                    offer(launcher)
                    assert seconds() < 1
            until(lambda: launcher.lines(url), "the warning")
            with measured() as seconds:
                offer(launcher, 4)
                assert seconds() < 1, "it is left out"
            (line,) = launcher.lines(url)
            assert "WARNING" in line
            assert "does not answer" in line
            assert "s3cr3t" not in launcher.log()


def test_a_server_that_falls_silent_delays_no_offer_for_more_than_the_timeout() -> None:
    with (
        StunServer() as server,
        Launcher(WEBRTC_BOT, PIPECAT_ICE_SERVERS=f"stun:127.0.0.1:{server.port}") as launcher,
    ):
        offer(launcher)
        server.loses = 10**9
        for _ in range(2):
            with measured() as seconds:
                offer(launcher)
                assert seconds() < 1


def test_a_server_that_answers_is_used_although_one_before_it_does_not(silent: StunServer, stun: int) -> None:
    servers = f"stun:127.0.0.1:{silent.port},stun:127.0.0.1:{stun}"
    with Launcher(WEBRTC_BOT, PIPECAT_ICE_SERVERS=servers) as launcher:
        assert "192.0.2.7" in launcher.http.post("/api/offer", json=OFFER).json()["sdp"]


def test_clients_are_given_servers_that_do_not_answer_this_machine(silent: StunServer) -> None:
    url = f"stun:127.0.0.1:{silent.port}"
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_ICE_SERVERS=url) as launcher:
        for _ in range(2):
            answer = launcher.http.post("/start", json={"transport": "webrtc"})
            assert answer.json()["iceConfig"] == {"iceServers": [{"urls": url}]}
            until(lambda: launcher.lines(f"{url} does not answer"), "the probe")
