"""A socket that counts what reaches it, by the address that it was sent to, and offers that name such addresses."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from tests.support.offers import SDP

IP_PKTINFO = 8
"""Linux's; Python has no name for it."""
LOOPBACK = [f"127.0.0.{number}" for number in range(2, 92)]
"""Addresses of this machine that nobody listens on."""


class Receiver:
    """Takes UDP packets on one port of all addresses of this machine, and answers none."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self.socket.bind(("0.0.0.0", 0))
        self.port = int(self.socket.getsockname()[1])
        self._received: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._receive, daemon=True)

    @property
    def packets(self) -> int:
        return sum(self._received.values())

    @property
    def addresses(self) -> set[str]:
        return set(self._received)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(10)
        self.socket.close()

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, ancillary, _, _ = self.socket.recvmsg(2048, 256)
                if not data:
                    return
                _, _, destination = struct.unpack("I4s4s", ancillary[0][2])
                self._received[socket.inet_ntoa(destination)] += 1


def candidate(address: str, port: int, *, priority: int = 2130706431, protocol: str = "udp") -> str:
    """As PATCH has it; after ``a=``, as an SDP has it."""
    return f"candidate:1 1 {protocol} {priority} {address} {port} typ host"


def offer_of(candidates: Sequence[str]) -> str:
    """The good offer with these candidates in place of its own; of bundled sections aiortc takes the last one's."""
    lines = [line for line in SDP.split("\r\n") if not line.startswith("a=candidate:")]
    end = max(n for n, line in enumerate(lines) if line == "a=end-of-candidates")
    return "\r\n".join([*lines[:end], *(f"a={text}" for text in candidates), *lines[end:]])
