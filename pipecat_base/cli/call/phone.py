"""A caller as a phone provider's media stream has it: audio in JSON over a WebSocket, silence included."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

import numpy as np
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from pipecat_base.cli.call.address import Address, shown, unreachable, with_body
from pipecat_base.cli.call.figures import CallError, CallFigures
from pipecat_base.cli.call.providers import Provider
from pipecat_base.cli.call.scenario import Script, Speaker, Tail
from pipecat_base.cli.call.track import FRAME_SECONDS

Marks = deque[tuple[float, str]]  # when each is reached on the call's clock, and its name


async def place_call(address: Address, script: Script, provider: Provider, tail: Tail) -> CallFigures:
    """Say the script (8 kHz) in real time, listen, hang up."""
    call = CallFigures(script.rate)
    url = await address.stream(provider.name)
    if provider.has_query and provider.body is not None:
        url = with_body(url, provider.body)
    try:
        async with connect(url, max_size=None) as websocket:
            call.connect()
            for message in provider.opening():
                await websocket.send(json.dumps(message))
            marks = Marks()
            listening = asyncio.ensure_future(_listen(websocket, provider, call, marks))
            speaking = asyncio.ensure_future(_speak(websocket, provider, Speaker(script, call, tail), call, marks))
            await asyncio.wait({listening, speaking}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                call.record_close(websocket.close_code, websocket.close_reason)
            for task in (listening, speaking):
                task.cancel()
            for failed in await asyncio.gather(listening, speaking, return_exceptions=True):
                if isinstance(failed, Exception) and not isinstance(failed, ConnectionClosed):
                    raise failed
    except InvalidURI:
        raise CallError(f"{shown(url)} is not a WebSocket address (ws://host:port/ws)") from None
    except InvalidStatus as error:
        body = bytes(error.response.body or b"")
        raise CallError.refused(shown(url), error.response.status_code, body, key=address.key) from None
    except InvalidHandshake as error:
        raise CallError(f"{shown(url)} refused the call: {error}") from None
    except ConnectionClosed as error:
        call.record_close(*((error.rcvd.code, error.rcvd.reason) if error.rcvd else (None, None)))
    except OSError as error:
        raise unreachable(url, error.strerror or error) from None
    return call


async def _speak(websocket: Any, provider: Provider, speaker: Speaker, call: CallFigures, marks: Marks) -> None:
    number = 0
    while not speaker.finished:
        samples = np.concatenate([speaker.next() for _ in range(provider.frames_per_message)])
        # By the clock, not by sleeps that add up; what is said has been spoken before it is sent.
        await asyncio.sleep(max(0.0, (call.sent - 1) * FRAME_SECONDS - call.now()))
        await websocket.send(json.dumps(provider.media(samples, number)))
        number += 1
        while marks and (marks[0][0] <= call.now() or call.heard.end <= call.now()):
            await websocket.send(json.dumps(provider.mark_played(marks.popleft()[1], number)))
    for message in provider.closing(number):
        await websocket.send(json.dumps(message))


async def _listen(websocket: Any, provider: Provider, call: CallFigures, marks: Marks) -> None:
    async for raw in websocket:
        kind, content = provider.parse(raw)
        if kind == "media":
            call.add_heard(content)
        elif kind == "mark":
            marks.append((call.heard.end, content))
        elif kind == "clear":
            call.heard.clear(call.now())
            response = provider.cleared()
            if response is not None:
                marks.clear()
                await websocket.send(json.dumps(response))
        else:
            call.other += 1
