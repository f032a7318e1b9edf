"""Daily rooms, through pipecat's helper for Daily's REST API, which is imported for the first room."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from pipecat_base.errors import Malformed, NotReached, NotSupported
from pipecat_base.http_client import bounded_session
from pipecat_base.logs.escaping import logged
from pipecat_base.logs.logger import logger

ROOM_HOURS = 4.0  # until a room and its tokens expire, as in pipecat's runner
DAILY_TIMEOUT_SECONDS = 20.0
# In a call's settings, a name that bots read, and another spelling of it: the documentation's, or Daily's webhook's.
SPELLINGS = (
    ("From", "from"),
    ("from", "From"),
    ("To", "to"),
    ("to", "To"),
    ("call_id", "callId"),
    ("call_domain", "callDomain"),
    ("sip_headers", "sipHeaders"),
)


@dataclass(frozen=True)
class Room:
    url: str
    token: str  # an owner's, for bot and caller alike, as in pipecat's runner
    is_fixed: bool = False  # not made for this session, and not deleted


class Daily:
    """With a ``room_url``, all sessions are in that room; only calls from phones (SIP) get one of their own."""

    def __init__(
        self,
        api_key: str | None,
        api_url: str,
        max_session_seconds: float | None = None,
        *,
        room_url: str | None = None,
    ) -> None:
        self.room_url = room_url
        self._max_room_seconds = max(ROOM_HOURS * 3600, max_session_seconds or 0)
        self.api_key = api_key
        self.api_url = api_url.rstrip("/")

    async def create(self, properties: dict[str, Any], token_properties: dict[str, Any], *, hidden: str = "") -> Room:
        """Create a room and a token. ``hidden``: a text to omit in log lines. Raises NotReached if Daily refuses."""
        async with self._helper(hidden) as (helper, daily):
            expires = {"exp": time.time() + ROOM_HOURS * 3600, "eject_at_room_exp": True}
            room_properties = _checked(daily.DailyRoomProperties, {**expires, **properties}, "dailyRoomProperties")
            self._bound(room_properties)
            tokens = _checked(daily.DailyMeetingTokenProperties, token_properties, "dailyMeetingTokenProperties")
            params = daily.DailyMeetingTokenParams(properties=tokens)
            if self.room_url is not None and room_properties.sip is None:
                if properties:
                    logger.warning("Daily: dailyRoomProperties are not used: DAILY_ROOM_URL names the room")
                token = await helper.get_token(self.room_url, expiry_time=ROOM_HOURS * 3600, params=params)
                return Room(self.room_url, token, is_fixed=True)
            name = f"pipecat-{uuid.uuid4().hex[:12]}"
            room = await helper.create_room(daily.DailyRoomParams(name=name, properties=room_properties))
            try:
                token = await helper.get_token(room.url, expiry_time=ROOM_HOURS * 3600, params=params)
            except BaseException:
                await _quietly(helper.delete_room_by_url(room.url))
                raise
        return Room(room.url, token)

    async def create_for_phone(self, caller: str) -> Room:
        sip = {"display_name": caller, "video": False, "sip_mode": "dial-in", "num_endpoints": 1}
        return await self.create({"sip": sip, "start_video_off": True}, {}, hidden=caller)

    def complete_dialin(self, body: Any) -> Any:
        """Fill in what pipecat needs of a dial-in call, where a webhook of the user's own has started it."""
        if not isinstance(body, dict) or not isinstance(body.get("dialin_settings"), dict):
            return body
        call = dict(body["dialin_settings"])
        for name, other in SPELLINGS:
            if call.get(name) is None and call.get(other) is not None:
                call[name] = call[other]
        url = body.get("daily_api_url") or self.api_url
        filled = {**body, "dialin_settings": call, "daily_api_url": url}
        # pipecat sends the key to the URL: ours must reach no server of a caller's choice.
        is_ours = isinstance(url, str) and url.rstrip("/") == self.api_url.rstrip("/")
        api_key = body.get("daily_api_key") or (self.api_key if is_ours else None)
        if api_key is None:
            logger.warning("The bot cannot take this dial-in call: its body has no daily_api_key; set DAILY_API_KEY")
            return filled
        return {**filled, "daily_api_key": api_key}

    def _bound(self, room: Any) -> None:
        """Make the room expire and eject everyone: otherwise it would cost money long after its call."""
        latest = time.time() + self._max_room_seconds
        if room.exp is None or not 0 <= room.exp <= latest:  # NaN too
            most = f"{self._max_room_seconds:g} s"
            logger.warning(f"Daily: dailyRoomProperties.exp is shortened: a room lives for {most} at most")
            room.exp = latest
        room.eject_at_room_exp = True

    @contextlib.asynccontextmanager
    async def deleting_on_failure(self, room: Room) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            if not room.is_fixed:
                async with self._helper() as (helper, _):
                    await _quietly(helper.delete_room_by_url(room.url))
            raise

    @contextlib.asynccontextmanager
    async def _helper(self, hidden: str = "") -> AsyncIterator[tuple[Any, Any]]:
        if self.api_key is None:
            raise NotSupported("Daily is not configured here: set DAILY_API_KEY.", field="transport")
        try:
            daily: Any = await asyncio.to_thread(importlib.import_module, "pipecat.transports.daily.utils")
            import aiohttp  # pipecat's own dependency
        except ImportError:
            raise NotSupported("Daily is not installed here: pip install pipecat-ai[daily].") from None
        timeout = aiohttp.ClientTimeout(total=DAILY_TIMEOUT_SECONDS)
        async with bounded_session(timeout=timeout) as session:
            helper = daily.DailyRESTHelper(
                daily_api_key=self.api_key, daily_api_url=self.api_url, aiohttp_session=session
            )
            try:
                yield helper, daily
            except (Malformed, NotSupported, asyncio.CancelledError):
                raise
            except TimeoutError:
                raise NotReached(f"Daily did not answer within {DAILY_TIMEOUT_SECONDS:g} s.") from None
            except Exception as error:
                # The helper raises plain exceptions that quote Daily's answer: the caller's own properties, no secret.
                text = str(error).replace(hidden, "...") if hidden else str(error)
                reason = logged(text) or type(error).__name__
                logger.warning(f"Daily: {reason}")
                raise NotReached(f"Daily made no room: {reason}") from None


def _checked(type_: type[Any], values: dict[str, Any], field: str) -> Any:
    try:
        return type_(**values)
    except (TypeError, ValueError) as error:
        fields = [".".join(map(str, e["loc"])) for e in getattr(error, "errors", list)()]
        raise Malformed(
            f"Not what Daily takes: {', '.join(fields) or ' '.join(str(error).split())}.", field=field
        ) from None


async def _quietly(step: Any) -> None:
    try:
        await step
    except Exception as error:
        logger.debug(f"Daily: a room was not deleted: {type(error).__name__}")
