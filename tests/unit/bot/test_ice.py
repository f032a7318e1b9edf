"""Where ICE servers come from, with a clock and a fetch of the test's own."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from pipecat_base.bot.webrtc import ice
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.transports import PUBLIC_STUN


def urls(servers: list[Any]) -> list[str]:
    return [server.urls for server in servers]


def config(*servers: Any) -> dict[str, Any]:
    return {"iceConfig": {"iceServers": list(servers)}}


class Source:
    """An ICE_CONFIG_URL that answers what it is told to, or raises it."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls = 0

    async def __call__(self, url: str) -> Any:
        self.calls += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == "hang":
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("stun:a:1, turn:b:2", ["stun:a:1", "turn:b:2"]),
        ("[]", []),
        ('{"urls": "stun:a:1"}', ["stun:a:1"]),
        ('[{"urls": ["turn:b?transport=tcp", "turns:c", "turn:b?transport=udp"], "username": "u", "credential": "c"}]',
         ["turn:b?transport=udp", "turn:b?transport=tcp", "turns:c"]),
        ('["stun:a:1", {"urls": "http://x"}, {}, 5, {"urls": null}]', ["stun:a:1"]),
        ("STUN:a:1, stun:, stun:a:1?transport=udp, turn:b:notaport, TURNS:c", ["stun:a:1", "turns:c"]),
        ("{broken", []),
    ],
)  # fmt: skip
def test_the_variable_in_every_form(value: str, expected: list[str]) -> None:
    async def main() -> list[Any]:
        return list(await ice.IceServers(value, None).get())

    assert urls(asyncio.run(main())) == expected


def test_credentials_go_with_their_urls() -> None:
    value = json.dumps([{"urls": ["turn:a", "turn:b"], "username": "u", "credential": "c"}])
    servers = asyncio.run(ice.IceServers(value, None).get())
    assert [(server.username, server.credential) for server in servers] == [("u", "c"), ("u", "c")]


def test_without_any_setting_there_is_a_public_stun_server() -> None:
    assert urls(asyncio.run(ice.IceServers(None, None).get())) == [PUBLIC_STUN]


def test_the_url_is_asked_once_in_its_answers_lifetime() -> None:
    now = 1000.0
    source = Source(config({"urls": "stun:one"}), config({"urls": "stun:two"}))

    async def main() -> None:
        nonlocal now
        servers = ice.IceServers(None, "http://config", fetch=source, clock=lambda: now)
        for _ in range(5):
            assert urls(await servers.get()) == ["stun:one"]
            await asyncio.sleep(0)  # what was begun in the background asks now
        assert source.calls == 1
        now += ice.REFRESH_SECONDS + 1
        # The old answer serves while the new one is fetched.
        assert urls(await servers.get()) == ["stun:one"]
        await asyncio.sleep(0.01)
        assert urls(await servers.get()) == ["stun:two"]
        assert source.calls == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    "failure", [OSError("refused"), ValueError("not JSON"), {}, [], config(), config({"urls": "x:y"}), "hang"]
)
def test_while_the_url_fails_the_last_good_answer_serves_with_one_warning(failure: Any) -> None:
    now = 1000.0
    source = Source(config({"urls": "stun:good"}), failure)
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), format="{level} {message}", level="INFO")

    async def main() -> None:
        nonlocal now
        servers = ice.IceServers(None, "http://config", fetch=source, clock=lambda: now)
        await servers.get()
        for _ in range(4):
            now += ice.REFRESH_SECONDS + ice.RETRY_SECONDS
            began = time.monotonic()
            assert urls(await servers.get()) == ["stun:good"]
            assert time.monotonic() - began < 0.5
            await asyncio.sleep(0.01)
        servers.close()

    try:
        asyncio.run(main())
    finally:
        logger.remove(sink)
    warnings = [line for line in lines if "ICE_CONFIG_URL" in line]
    assert len(warnings) == (0 if failure == "hang" else 1)


def test_a_url_may_hold_a_key_that_no_line_shows() -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="DEBUG")

    async def fails(url: str) -> Any:
        raise OSError(f"cannot connect to {url}")

    async def main() -> None:
        await ice.IceServers(None, "http://127.0.0.1:9/ice?key=s3cr3t", fetch=fails).get()
        await asyncio.sleep(0.01)

    try:
        asyncio.run(main())
    finally:
        logger.remove(sink)
    (line,) = [line for line in lines if "did not give ICE servers" in line]
    assert "cannot connect to the URL" in line
    assert "s3cr3t" not in "".join(lines)


def test_a_url_that_fails_is_asked_again_only_after_a_pause() -> None:
    now = 1000.0
    source = Source(OSError("down"))

    async def asked_in_five_offers(servers: ice.IceServers) -> int:
        before = source.calls
        for _ in range(5):
            await servers.get()
            await asyncio.sleep(0)  # what was begun in the background asks now
        return source.calls - before

    async def main() -> None:
        nonlocal now
        servers = ice.IceServers(None, "http://config", fetch=source, clock=lambda: now)
        assert await asked_in_five_offers(servers) == 1
        now += ice.RETRY_SECONDS - 0.1
        assert await asked_in_five_offers(servers) == 0
        now += 0.2
        assert await asked_in_five_offers(servers) == 1

    asyncio.run(main())


def test_only_the_first_offer_waits_for_a_url_that_hangs() -> None:
    async def main() -> list[float]:
        servers = ice.IceServers(None, "http://config", fetch=Source("hang"), timeout=0.2)
        waits = []
        for _ in range(3):
            began = time.monotonic()
            assert urls(await servers.get()) == [PUBLIC_STUN]
            waits.append(time.monotonic() - began)
        servers.close()
        return waits

    first, second, third = asyncio.run(main())
    assert 0.15 < first < 1
    assert max(second, third) < 0.05


def test_a_url_that_recovers_is_used_again() -> None:
    now = 1000.0
    source = Source(OSError("down"), config({"urls": "stun:back"}))

    async def main() -> None:
        nonlocal now
        servers = ice.IceServers(None, "http://config", fetch=source, clock=lambda: now)
        assert urls(await servers.get()) == [PUBLIC_STUN]
        now += ice.RETRY_SECONDS
        await servers.get()
        await asyncio.sleep(0.01)
        assert urls(await servers.get()) == ["stun:back"]

    asyncio.run(main())


def test_a_default_that_is_slow_still_serves_the_first_call() -> None:
    async def slow(url: str) -> Any:
        await asyncio.sleep(0.4)
        return config({"urls": "turn:a:1"})

    async def main() -> list[Any]:
        return list(await ice.IceServers(None, None, default_url="http://default", fetch=slow).get())

    assert urls(asyncio.run(main())) == ["turn:a:1"]


def test_a_default_that_answers_is_used_and_one_that_does_not_is_no_warning() -> None:
    async def main(source: Source) -> list[Any]:
        servers = ice.IceServers(None, None, default_url="http://default", fetch=source)
        return list(await servers.get())

    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["level"].name), level="DEBUG")
    assert urls(asyncio.run(main(Source(config({"urls": "stun:a:1"}))))) == ["stun:a:1"]
    assert urls(asyncio.run(main(Source(OSError("refused"))))) == [PUBLIC_STUN]
    logger.remove(sink)
    assert said == ["DEBUG"]
