"""``POST /files``: clients upload files for their bots.

The platform proxies a session's upload route here with the session's id; without an id the file outlives sessions. The
response is an RTVI ``File``, which clients send to the bot as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Message

from pipecat_base.errors import Malformed, NotServed, Refusal, StorageFailed, TooLarge, UnknownSession
from pipecat_base.logs.logger import logger
from pipecat_base.server.paths import SESSION_ID
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.registry import Session, SessionRegistry

FIELD = "file"
MULTIPART_OVERHEAD_BYTES = 64 * 1024  # boundaries and headers around the file
MAX_FILES_PER_SESSION = 100
MAX_FILES_IN_MEMORY = 2  # a storage takes each file whole
Save = Callable[[str, bytes], Awaitable[str]]
NOT_A_FILE = 'No file: send multipart/form-data with a part named "file".'
OFF = "Uploads are off: the bot has no create_file_storage(), and PIPECAT_UPLOADS_FOLDER is not set."


class UploadRoutes:
    """Stores files, and deletes a session's files at its end.

    Args:
        storage: Gives the bot's storage once it is set up; None if uploads are off.
        on_stored: Called with the session's id and the URL of each of its files.
    """

    def __init__(
        self,
        registry: SessionRegistry,
        storage: Callable[[], Any],
        *,
        max_bytes: int,
        on_stored: Callable[[str, str], None] | None = None,
    ) -> None:
        self._registry = registry
        self._storage = storage
        self._max_bytes = max_bytes
        self._on_stored = on_stored
        self._stored: dict[str, list[str]] = {}
        self._uploading: Counter[str] = Counter()
        self._in_memory = asyncio.Semaphore(MAX_FILES_IN_MEMORY)

    def routes(self) -> list[Route]:
        return [Route("/files", self.post, methods=["POST"])]

    async def post(self, request: Request) -> JSONResponse:
        storage = self._storage()
        if storage is None:
            raise NotServed(OFF)
        session = None
        session_id = request.headers.get(SESSION_ID)
        if session_id is not None:
            session = self._registry.get(session_id)
            if session is None:
                raise UnknownSession(session_id)
        with self._counted(session):
            name, kind, url = await self._store(request, _saving(storage, session))
        if session is not None:
            if self._registry.get(session.id) is not session:
                await _delete(storage, url)
                raise UnknownSession(session.id, "The session ended before the file was stored.")
            if session.id not in self._stored:
                self._stored[session.id] = []
                session.add_last_closer(partial(self._delete_all, storage, session.id))
            self._stored[session.id].append(url)
            if self._on_stored is not None:
                self._on_stored(session.id, url)
        return JSONResponse({"name": name, "source": {"type": "url", "url": url}, "format": kind})

    @contextlib.contextmanager
    def _counted(self, session: Session | None) -> Iterator[None]:
        """Count a file while it is uploaded. Raises TooLarge if the session has too many."""
        if session is None:
            yield
            return
        if len(self._stored.get(session.id, ())) + self._uploading[session.id] >= MAX_FILES_PER_SESSION:
            raise TooLarge(f"A session takes {MAX_FILES_PER_SESSION} files at most.", session_id=session.id)
        self._uploading[session.id] += 1
        try:
            yield
        finally:
            self._uploading[session.id] -= 1
            if not self._uploading[session.id]:
                del self._uploading[session.id]

    async def _store(self, request: Request, save: Save) -> tuple[str, str, str]:
        try:
            async with self._file(request) as file:
                name = PurePosixPath((file.filename or "").replace("\\", "/")).name
                name = "" if name == ".." else name
                guessed, _ = mimetypes.guess_type(name, strict=False)
                kind = guessed or file.content_type or "application/octet-stream"
                async with self._in_memory:
                    return name, kind, await save(name, await file.read(file.size or -1))
        except (Refusal, HTTPException, ClientDisconnect):
            raise
        except Exception as error:
            logger.opt(exception=True).error(f"A file was not stored: {type(error).__name__}")
            raise StorageFailed("The file could not be stored; the log says why.") from None

    async def _delete_all(self, storage: Any, session_id: str, outcome: Outcome) -> None:
        await asyncio.gather(*(_delete(storage, url) for url in self._stored.pop(session_id)))

    @contextlib.asynccontextmanager
    async def _file(self, request: Request) -> AsyncIterator[UploadFile]:
        try:
            declared = int(request.headers.get("content-length", "0"))
        except ValueError:
            declared = 0
        if declared > self._max_bytes + MULTIPART_OVERHEAD_BYTES:
            raise self._too_large()
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":  # another form would be parsed whole
            raise Malformed(NOT_A_FILE, field="content-type")
        bounded = Request(request.scope, self._bounded(request))
        try:
            async with bounded.form(max_files=1, max_fields=16) as form:
                file = form.get(FIELD)
                if not isinstance(file, UploadFile):
                    raise Malformed(NOT_A_FILE, field=FIELD)
                if (file.size or 0) > self._max_bytes:
                    raise self._too_large()
                yield file
        except HTTPException as error:
            raise Malformed(f"Not multipart/form-data: {error.detail}", field="body") from None
        except ValueError:  # the parser's own, with older versions of Starlette
            raise Malformed("Not multipart/form-data.", field="body") from None

    def _bounded(self, request: Request) -> Callable[[], Any]:
        received = 0

        async def receive() -> Message:
            nonlocal received
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            received += len(message.get("body", b""))
            if received > self._max_bytes + MULTIPART_OVERHEAD_BYTES:
                raise self._too_large()
            return message

        return receive

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The file is larger than {self._max_bytes} bytes (PIPECAT_MAX_UPLOAD_BYTES).", field=FIELD)


def _saving(storage: Any, session: Session | None) -> Save:
    # Our own storage limits files that belong to no session.
    save: Save = storage.save if session is not None else getattr(storage, "save_loose", storage.save)
    return save


async def _delete(storage: Any, url: str) -> None:
    try:
        await storage.delete(url)
    except Exception as error:
        logger.warning(f"An uploaded file was not deleted: {type(error).__name__}")
