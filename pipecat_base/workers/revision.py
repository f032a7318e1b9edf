"""The processes of one import of the bot: the template that forks, the lead, and the workers that wait for a call.

The lead takes no session: it answers what belongs to none. Workers are made one at a time, and not in the first moments
of a call. While none can be made, tries come ever more slowly, with one line each.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from pipecat_base.errors import NoProcess as NoProcessNow
from pipecat_base.errors import NotReached, Refusal, SetupFailed, StartupError
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.registry import Session
from pipecat_base.workers.fork_client import ForkFailed, ForkRequester, TemplateClient
from pipecat_base.workers.fork_server import how_it_ended
from pipecat_base.workers.ipc import messages
from pipecat_base.workers.ipc.messages import BotImported, EventEmitted, Failed, NotServing, WarmedUp, WarmUp
from pipecat_base.workers.limits import EXIT_GRACE, WorkerLimits
from pipecat_base.workers.process import WorkerDied, WorkerProcess

FORK_TIMEOUT = 5.0
"""Seconds that a forked process gets to have a loop: one that inherits a lock that is held never has."""
REFILL_AFTER = 0.5
"""Seconds after a call has begun before the next worker is made for the pool: the first moments are the call's."""
FIRST_RETRY, LAST_RETRY = 0.5, 30.0
"""Seconds before the next try when a worker could not be made; doubled with each."""
FAILURES_UNTIL_UNREADY = 3
LOOK = 0.05
"""Seconds between looks at a lead that is being made."""
STABLE = 5.0
"""Seconds that a worker must live for its making to count as a success."""
SETUP_GRACE = 3.0
"""Seconds beyond SETUP_TIMEOUT, which workers keep themselves."""


class RevisionSuperseded(Exception):
    """Another generation takes sessions now."""


