"""The agent's log, read from ``bot.jsonl``."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query
from starlette.responses import JSONResponse

from pipecat_base.errors import NotServed
from pipecat_base.gateway.cloud_api import query
from pipecat_base.gateway.cloud_api.names import HERE, iso
from pipecat_base.logs.jsonl.records import FILE

MAX_LOG_BYTES = 4_000_000  # searched, from the log's end
MAX_LOG_LINES = 1000
ORDERS = ("asc", "desc")


@dataclass(frozen=True)
class LogFilter:
    session_id: str | None = None
    deployment: str | None = None
    text: str = ""
    after: datetime | None = None
    before: datetime | None = None

    def accepts(self, record: LogRecord) -> bool:
        return (
            self.session_id in (None, record.session_id)
            and self.deployment in (None, HERE)
            and self.text.casefold() in record.text.casefold()
            and (self.after is None or self.after <= record.at)
            and (self.before is None or record.at <= self.before)
        )


@dataclass(frozen=True)
class LogRecord:
    at: datetime
    session_id: str | None
    text: str

    @classmethod
    def parse(cls, line: bytes) -> LogRecord | None:
        """None for a line that a cut or another writer has damaged."""
        try:
            record = json.loads(line)
            at = datetime.fromisoformat(record["@timestamp"]).astimezone(UTC)
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
            return None
        level, text = record.get("level"), str(record.get("line", ""))
        return cls(at, record.get("session_id"), f"{level}: {text}" if level else text)

    def fields(self) -> dict[str, str]:
        return {"timestamp": iso(self.at), "log": self.text, "deploymentId": HERE}


class CloudLogs:
    """Serves the log. ``folder`` has ``bot.jsonl``."""

    def __init__(self, folder: str | None, *, is_shown: bool) -> None:
        self._folder = folder
        self._is_shown = is_shown

    async def list(
        self,
        limit: str = "100",
        offset: str = "0",
        session_id: Annotated[str | None, Query(alias="sessionId")] = None,
        deployment: Annotated[str | None, Query(alias="deploymentId")] = None,
        text: Annotated[str, Query(alias="query")] = "",
        order: str = "desc",
        start_time: Annotated[str | None, Query(alias="startTime")] = None,
        end_time: Annotated[str | None, Query(alias="endTime")] = None,
    ) -> JSONResponse:
        """Lines at the end of the log."""
        if not self._is_shown:
            raise NotServed("The log needs a private key: set PIPECAT_PRIVATE_API_KEYS.")
        if self._folder is None:
            raise NotServed("No log lines are kept: set PCC_LOG_DIR to a folder for them.")
        after, before = query.time("startTime", start_time), query.time("endTime", end_time)
        wanted = LogFilter(session_id, deployment, text, after, before)
        is_descending = query.choice("order", order, ORDERS) == "desc"
        first = query.whole_number("offset", offset)
        count = min(query.whole_number("limit", limit, minimum=1), MAX_LOG_LINES)
        found, is_whole = await asyncio.to_thread(search, os.path.join(self._folder, FILE), wanted)
        ordered = found[::-1] if is_descending else found
        page = [record.fields() for record in ordered[first : first + count]]
        total = {"value": len(found), "relation": "eq" if is_whole else "gte"}
        return JSONResponse({"total": total, "logs": page})


def search(path: str, wanted: LogFilter) -> tuple[list[LogRecord], bool]:
    """Find records at the end of the file and of the one before it; also return whether that was all of them."""
    content, is_whole = _end_of(path, MAX_LOG_BYTES)
    before, is_all_before = _end_of(f"{path}.1", MAX_LOG_BYTES - len(content))
    records = filter(None, map(LogRecord.parse, (before + content).splitlines()))
    return list(filter(wanted.accepts, records)), is_whole and is_all_before


def _end_of(path: str, max_bytes: int) -> tuple[bytes, bool]:
    """Return the end of a file, and whether it is all of it."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - max_bytes))
            return file.read(max_bytes), size <= max_bytes
    except OSError:
        return b"", True
