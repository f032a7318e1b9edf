"""URLs under which callers reach the gateway."""

from __future__ import annotations

from starlette.requests import HTTPConnection


class Addresses:
    """URLs from the configured one, or else from the request and the headers of a tunnel or proxy."""

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
        return self.http(connection).replace("http", "ws", 1)

    def secure_websocket(self, connection: HTTPConnection) -> str:
        """Phone providers accept no other scheme."""
        return f"wss://{self.http(connection).partition('://')[2]}"


def _first(value: str | None) -> str:
    # Each proxy on the way appends one; the caller used the first.
    return "" if value is None else value.split(",")[0].strip()
