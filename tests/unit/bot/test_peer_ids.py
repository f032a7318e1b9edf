"""The id by which a client names its connection."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipecat_base.bot.webrtc.connections import PeerConnection


def peer_of(pc_id: str) -> PeerConnection:
    connection = cast(Any, SimpleNamespace(pc_id=pc_id))
    return PeerConnection(connection, cast(Any, None), connect_timeout=1, disconnect_timeout=1)


def test_processes_that_name_connections_alike_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """pipecat 0.0.91 names them by a number that each process counts for itself."""
    found = []
    for process in (1, 2):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        found.append(peer_of("SmallWebRTCConnection#0").pc_id)
    assert found == ["SmallWebRTCConnection#0-1", "SmallWebRTCConnection#0-2"]


def test_an_id_that_is_unique_already_stays_as_it_is() -> None:
    pc_id = "SmallWebRTCConnection#0-5f0c6f9e"
    assert peer_of(pc_id).pc_id == pc_id
