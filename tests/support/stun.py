"""STUN and TURN servers on loopback, as RFC 8489 and RFC 8656 have them, as far as they are asked here."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from types import TracebackType
from typing import Any

from aioice import stun

REALM, NONCE = "test", b"n0nce"


class StunServer:
    """Answers on a UDP port of its own, after ``delay``; ``loses`` so many requests first, and remembers ``asked``.

    It answers only ``hosts``, unless these are None.
    """

    username, credential = "user", "s3cr3t-credential"

    def __init__(self, *, loses: int = 0, delay: float = 0, hosts: tuple[str, ...] | None = None) -> None:
        self.loses = loses
        self._delay = delay
        self._hosts = hosts
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.asked: list[stun.Method] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> StunServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, address = self._socket.recvfrom(2048)
            if not data:
                return
            request = stun.parse_message(data)
            self.asked.append(request.message_method)
            if len(self.asked) > self.loses and (self._hosts is None or address[0] in self._hosts):
                time.sleep(self._delay)
                self._socket.sendto(b"noise", address)  # whoever asks has to bear that
                self._socket.sendto(bytes(self._answer(request, address)), address)

    def _answer(self, request: stun.Message, address: Any) -> stun.Message:
        if request.message_method is stun.Method.BINDING:
            return _response(request, {"XOR-MAPPED-ADDRESS": address})
        key = hashlib.md5(f"{self.username}:{REALM}:{self.credential}".encode()).digest()
        if request.attributes.get("USERNAME") != self.username or not request.check_message_integrity(key):
            refusal = {"ERROR-CODE": (401, "Unauthorized"), "REALM": REALM, "NONCE": NONCE}
            return _response(request, refusal, stun.Class.ERROR)
        lifetime = {"LIFETIME": request.attributes["LIFETIME"]}
        addresses = {"XOR-RELAYED-ADDRESS": ("192.0.2.7", 50000), "XOR-MAPPED-ADDRESS": address}
        response = _response(request, lifetime | (addresses if request.message_method is stun.Method.ALLOCATE else {}))
        response.add_message_integrity(key)
        return response


def _response(
    request: stun.Message, attributes: dict[str, Any], kind: stun.Class = stun.Class.RESPONSE
) -> stun.Message:
    return stun.Message(request.message_method, kind, request.transaction_id, attributes)
