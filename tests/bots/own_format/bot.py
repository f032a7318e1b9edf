"""Wants its console in a format of its own."""

import sys

from loguru import logger

logger.remove()
logger.add(sys.stderr, format="MINE {message}")


async def bot(args):
    logger.info("a line")
