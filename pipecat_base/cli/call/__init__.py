"""``pipecat-base call``: ring a running bot, say something, and measure what comes back."""

from __future__ import annotations

import argparse
import sys


def main(options: argparse.Namespace, port: int) -> int:
    """Place the calls; 0 when in each one something was heard, everything was said, and no one was cut off.

    Args:
        port: The bot's port on this machine, for a call without an address.
    """
    try:
        from pipecat_base.cli.call.command import place_calls
    except ModuleNotFoundError as error:
        if error.name not in ("numpy", "soxr"):
            raise
        print(f'pipecat-base call needs {error.name}: pip install "pipecat-base[call]"', file=sys.stderr)
        return 1
    return place_calls(options, port)
