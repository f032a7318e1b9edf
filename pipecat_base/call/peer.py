"""A caller as a browser is: an aiortc peer that offers audio to ``/api/offer``."""

from __future__ import annotations

import asyncio
import fractions
import time
from typing import Any

import aiohttp
import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from pipecat_base.call.figures import FRAME_SECONDS, Call, CallError, is_loud

RATE = 48000
"""Opus, decoded."""
ANSWER_TIMEOUT = 30.0
"""Seconds from the offer to the answer: ICE servers that are gone cost the bot some."""
CONNECT_TIMEOUT = 15.0
"""Seconds from the answer to media."""
ENDED = ("closed", "failed")


class Recording(MediaStreamTrack):
    """Says the samples in real time, then silence."""

    kind = "audio"

    def __init__(self, samples: list[int], rate: int, call: Call) -> None:
        super().__init__()
        self._samples = samples
        self._rate = rate
        self._call = call
        self._size = round(rate * FRAME_SECONDS)
        self._began: float | None = None
        self._frames = 0
        self.finished = asyncio.Event()

    async def recv(self) -> av.AudioFrame:
        """The next 20 ms."""
        self._began = self._began or time.monotonic()
        # By the clock, not by sleeps that add up.
        await asyncio.sleep(max(0.0, self._began + self._frames * FRAME_SECONDS - time.monotonic()))
        said = self._samples[self._frames * self._size : (self._frames + 1) * self._size]
        if said:
            self._call.sent += 1
            if self._call.spoke_at is None and is_loud(said):
                self._call.spoke_at = time.monotonic()
        else:
            self.finished.set()
        padded = np.array(said + [0] * (self._size - len(said)), dtype=np.int16)
        frame = av.AudioFrame.from_ndarray(padded[None, :], format="s16", layout="mono")
        frame.sample_rate, frame.time_base = self._rate, fractions.Fraction(1, self._rate)
        frame.pts = self._frames * self._size
        self._frames += 1
        return frame


async def place(url: str, samples: list[int], rate: int, tail: float) -> Call:
    """One call: say ``samples`` in real time, listen ``tail`` seconds longer, hang up.

    Raises:
        CallError: it could not be made.
    """
    call = Call(rate=RATE)
    # Host candidates only: who runs this reaches the bot by its URL.
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    recording = Recording(samples, rate, call)
    connected, ended = asyncio.Event(), asyncio.Event()
    listening: list[asyncio.Task[None]] = []

    def on_track(track: Any) -> None:
        listening.append(asyncio.ensure_future(_listen(track, call)))

    def on_state() -> None:
        if pc.connectionState == "connected":
            call.connected_at = time.monotonic()
            connected.set()
        elif pc.connectionState in ENDED:
            ended.set()

    pc.on("track", on_track)
    pc.on("connectionstatechange", on_state)
    try:
        pc.addTrack(recording)
        await pc.setLocalDescription(await pc.createOffer())
        answer = await _exchange(url, {"sdp": pc.localDescription.sdp, "type": pc.localDescription.type})
        try:
            await pc.setRemoteDescription(answer)
        except Exception as error:
            raise CallError(f"{url} did not answer with usable SDP: {type(error).__name__}") from None
        await _first(CONNECT_TIMEOUT, connected, ended)
        if not connected.is_set():
            raise CallError(f"{url} answered, but no connection to the bot came about; is UDP blocked between you?")
        await _first(None, recording.finished, ended)
        await _first(tail, ended)
        if ended.is_set():
            call.closed = f"its connection is {pc.connectionState}"
        call.lost_packets = await _lost(pc)
    finally:
        for task in listening:
            task.cancel()
        await pc.close()
    return call


async def _exchange(url: str, offer: dict[str, str]) -> RTCSessionDescription:
    if not url.startswith(("http://", "https://")):
        raise CallError(f"{url} is not an HTTP address (http://host:port/api/offer)")
    try:
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, json=offer) as response:
            if response.status != 200:
                raise CallError.refused(url, response.status, await response.read())
            answer = await response.json(content_type=None)
        return RTCSessionDescription(answer["sdp"], answer["type"])
    except TimeoutError:
        raise CallError(f"{url} did not answer the offer within {ANSWER_TIMEOUT:g} s") from None
    except aiohttp.InvalidURL:
        raise CallError(f"{url} is not an HTTP address (http://host:port/api/offer)") from None
    except (KeyError, TypeError, ValueError):
        raise CallError(f"{url} did not answer with SDP") from None
    except aiohttp.ClientError as error:
        raise CallError(f"nothing answers at {url}: {error}. Does the bot run there (pipecat-base dev)?") from None


async def _listen(track: Any, call: Call) -> None:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        for part in resampler.resample(frame):
            samples: list[Any] = part.to_ndarray().reshape(-1).tolist()
            call.hear(samples, time.monotonic())


async def _first(timeout: float | None, *events: asyncio.Event) -> None:
    waiting = {asyncio.ensure_future(event.wait()) for event in events}
    await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


async def _lost(pc: RTCPeerConnection) -> int:
    stats = await pc.getStats()
    return sum(max(0, entry.packetsLost) for entry in stats.values() if entry.type == "inbound-rtp")
