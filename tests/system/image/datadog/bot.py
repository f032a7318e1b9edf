"""Logs to a file in JSON, as the guide says."""

from loguru import logger

logger.add("/var/log/my-bot/datadog.log", serialize=True)


async def bot(args):
    logger.info("taking a call")
