"""Expensive bodies within every limit do not delay other calls."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from websockets.sync.client import connect

from tests.support.attackers import dial, status_of
from tests.support.bystanders import Bystanders, echo_during
from tests.support.launchers import Launcher

MAX_DELAY_SECONDS = 0.05
SIZE = 8_700_000
BODIES = {
    "unique keys": b"{" + b",".join(b'"k%d":1' % number for number in range(700_000)) + b"}",
    "as many unique keys as may be": b"{" + b",".join(b'"k%d":1' % number for number in range(90_000)) + b"}",
    "a body that the platform takes": b"{" + b",".join(b'"%x":1' % number for number in range(105_000)) + b"}",
    "floats of many digits": b"[" + b",".join([b"1." + b"7" * 1000] * (SIZE // 1003)) + b"]",
    "integers of 4,300 digits": b"[" + b",".join([b"7" * 4300] * (SIZE // 4301)) + b"]",
    "floats": b"[" + b",".join([b"1.5e3"] * 400_000) + b"]",
    "objects": b"[" + b",".join([b'{"a":[]}'] * 30_000) + b"]",
    "one text": b'"' + b"x" * SIZE + b'"',
}


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    folder = str(tmp_path_factory.mktemp("uploads"))
    with Launcher("hostile", PIPECAT_GATEWAY="1", PIPECAT_UPLOADS_FOLDER=folder) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *(("/bot", kind) for kind in BODIES),
        *((path, kind) for path in ("/start", "/api/offer") for kind in ("as many unique keys as may be", "floats")),
    ],
)
def test_no_body_delays_another_call(launcher: Launcher, path: str, kind: str) -> None:
    content = BODIES[kind]
    if path == "/start":
        content = b'{"transport":"websocket","body":' + content + b"}"
    headers = {"x-pcc-max-session-seconds": "0.05"}

    def attack() -> None:
        answer = launcher.http.post(path, content=content, headers=headers, timeout=60)
        assert answer.status_code in (200, 400, 413)

    assert echo_during(launcher, attack, MAX_DELAY_SECONDS, Bystanders.slowest) < MAX_DELAY_SECONDS


@pytest.mark.parametrize("candidate", [b"1.23456", b'"\xc3\xa9"'])
def test_no_ice_candidates_delay_another_call(launcher: Launcher, candidate: bytes) -> None:
    count = 900_000 if candidate.isascii() else 90_000
    content = b'{"pc_id":"x","candidates":[' + b",".join([candidate] * count) + b"]}"

    def attack() -> None:
        assert launcher.http.patch("/api/offer", content=content, timeout=60).status_code in (400, 404)

    assert echo_during(launcher, attack, MAX_DELAY_SECONDS, Bystanders.slowest) < MAX_DELAY_SECONDS


def test_no_query_delays_another_call(launcher: Launcher) -> None:
    keys = b"{" + b",".join(b'"k%d":1' % number for number in range(60_000)) + b"}"
    url = f"{launcher.websocket_url('/ws-client')}?body={base64.urlsafe_b64encode(keys).decode()}"

    def attack() -> None:
        with connect(url, proxy=None) as socket:
            socket.send("x")
            assert socket.recv(20) == "x"

    assert echo_during(launcher, attack, MAX_DELAY_SECONDS, Bystanders.slowest) < MAX_DELAY_SECONDS


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "text/plain"])
def test_no_form_delays_another_call(launcher: Launcher, kind: str) -> None:
    def attack() -> None:
        answer = launcher.http.post("/files", content=b"&" * 8_000_000, headers={"content-type": kind})
        assert answer.status_code == 400

    assert echo_during(launcher, attack, MAX_DELAY_SECONDS, Bystanders.slowest) < MAX_DELAY_SECONDS


def test_a_form_that_is_not_multipart_is_refused_before_it_is_read(launcher: Launcher) -> None:
    with dial(launcher) as sock:
        head = b"POST /files HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n"
        sock.sendall(head + b"content-length: 8000000\r\n\r\na=1&")
        assert status_of(sock.recv(100)) == 400
