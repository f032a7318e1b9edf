"""What log lines must not show: a MoQ relay's URL, whose query holds a token."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

RELAY = "<relay URL>"
"""Stands for it, or for a piece of it."""
SHORTEST_VALUE = 8
"""Characters of a query's value from which on it counts as a secret; shorter ones are words that lines are full of."""
MAX_SESSIONS = 256
"""Sessions that are remembered: their last lines may come late."""


class Redaction:
    """Takes a session's hidden URL out of what is said of that session."""

    def __init__(self) -> None:
        self._pieces: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def hide(self, session_id: str, url: str) -> None:
        """From now on this URL is hidden, whole and in pieces, percent-encoded or not."""
        self._pieces[session_id] = tuple(sorted(set(_pieces(url)), key=len, reverse=True))
        self._pieces.move_to_end(session_id)
        if len(self._pieces) > MAX_SESSIONS:
            self._pieces.popitem(last=False)

    def __call__(self, session_id: str | None, text: str) -> str:
        """The text as it may be shown in this session's lines."""
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
    # A "+" that is itself and not a space.
    values += [unquote(pair.partition("=")[2]) for pair in parts.query.split("&")]
    values += credentials
    secrets = [value for value in values if len(value) >= SHORTEST_VALUE]
    secrets += [part for part in (parts.query, parts.fragment) if len(part) >= SHORTEST_VALUE]
    for secret in (url, *secrets):
        yield from {secret, unquote(secret), quote(secret), quote(secret, safe=""), quote_plus(secret)}
