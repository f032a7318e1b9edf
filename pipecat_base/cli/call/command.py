"""Runs ``pipecat-base call``: reads its options, places the calls, prints and writes the figures."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipecat_base.cli.call import audio, plot, scenario, speech
from pipecat_base.cli.call.address import Address
from pipecat_base.cli.call.figures import CallError, CallFigures
from pipecat_base.cli.call.providers import PROVIDERS
from pipecat_base.cli.call.scenario import Script, Tail
from pipecat_base.config.container_env import BOM

Calling = Coroutine[Any, Any, CallFigures]
Results = Sequence[CallFigures | CallError]


def place_calls(options: argparse.Namespace, port: int) -> int:
    try:
        body = _body(options.body)
        script, description = _script(options)
        address = Address.of(options.url, port, options.key, webrtc=options.webrtc)
        callers = _callers(address, script, body, options)
        if not options.json:
            print(f"Calling {address.shown()} ({options.calls} at once) with {description}", flush=True)
        results = asyncio.run(_gather(callers))
        calls = [result for result in results if isinstance(result, CallFigures)]
        if options.json:
            print(json.dumps(_document(address, options, results), indent=2, ensure_ascii=False))
        else:
            _print(results, calls)
        if calls:
            _write(options, description, list(results).index(calls[0]) + 1, calls[0])
    except BrokenPipeError:
        raise  # the reader of the output has closed it
    except (OSError, ValueError, CallError) as error:
        print(f"pipecat-base call: {error}", file=sys.stderr)
        return 1
    good = [call for call in calls if call.heard_something and not call.was_cut and not call.unsaid]
    return 0 if len(good) == len(results) else 1


def _body(given: str | None) -> Any:
    if given is None:
        return None
    where = given if given.startswith("@") else "--body"
    text = Path(given[1:]).read_text(encoding="utf-8") if given.startswith("@") else given
    try:
        return json.loads(text.removeprefix(BOM))
    except ValueError as error:
        raise CallError(f"{where} is not JSON: {error}") from None


def _script(options: argparse.Namespace) -> tuple[Script, str]:
    if (options.wav is None) == (options.scenario is None):
        raise CallError("give what the caller says: FILE.wav, or --scenario FILE.toml")
    if options.scenario is not None:
        script = scenario.from_file(options.scenario)
        return script, f"{options.scenario}, {len(script.turns)} turns"
    script = scenario.from_wav(options.wav)
    return script, f"{options.wav}, {len(script.turns[0].samples) / script.rate:.1f} s"


def _callers(address: Address, script: Script, body: Any, options: argparse.Namespace) -> list[Calling]:
    tail = Tail(options.tail)
    if options.webrtc:
        if options.caller or options.called or options.provider:
            raise CallError("--from, --to and --provider are for phone calls, and not for --webrtc")
        try:
            from pipecat_base.cli.call import peer
        except ImportError as error:
            raise CallError(f"--webrtc needs {error.name}: pip install pipecat-ai[webrtc]") from None
        return [peer.place_call(address, script, body, tail) for _ in range(options.calls)]
    from pipecat_base.cli.call import phone

    kind, numbers = PROVIDERS[options.provider or "twilio"], (options.caller or "", options.called or "")
    providers = [kind(*numbers, body) for _ in range(options.calls)]
    at_8_khz = script.at_rate(audio.PHONE_RATE)
    return [phone.place_call(address, at_8_khz, provider, tail) for provider in providers]


async def _gather(callers: list[Calling]) -> Results:
    # Requests are made in threads: no call waits for another's.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(len(callers)))
    return await asyncio.gather(*map(_unless_refused, callers))


async def _unless_refused(caller: Calling) -> CallFigures | CallError:
    try:
        return await caller
    except CallError as error:
        return error


def _print(results: Results, calls: Sequence[CallFigures]) -> None:
    for number, result in enumerate(results, 1):
        if isinstance(result, CallFigures):
            print(result.line(number))
        else:
            print(f"pipecat-base call: {f'call {number}: ' if len(results) > 1 else ''}{result}", file=sys.stderr)
    if len(calls) > 1:
        print(_summary(calls))


def _summary(calls: Sequence[CallFigures]) -> str:
    sent, received, lost = (sum(n) for n in zip(*((c.sent, c.received, c.lost) for c in calls), strict=True))
    latencies = [answer.latency for call in calls if call.echo is None for answer in call.conversation.answers]
    if not latencies:
        return f"calls {len(calls)}, frames sent {sent}, received {received}, lost {lost}"
    middle, slow = (speech.percentile(latencies, percent) * 1000 for percent in (50, 95))
    return f"calls {len(calls)}, answers {len(latencies)} after {middle:.0f} ms (p50), {slow:.0f} ms (p95)"


def _document(address: Address, options: argparse.Namespace, results: Results) -> dict[str, Any]:
    return {
        "url": address.shown(),
        "as": "webrtc" if options.webrtc else options.provider or "twilio",
        "calls": [
            result.document(number) if isinstance(result, CallFigures) else {"call": number, "error": str(result)}
            for number, result in enumerate(results, 1)
        ],
    }


def _write(options: argparse.Namespace, description: str, number: int, call: CallFigures) -> None:
    written = []
    if call.heard.pieces:
        said = options.scenario or options.wav
        out = options.out or f"{said.removesuffix('.wav').removesuffix('.toml')}.reply.wav"
        audio.write_wav(out, call.heard.samples, call.heard.rate)
        written.append(f"Wrote what call {number} heard to {out}")
    if options.plot:
        Path(options.plot).write_text(plot.draw(call, f"Call {number}: {description}"), encoding="utf-8")
        written.append(f"Wrote its picture to {options.plot}")
    if written and not options.json:
        print("\n".join(written))
