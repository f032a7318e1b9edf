"""Pages for people: our own at ``/``, pipecat's prebuilt client at ``/client/`` where that is installed."""

from __future__ import annotations

import os
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from pipecat_base.bot import installed
from pipecat_base.server.page_headers import page_headers

FOLDER = os.path.join(os.path.dirname(__file__), "page")
CLIENT = "/client/"
HEADERS = page_headers(
    "script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; media-src 'self' blob:"
)
UNFRAMED = {"content-security-policy": "frame-ancestors 'none'", "x-content-type-options": "nosniff"}


class _Files(StaticFiles):
    def __init__(self, directory: str, headers: Mapping[str, str], *, html: bool = False) -> None:
        super().__init__(directory=directory, html=html)
        self._headers = headers

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response


async def _page(request: Request) -> FileResponse:
    return FileResponse(os.path.join(FOLDER, "index.html"), headers=HEADERS)


async def _to_client(request: Request) -> RedirectResponse:
    return RedirectResponse(CLIENT)


def client_folder() -> str | None:
    # Found without importing the client, which prints.
    path = os.path.join(installed.folder("pipecat_ai_prebuilt") or "", "client", "dist")
    return path if os.path.isfile(os.path.join(path, "index.html")) else None


def broken() -> str:
    """The page of an import error, in one piece: no other file is served then."""
    found = {}
    for name in ("broken.html", "style.css", "broken.js"):
        with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
            found[name] = file.read()
    return found["broken.html"].replace("{style}", found["style.css"]).replace("{script}", found["broken.js"])


def routes() -> list[BaseRoute]:
    ours: list[BaseRoute] = [Route("/", _page), Mount("/page", _Files(FOLDER, HEADERS))]
    folder = client_folder()
    if folder is None:
        return ours
    return [*ours, Route("/client", _to_client), Mount("/client", _Files(folder, UNFRAMED, html=True))]
