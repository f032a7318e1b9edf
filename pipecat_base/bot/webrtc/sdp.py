"""Bounds of an SDP, checked before aiortc reads it."""

from __future__ import annotations

from pipecat_base.errors import Malformed

# A browser's offer has some 10,000 characters and 200 lines. aiortc blocks every other call while it reads one, and
# compares each codec with all feedback lines.
MAX_SDP_CHARACTERS = 64 * 1024
MAX_CANDIDATES = 100  # of a peer, in its last offer and since then
CANDIDATE_LINE = "a=candidate:"
MAX_LINES = {
    "": 1500,
    "m=": 32,
    CANDIDATE_LINE: MAX_CANDIDATES,
    "a=rtpmap:": 128,
    "a=rtcp-fb:": 256,
    "a=fmtp:": 256,
}


def check_size(sdp: str) -> None:
    if len(sdp) > MAX_SDP_CHARACTERS:
        raise Malformed(f"More than {MAX_SDP_CHARACTERS // 1024} KB.", field="sdp")
    lines = sdp.splitlines()  # as aiortc does: not only line feeds end a line
    for beginning, limit in MAX_LINES.items():
        if sum(line.startswith(beginning) for line in lines) > limit:
            raise Malformed(f"More than {limit} lines{f' of {beginning}' if beginning else ''}.", field="sdp")


def count_candidates(sdp: str) -> int:
    return sum(line.startswith(CANDIDATE_LINE) for line in sdp.splitlines())
