"""The end of a worker's interpreter: SDKs are flushed and exit handlers run, as at the end of any Python process."""

from __future__ import annotations

import atexit
import threading

from pipecat_base.bot import sdks
from pipecat_base.bot.leftovers import Leftovers
from pipecat_base.logs import tracebacks
from pipecat_base.logs.logger import logger
from pipecat_base.logs.streams import flush_streams
from pipecat_base.server.loop_monitor import warn_in_thread
from pipecat_base.workers.fork_server import exit_process

FLUSH_SECONDS = 1.0  # left for SDKs and exit handlers, however long the bot's leftovers took
LOG_SECONDS = 0.5


def finish(leftovers: Leftovers, project: str) -> None:
    """Return within what is left of the bound, or end the process after a line that says what was cut."""
    leftovers.over()
    within = max(leftovers.seconds_left, FLUSH_SECONDS)
    overdue = threading.Timer(within, _leave, [threading.get_ident(), within, project])
    overdue.daemon = True
    overdue.start()
    late = sdks.flush(within - FLUSH_SECONDS / 2)
    if late:
        logger.warning(f"{', '.join(dict.fromkeys(late))}: not flushed when the process ended (PIPECAT_EXIT_GRACE)")
    atexit._run_exitfuncs()  # os._exit() skips them
    overdue.cancel()
    flush_streams()


def _leave(thread: int, within: float, project: str) -> None:
    where = tracebacks.where_is_thread(thread, project)
    text = f"Exit handlers were cut after {within:.1f} s (PIPECAT_EXIT_GRACE){f': {where}' if where else ''}"
    warn_in_thread(text).join(LOG_SECONDS)
    exit_process(0)
