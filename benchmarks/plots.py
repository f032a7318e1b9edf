"""The plots of a run, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.figures import MAX_GAP, Load, Results
from benchmarks.svg import FLOOR, LAUNCHER, OTHER, Line, bars, lines

AGAINST_FLOOR = ("floor: bare FastAPI app", "launcher")
AGAINST_ONE = ("floor: one process", "a process for each call")
AGAINST_NO_ICE = ("floor: no ICE_CONFIG_URL", "one that does not work")
CONTENDERS = (
    ("floor of calls", "floor: bare FastAPI app", FLOOR),
    ("one process", "one process", LAUNCHER),
    ("processes", "a process for each call", OTHER),
)
HELD = (("without the release", "without the release of memory", FLOOR), ("with the release", "with it", LAUNCHER))


@dataclass(frozen=True)
class Bars:
    """A plot of figures beside their floors; its rows are labels and the names of figures."""

    title: str
    subtitle: str
    names: tuple[str, str]
    rows: tuple[tuple[str, str], ...]

    def drawn(self, results: Results) -> str:
        figures = results.named(*(name for _, name in self.rows))
        labels = [label for label, _ in self.rows]
        return bars(self.title, self.subtitle, self.names, list(zip(labels, figures, strict=True)))


BARS = {
    "start": Bars(
        "Start",
        "from exec to the first 200 of /readyz; lower is better",
        AGAINST_FLOOR,
        (("trivial bot", "start-trivial"), ("realistic bot", "start-realistic")),
    ),
    "memory": Bars(
        "Memory",
        "resident when ready; lower is better",
        AGAINST_FLOOR,
        (("trivial bot", "memory-trivial"), ("realistic bot", "memory-realistic")),
    ),
    "dispatch": Bars(
        "Dispatch",
        "POST /bot there and back, a bot that returns at once; lower is better",
        AGAINST_FLOOR,
        (("POST /bot", "dispatch"),),
    ),
    "frames": Bars(
        "Frames",
        "20 ms of audio echoed over one WebSocket, 50 under way; higher is better",
        AGAINST_FLOOR,
        (("/ws echo", "frames"),),
    ),
    "webrtc": Bars(
        "WebRTC",
        "from sending the offer, the echo bot of examples/echo; lower is better",
        AGAINST_FLOOR,
        (("answer", "webrtc-answer"), ("first audio", "webrtc-first-audio"), ("echoed tone", "webrtc-echoed-tone")),
    ),
    "ice": Bars(
        "WebRTC while ICE_CONFIG_URL is down",
        "from offer to answer, after the first failure; lower is better",
        AGAINST_NO_ICE,
        (
            ("refuses connections", "ice-refusing"),
            ("never answers", "ice-hanging"),
            ("answers garbage", "ice-garbage"),
        ),
    ),
    "first-line": Bars(
        "First line",
        "from sending POST /bot to the first line of bot(); lower is better",
        AGAINST_ONE,
        (("median (p50)", "first-line-p50"), ("95th percentile (p95)", "first-line-p95")),
    ),
    "start-processes": Bars(
        "Start with a process for each call",
        "from exec to the first 200 of /readyz; lower is better",
        AGAINST_ONE,
        (("realistic bot", "start-processes"),),
    ),
    "calls": Bars(
        "Calls per machine",
        "echo calls that the CPUs could carry, from the CPU time of those below; higher is better",
        AGAINST_ONE,
        (("echo calls", "calls"),),
    ),
}


def plots(results: Results) -> dict[str, str]:
    return {
        **{name: plot.drawn(results) for name, plot in BARS.items()},
        "cores": lines(
            "Cores used by echo calls",
            "CPU time in a second, by the launcher and all below it; a cross: frames were late or lost",
            "calls at once",
            "cores",
            _loads(results, lambda load: load.cores),
            ("one core", 1),
        ),
        "gaps": lines(
            "Worst gap between two frames",
            "99th percentile of the worst of the calls; lower is better",
            "calls at once",
            "ms",
            _loads(results, lambda load: load.gap * 1000),
            ("goal", MAX_GAP * 1000),
        ),
        "held": lines(
            "Memory over calls",
            "resident after each phone call of a bot with Silero; flat is better",
            "calls so far",
            "MB",
            [Line(title, colour, list(enumerate(results.held[name]))) for name, title, colour in HELD],
        ),
    }


def _loads(results: Results, value: Callable[[Load], float]) -> list[Line]:
    found = []
    for contender, title, colour in CONTENDERS:
        mine = [load for load in results.loads if load.contender == contender]
        points = [(load.calls, value(load)) for load in mine if load.carried]
        found.append(Line(title, colour, points, [(load.calls, value(load)) for load in mine if not load.carried]))
    return found
