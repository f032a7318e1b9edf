"""Uses the standard library's logging, with a level of its own."""

import logging

logging.basicConfig(level=logging.DEBUG)
log = logging.getLogger("users")


async def bot(args):
    log.debug("a %s line", "debug")
    try:
        raise ValueError("told to logging")
    except ValueError:
        log.exception("with a traceback")
