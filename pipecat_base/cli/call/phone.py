"""A caller as a phone provider's media stream has it: audio in JSON over a WebSocket, silence included."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from pipecat_base.cli.call.address import Address, shown, unreachable, with_body
from pipecat_base.cli.call.figures import CallError, CallFigures
from pipecat_base.cli.call.providers import Provider
from pipecat_base.cli.call.scenario import Script, Speaker, Tail
from pipecat_base.cli.call.track import FRAME_SECONDS

Marks = deque[tuple[float, str]]
"""When each is reached on the call's clock, and its name."""


async def slot(address: Address, script: Script, provider: Provider, tail: Tail) -> CallFigures:
    """One call: say the script (8 kHz) in real time, listen, hang up.

    Raises:
        CallError: it could not be made.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

    call = CallFigures(script.rate)
    url = await address.stream(provider.name)
    if provider.has_query and provider.body is not None:
        url = with_body(url, provider.body)
    try:
        async with connect(url, max_size=None) as websocket:
            call.connect()
            for message in provider.opening():
                await websocket.send(message)
            marks = Marks()
            listening = asyncio.ensure_future(_listen(websocket, provider, call, marks))
            speaking = asyncio.ensure_future(_speak(websocket, provider, Speaker(script, call, tail), call, marks))
            await asyncio.wait({listening, speaking}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                call.end(websocket.close_code, websocket.close_reason)
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
        call.end(*((error.rcvd.code, error.rcvd.reason) if error.rcvd else (None, None)))
    except OSError as error:
        raise unreachable(url, error.strerror or error) from None
    return call


async def _speak(websocket: Any, provider: Provider, speaker: Speaker, call: CallFigures, marks: Marks) -> None:
    messages = 0
    while not speaker.finished:
        samples = [sample for _ in range(provider.frames) for sample in speaker.next()]
        # By the clock, not by sleeps that add up; what is said has been spoken before it is sent.
        await asyncio.sleep(max(0.0, (call.sent - 1) * FRAME_SECONDS - call.now()))
        await websocket.send(provider.media(samples, messages))
        messages += 1
        while marks and (marks[0][0] <= call.now() or call.heard.end <= call.now()):
            await websocket.send(provider.reached(marks.popleft()[1], messages))
    for message in provider.closing(messages):
        await websocket.send(message)


async def _listen(websocket: Any, provider: Provider, call: CallFigures, marks: Marks) -> None:
    async for raw in websocket:
        heard = provider.hear(raw)
        if heard is None:
            call.other += 1
        elif heard.samples is not None:
            call.hear(heard.samples)
        elif heard.mark is not None:
            marks.append((call.heard.end, heard.mark))
        elif heard.clears:
            call.heard.clear(call.now())
            answer = provider.cleared()
            if answer is not None:
                marks.clear()
                await websocket.send(answer)
