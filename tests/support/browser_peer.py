"""An aiortc peer, as a browser would be: says a tone, hears the bot, pings over its data channel."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import time
from typing import Any, TypeVar

import av
import httpx
import numpy as np
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription

B = TypeVar("B", bound="Browser")

RATE = 48000
SAMPLES = RATE // 50


class Tone(MediaStreamTrack):
    """A sine in real time."""

    kind = "audio"

    def __init__(self, frequency: float) -> None:
        super().__init__()
        self._frequency = frequency
        self._sent = 0
        self._began: float | None = None

    async def recv(self) -> av.AudioFrame:
        self._began = self._began or time.monotonic()
        await asyncio.sleep(max(0.0, self._began + self._sent / RATE - time.monotonic()))
        phase = 2 * np.pi * self._frequency * (np.arange(SAMPLES) + self._sent) / RATE
        frame = av.AudioFrame.from_ndarray(
            (12000 * np.sin(phase)).astype(np.int16)[None, :], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._sent, fractions.Fraction(1, RATE)
        self._sent += SAMPLES
        return frame


class Browser:
    """One page with one connection."""

    def __init__(
        self, url: str, frequency: float = 440, *, session: str = "", audio_only: bool = False, data_only: bool = False
    ) -> None:
        self.http = httpx.AsyncClient(
            base_url=url, trust_env=False, timeout=30, headers={"x-daily-session-id": session}
        )
        self.pc = RTCPeerConnection()
        if not data_only:
            self.pc.addTrack(Tone(frequency))
        if not audio_only and not data_only:
            self.pc.addTransceiver("video", direction="recvonly")
        if not audio_only:
            self.channel = self.pc.createDataChannel("chat")
            self.channel.on("message", self._on_message)
        self.heard: list[int] = []
        self.rate = RATE
        self.pc_id: str | None = None
        self.ended = asyncio.Event()
        self._tasks: list[asyncio.Task[Any]] = []

        @self.pc.on("track")
        def on_track(track: Any) -> None:
            if track.kind == "audio":
                self._tasks.append(asyncio.ensure_future(self._listen(track)))

        @self.pc.on("connectionstatechange")
        def on_state() -> None:
            if self.pc.connectionState in ("closed", "failed"):
                self.ended.set()

    async def offer(self, **extra: Any) -> httpx.Response:
        """Send an offer; apply the answer when there is one."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        description = self.pc.localDescription
        body = {"sdp": description.sdp, "type": description.type, "pc_id": self.pc_id, **extra}
        response = await self.http.post("/api/offer", json=body)
        if response.status_code == 200:
            answer = response.json()
            self.pc_id = answer["pc_id"]
            await self.pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
            self._tasks.append(asyncio.ensure_future(self._ping()))
        return response

    async def hear(self, seconds: float, timeout: float = 15) -> list[int]:
        """The next ``seconds`` of audio that is not silence."""
        wanted = int(seconds * self.rate)
        self.heard.clear()

        async def enough() -> None:
            while len(self.heard) < wanted:
                await asyncio.sleep(0.02)

        await asyncio.wait_for(enough(), timeout)
        return self.heard[:wanted]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.pc.close()
        await self.http.aclose()

    async def __aenter__(self: B) -> B:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def _on_message(self, message: str) -> None:
        if "peerLeft" in message:
            self.ended.set()

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(1)
            with contextlib.suppress(Exception):
                self.channel.send(f"ping: {int(time.time() * 1000)}")

    async def _listen(self, track: Any) -> None:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        with contextlib.suppress(Exception):
            while True:
                for frame in resampler.resample(await track.recv()):
                    samples = frame.to_ndarray().reshape(-1)
                    if np.abs(samples).max() > 1000:
                        heard: list[Any] = samples.tolist()
                        self.heard += heard
