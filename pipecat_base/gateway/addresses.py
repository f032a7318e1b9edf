"""How callers reach the gateway, as far as it can know."""

from __future__ import annotations

from starlette.requests import HTTPConnection


class Addresses:
    """Says under which address a request has come.

    Args:
        public_url: What is configured; None takes it from the request: a tunnel or proxy tells in its headers.
    """

    def __init__(self, public_url: str | None) -> None:
        self._public_url = None if public_url is None else public_url.rstrip("/")

    def http(self, connection: HTTPConnection) -> str:
        """``https://host[:port]``, without a path."""
        if self._public_url is not None:
            return self._public_url
        headers = connection.headers
        host = _first(headers.get("x-forwarded-host")) or headers.get("host") or "localhost"
        scheme = _first(headers.get("x-forwarded-proto")) or connection.url.scheme
        return f"{'https' if scheme in ('https', 'wss') else 'http'}://{host}"

    def websocket(self, connection: HTTPConnection) -> str:
        """``ws://`` or ``wss://host[:port]``, without a path."""
        return self.http(connection).replace("http", "ws", 1)

    def secure_websocket(self, connection: HTTPConnection) -> str:
        """``wss://host[:port]``, without a path: phone providers take no other."""
        return f"wss://{self.http(connection).partition('://')[2]}"


def _first(value: str | None) -> str:
    """Each proxy on the way adds one; the first is what the caller used."""
    return "" if value is None else value.split(",")[0].strip()
