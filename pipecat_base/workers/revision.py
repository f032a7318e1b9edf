"""The processes of one import of the bot: the template, which forks, the control worker, and idle workers.

The control worker takes no session, unless it runs them all; it serves requests that belong to none.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from pipecat_base.errors import NoProcess, NotReached, Refusal, SetupFailed, StartupError
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.registry import Session
from pipecat_base.workers import http_proxy
from pipecat_base.workers.fork_client import ForkClient, ForkFailed, TemplateConnection
from pipecat_base.workers.fork_server import how_it_ended
from pipecat_base.workers.ipc import messages
from pipecat_base.workers.ipc.messages import BotImported, EventEmitted, Progress, Serve, StartupFailed, WarmUp
from pipecat_base.workers.limits import EXIT_GRACE, WorkerLimits
from pipecat_base.workers.process import WorkerDied, WorkerProcess

if TYPE_CHECKING:
    from pipecat_base.workers.lease import WorkerLease

FORK_TIMEOUT_SECONDS = 5.0  # for a worker that inherited a held lock, and never starts its event loop
REFILL_DELAY_SECONDS = 0.5  # no worker is started in the first moments of a call, which need the CPU
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.5, 30.0
FAILURES_UNTIL_UNREADY = 3
STABLE_AFTER_SECONDS = 5.0  # age at which a worker counts as started successfully
SETUP_GRACE_SECONDS = 3.0  # on top of SETUP_TIMEOUT, which workers enforce themselves


class Revision:
    """Starts workers and keeps some idle."""

    def __init__(
        self,
        fork_client: ForkClient,
        template: TemplateConnection,
        start: str,
        limits: WorkerLimits,
        *,
        on_event: Callable[[EventEmitted], None],
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.imported = template.imported
        self.control_worker: WorkerProcess | None = None
        self._next_control_worker: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self.takes_files = False
        self._fork_client = fork_client
        self._template = ForkClient(template.channel, on_other_message=self._on_template)
        self._start = start
        self._limits = limits
        self._on_event = on_event
        self._variables = variables
        self._open: list[WorkerProcess] = []
        """Workers that are set up, and may still take calls; the oldest first."""
        self._waiting: deque[tuple[asyncio.Future[WorkerProcess], WorkerLease]] = deque()
        self._workers: set[WorkerProcess] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wanted = asyncio.Event()
        self._last_taken = -REFILL_DELAY_SECONDS
        self._failures = 0
        self._retry_at = 0.0
        self._problem: str | None = None
        self._warm_up_done: asyncio.Future[bool] | None = None
        self._warm_up_webrtc = False
        self._import: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._renewing_template = asyncio.Lock()
        self._is_stopped = False

    @property
    def problem(self) -> str | None:
        return self._problem if self._failures >= FAILURES_UNTIL_UNREADY else None

    async def open(self) -> None:
        """Start the control worker, then keep workers idle; raises StartupError."""
        self._template.attach()
        self._heed_hazards(", ".join(self.imported.fork_hazards))
        if self._start == "spawn":
            await self._close_template()  # its memory, ports and connections are for the workers now
        self.control_worker = await self._start_control_worker()
        if addresses := self.control_worker.idle.result().listens_on:
            await self._try_second_worker(", ".join(addresses))
        self._start_task(self._keep_control_worker())
        self._start_task(self._keep_idle())

    async def warm_up(self, *, webrtc: bool) -> bool:
        """Import in the template what sessions need; return whether WebRTC's modules are among it."""
        if self._start == "spawn":
            return webrtc
        self._warm_up_done = asyncio.get_running_loop().create_future()
        self._warm_up_webrtc = webrtc
        self._template.send(WarmUp(webrtc))
        waited: set[asyncio.Future[Any]] = {self._warm_up_done, self._template.ended}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not self._warm_up_done.done():
            return False
        # Workers forked before would import these modules in their session.
        for worker in [worker for worker in self._open if not worker.calls]:
            self._open.remove(worker)
            self.retire(worker)
        self._wanted.set()
        return self._warm_up_done.result()

    async def take(self, lease: WorkerLease) -> WorkerProcess:
        """Give the session to the worker with the fewest calls, or wait for one; raises NoProcess."""
        self._last_taken = time.monotonic()
        worker = min(filter(self._free_slots, self._open), key=lambda worker: worker.calls, default=None)
        if worker is None:
            worker = await self._wait_for_free_slot(lease)
        else:
            worker.add(lease.session.id, lease)
        self._wanted.set()
        return worker

    async def _wait_for_free_slot(self, lease: WorkerLease) -> WorkerProcess:
        waiting: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append((waiting, lease))
        self._wanted.set()
        try:
            return await self._wait_for(waiting, lease.session)
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():
                waiting.result().remove(lease.session.id, lease)
                self.give_back(waiting.result())
            raise
        finally:
            if (waiting, lease) in self._waiting:
                self._waiting.remove((waiting, lease))

    async def _wait_for(self, worker: asyncio.Future[WorkerProcess], session: Session) -> WorkerProcess:
        """Wait for a worker; :meth:`stop` cancels the future."""
        waited: set[asyncio.Future[Any]] = {worker, session.stop}
        await asyncio.wait(waited, timeout=self._limits.take_timeout, return_when=asyncio.FIRST_COMPLETED)
        if worker.cancelled():
            raise NoProcess("The launcher is shutting down.", session_id=session.id)
        if worker.done():
            return worker.result()
        if session.stop.done():
            raise NoProcess("The session was ended before a process was ready.", session_id=session.id)
        problem = f": {self._problem}" if self._failures and self._problem else ""
        raise NoProcess(f"No process was ready within {self._limits.take_timeout:g} s{problem}.", session_id=session.id)

    async def take_control_worker(self, lease: WorkerLease) -> WorkerProcess:
        worker = self.control_worker
        if worker is None or worker.died.done():
            worker = await self._wait_for(self._next_control_worker, lease.session)
        worker.add(lease.session.id, lease)
        return worker

    def give_back(self, worker: WorkerProcess) -> None:
        """Keep the worker if it may take more calls, and is needed; else let it exit with its last one."""
        if worker not in self._open:
            if not worker.calls:
                self.retire(worker)
            return
        self._wanted.set()
        self._serve_waiting()
        others = sum(self._free_slots(other) for other in self._open if other is not worker)
        limit = self._limits.calls_before_restart
        is_spent = worker.is_spoiled or (limit is not None and worker.calls_run >= limit)
        is_surplus = worker.calls_run > 0 and others >= self._limits.idle
        if not worker.calls and (is_spent or is_surplus):
            self._open.remove(worker)
            self.retire(worker)

    def _free_slots(self, worker: WorkerProcess) -> int:
        if worker.died.done() or worker.is_spoiled:
            return 0
        limit = self._limits.calls_before_restart
        left = self._limits.calls if limit is None else limit - worker.calls_run - worker.calls
        return max(0, min(self._limits.calls - worker.calls, left))

    def retire(self, worker: WorkerProcess) -> None:
        worker.close(self._limits.closing)

    async def ask(self, method: str, path: str, content: Any = None) -> Any:
        """Make a request of the launcher's own to the control worker; return its JSON. Raises Refusal."""
        worker = self.control_worker
        if worker is None or worker.died.done():
            raise NotReached("The bot's lead process is being started.")
        answer = await http_proxy.ask(worker.connect(Serve(is_internal=True)), method, path, content)
        return answer.result()

    def has(self, worker: WorkerProcess) -> bool:
        return worker in self._workers

    @property
    def counts(self) -> dict[str, int]:
        """Called in any thread."""
        control_worker = self.control_worker
        others = [worker for worker in tuple(self._workers) if worker is not control_worker]
        idle = sum(not worker.calls for worker in tuple(self._open))
        busy = sum(worker.calls > 0 for worker in others)
        starting = sum(not worker.idle.done() for worker in others)
        ending = max(0, len(others) - busy - starting - idle)
        return {
            "lead": int(control_worker is not None),
            "idle": idle,
            "busy": busy,
            "starting": starting,
            "ending": ending,
        }

    def delete(self, urls: list[str]) -> None:
        if urls:
            self._start_task(self._delete(urls))

    async def _delete(self, urls: list[str]) -> None:
        with contextlib.suppress(Refusal):
            await self.ask("DELETE", "/files", urls)

    def stop(self) -> None:
        """Start no more workers; sessions that wait for one get NoProcess."""
        self._is_stopped = True
        for task in self._tasks:
            task.cancel()
        while self._waiting:
            self._waiting.popleft()[0].cancel()
        self._open.clear()
        self._next_control_worker.cancel()

    def kill(self) -> None:
        self.stop()
        for worker in list(self._workers):
            worker.kill(None)
        self._template.close()

    async def finish(self) -> None:
        """Let idle workers exit, others after their calls, then the template: they would die with it."""
        for worker in list(self._workers):
            if not worker.calls:
                self.retire(worker)
        while self._workers:
            await asyncio.wait({worker.died for worker in self._workers})
        await self._close_template()

    async def close(self) -> None:
        self.stop()
        workers = list(self._workers)
        for worker in workers:
            self.retire(worker)
        if workers:
            await asyncio.wait({worker.died for worker in workers}, timeout=self._limits.closing + 1)
        await self._close_template()

    async def _close_template(self) -> None:
        self._template.send(messages.Close())
        await asyncio.wait({self._template.ended}, timeout=EXIT_GRACE)
        self._template.close()

    def _add(self, worker: WorkerProcess) -> None:
        if self._is_stopped:
            self.retire(worker)
        elif not worker.died.done():
            self._open.append(worker)
            self._serve_waiting()

    def _serve_waiting(self) -> None:
        for worker in self._open:
            while self._waiting and self._free_slots(worker):
                waiting, lease = self._waiting.popleft()
                if not waiting.done():
                    worker.add(lease.session.id, lease)
                    waiting.set_result(worker)

    def _heed_hazards(self, hazards: str) -> None:
        """Spawn, unless told to fork, where forked processes would share what the bot's import has made, or lose it."""
        if hazards and self._start == "auto":
            self._use_spawn(
                f"a fork would share or lose what the bot's import has made ({hazards}); make it in setup()"
            )
        elif hazards and self._start == "fork":
            logger.warning(
                f"PIPECAT_PROCESS_START=fork: calls share or lose what the bot's import has made ({hazards})"
            )

    async def _try_second_worker(self, addresses: str) -> None:
        """Fail at the start, not at each call, where only one process can listen on an address."""
        try:
            self._add(await self._start_worker())
        except (WorkerDied, StartupError) as error:
            raise SetupFailed(
                f"The bot listens on {addresses} in each process, which works in the first process only: {error}",
                "Listen on port 0, or leave PIPECAT_ISOLATION unset; PIPECAT_METRICS_PORT serves metrics of all calls.",
            ) from None

    def _use_spawn(self, reason: str) -> None:
        logger.warning(f"Falling back to PIPECAT_PROCESS_START=spawn: {reason}")
        self._start = "spawn"

    async def _start_control_worker(self) -> WorkerProcess:
        """Start the first worker, which proves that the bot can be set up and processes can be forked."""
        try:
            try:
                return await self._start_worker()
            except WorkerDied as died:
                if self._start != "auto":
                    raise
                self._use_spawn(f"a forked process {died}")
                return await self._start_worker()
        except WorkerDied as died:
            raise SetupFailed(f"The bot's process {died} while it was set up.", "The log may say more.") from None

    async def _start_worker(self) -> WorkerProcess:
        """Start a worker and wait until the bot is set up in it; raises StartupError or WorkerDied."""
        is_spawned = self._start == "spawn"
        parent = self._fork_client if is_spawned else self._template
        try:
            child = await parent.fork(standalone=is_spawned, variables=self._variables if is_spawned else None)
        except (ForkFailed, OSError) as error:
            raise WorkerDied(f"could not be made ({error})") from None
        worker = WorkerProcess(child, self._on_event, max_calls=self._limits.calls)
        self._workers.add(worker)
        worker.died.add_done_callback(lambda _: self._note_death(worker))
        if not is_spawned:
            await asyncio.wait({worker.loop_started}, timeout=FORK_TIMEOUT_SECONDS)
            if not worker.loop_started.done():
                worker.kill("had no event loop after its fork")
        # The worker enforces its limit itself, unless its event loop is blocked.
        await asyncio.wait({worker.idle}, timeout=self._limits.setup_timeout + SETUP_GRACE_SECONDS)
        if not worker.idle.done():
            worker.kill("was not set up in time")
            await asyncio.wait({worker.idle})
        self.takes_files = worker.idle.result().takes_files
        asyncio.get_running_loop().call_later(STABLE_AFTER_SECONDS, self._note_life, worker)
        return worker

    def _note_death(self, worker: WorkerProcess) -> None:
        self._workers.discard(worker)
        if worker in self._open:
            self._open.remove(worker)
            if not worker.most_calls:
                self._note_failure(f"it {worker.died.result()} while it waited for a call")
            self._wanted.set()

    def _note_life(self, worker: WorkerProcess) -> None:
        if not worker.died.done():
            self._failures = 0

    def _note_failure(self, problem: str) -> None:
        self._failures += 1
        self._problem = problem
        pause = min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** (self._failures - 1))
        self._retry_at = time.monotonic() + pause
        logger.error(f"A process of the bot failed: {problem} (next try in {pause:g} s)")

    async def _keep_control_worker(self) -> None:
        while True:
            assert self.control_worker is not None
            how = await asyncio.shield(self.control_worker.died)
            self.control_worker = None
            self._note_failure(f"the lead {how}")
            self.control_worker = await self._start_worker_with_retries()
            self._next_control_worker.set_result(self.control_worker)
            self._next_control_worker = asyncio.get_running_loop().create_future()

    async def _keep_idle(self) -> None:
        while True:
            await self._until_wanted()
            self._add(await self._start_worker_with_retries())

    async def _until_wanted(self) -> None:
        while not self._waiting:
            self._wanted.clear()
            if sum(map(self._free_slots, self._open)) >= self._limits.idle:
                await self._wanted.wait()
                continue
            quiet = self._last_taken + REFILL_DELAY_SECONDS - time.monotonic()
            if quiet <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), quiet)

    async def _start_worker_with_retries(self) -> WorkerProcess:
        while True:
            await asyncio.sleep(max(0.0, self._retry_at - time.monotonic()))
            try:
                await self._check_template()
                return await self._start_worker()
            except (WorkerDied, StartupError) as error:
                self._note_failure(f"it {error}" if isinstance(error, WorkerDied) else str(error))
            except Exception as error:  # a bug here must not stop the pool from being refilled
                logger.opt(exception=True).error(f"A process was not started: {type(error).__name__}")
                self._note_failure(type(error).__name__)

    async def _check_template(self) -> None:
        if self._start == "spawn":
            return
        async with self._renewing_template:  # the control worker and an idle one may be started at once
            if self._template.ended.done():
                await self._renew_template()

    async def _renew_template(self) -> None:
        logger.error("The template process has ended; importing the bot again")
        try:
            child = await self._fork_client.fork(variables=self._variables)
        except (ForkFailed, OSError) as error:
            raise WorkerDied(f"could not be made ({error})") from None
        self._import = asyncio.get_running_loop().create_future()
        self._template = ForkClient(child.channel, on_other_message=self._on_template)
        self._template.attach()
        waited: set[asyncio.Future[Any]] = {self._import, self._template.ended, child.exited}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not self._import.done():
            self._template.close()
            exited = child.exited.result() if child.exited.done() else None
            raise WorkerDied(f"{how_it_ended(exited)} while it was imported")
        self._import.result()
        if self._warm_up_done is not None:
            self._template.send(WarmUp(self._warm_up_webrtc))

    def _on_template(self, message: messages.Message) -> None:
        if isinstance(message, Progress) and self._warm_up_done is not None and not self._warm_up_done.done():
            self._warm_up_done.set_result(message.webrtc)
        elif isinstance(message, BotImported) and not self._import.done():
            self._import.set_result(None)
        elif isinstance(message, StartupFailed) and not self._import.done():
            self._import.set_exception(message.error())

    def _start_task(self, step: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