class Revision:
    """Makes workers and keeps some.

    Args:
        start: PIPECAT_PROCESS_START.
        on_fact: Takes what workers tell.
        variables: The environment of its processes, where it is not that of the nursery.
    """

    def __init__(
        self,
        fork_client: ForkRequester,
        template: TemplateClient,
        start: str,
        limits: WorkerLimits,
        *,
        on_fact: Callable[[EventEmitted], None],
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.imported = template.imported
        self.lead: WorkerProcess | None = None
        self.takes_files = False
        self._fork_client = fork_client
        self._template = ForkRequester(template.channel, on_other=self._on_template)
        self._start = start
        self._limits = limits
        self._on_fact = on_fact
        self._variables = variables
        self._idle: deque[WorkerProcess] = deque()
        self._waiting: deque[asyncio.Future[WorkerProcess]] = deque()
        self._workers: set[WorkerProcess] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wanted = asyncio.Event()
        self._last_taken = -REFILL_AFTER
        self._failures = 0
        self._not_before = 0.0
        self._problem: str | None = None
        self._warmed_up: asyncio.Future[bool] | None = None
        self._warms_webrtc = False
        self._import: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._renewing_template = asyncio.Lock()
        """Of a template that takes the place of one that has died."""
        self._is_over = False

    @property
    def problem(self) -> str | None:
        """Why no worker can be made, or None while all is well."""
        return self._problem if self._failures >= FAILURES_UNTIL_UNREADY else None

    async def open(self) -> None:
        """The lead, and from then on workers.

        Raises:
            StartupError: the bot cannot be set up.
        """
        self._template.attach()
        threads = ", ".join(self.imported.threads)
        if self._start == "auto" and threads:
            self._use_spawn(f"the bot's import has left threads running ({threads})")
        self.lead = await self._make_lead()
        self._begin(self._keep_lead())
        self._begin(self._keep_idle())

    async def warm_up(self, *, webrtc: bool) -> bool:
        """Have the template import what sessions need; whether WebRTC's part is in it."""
        if self._start == "spawn":
            return webrtc
        self._warmed_up = asyncio.get_running_loop().create_future()
        self._warms_webrtc = webrtc
        self._template.send(WarmUp(webrtc))
        gone = asyncio.ensure_future(self._template.gone.wait())
        waited: set[asyncio.Future[Any]] = {self._warmed_up, gone}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not self._warmed_up.done():
            return False
        # Those that were made before would import it in their session.
        while self._idle:
            self.retire(self._idle.popleft())
        self._wanted.set()
        return self._warmed_up.result()

    async def take(self, session: Session) -> WorkerProcess:
        """A worker for a session.

        Raises:
            NoProcessNow: none was there in time.
        """
        self._last_taken = time.monotonic()
        worker = self._next_idle()
        if worker is None:
            worker = await self._wait_for_idle(session)
        self._wanted.set()
        return worker

    async def _wait_for_idle(self, session: Session) -> WorkerProcess:
        waiting: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._wanted.set()
        waited: set[asyncio.Future[Any]] = {waiting, session.stop}
        try:
            await asyncio.wait(waited, timeout=self._limits.take_timeout, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if waiting.done() and waiting.exception() is None:
                self._offer_idle(waiting.result())
            raise
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
        if waiting.done():
            return waiting.result()
        if session.stop.done():
            raise NoProcessNow("The session was ended before a process was ready.", session_id=session.id)
        problem = f": {self._problem}" if self._failures and self._problem else ""
        raise NoProcessNow(
            f"No process was ready within {self._limits.take_timeout:g} s{problem}.", session_id=session.id
        )

    async def take_lead(self) -> WorkerProcess:
        """The lead, for a session beside all others.

        Raises:
            NoProcessNow: there was none in time.
        """
        deadline = time.monotonic() + self._limits.take_timeout
        while self.lead is None or self.lead.died.done():
            if self._is_over:
                raise RevisionSuperseded
            if time.monotonic() > deadline:
                raise NoProcessNow(f"The bot's process could not be started: {self._problem}.")
            await asyncio.sleep(LOOK)
        return self.lead

    def give_back(self, worker: WorkerProcess) -> None:
        """Its session is over: it waits for the next one if no bot has run in it, and ends otherwise."""
        if worker.is_used or self._is_over or worker not in self._workers:
            self.retire(worker)
        else:
            self._offer_idle(worker)

    def retire(self, worker: WorkerProcess) -> None:
        """Let it end."""
        worker.close(self._limits.closing)

    async def ask_lead(self, kind: Any, *fields: Any, descriptors: Sequence[int] = ()) -> Any:
        """What the lead replies.

        Raises:
            NotReached: there is none.
            Refusal, Failed: those of the lead.
        """
        if self.lead is None:
            raise NotReached("The bot's lead process is being started.")
        try:
            return await self.lead.request(kind, *fields, descriptors=descriptors)
        except WorkerDied as died:
            raise NotReached(f"The bot's lead process {died}.") from None

    def has(self, worker: WorkerProcess) -> bool:
        """Whether it is one of these processes, and lives."""
        return worker in self._workers

    @property
    def counts(self) -> dict[str, int]:
        """Its processes, by what they do; the lead takes no call. Called in any thread."""
        lead, idle = self.lead, len(self._idle)
        others = [worker for worker in tuple(self._workers) if worker is not lead]
        busy = sum(worker.is_busy for worker in others)
        starting = sum(not worker.idle.done() for worker in others)
        ending = max(0, len(others) - busy - starting - idle)
        return {"lead": int(lead is not None), "idle": idle, "busy": busy, "starting": starting, "ending": ending}

    def delete(self, urls: list[str]) -> None:
        """Files of a session whose process has died."""
        if urls:
            self._begin(self._delete(urls))

    async def _delete(self, urls: list[str]) -> None:
        with contextlib.suppress(Refusal, Failed):
            await self.ask_lead(messages.Delete, urls)

    def stop(self) -> None:
        """Make nothing more; sessions that wait for a worker are for whoever comes after."""
        self._is_over = True
        for task in self._tasks:
            task.cancel()
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(RevisionSuperseded())

    def kill(self) -> None:
        """It was of no use: its processes end now."""
        self.stop()
        for worker in list(self._workers):
            worker.kill(None)
        self._template.close()

    async def finish(self) -> None:
        """Let those end that have no call now, and the others after theirs. The template is last: they die with it."""
        for worker in list(self._workers):
            if not worker.is_busy:
                self.retire(worker)
        while self._workers:
            await asyncio.wait({worker.died for worker in self._workers})
        await self._close_template()

    async def close(self) -> None:
        """Let every worker tear down and end, within its time."""
        self.stop()
        workers = list(self._workers)
        for worker in workers:
            self.retire(worker)
        if workers:
            await asyncio.wait({worker.died for worker in workers}, timeout=self._limits.closing + 1)
        await self._close_template()

    async def _close_template(self) -> None:
        """It runs its exit handlers first: a temporary folder of its import, say."""
        self._template.send(messages.Close())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._template.gone.wait(), EXIT_GRACE)
        self._template.close()

    def _next_idle(self) -> WorkerProcess | None:
        while self._idle:
            worker = self._idle.popleft()
            if not worker.died.done():
                return worker
        return None

    def _offer_idle(self, worker: WorkerProcess) -> None:
        if self._is_over:
            self.retire(worker)
            return
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(worker)
                return
        self._idle.append(worker)

    def _use_spawn(self, reason: str) -> None:
        logger.warning(f"Each process imports the bot, as it cannot be forked: {reason}")
        self._start = "spawn"

    async def _make_lead(self) -> WorkerProcess:
        """The first worker: it proves that the bot can be set up, and how processes can be made.

        Raises:
            StartupError: it cannot.
        """
        try:
            try:
                return await self._make()
            except WorkerDied as died:
                if self._start != "auto":
                    raise
                self._use_spawn(f"a forked process {died}")
                return await self._make()
        except WorkerDied as died:
            raise SetupFailed(f"The bot's process {died} while it was set up.", "The log may say more.") from None

    async def _make(self) -> WorkerProcess:
        """A worker that is set up.

        Raises:
            StartupError: it could not be set up.
            Died: it ended, or could not be made.
        """
        is_spawned = self._start == "spawn"
        maker = self._fork_client if is_spawned else self._template
        try:
            child = await maker.make(alone=is_spawned, variables=self._variables if is_spawned else None)
        except (ForkFailed, OSError) as error:
            raise WorkerDied(f"could not be made ({error})") from None
        worker = WorkerProcess(child, self._on_fact)
        self._workers.add(worker)
        worker.died.add_done_callback(lambda _: self._note_death(worker))
        if not is_spawned:
            await asyncio.wait({worker.began}, timeout=FORK_TIMEOUT)
            if not worker.began.done():
                worker.kill("had no event loop after its fork")
        # It keeps its own time. This is for one that cannot.
        await asyncio.wait({worker.idle}, timeout=self._limits.setup_timeout + SETUP_GRACE)
        if not worker.idle.done():
            worker.kill("was not set up in time")
            await asyncio.wait({worker.idle})
        self.takes_files = worker.idle.result().takes_files
        asyncio.get_running_loop().call_later(STABLE, self._note_life, worker)
        return worker

    def _note_death(self, worker: WorkerProcess) -> None:
        self._workers.discard(worker)
        if worker in self._idle and not self._is_over:
            self._idle.remove(worker)
            self._note_failure(f"it {worker.died.result()} while it waited for a call")
            self._wanted.set()

    def _note_life(self, worker: WorkerProcess) -> None:
        if not worker.died.done():
            self._failures = 0

    def _note_failure(self, problem: str) -> None:
        """One line, and a pause before the next try."""
        self._failures += 1
        self._problem = problem
        pause = min(LAST_RETRY, FIRST_RETRY * 2 ** (self._failures - 1))
        self._not_before = time.monotonic() + pause
        logger.error(f"A process of the bot's could not be kept: {problem} (next try in {pause:g} s)")

    async def _keep_lead(self) -> None:
        while True:
            assert self.lead is not None
            how = await asyncio.shield(self.lead.died)
            self.lead = None
            self._note_failure(f"the lead {how}")
            self.lead = await self._make_surely()

    async def _keep_idle(self) -> None:
        while True:
            await self._until_wanted()
            self._offer_idle(await self._make_surely())

    async def _until_wanted(self) -> None:
        """Wait until another worker is wanted: at once when a session waits for it."""
        while not self._waiting:
            self._wanted.clear()
            if len(self._idle) >= self._limits.idle:
                await self._wanted.wait()
                continue
            quiet = self._last_taken + REFILL_AFTER - time.monotonic()
            if quiet <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), quiet)

    async def _make_surely(self) -> WorkerProcess:
        """A worker, however long it takes; ever more slowly while none can be made."""
        while True:
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            try:
                await self._check_template()
                return await self._make()
            except (WorkerDied, StartupError) as error:
                self._note_failure(f"it {error}" if isinstance(error, WorkerDied) else str(error))
            except Exception as error:  # a fault of our own must not end what keeps the pool full
                logger.opt(exception=True).error(f"A process was not made: {type(error).__name__}")
                self._note_failure(type(error).__name__)

    async def _check_template(self) -> None:
        """Another one, should it have died."""
        if self._start == "spawn":
            return
        async with self._renewing_template:  # the lead and a worker may be made at once
            if self._template.gone.is_set():
                await self._renew_template()

    async def _renew_template(self) -> None:
        logger.error("The process that has imported the bot has ended; importing the bot again")
        try:
            child = await self._fork_client.make(variables=self._variables)
        except (ForkFailed, OSError) as error:
            raise WorkerDied(f"could not be made ({error})") from None
        self._import = asyncio.get_running_loop().create_future()
        self._template = ForkRequester(child.channel, on_other=self._on_template)
        self._template.attach()
        gone = asyncio.ensure_future(self._template.gone.wait())
        waited: set[asyncio.Future[Any]] = {self._import, gone, child.exited}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not self._import.done():
            self._template.close()
            exited = child.exited.result() if child.exited.done() else None
            raise WorkerDied(f"{how_it_ended(exited)} while it was imported")
        self._import.result()
        if self._warmed_up is not None:
            self._template.send(WarmUp(self._warms_webrtc))

    def _on_template(self, message: messages.Message) -> None:
        if isinstance(message, WarmedUp) and self._warmed_up is not None and not self._warmed_up.done():
            self._warmed_up.set_result(message.webrtc)
        elif isinstance(message, BotImported) and not self._import.done():
            self._import.set_result(None)
        elif isinstance(message, NotServing) and not self._import.done():
            self._import.set_exception(message.error())

    def _begin(self, step: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
