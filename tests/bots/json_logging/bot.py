"""Sends the standard library's logging to the console as JSON."""

import json
import logging
import logging.config


class Json(logging.Formatter):
    def format(self, record):
        return json.dumps({"json": record.getMessage()})


logging.config.dictConfig(
    {
        "version": 1,
        "formatters": {"json": {"()": Json}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": "INFO", "handlers": ["console"]},
    }
)


async def bot(args):
    logging.getLogger("users").info("a line")
