"""What ``benchmarks/README.md`` says of each figure: what it is, and how it was measured."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.figures import MAX_GAP

OPENING = """# Benchmarks

The launcher against a floor: what anyone would write by hand, a bare FastAPI app on uvicorn with the same bot
([floor.py](floor.py), and [floor_calls.py](floor_calls.py) for calls). Goals are ratios and differences between the
two in the same run, because absolute numbers change with the machine.

`make bench-report` measures everything again and writes this page, [results.json](results.json) and the plots.
`python -m benchmarks.report --from benchmarks/results.json` makes the page and the plots again without measuring.

`make bench-isolation` compares calls in one process, in a process each and eight in a process: the CPU time of a call
that goes on, apart from what it takes to begin and to end, first lines, ready times and memory, each beside its goal.
It takes six minutes. `make bench-isolation BENCH="--parts cpu --bots echo --calls 8"` measures a part of it.
"""
QUICK = """> **A quick run.** It shows that the benchmarks work. Do not judge its figures.
"""
METHOD = """Everything runs on one machine, the callers too. Floor and launcher take turns, because a machine's speed
drifts. The first round fills caches and does not count. Figures are medians of the rest; the thin line on a bar runs
from the lower to the upper quartile. A dashed line marks a goal. First lines, calls and the memory that stays are
measured for one mode after the other, once.
"""


@dataclass(frozen=True)
class Section:
    """A heading, what was measured and how, and the plots below it."""

    title: str
    text: str
    plots: tuple[str, ...]


SECTIONS = (
    Section(
        "Start",
        """
From `exec` to the first 200 of `/readyz`, asked every 20 ms. The trivial bot imports nothing. The realistic one
imports a pipeline, Silero, a language model's service and a transport.""",
        ("start",),
    ),
    Section("Memory", "\nResident memory (RSS) of the process when `/readyz` first says 200.", ("memory",)),
    Section(
        "Dispatch",
        """
`POST /bot` over a connection that stays open, there and back, to a bot that returns at once. Each round is the
median of 200 requests.""",
        ("dispatch",),
    ),
    Section(
        "Frames",
        """
20 ms of audio at 16 kHz (640 bytes), sent to `/ws` and sent back by the bot, 3,000 of them in a round, 50 under way
at a time.""",
        ("frames",),
    ),
    Section(
        "WebRTC",
        """
A caller sends an offer to the echo bot and listens. The floor is pipecat's own request handler in a bare FastAPI app.
The first audio may be silence; the echoed tone is the caller's own. A service of ICE servers that is down must not
delay calls: the second plot compares a launcher that has such a service with one that has none.""",
        ("webrtc", "ice"),
    ),
    Section(
        "First line",
        """
From sending `POST /bot` to the first line of `bot()`. Requests are 0.8 s apart, so that a process waits for each. The
floor is the launcher with all calls in one process.""",
        ("first-line",),
    ),
    Section(
        "Start with a process for each call",
        """
The realistic bot, from `exec` to the first 200 of `/readyz`, with `PIPECAT_ISOLATION=process` against all calls in
one process.""",
        ("start-processes",),
    ),
    Section(
        "Calls per machine",
        f"""
Phone calls to the echo bot, in real time, ever more at once until frames are lost or late: until the 99th percentile
of a call's gaps between frames is above {MAX_GAP * 1000:.0f} ms. The callers use the same cores. One process can use
one core, a process for each call can use all of them. So what the machine could carry is counted by CPU time, at the
most calls that both modes carried.""",
        ("calls", "cores", "gaps"),
    ),
    Section(
        "Memory over calls",
        """
A bot with Silero that hears, thinks and speaks takes one phone call after the other. The first value is from when it
was ready. `PCC_RELEASE_SESSION_MEMORY` gives memory back after each call.""",
        ("held",),
    ),
)
