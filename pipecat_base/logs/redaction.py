"""Redaction of MoQ relay URLs, whose query holds a token."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

RELAY = "<relay URL>"
SHORTEST_SECRET = 8  # in characters: shorter values of a query are common words
MAX_SESSIONS = 256  # ended ones too, as their last lines may arrive late


class Redaction:
    def __init__(self) -> None:
        self._pieces: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def hide(self, session_id: str, url: str) -> None:
        """Hide this URL in the session's lines: whole and in pieces, percent-encoded or not."""
        self._pieces[session_id] = tuple(sorted(set(_pieces(url)), key=len, reverse=True))
        self._pieces.move_to_end(session_id)
        if len(self._pieces) > MAX_SESSIONS:
            self._pieces.popitem(last=False)

    def __call__(self, session_id: str | None, text: str) -> str:
        for piece in self._pieces.get(session_id or "", ()):
            text = text.replace(piece, RELAY)
        return text


def _pieces(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        credentials = [parts.username or "", parts.password or ""]
    except ValueError:
        yield url
        return
    values = [value for _, value in parse_qsl(parts.query)]
    # parse_qsl reads "+" as a space; here it is a plus.
    values += [unquote(pair.partition("=")[2]) for pair in parts.query.split("&")]
    values += credentials
    secrets = [value for value in values if len(value) >= SHORTEST_SECRET]
    secrets += [part for part in (parts.query, parts.fragment) if len(part) >= SHORTEST_SECRET]
    for secret in (url, *secrets):
        yield from {secret, unquote(secret), quote(secret), quote(secret, safe=""), quote_plus(secret)}
