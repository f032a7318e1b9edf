"""For a launcher whose clock is to be set while it runs: by the seconds that the file ``CLOCK_STEP`` holds."""

import os
import time

_path = os.environ.get("CLOCK_STEP", "")
_time, _time_ns = time.time, time.time_ns


def _step() -> int:
    try:
        with open(_path) as file:
            return int(file.read() or 0)
    except OSError:
        return 0


if _path:
    time.time = lambda: _time() + _step()
    time.time_ns = lambda: _time_ns() + _step() * 10**9
