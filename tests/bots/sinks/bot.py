"""Adds a sink of its own while it is imported."""

import os

from loguru import logger

logger.add(os.environ["SINK"], format="SINK {message}")


async def bot(args):
    logger.info("a line")
