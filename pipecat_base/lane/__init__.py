"""The log lane: everything the process says, as JSON lines in ``$PCC_LOG_DIR/bot.jsonl``.

The launcher writes log lines itself, before the call that logs them returns. What is printed, from C code and by child
processes too, passes through a process of its own (:mod:`pipecat_base.lane.pump`) on its way to where standard output
and error led before. That process outlives a crash: the last words of a bot that calls ``os._exit`` or dies of a signal
are there.
"""

from pipecat_base.lane.capture import Lane

__all__ = ["Lane"]
