"""What stands at the top of most pipecat examples."""

import sys

from loguru import logger

logger.remove(0)
logger.add(sys.stderr, level="DEBUG")


async def bot(args):
    logger.debug("a line")
