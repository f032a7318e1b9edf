"""What platforms and Kubernetes leave in the file system to be read or written, beside HTTP."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from pipecat_base.config import private_files

TERMINATION_LOG = "/dev/termination-log"
"""Where Kubernetes reads why a container has ended (kubernetes.io/docs/tasks/debug/debug-application)."""
LONGEST_MESSAGE = 4096
"""Bytes of it that Kubernetes keeps."""
TOKEN_REFRESHER = "/var/run/token-refresher"  # noqa: S105
"""A folder that the platform's sidecar shares with us; a file ``shutdown`` in it says that this pod is ending."""


def write_termination_message(message: str, environment: Mapping[str, str]) -> None:
    """Leave a line where Kubernetes shows it (``kubectl describe pod``), if that is possible here.

    Args:
        environment: PCC_TERMINATION_LOG_PATH names another file. The usual one is written only if it is there: on
            other machines it would be litter.
    """
    chosen = environment.get("PCC_TERMINATION_LOG_PATH", "").strip()
    line = " ".join(message.split()).replace("[", "(").replace("]", ")")
    content = line.encode(errors="replace")[:LONGEST_MESSAGE]
    flags = os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | (os.O_CREAT if chosen else 0)
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(chosen or TERMINATION_LOG, flags, private_files.FILE)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)


def tell_token_refresher(folder: str = TOKEN_REFRESHER) -> None:
    """Touch its ``shutdown``, where the folder is."""
    if not os.path.isdir(folder):
        return
    with contextlib.suppress(OSError), open(os.path.join(folder, "shutdown"), "a"):
        os.utime(os.path.join(folder, "shutdown"))
