"""Arguments for the pipecat of this environment, and for none. Other versions: tests/compat/versions."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from pipecat_base.bot import arguments
from pipecat_base.bot.arguments import ArgumentFactory


@pytest.fixture
def without_pipecat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in [name for name in sys.modules if name.split(".")[0] in ("pipecat", "pipecatcloud")]:
        monkeypatch.delitem(sys.modules, name)


async def build(factory: ArgumentFactory) -> dict[str, Any]:
    body, socket = {"a": 1}, {"websocket": object()}
    return {
        "plain": await factory.build("plain", "s", body, flow_config="a flow"),
        "daily": await factory.build("daily", "s", body, {"room_url": "https://room", "token": None}),
        "websocket": await factory.build("websocket", "s", body, socket, transport_type=None),
        "client": await factory.build("websocket", "s", body, socket, transport_type="websocket"),
        "webrtc": await factory.build("webrtc", "s", body, {"webrtc_connection": "connection"}),
    }


def check(built: dict[str, Any]) -> None:
    for args in built.values():
        assert (args.session_id, args.body, args.file_storage) == ("s", {"a": 1}, "storage")
        assert args.handle_sigint is args.handle_sigterm is False
    assert built["plain"].flow_config == "a flow"
    assert [built[name].flow_config for name in ("daily", "websocket", "client", "webrtc")] == [None] * 4
    assert (built["daily"].room_url, built["daily"].token) == ("https://room", None)
    assert built["websocket"].transport_type is None
    assert built["client"].transport_type == "websocket"
    assert built["webrtc"].webrtc_connection == "connection"


def factory() -> ArgumentFactory:
    made = ArgumentFactory(wants_cloud=False)
    made.file_storage = "storage"
    return made


def test_with_pipecat_they_are_its_own_types() -> None:
    from pipecat.runner import types

    built = asyncio.run(build(factory()))
    check(built)
    assert isinstance(built["plain"], types.RunnerArguments)
    assert isinstance(built["daily"], types.DailyRunnerArguments)
    assert isinstance(built["client"], types.WebSocketRunnerArguments)
    assert isinstance(built["webrtc"], types.SmallWebRTCRunnerArguments)


@pytest.mark.usefixtures("without_pipecat")
def test_without_pipecat_they_have_the_same_names_and_fields() -> None:
    built = asyncio.run(build(factory()))
    check(built)
    assert type(built["plain"]) is arguments.RunnerArguments
    assert type(built["daily"]) is arguments.DailyRunnerArguments
    assert built["plain"].pipeline_idle_timeout_secs == 300


def test_a_relays_url_is_in_no_repr_whatever_pipecat_does() -> None:
    @dataclass
    class MOQRunnerArguments:
        relay_url: str
        namespace: str
        body: object = None

    types = arguments.types_from_runner(SimpleNamespace(MOQRunnerArguments=MOQRunnerArguments))
    moq = types.classes["moq"]
    assert moq is not None
    made = moq("https://relay?jwt=s3cr3t", "n")
    assert isinstance(made, MOQRunnerArguments)
    assert repr(made) == "MOQRunnerArguments(namespace='n', body=None)"
