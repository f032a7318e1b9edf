"""Transports on their way to a worker."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from pipecat_base.sessions.transports import (
    KINDS,
    DailyRoom,
    LiveKitRoom,
    MoqRelay,
    MoqServer,
    NoTransport,
    PendingWebRTC,
    Transport,
    WebSocketTransport,
    WhatsAppCall,
    as_dict,
    from_dict,
)

TRANSPORTS = [
    NoTransport(),
    DailyRoom("https://a.daily.co/b", "t"),
    DailyRoom("https://a.daily.co/b", None),
    LiveKitRoom("wss://a", "room", "t"),
    PendingWebRTC(),
    MoqRelay("https://a/?jwt=t", "n"),
    WhatsAppCall({"sdp": "ü", "type": "offer"}, {"id": "1", "from": None}),
]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_transport_arrives_as_it_was_sent(transport: Any) -> None:
    again = from_dict(json.loads(json.dumps(as_dict(transport))))
    assert again == transport
    assert again.kind is transport.kind


def test_a_callback_is_not_sent_and_is_given_to_it_on_arrival() -> None:
    server = MoqServer("n", 4080, print)
    sent = json.loads(json.dumps(as_dict(server)))
    assert "on_serving" not in sent
    assert from_dict(sent, on_serving=print) == server


def test_every_kind_of_transport_can_be_sent_but_a_live_socket() -> None:
    assert {type(transport) for transport in TRANSPORTS} | {MoqServer} == set(KINDS)
    assert set(get_args(Transport)) - set(KINDS) == {WebSocketTransport}
