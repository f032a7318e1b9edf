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
from pipecat_base.cli.call.audio import Samples, level_dbfs
from pipecat_base.cli.call.figures import SEE_LOG, CallError, CallFigures
from pipecat_base.cli.call.scenario import Script, Speaker, Tail
from pipecat_base.cli.call.track import FRAME_SECONDS, SPEECH_DBFS

OPUS_RATE = 48000
CONNECT_TIMEOUT_SECONDS = 15.0
STALLED_SECONDS = 3.0  # RTP carries silence too: without any audio the bot is no longer there


class Recording(MediaStreamTrack):
    """A speaker's audio, in real time."""

    kind = "audio"

    def __init__(self, speaker: Speaker, rate: int) -> None:
        super().__init__()
        self._speaker = speaker
        self._rate = rate
        self._began: float | None = None
        self._frames = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def recv(self) -> av.AudioFrame:
        self._began = self._began or time.monotonic()
        # By the clock, not by sleeps that add up.
        await asyncio.sleep(max(0.0, self._began + self._frames * FRAME_SECONDS - time.monotonic()))
        if self._speaker.finished and not self.finished.done():
            self.finished.set_result(None)
        samples = self._speaker.next()
        frame = av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
        frame.sample_rate, frame.time_base = self._rate, fractions.Fraction(1, self._rate)
        frame.pts = self._frames * len(samples)
        self._frames += 1
        return frame


async def place_call(address: Address, script: Script, body: Any, tail: Tail) -> CallFigures:
    """Say the script in real time, listen, hang up."""
    call = CallFigures(script.rate, OPUS_RATE)
    # Host candidates only: who runs this reaches the bot by its URL.
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    recording = Recording(Speaker(script, call, tail), script.rate)
    loop = asyncio.get_running_loop()
    connected, ended = loop.create_future(), loop.create_future()
    listening: list[asyncio.Task[None]] = []
    started: str | None = None

    @pc.on("track")
    def on_track(track: Any) -> None:
        listening.append(asyncio.ensure_future(_listen(track, call)))

    @pc.on("connectionstatechange")
    def on_state() -> None:
        if pc.connectionState == "connected" and not connected.done():
            call.connect()
            connected.set_result(None)
        elif pc.connectionState in ("closed", "failed") and not ended.done():
            ended.set_result(None)

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
        await asyncio.wait({connected, ended}, timeout=CONNECT_TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not connected.done():
            raise CallError(
                f"{address.shown()} answered, but no connection to the bot came about; is UDP blocked between you?"
            )
        await asyncio.wait({recording.finished, ended}, return_when=asyncio.FIRST_COMPLETED)
        call.lost_packets = await _lost_packets(pc)
        if ended.done():
            await _record_end(call, address, session_id, f"its connection is {pc.connectionState}")
        elif call.silent_for > STALLED_SECONDS:
            call.was_cut = True
            await _record_end(call, address, session_id, f"its audio stopped {call.silent_for:.0f} s before the end")
    except CallError:
        if started is not None:
            await address.delete_session(started)
        raise
    finally:
        for task in listening:
            task.cancel()
        await pc.close()
    return call


async def _start(address: Address, body: Any) -> str:
    session_id = (await address.start("webrtc", body)).get("sessionId")
    if not isinstance(session_id, str):
        raise CallError(f"{address.shown()}/start did not answer with a sessionId")
    return session_id


async def _exchange(
    address: Address, started: str | None, offer: dict[str, str], body: Any
) -> tuple[str | None, RTCSessionDescription]:
    """Send the offer; the session's id, if the bot sends it, and the answer."""
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


async def _record_end(call: CallFigures, address: Address, session_id: str | None, seen: str) -> None:
    # WebRTC has no close code: a gateway knows why the connection ended.
    outcome = await address.outcome(session_id)
    if outcome is None:
        call.closed = f"{seen}; {SEE_LOG}"
        return
    name, message = outcome
    call.was_cut = call.was_cut or name == "failed"
    call.closed = f"the bot failed; {SEE_LOG}" if call.was_cut else f"{name}: {message}"


async def _listen(track: Any, call: CallFigures) -> None:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=OPUS_RATE)
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        for part in resampler.resample(frame):
            samples: Samples = part.to_ndarray().reshape(-1).astype(np.int16, copy=False)
            # Like a player, catch up on a delay during silence.
            if call.heard.end > call.now() + FRAME_SECONDS and level_dbfs(samples) < SPEECH_DBFS:
                call.heard.catch_up(call.now())
            call.add_heard(samples)


async def _lost_packets(pc: RTCPeerConnection) -> int:
    stats = await pc.getStats()
    return sum(max(0, entry.packetsLost) for entry in stats.values() if entry.type == "inbound-rtp")
