"""``pipecat-base call`` on a bad network: one RTP packet in five does not leave this process."""

from __future__ import annotations

import itertools
import sys
from typing import Any

from aiortc import RTCDtlsTransport
from aiortc.rtp import is_rtcp

from pipecat_base.cli.main import main

send = RTCDtlsTransport._send_rtp
number = itertools.count()


async def lose(self: RTCDtlsTransport, data: bytes) -> Any:
    if is_rtcp(data) or next(number) % 5:
        await send(self, data)


RTCDtlsTransport._send_rtp = lose
sys.exit(main())
