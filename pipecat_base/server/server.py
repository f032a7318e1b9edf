"""The process around the application: socket, event loop, and an exit that loses no call."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import uvicorn

from pipecat_base.config.settings import ServerLimits
from pipecat_base.errors import PortUnavailable, Refusal
from pipecat_base.logs.logger import logger
from pipecat_base.logs.streams import flush_streams
from pipecat_base.server import shared_loop
from pipecat_base.server.client_address import ProxyHeaders
from pipecat_base.server.connections import Connections
from pipecat_base.server.http import HttpConnection
from pipecat_base.server.limits import FINAL_REQUESTS_SECONDS, raise_descriptor_limit
from pipecat_base.server.listener import Listener
from pipecat_base.server.signals import SIGNALS
from pipecat_base.server.websocket import WebSocketConnection

if TYPE_CHECKING:
    from pipecat_base.server.watchdog import Watchdog

T = TypeVar("T")

BACKLOG = 2048
FORCED_EXIT_SECONDS = 1.0
INTERPRETER_EXIT_SECONDS = 3.0


def prepare() -> None:
    """Call before processes are forked and the bot is imported."""
    raise_descriptor_limit()
    shared_loop.hide_tasks_of_others()


def listen(host: str, port: int) -> socket.socket:
    """Bind before the bot is imported: a taken port fails at once, and early callers wait in the backlog."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # IPPROTO_TCP: asyncio sets TCP_NODELAY only on sockets created with it.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise PortUnavailable(
            f"Cannot listen on {host} port {port}: {error.strerror or error}.",
            "Set PORT or PIPECAT_HOST, or stop what uses it.",
        ) from error
    return sock


def http_address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Server(uvicorn.Server):
    """uvicorn's server with our own start, stop, signals and listener; ``ws`` is in uvicorn's form."""

    def __init__(
        self,
        app: Any,
        limits: ServerLimits,
        ws: Any = None,
        on_refusal: Callable[[Refusal], None] = lambda refusal: None,
    ) -> None:
        super().__init__(uvicorn_config(app, limits.keep_alive))
        connections = Connections(limits, self.server_state.connections, on_refusal)
        self.config.http, self.config.ws = protocols(connections, ws)
        self._connections = connections
        self._listeners: list[Listener] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.servers = []
        self._listeners = [Listener(sock, self.protocol, self._connections) for sock in sockets or ()]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self._listeners:
            listener.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def protocol(self) -> asyncio.Protocol:
        """Make the protocol of one connection; used for connections that the watchdog accepted."""
        make: Any = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state={})  # type: ignore[no-any-return]

    async def wait_started(self, serving: asyncio.Task[None]) -> None:
        # uvicorn only sets a flag.
        while not self.started and not serving.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
        if serving.done():
            serving.result()

    async def finish(self, serving: asyncio.Task[None]) -> None:
        self.should_exit = True
        await asyncio.wait({serving}, timeout=FINAL_REQUESTS_SECONDS + 1)


def protocols(connections: Connections, ws: Any = None) -> tuple[Any, Any]:
    return partial(HttpConnection, connections=connections), ws or partial(WebSocketConnection, connections=connections)


def uvicorn_config(app: Any, keep_alive: float) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_keep_alive=keep_alive,  # type: ignore[arg-type]
        timeout_graceful_shutdown=FINAL_REQUESTS_SECONDS,
        server_header=False,
        proxy_headers=False,
    )
    config.app = ProxyHeaders(app, config.forwarded_allow_ips)
    return config


def run(main: Coroutine[Any, Any, T], *, event_loop: str) -> T:
    """Run ``main`` to its end on a new loop, even when a task of the bot calls sys.exit()."""
    loop = _new_loop(event_loop)
    _keep_signals(loop)
    shared_loop.share(loop)
    loop.set_exception_handler(_report_task_error)
    asyncio.set_event_loop(loop)
    try:
        task = loop.create_task(main)
        while True:
            try:
                return loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt):
                if task.done():
                    raise
                # asyncio lets these two out of any task; the loop is intact and continues.
                logger.opt(exception=True).error("A background task called sys.exit(); only that task has ended")
            except RuntimeError:
                if task.done():
                    raise
                logger.error("The bot called loop.stop(); the loop continues")
    finally:
        _close(loop)


def _new_loop(name: str) -> asyncio.AbstractEventLoop:
    if name in ("auto", "uvloop"):
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                logger.warning('PIPECAT_EVENT_LOOP: "uvloop" is not installed; asyncio is used')
        else:
            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            return loop
    return asyncio.new_event_loop()


def _report_task_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    failed = context.get("task") or context.get("future")
    get_context = getattr(failed, "get_context", None)  # since Python 3.12
    if get_context is None:
        loop.default_exception_handler(context)
    else:
        # A copy: the context itself may be entered already.
        get_context().copy().run(loop.default_exception_handler, context)


def _keep_signals(loop: asyncio.AbstractEventLoop) -> None:
    """Let no bot take over SIGTERM or SIGINT: pipecat's runner does by default."""
    add, remove = loop.add_signal_handler, loop.remove_signal_handler

    def add_others(number: int, callback: Any, *args: Any) -> None:
        if number not in SIGNALS:
            add(number, callback, *args)

    def remove_others(number: int) -> bool:
        return number not in SIGNALS and remove(number)

    loop.add_signal_handler = add_others  # type: ignore[method-assign, assignment]
    loop.remove_signal_handler = remove_others  # type: ignore[method-assign, assignment]


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what still runs and close the loop within a bound; an abandoned bot may ignore its cancellation."""
    try:
        tasks = shared_loop.every_task(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                loop.run_until_complete(asyncio.wait(tasks, timeout=1))
        loop.run_until_complete(asyncio.wait_for(type(loop).shutdown_asyncgens(loop), 1))
    except (TimeoutError, RuntimeError):
        pass
    finally:
        asyncio.set_event_loop(None)
        if not any(not task.done() for task in shared_loop.every_task(loop)):
            loop.close()


def exit_process(status: int, watchdog: Watchdog) -> NoReturn:
    """End the interpreter; atexit handlers run, but the bot's threads are not waited for."""
    others = [t.name for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    reason = (
        f"forced out after {INTERPRETER_EXIT_SECONDS:g} s; still running: {', '.join(others) or 'an atexit handler'}"
    )
    watchdog.set_deadline(INTERPRETER_EXIT_SECONDS, status, reason)
    flush_streams()
    sys.exit(status)
