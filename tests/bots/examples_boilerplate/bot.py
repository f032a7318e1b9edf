"""What stands at the top of most pipecat examples."""

import sys

from loguru import logger

logger.remove(0)
logger.add(sys.stderr, level="DEBUG")
logger.debug("imported")


async def bot(args):
    logger.debug("a line")
