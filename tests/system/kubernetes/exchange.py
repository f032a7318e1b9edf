"""Phone calls as Twilio makes them, many at once, while a test does something else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import SplitResult, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.launchers import PATIENCE
from tests.support.phones import FRAME, twilio
from tests.support.tones import tone

TWILIO = twilio()
SECOND = tone(440, 1.0)
PAYLOADS = [
    base64.b64encode(TWILIO.encode(SECOND[start : start + FRAME])).decode() for start in range(0, len(SECOND), FRAME)
]
"""A second of what callers say, in frames."""
PIECE = 10
"""Frames; the bot may answer in pieces of several, and what is a multiple of so many comes back whole."""
TAIL = 30.0
"""Seconds of silence after which a caller waits no longer for frames that have not come back."""
KNOCK = 0.05
"""Seconds between two plain sessions."""
KNOCKS_FOR_A_CALL = 20
NEWCOMERS = 20
"""At most so many at once: on a slow node those who wait must not fill it with those who come."""


class Refused(Exception):
    """The call was not taken."""


@dataclass
class Call:
    """What one caller has said and heard."""

    sent: int = 0
    """Frames."""
    samples: int = 0
    """That came back."""
    closed: str | None = None
    """How the bot's side ended it, when it was not the caller."""
    longest_gap: float = 0.0
    """Seconds between two messages, or between the last one and the end."""
    frames_before_gap: int = 0
    """How many had come back when the longest gap began."""
    heard_at: float | None = None

    @property
    def received(self) -> int:
        """Frames."""
        return self.samples // FRAME

    def hear(self, samples: int) -> None:
        now = time.monotonic()
        if self.heard_at is not None and now - self.heard_at > self.longest_gap:
            self.longest_gap, self.frames_before_gap = now - self.heard_at, self.received
        self.heard_at = now
        self.samples += samples


