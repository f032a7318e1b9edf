"""A session's flow config: opaque text, in an envelope of ``POST /bot``, a WebSocket's file, or ``POST /start``."""

from __future__ import annotations

import asyncio
import os
import stat
from typing import Any

from pipecat_base.errors import FlowUnusable, Malformed
from pipecat_base.logs.escaping import logged

ENVELOPE = "x-pcc-start-envelope"
ENVELOPE_VERSION = "1"
FILE = "x-pcc-flow-config-file"
SCOPE_KEY = "pipecat_base.flow_config"  # of a WebSocket whose session the gateway has started
MAX_NAME_LENGTH = 255  # characters, as in file systems


def open_envelope(content: Any, version: str | None) -> tuple[Any, str | None]:
    """Split a request's JSON into body and flow config. ``version`` is the ENVELOPE header; without it, all is body."""
    if version is None:
        return content, None
    if version.strip() != ENVELOPE_VERSION:
        raise Malformed(f"unsupported start envelope version '{logged(version)}'", field=ENVELOPE)
    if not isinstance(content, dict) or not {"body", "flow_config"} <= content.keys():
        raise Malformed("start envelope needs both 'body' and 'flow_config'", field="body")
    flow = content["flow_config"]
    if not is_flow(flow):
        raise Malformed("start envelope 'flow_config' must be non-empty text", field="body.flow_config")
    return content["body"], flow


def is_flow(value: Any) -> bool:
    """True for text that is not blank."""
    try:
        return isinstance(value, str) and bool(value.strip()) and bool(value.encode())
    except UnicodeEncodeError:  # JSON can hold half a surrogate pair
        return False


class FlowFiles:
    def __init__(self, folder: str | None, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    async def read(self, name: str | None, session_id: str) -> str | None:
        """Read the file of this name. Raises FlowUnusable, whose reason quotes nothing of it."""
        if name is None:
            return None
        try:
            return await asyncio.to_thread(self._read, name)
        except _Unusable as error:
            reason = f"{FILE} names a file this app cannot use: {error}"
            raise FlowUnusable(reason, session_id=session_id) from None

    def _read(self, name: str) -> str:
        if not self._folder:
            raise _Unusable("PCC_SESSION_FILES_DIR is not set")
        if name in ("", ".", "..") or len(name) > MAX_NAME_LENGTH or any(character in name for character in "/\\\0"):
            raise _Unusable(f"'{logged(name)}' is not a bare filename")
        path = os.path.join(self._folder, name)
        try:
            # A link would lead out of the folder, and a FIFO without a writer would never open.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise _Unusable(f"{path} is not a regular file")
                with open(descriptor, "rb", closefd=False) as file:
                    content = file.read(self._max_bytes + 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _Unusable(f"cannot read {path}: {error.strerror}") from None
        if len(content) > self._max_bytes:
            raise _Unusable(f"{path} is larger than {self._max_bytes} bytes (MAX_BODY_BYTES)")
        try:
            flow = content.decode()
        except UnicodeDecodeError:
            raise _Unusable(f"{path} is not UTF-8 text") from None
        if not flow.strip():
            raise _Unusable(f"{path} is empty")
        return flow


class _Unusable(Exception):
    """The text is the reason, on one line."""
