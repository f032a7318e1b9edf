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
    """Place the calls; 0 when every one heard something."""
    url = options.url or (WEBRTC_URL if options.webrtc else PHONE_URL)
    try:
        samples, rate = audio.read_wav(options.wav)
        print(f"Calling {url} ({options.calls} at once) with {options.wav}, {len(samples) / rate:.1f} s")
        callers = _callers(url, samples, rate, options)
        calls = asyncio.run(_gather(callers))
    except (OSError, ValueError, CallError) as error:
        print(f"pipecat-base call: {error}", file=sys.stderr)
        return 1
    for number, call in enumerate(calls, 1):
        print(call.line(number))
    sent, received, lost = (
        sum(figures) for figures in zip(*((c.sent, c.received, c.lost) for c in calls), strict=True)
    )
    print(f"calls {len(calls)}, frames sent {sent}, received {received}, lost {lost}")
    if calls[0].heard:
        out = options.out or f"{options.wav.removesuffix('.wav')}.reply.wav"
        audio.write_wav(out, calls[0].heard, calls[0].rate)
        print(f"Wrote what call 1 heard to {out}")
    return 0 if all(call.heard for call in calls) else 1


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


async def _gather(callers: list[Coroutine[Any, Any, Call]]) -> list[Call]:
    return list(await asyncio.gather(*callers))