@dataclass
class Calls:
    """What became of some calls."""

    placed: list[Future[Call]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def ended(self) -> int:
        """How many are over already, or were refused."""
        return sum(future.done() for future in self.placed)

    def hang_up(self) -> None:
        """Each caller, when all that was said has come back."""
        self.over.set()
        wait(self.placed)

    def answered(self) -> list[Call]:
        """Those that were not refused, when each is over."""
        return [future.result() for future in self.placed if future.exception() is None]

    def refused(self) -> list[str]:
        """What the others were told."""
        return [str(future.exception()) for future in self.placed if future.exception() is not None]

    def cut(self) -> list[Call]:
        """Those that the bot's side has ended."""
        return [call for call in self.answered() if call.closed]

    def line(self, what: str) -> str:
        """The figures, for a person."""
        calls = self.answered()
        sent, received = sum(call.sent for call in calls), sum(call.received for call in calls)
        gap = max((call.longest_gap for call in calls), default=0.0)
        return (
            f"{what}: {len(self.placed)} calls, {len(self.refused())} refused, {len(self.cut())} cut;"
            f" frames sent {sent}, received {received}, lost {sent - received}; longest gap {gap * 1000:.0f} ms"
        )


@dataclass
class Newcomers:
    """Who comes while something else goes on: each second a call, and twenty plain sessions (``POST /bot``).

    Those are admitted as calls are, and cost next to nothing: a refusal of a moment is found too. Fewer come while
    ``NEWCOMERS`` of them have not been served.
    """

    calls: Calls = field(default_factory=Calls)
    knocks: list[Future[str | None]] = field(default_factory=list)

    def refused(self) -> list[str]:
        """What they were told."""
        return [*self.calls.refused(), *filter(None, (knock.result() for knock in self.knocks))]

    def line(self) -> str:
        """The figures, for a person."""
        told = f"{len(self.knocks)} plain sessions, {len(self.refused()) - len(self.calls.refused())} refused"
        return f"{self.calls.line('new ones meanwhile')}; {told}"


class Exchange:
    """Makes the calls, in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Exchange:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _hang_up(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def slot(self, *addresses: str, tail: float = TAIL) -> Calls:
        """A call to each address, a few in each second, until they hang up; all have begun when this returns."""
        calls = Calls()
        for address in addresses:
            calls.placed.append(self._slot(address, calls.over, tail=tail))
            time.sleep(0.2)
        time.sleep(1)
        return calls

    def place_in_turn(self, address: str, count: int) -> Calls:
        """Short calls, each when the one before is over."""
        calls = Calls()
        calls.over.set()
        for _ in range(count):
            calls.placed.append(self._slot(address, calls.over))
            wait(calls.placed)
        return calls

    @contextlib.contextmanager
    def newcomers(self, address: str) -> Iterator[Newcomers]:
        """More come until the end of the block; each has been served or refused then."""
        newcomers, over = Newcomers(), threading.Event()
        newcomers.calls.over.set()
        room = threading.Semaphore(NEWCOMERS)

        def arrive() -> None:
            for number in itertools.count():
                if over.wait(KNOCK):
                    return
                room.acquire()
                newcomers.knocks.append(asyncio.run_coroutine_threadsafe(knock(urlsplit(address)), self._loop))
                newcomers.knocks[-1].add_done_callback(lambda _: room.release())
                if number % KNOCKS_FOR_A_CALL == 0:
                    room.acquire()
                    newcomers.calls.placed.append(self._slot(address, newcomers.calls.over, least=len(PAYLOADS)))
                    newcomers.calls.placed[-1].add_done_callback(lambda _: room.release())

        arriving = threading.Thread(target=arrive)
        arriving.start()
        try:
            yield newcomers
        finally:
            over.set()
            arriving.join()
            wait(newcomers.calls.placed)
            wait(newcomers.knocks)

    def _slot(self, address: str, over: threading.Event, *, least: int = PIECE, tail: float = TAIL) -> Future[Call]:
        return asyncio.run_coroutine_threadsafe(talk(address, over, least, tail), self._loop)


async def talk(address: str, over: threading.Event, least: int, tail: float) -> Call:
    """One call: say frames in real time until it is over, at least so many; hang up when each has come back.

    Raises:
        Refused: with the bot's answer, or why nothing answers.
    """
    call = Call()
    try:
        # A phone company sends no pings: a call that falls behind is late, not over.
        async with connect(address, max_size=None, proxy=None, ping_interval=None) as websocket:
            for message in TWILIO.opening:
                await websocket.send(json.dumps(message))
            listening = asyncio.create_task(_listen(websocket, call))
            began = time.monotonic()
            with contextlib.suppress(ConnectionClosed):
                while not (over.is_set() and call.sent >= least and call.sent % PIECE == 0):
                    payload = PAYLOADS[call.sent % len(PAYLOADS)]
                    await websocket.send(json.dumps(TWILIO.media(payload, call.sent)))
                    call.sent += 1
                    # By the clock, not by sleeps that add up.
                    await asyncio.sleep(max(0.0, began + call.sent * 0.02 - time.monotonic()))
                ended = time.monotonic()
                while call.received < call.sent and not listening.done():
                    if time.monotonic() - max(ended, call.heard_at or ended) >= tail:
                        break
                    await asyncio.sleep(0.02)
            call.hear(0)
            if not listening.done():
                listening.cancel()
            await asyncio.wait({listening})
    except InvalidStatus as error:
        raise Refused(f"{error.response.status_code} {bytes(error.response.body or b'').decode()}") from None
    except OSError as error:
        raise Refused(repr(error)) from None
    return call


async def _listen(websocket: ClientConnection, call: Call) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for raw in websocket:
            payload = TWILIO.reply(json.loads(raw))
            if payload:
                call.hear(len(base64.b64decode(payload)))
    call.closed = f"{websocket.close_code} {websocket.close_reason}"


async def knock(bot: SplitResult) -> str | None:
    """Run a plain session; why it was refused, if it was."""
    try:
        async with asyncio.timeout(PATIENCE):  # where no pod serves, an old kube-proxy takes it and is silent
            reader, writer = await asyncio.open_connection(bot.hostname, bot.port)
            writer.write(b"POST /bot HTTP/1.1\r\nhost: bot\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
            answer = (await reader.read()).decode()
            writer.close()
    except OSError as error:
        return repr(error)
    return None if answer.startswith("HTTP/1.1 200 ") else answer or "no answer"
