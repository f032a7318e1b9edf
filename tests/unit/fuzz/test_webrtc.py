"""Offers, candidates and lists of ICE servers: read whole, or refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from aiortc.rtcicetransport import parse_stun_turn_uri
from hypothesis import given
from hypothesis import strategies as st

from pipecat_base.bot.webrtc import ice, offers, sdp
from pipecat_base.errors import Malformed
from tests.process.e2e.test_webrtc import MUTATIONS
from tests.support.hypothesis_values import ANY_TEXT, JSON, fuzz, grows_no_faster_than_its_input, objects
from tests.support.offers import SDP

pytestmark = pytest.mark.slow

ATTRIBUTES = ("rtpmap", "fmtp", "candidate", "fingerprint", "setup", "mid", "group", "ssrc", "extmap", "sctp-port")
LINES = SDP.split("\r\n")
BROKEN = st.builds(
    lambda at, name, value: "\r\n".join([*LINES[:at], f"a={name}:{value}", *LINES[at:]]),
    st.integers(0, len(LINES)),
    st.sampled_from(ATTRIBUTES),
    ANY_TEXT | st.integers().map(str),
)


@fuzz
@given(
    JSON
    | objects(
        sdp=MUTATIONS | BROKEN | st.just(SDP),
        type=st.just("offer"),
        pc_id=ANY_TEXT,
        restart_pc=st.booleans(),
        request_data=JSON,
    )
)
def test_an_offer_is_read_or_refused_with_its_field(content: Any) -> None:
    try:
        offer = offers.parse_offer(content)
    except Malformed as refusal:
        assert refusal.field in ("body", "sdp", "type", "pc_id", "restart_pc")
        assert len(refusal.message) < 300
    else:
        assert offer.sdp == content["sdp"]
        assert len(offer.sdp) <= sdp.MAX_SDP_CHARACTERS
        assert offer.sdp.count("\nm=") <= sdp.MAX_LINES["m="]


CANDIDATE = st.builds(
    lambda parts: "candidate:" + " ".join(parts),
    st.lists(
        st.sampled_from(["1", "udp", "tcp", "2130706431", "192.0.2.1", "::1", "x.local", "typ", "host", "raddr", "-1"])
        | ANY_TEXT,
        max_size=12,
    ),
)


@fuzz
@given(
    objects(
        pc_id=ANY_TEXT,
        candidates=st.lists(
            objects(candidate=CANDIDATE, sdp_mid=ANY_TEXT, sdp_mline_index=st.integers()) | JSON, max_size=3
        ),
    )
)
def test_candidates_are_read_or_refused_with_their_field(content: Any) -> None:
    try:
        trickle = offers.parse_trickle(content)
    except Malformed as refusal:
        assert refusal.field is not None
        assert refusal.field.startswith(("body", "pc_id", "candidates"))
    else:
        assert trickle.pc_id == content["pc_id"]
        assert len(trickle.candidates) <= len(content["candidates"]) <= sdp.MAX_CANDIDATES


@pytest.mark.parametrize(
    "line",
    ["a=candidate:N 1 udp 1 192.0.2.1 N typ host", "a=rtpmap:N opus/48000/2", "a=ssrc:N cname:x", "a=fmtp:N a=1;b=2"],
)
def test_an_offer_takes_no_longer_than_it_is_long(line: str) -> None:
    def parse(count: int) -> None:
        with contextlib.suppress(Malformed):
            offers.parse_offer(
                {"sdp": SDP + "".join(f"{line.replace('N', str(n))}\r\n" for n in range(count)), "type": "offer"}
            )

    assert grows_no_faster_than_its_input(parse, 10)


URLS = st.builds(
    lambda scheme, host, rest: f"{scheme}{host}{rest}",
    st.sampled_from(["stun:", "turn:", "turns:", "STUN:", "http:", "", "stun"]),
    st.sampled_from(["a.example", "192.0.2.1", "[::1]", ""]) | ANY_TEXT,
    st.sampled_from(["", ":3478", ":x", ":99999999", "?transport=tcp", "?transport=udp"]) | ANY_TEXT,
)
SERVERS = objects(urls=URLS | st.lists(URLS, max_size=3), username=ANY_TEXT, credential=ANY_TEXT)


@fuzz
@given(st.lists(SERVERS | URLS | JSON, max_size=4))
def test_ice_servers_are_those_that_aiortc_takes_the_quickest_first(entries: list[Any]) -> None:
    servers = ice.parse(entries)
    for server in servers:
        parse_stun_turn_uri(server.urls)
        assert server.username is None or isinstance(server.username, str)
    ranks = [ice._rank(server.urls) for server in servers]
    assert ranks == sorted(ranks)


@fuzz
@given(ANY_TEXT | st.lists(URLS, max_size=3).map(",".join) | st.text('[]{}",:1a ', max_size=20))
def test_any_setting_gives_a_list_of_ice_servers(value: str) -> None:
    for server in ice._configured(value):
        parse_stun_turn_uri(server.urls)


@fuzz
@given(JSON | objects(iceConfig=objects(iceServers=st.lists(SERVERS, max_size=2))))
def test_an_answer_with_ice_servers_is_a_list_or_a_value_error(content: Any) -> None:
    try:
        listed = ice._listed(content)
    except ValueError:
        return
    assert listed is content["iceConfig"]["iceServers"]


@pytest.mark.parametrize("make", [lambda n: "stun:" + "a" * n, lambda n: "turn:" + ":" * n, lambda n: "stun:[" * n])
def test_an_ice_url_takes_no_longer_than_it_is_long(make: Callable[[int], str]) -> None:
    assert grows_no_faster_than_its_input(lambda size: ice.parse([make(size)]), 2000)
