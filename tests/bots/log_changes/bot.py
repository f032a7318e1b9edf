"""Does to loguru, logging, warnings and the standard streams whatever the body names, then logs and prints."""

import asyncio
import contextlib
import io
import logging
import logging.config
import os
import sys
import warnings

from loguru import logger

standard = logging.getLogger("users")
MINE = "MINE {message}"


def remove_zero():
    logger.remove(0)


def remove_all():
    logger.remove()


def remove_bound():
    logger.bind(a=1).remove()


def boilerplate():
    logger.remove(0)
    logger.add(sys.stderr, level="DEBUG")


def boilerplate_all():
    logger.remove()
    logger.add(sys.stdout, level="INFO", colorize=True)


def configure():
    logger.configure(handlers=[{"sink": sys.stderr, "level": "DEBUG"}], extra={"session_id": "mine"})


def own_format():
    logger.remove(0)
    logger.add(sys.stderr, format=MINE)


def own_format_after_all():
    logger.remove()
    logger.add(sys.stderr, format=MINE)


def own_file():
    logger.remove()
    logger.add(os.devnull)


def force_basic_config():
    logging.basicConfig(level=logging.DEBUG, force=True)


def clear_handlers():
    logging.getLogger().handlers.clear()


def replace_handlers():
    logging.getLogger().handlers = [logging.StreamHandler(sys.stderr)]


def dict_config():
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": True,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
            "root": {"level": "INFO", "handlers": ["console"]},
        }
    )
    standard.disabled = False


def shut_logging():
    logging.shutdown()


def release_warnings():
    logging.captureWarnings(False)
    logging.lastResort = None


def reset_warnings():
    warnings.resetwarnings()


def close_streams():
    sys.stdout.close()
    sys.stderr.close()


def close_in_with():
    with open(os.devnull, "w") as sys.stdout:
        print("lost")


def unset_streams():
    sys.stdout = sys.stderr = None


def redirect():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        logger.info("redirected")


def wrap_stdout():
    with contextlib.suppress(OSError):  # it was a file when Python opened it, and is a pipe now
        sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", line_buffering=True)


DEEDS = {name: value for name, value in globals().items() if callable(value) and value.__module__ == __name__}


async def bot(args):
    deed = args.body.get("do")
    if deed is not None:
        DEEDS[deed]()
    await asyncio.sleep(args.body.get("seconds", 0))
    logger.info(f"loguru {args.session_id}")
    standard.warning(f"logging {args.session_id}")
    warnings.warn(f"warned {args.session_id}", UserWarning, stacklevel=1)
    if sys.stdout is not None and not sys.stdout.closed:
        print(f"printed {args.session_id}", flush=True)
