"""Files that platforms and Kubernetes read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from pipecat_base.config import private_files

# Kubernetes shows it as the reason why a container ended (kubernetes.io/docs/tasks/debug/debug-application).
TERMINATION_LOG = "/dev/termination-log"
MAX_MESSAGE_BYTES = 4096
TOKEN_REFRESHER = "/var/run/token-refresher"  # noqa: S105
"""Pipecat Cloud's sidecar shares this folder; a file ``shutdown`` in it says that the pod ends."""


def write_termination_message(message: str, environment: Mapping[str, str]) -> None:
    """Write a line for ``kubectl describe pod``. Kubernetes' own file is not created: elsewhere it would be litter."""
    chosen = environment.get("PCC_TERMINATION_LOG_PATH", "").strip()
    line = " ".join(message.split()).replace("[", "(").replace("]", ")")
    content = line.encode(errors="replace")[:MAX_MESSAGE_BYTES]
    flags = os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | (os.O_CREAT if chosen else 0)
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(chosen or TERMINATION_LOG, flags, private_files.FILE)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)


def notify_token_refresher(folder: str = TOKEN_REFRESHER) -> None:
    if not os.path.isdir(folder):
        return
    with contextlib.suppress(OSError), open(os.path.join(folder, "shutdown"), "a"):
        os.utime(os.path.join(folder, "shutdown"))
