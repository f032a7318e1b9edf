"""A caller as a browser is: an aiortc peer that offers audio to ``/api/offer``."""

from __future__ import annotations

import asyncio
import fractions
import time
from typing import Any

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from pipecat_base.cli.call.address import OFFER, Address, shown
from pipecat_base.cli.call.figures import LOG, CallError, CallFigures
from pipecat_base.cli.call.scenario import Script, Speaker, Tail
from pipecat_base.cli.call.track import FRAME_SECONDS, QUIET, level

RATE = 48000
"""Opus, decoded."""
CONNECT_TIMEOUT = 15.0
"""Seconds from the answer to media."""
STALLED = 3.0
"""Seconds without audio after which the bot is gone: RTP carries silence too."""
ENDED = ("closed", "failed")


class Recording(MediaStreamTrack):
    """What a speaker says, in real time, at this rate in Hz."""

    kind = "audio"

    def __init__(self, speaker: Speaker, rate: int) -> None:
        super().__init__()
        self._speaker = speaker
        self._rate = rate
        self._began: float | None = None
        self._frames = 0
        self.finished = asyncio.Event()

    async def recv(self) -> av.AudioFrame:
        """The next 20 ms."""
        self._began = self._began or time.monotonic()
        # By the clock, not by sleeps that add up.
        await asyncio.sleep(max(0.0, self._began + self._frames * FRAME_SECONDS - time.monotonic()))
        if self._speaker.finished:
            self.finished.set()
        said = np.array(self._speaker.next(), dtype=np.int16)
        frame = av.AudioFrame.from_ndarray(said[None, :], format="s16", layout="mono")
        frame.sample_rate, frame.time_base = self._rate, fractions.Fraction(1, self._rate)
        frame.pts = self._frames * len(said)
        self._frames += 1
        return frame


async def slot(address: Address, script: Script, body: Any, tail: Tail) -> CallFigures:
    """One call: say the script in real time, listen, hang up.

    Raises:
        CallError: it could not be made.
    """
    call = CallFigures(script.rate, RATE)
    # Host candidates only: who runs this reaches the bot by its URL.
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    recording = Recording(Speaker(script, call, tail), script.rate)
    connected, ended = asyncio.Event(), asyncio.Event()
    listening: list[asyncio.Task[None]] = []
    started: str | None = None

    def on_track(track: Any) -> None:
        listening.append(asyncio.ensure_future(_listen(track, call)))

    def on_state() -> None:
        if pc.connectionState == "connected":
            call.connect()
            connected.set()
        elif pc.connectionState in ENDED:
            ended.set()

    pc.on("track", on_track)
    pc.on("connectionstatechange", on_state)
    try:
        pc.addTrack(recording)
        await pc.setLocalDescription(await pc.createOffer())
        if address.starts:
            started = await _start(address, body)
        offer = {"sdp": pc.localDescription.sdp, "type": pc.localDescription.type}
        session_id, answer = await _exchange(address, started, offer, body)
        try:
            await pc.setRemoteDescription(answer)
        except Exception as error:
            raise CallError(f"{address.shown()} did not answer with usable SDP: {type(error).__name__}") from None
        await _first(CONNECT_TIMEOUT, connected, ended)
        if not connected.is_set():
            raise CallError(
                f"{address.shown()} answered, but no connection to the bot came about; is UDP blocked between you?"
            )
        await _first(None, recording.finished, ended)
        call.lost_packets = await _lost(pc)
        if ended.is_set():
            await _note_end(call, address, session_id, f"its connection is {pc.connectionState}")
        elif call.silent_for > STALLED:
            call.was_cut = True
            await _note_end(call, address, session_id, f"its audio stopped {call.silent_for:.0f} s before the end")
    except CallError:
        if started is not None:
            await address.give_up(started)
        raise
    finally:
        for task in listening:
            task.cancel()
        await pc.close()
    return call


async def _start(address: Address, body: Any) -> str:
    """The id of a session that waits for its offer."""
    session_id = (await address.start("webrtc", body)).get("sessionId")
    if not isinstance(session_id, str):
        raise CallError(f"{address.shown()}/start did not answer with a sessionId")
    return session_id


async def _exchange(
    address: Address, started: str | None, offer: dict[str, str], body: Any
) -> tuple[str | None, RTCSessionDescription]:
    """The session's id, where it is told, and the answer."""
    url, content = address.url, dict[str, Any](offer)
    if started is not None:
        url = f"{address.url}/sessions/{started}{OFFER}"
    elif body is not None:
        content["requestData"] = body
    answer = await address.post(url, content)
    try:
        return started or answer.get("sessionId"), RTCSessionDescription(answer["sdp"], answer["type"])
    except (KeyError, TypeError, ValueError):
        raise CallError(f"{shown(url)} did not answer with SDP") from None


async def _note_end(call: CallFigures, address: Address, session_id: str | None, seen: str) -> None:
    """WebRTC has no close code: a gateway knows why the connection went."""
    outcome = await address.outcome(session_id)
    if outcome is None:
        call.closed = f"{seen}; {LOG}"
        return
    name, message = outcome
    call.was_cut = call.was_cut or name == "failed"
    call.closed = f"the bot failed; {LOG}" if call.was_cut else f"{name}: {message}"


async def _listen(track: Any, call: CallFigures) -> None:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        for part in resampler.resample(frame):
            samples: list[Any] = part.to_ndarray().reshape(-1).tolist()
            # As a player does: what has come late is made up for where nothing is said.
            if call.heard.end > call.now() + FRAME_SECONDS and level(samples) < QUIET:
                call.heard.catch_up(call.now())
            call.hear(samples)


async def _first(timeout: float | None, *events: asyncio.Event) -> None:
    waiting = {asyncio.ensure_future(event.wait()) for event in events}
    await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


async def _lost(pc: RTCPeerConnection) -> int:
    stats = await pc.getStats()
    return sum(max(0, entry.packetsLost) for entry in stats.values() if entry.type == "inbound-rtp")
