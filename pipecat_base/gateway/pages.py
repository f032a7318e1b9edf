"""Pages for people: our own at ``/``, pipecat's prebuilt client at ``/client/`` where that is installed."""

from __future__ import annotations

import os

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from pipecat_base import installed

FOLDER = os.path.join(os.path.dirname(__file__), "page")
CLIENT = "/client/"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}
"""The page asks nothing of any other origin, and no other origin may show it."""


class _OurFiles(StaticFiles):
    """With the page's headers."""

    def file_response(self, full_path: os.PathLike[str], *arguments: object, **options: object) -> FileResponse:  # type: ignore[override]
        response: FileResponse = super().file_response(full_path, *arguments, **options)  # type: ignore[arg-type, assignment]
        response.headers.update(HEADERS)
        return response


async def _page(request: Request) -> FileResponse:
    return FileResponse(os.path.join(FOLDER, "index.html"), headers=HEADERS)


async def _to_client(request: Request) -> RedirectResponse:
    return RedirectResponse(CLIENT)


def client_folder() -> str | None:
    """The prebuilt client's files, found without importing it: it prints."""
    path = os.path.join(installed.folder("pipecat_ai_prebuilt") or "", "client", "dist")
    return path if os.path.isfile(os.path.join(path, "index.html")) else None


def broken() -> str:
    """The page while there is no bot to serve: on its own, as nothing else is served then."""
    found = {}
    for name in ("broken.html", "style.css", "broken.js"):
        with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
            found[name] = file.read()
    return found["broken.html"].replace("{style}", found["style.css"]).replace("{script}", found["broken.js"])


def routes() -> list[BaseRoute]:
    """The routes to serve."""
    ours: list[BaseRoute] = [Route("/", _page), Mount("/page", _OurFiles(directory=FOLDER))]
    folder = client_folder()
    if folder is None:
        return ours
    return [*ours, Route("/client", _to_client), Mount("/client", StaticFiles(directory=folder, html=True))]
