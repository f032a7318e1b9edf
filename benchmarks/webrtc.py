"""WebRTC calls, timed from the offer: the answer, the first audio, the first echoed tone."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from pipecat_base.cli.call.figures import CallFigures
from pipecat_base.cli.call.peer import Recording
from pipecat_base.cli.call.scenario import Script, Speaker, Tail, Turn

RATE = 16000
TONE = (8000 * np.sin(2 * np.pi * 440 * np.arange(20 * RATE) / RATE)).astype(np.int16)
LOUD = 1000


async def call(port: int) -> tuple[float, float, float]:
    """Milliseconds from the offer to the answer, to the first audio, and to the first echoed tone."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTrack(Recording(Speaker(Script((Turn("tone", TONE),), RATE), CallFigures(RATE), Tail(0)), RATE))
    heard: asyncio.Future[tuple[float, float]] = asyncio.get_running_loop().create_future()

    def on_track(track: Any) -> None:
        tasks.append(asyncio.ensure_future(_listen(track, heard)))

    tasks: list[asyncio.Task[None]] = []
    pc.on("track", on_track)
    await pc.setLocalDescription(await pc.createOffer())
    offer = {"sdp": pc.localDescription.sdp, "type": "offer"}
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        began = time.perf_counter()
        answer = (await client.post(f"http://127.0.0.1:{port}/api/offer", json=offer)).json()
        answered = time.perf_counter()
    await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
    first, echoed = await asyncio.wait_for(heard, 30)
    for task in tasks:
        task.cancel()
    await pc.close()
    await asyncio.sleep(0.5)  # until the bot has ended too
    return (answered - began) * 1000, (first - began) * 1000, (echoed - began) * 1000


async def _listen(track: Any, heard: asyncio.Future[tuple[float, float]]) -> None:
    first = None
    while not heard.done():
        frame = await track.recv()
        first = first or time.perf_counter()
        if np.abs(frame.to_ndarray()).max() > LOUD:
            heard.set_result((first, time.perf_counter()))


@contextlib.contextmanager
def ice_config(kind: str) -> Iterator[str]:
    """An ICE_CONFIG_URL that is ``refusing``, ``hanging``, or answers ``garbage``."""
    if kind == "garbage":

        class Garbage(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"<html>")

            def log_message(self, *args: object) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Garbage) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/"
            server.shutdown()
        return
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        if kind == "hanging":
            sock.listen()
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/"
