"""ICE candidates that come after the offer, as clients write them."""

from __future__ import annotations

from typing import Any

import pytest

from pipecat_base.bot.webrtc.offers import parse_trickle
from pipecat_base.errors import Malformed

TEXT = "candidate:1 1 udp 2122252543 192.0.2.1 50000 typ host generation 0 ufrag abcd network-id 1"


def parsed(*entries: Any) -> list[tuple[str | None, int | None] | None]:
    """The ``sdpMid`` and ``sdpMLineIndex`` of each."""
    found = parse_trickle({"pc_id": "x", "candidates": list(entries)}).candidates
    return [None if candidate is None else (candidate.sdpMid, candidate.sdpMLineIndex) for candidate in found]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"candidate": TEXT, "sdp_mid": "0", "sdp_mline_index": 0}, ("0", 0)),
        ({"candidate": TEXT, "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": "abcd"}, ("0", 0)),
        ({"candidate": TEXT, "sdpMid": "audio"}, ("audio", None)),
        ({"candidate": TEXT, "sdpMid": None, "sdpMLineIndex": 1}, (None, 1)),
        ({"candidate": f"a={TEXT}", "sdpMid": "0"}, ("0", None)),
        (None, None),
        ({"candidate": None}, None),
        ({"candidate": "", "sdpMid": "0"}, None),
    ],
)
def test_every_way_of_writing_a_candidate(entry: Any, expected: Any) -> None:
    assert parsed(entry) == [expected]


BAD = [5, "x", {}, {"candidate": TEXT}, {"candidate": "candidate:x", "sdpMid": "0"}, {"candidate": TEXT, "sdpMid": 0}]


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_candidate_is_ignored_beside_a_good_one_and_refused_alone(bad: Any) -> None:
    good = {"candidate": TEXT, "sdpMid": "0"}
    assert parsed(bad, good, None) == [("0", None), None]
    with pytest.raises(Malformed) as refusal:
        parsed(bad)
    assert str(refusal.value.field).startswith("candidates[0]")
