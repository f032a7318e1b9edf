"""``pipecat-base call``: ring a running bot, say something, and measure what comes back."""

from __future__ import annotations

import argparse
import sys


def main(options: argparse.Namespace, port: int) -> int:
    """Place the calls; 0 if each heard something, said everything, and was not cut off."""
    try:
        from pipecat_base.cli.call.command import place_calls
    except ModuleNotFoundError as error:
        if error.name not in ("numpy", "soxr"):
            raise
        print(f'pipecat-base call needs {error.name}: pip install "pipecat-base[call]"', file=sys.stderr)
        return 1
    return place_calls(options, port)
