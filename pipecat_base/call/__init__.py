"""``pipecat-base call``: ring a running bot with a recording, and measure what comes back."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

from pipecat_base import audio
from pipecat_base.call.figures import Call, CallError

PHONE_URL = "ws://127.0.0.1:8080/ws"
WEBRTC_URL = "http://127.0.0.1:8080/api/offer"


def main(options: argparse.Namespace) -> int:
    """Place the calls; 0 when every one heard something and none was cut off."""
    url = options.url or (WEBRTC_URL if options.webrtc else PHONE_URL)
    try:
        samples, rate = audio.read_wav(options.wav)
        print(f"Calling {url} ({options.calls} at once) with {options.wav}, {len(samples) / rate:.1f} s")
        callers = _callers(url, samples, rate, options)
        results = asyncio.run(_gather(callers))
    except (OSError, ValueError, CallError) as error:
        print(f"pipecat-base call: {error}", file=sys.stderr)
        return 1
    calls = []
    for number, result in enumerate(results, 1):
        if isinstance(result, Call):
            print(result.line(number))
            calls.append(result)
        else:
            print(f"pipecat-base call: {f'call {number}: ' if len(results) > 1 else ''}{result}", file=sys.stderr)
    if not calls:
        return 1
    sent, received, lost = (
        sum(figures) for figures in zip(*((c.sent, c.received, c.lost) for c in calls), strict=True)
    )
    print(f"calls {len(calls)}, frames sent {sent}, received {received}, lost {lost}")
    if calls[0].heard:
        out = options.out or f"{options.wav.removesuffix('.wav')}.reply.wav"
        audio.write_wav(out, calls[0].heard, calls[0].rate)
        print(f"Wrote what call {results.index(calls[0]) + 1} heard to {out}")
    return 0 if len(calls) == len(results) and all(call.heard and not call.was_cut for call in calls) else 1


def _callers(url: str, samples: list[int], rate: int, options: argparse.Namespace) -> list[Coroutine[Any, Any, Call]]:
    if options.webrtc:
        try:
            from pipecat_base.call import peer
        except ImportError as error:
            raise CallError(f"--webrtc needs {error.name}: pip install pipecat-ai[webrtc]") from None
        return [peer.place(url, samples, rate, options.tail) for _ in range(options.calls)]
    from pipecat_base.call import phone

    at_8_khz = audio.resample(samples, rate, audio.PHONE_RATE)
    return [phone.place(url, at_8_khz, options.tail) for _ in range(options.calls)]


async def _gather(callers: list[Coroutine[Any, Any, Call]]) -> list[Call | CallError]:
    return list(await asyncio.gather(*map(_unless_refused, callers)))


async def _unless_refused(caller: Coroutine[Any, Any, Call]) -> Call | CallError:
    try:
        return await caller
    except CallError as error:
        return error
