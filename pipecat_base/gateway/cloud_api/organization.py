"""The only organization and region, and parts of the platform that a gateway does not have."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from pipecat_base.errors import NotSupported
from pipecat_base.gateway.cloud_api.names import HERE

NAME = "This gateway"
ONE_BOT = "A gateway serves one bot, in one region: "
REASONS = {
    "services": f"{ONE_BOT}deploy, change or delete the server or container that it runs in.",
    "regions": f"{ONE_BOT}there are no others to register or delete.",
    "properties": f"{ONE_BOT}there is nothing to set.",
    "apiKeys": "A gateway's keys are in its settings: PIPECAT_PUBLIC_API_KEYS and PIPECAT_PRIVATE_API_KEYS.",
    "daily": "A gateway does not show its DAILY_API_KEY.",
    "secrets": "A gateway keeps no secrets: the bot reads them from the environment of the gateway's process.",
    "builds": "A gateway builds no images: build yours with docker build.",
    "github": "A gateway does not deploy from GitHub.",
    "agent-profiles": "A gateway has no agent profiles: its server or container sets CPU and memory.",
    "registry-keys": "A gateway has no registry.",
    "spend-limit": "A gateway costs nothing: it has no spend limit.",
}


class CloudOrganization:
    async def list(self) -> JSONResponse:
        return JSONResponse({"organizations": [{"name": HERE, "verboseName": NAME}]})

    async def user(self) -> JSONResponse:
        """The owner of the private key."""
        return JSONResponse({"user": {"userId": "private-key", "emails": []}})

    async def regions(self) -> JSONResponse:
        return JSONResponse({"regions": [{"code": HERE, "display_name": NAME}]})

    async def properties(self) -> JSONResponse:
        return JSONResponse({"properties": {"defaultRegion": HERE}})

    async def properties_schema(self) -> JSONResponse:
        region: dict[str, Any] = {"type": "string", "description": "The region of the only agent", "readOnly": True}
        values = {"currentValue": HERE, "default": HERE, "availableValues": [HERE]}
        return JSONResponse({"properties": {"defaultRegion": {**region, **values}}})

    async def refuse(self, rest: str) -> None:
        """Say what the gateway has instead of a part of the platform."""
        part = rest.partition("/")[0]
        raise NotSupported(REASONS.get(part, "A gateway does not have this part of Pipecat Cloud's API."))
