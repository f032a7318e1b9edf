"""Reads and checks offers and ICE candidates that clients send to ``/api/offer``.

The fields are those of pipecat's clients: ``{sdp, type, pc_id?, restart_pc?, request_data? or requestData?}`` and
``{pc_id, candidates: [{candidate, sdp_mid, sdp_mline_index}]}``, where a candidate may also be as browsers write it:
``{candidate, sdpMid, sdpMLineIndex}``, or null. Others are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiortc.rtcicetransport import RTCIceCandidate
from aiortc.sdp import SessionDescription, candidate_from_sdp

from pipecat_base.bot.webrtc.sdp import MAX_CANDIDATES, check_size
from pipecat_base.errors import Malformed
from pipecat_base.logs.logger import logger


@dataclass(frozen=True)
class Offer:
    """A client's offer, its SDP valid and with media."""

    sdp: str
    pc_id: str | None
    restart: bool
    data: Any  # the client's request_data, or None


@dataclass(frozen=True)
class Trickle:
    """ICE candidates that arrive after the offer; None among them is the end of candidates."""

    pc_id: str
    candidates: list[RTCIceCandidate | None]


def parse_offer(content: Any) -> Offer:
    """Read an offer, or raise Malformed: clients repeat an offer that got a 5xx, and drop one that got a 4xx."""
    fields = _object(content)
    sdp = _string(fields, "sdp")
    kind = _string(fields, "type")
    if kind != "offer":
        raise Malformed('Not "offer".', field="type")
    _check_sdp(sdp)
    pc_id = fields.get("pc_id")
    if pc_id is not None and not isinstance(pc_id, str):
        raise Malformed("Not a string.", field="pc_id")
    restart = fields.get("restart_pc")
    if restart is not None and not isinstance(restart, bool):
        raise Malformed("Not true or false.", field="restart_pc")
    data = fields["request_data"] if "request_data" in fields else fields.get("requestData")
    return Offer(sdp=sdp, pc_id=pc_id or None, restart=bool(restart), data=data)


def parse_trickle(content: Any) -> Trickle:
    fields = _object(content)
    pc_id = _string(fields, "pc_id")
    listed = fields.get("candidates")
    if not isinstance(listed, list):
        raise Malformed("Not an array.", field="candidates")
    if len(listed) > MAX_CANDIDATES:
        raise Malformed(f"More than {MAX_CANDIDATES}.", field="candidates")
    return Trickle(pc_id, _candidates(listed))


def _candidates(listed: list[Any]) -> list[RTCIceCandidate | None]:
    """The usable ones; raises Malformed if there is none among them."""
    candidates: list[RTCIceCandidate | None] = []
    problems: list[Malformed] = []
    for number, entry in enumerate(listed):
        try:
            candidates.append(_candidate(entry, f"candidates[{number}]"))
        except Malformed as refusal:
            problems.append(refusal)
    if problems and not candidates:
        raise problems[0]
    for problem in problems:
        logger.debug(f"An ICE candidate was ignored: {problem.field}: {problem.message}")
    return candidates


def _check_sdp(sdp: str) -> None:
    check_size(sdp)
    try:
        sdp.encode()  # JSON can hold half a surrogate pair
        description = SessionDescription.parse(sdp)
    except Exception as error:
        raise Malformed(f"Not SDP: {type(error).__name__}.", field="sdp") from None
    if not description.media:
        raise Malformed("This SDP offers no media.", field="sdp")
    for media in description.media:
        if not media.ice.usernameFragment or not media.ice.password:
            raise Malformed(f"The {media.kind} section has no ICE credentials.", field="sdp")
        if media.dtls is None or not media.dtls.fingerprints:
            raise Malformed(f"The {media.kind} section has no DTLS fingerprint.", field="sdp")


def _candidate(entry: Any, field: str) -> RTCIceCandidate | None:
    if entry is None:
        return None  # the end, as in a browser's event
    if not isinstance(entry, dict):
        raise Malformed("Not an object.", field=field)
    mid, index = entry.get("sdp_mid", entry.get("sdpMid")), entry.get("sdp_mline_index", entry.get("sdpMLineIndex"))
    text = entry.get("candidate")
    if text is None and "candidate" in entry:
        return None
    if not isinstance(text, str):
        raise Malformed("Not a string.", field=f"{field}.candidate")
    if not text:
        return None  # RFC 8840: the end of candidates
    if mid is not None and not isinstance(mid, str):
        raise Malformed("Not a string.", field=f"{field}.sdp_mid")
    if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
        raise Malformed("Not a number.", field=f"{field}.sdp_mline_index")
    if mid is None and index is None:
        raise Malformed("Neither sdp_mid nor sdp_mline_index.", field=field)
    try:
        candidate = candidate_from_sdp(text.removeprefix("a=").removeprefix("candidate:"))
    except Exception:
        raise Malformed("Not an ICE candidate.", field=f"{field}.candidate") from None
    candidate.sdpMid, candidate.sdpMLineIndex = mid, index
    return candidate


def _object(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise Malformed("Not an object.", field="body")
    return content


def _string(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Malformed("Missing." if value is None else "Not a string with text.", field=name)
    return value
