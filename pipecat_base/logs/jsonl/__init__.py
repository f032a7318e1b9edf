"""The log lane: everything the process says, as JSON lines in ``$PCC_LOG_DIR/bot.jsonl``.

The launcher writes its own log lines, before the call that logs them returns. Printed text, from C code and child
processes too, passes through a separate process (:mod:`pipecat_base.logs.jsonl.tee`) on its way to the former standard
output and error. That process outlives a crash, so the last lines of a bot that calls ``os._exit`` or dies of a signal
are there.
"""
