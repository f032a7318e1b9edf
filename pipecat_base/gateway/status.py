"""``GET /status``: the state of the bot, and its features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from pipecat_base.bot.features import Feature
from pipecat_base.server.lifecycle import Lifecycle


class StatusRoute:
    """Serves ``/status``. ``client`` is the path of the prebuilt client, ``shows_bot_errors`` is for development."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        bot: str,
        transports: Sequence[str],
        features: Callable[[], list[Feature]],
        client: str | None,
        *,
        shows_bot_errors: bool,
    ) -> None:
        self._lifecycle = lifecycle
        self._bot = bot
        self._transports = list(transports)
        self._features = features
        self._client = client
        self._shows_bot_errors = shows_bot_errors

    def router(self) -> APIRouter:
        router = APIRouter(tags=["status"])
        router.add_api_route("/status", self.status, methods=["GET"])
        return router

    async def status(self) -> JSONResponse:
        """``status`` and ``transports`` are those of pipecat's runner."""
        features = [
            {"name": f.name, "status": f.status.value, "required": f.required, "reason": f.reason}
            for f in self._features()
        ]
        answer: dict[str, Any] = {
            "status": self._lifecycle.state.value,
            "transports": self._transports,
            "bot": self._bot,
            "development": self._shows_bot_errors,
        }
        if self._lifecycle.problem is not None:
            answer |= self._lifecycle.problem.as_status()
        return JSONResponse({**answer, "features": features, "links": {"client": self._client}})
