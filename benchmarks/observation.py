"""``make bench-observation``: what each reader of facts costs while many calls talk, against none of them.

The calls have a turn every five seconds, with the frames that a transport and services would push, and no audio: the
difference is that of observing, and no noise of pipelines hides it. With ``--audio`` the caller's frames of 20 ms pass
through the pipeline, too; one process has no time for 80 such calls. Metrics are scraped as Prometheus does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import Process
from typing import Any

import httpx
import psutil

from benchmarks.__main__ import HERE, running

BOT = HERE.parent / "tests" / "bots" / "observed"
PAUSE = 5.0
SCRAPE = 15.0
METRICS_PORT, SINK_PORT = 18090, 18091
READERS: dict[str, dict[str, str]] = {
    "none": {},
    "metrics": {"PIPECAT_METRICS_PORT": str(METRICS_PORT)},
    "reports": {"PIPECAT_REPORTS_DIR": "", "PIPECAT_REPORT_URL": f"http://127.0.0.1:{SINK_PORT}/reports"},
    "events": {"PIPECAT_EVENT_PUBLISHER_ENDPOINT": f"http://127.0.0.1:{SINK_PORT}/events"},
}


class Sink(BaseHTTPRequestHandler):
    """Takes reports and events."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *values: Any) -> None: ...


def serve_sink() -> None:
    ThreadingHTTPServer(("127.0.0.1", SINK_PORT), Sink).serve_forever()


def cpu_of(processes: list[psutil.Process]) -> float:
    """Seconds that they have used."""
    used = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            used += sum(process.cpu_times()[:2])
    return used


async def converse(port: int, count: int, seconds: float, pid: int, *, audio: bool, scraped: bool) -> float:
    """Cores that ``count`` calls take, over ``seconds``."""
    turns = round((seconds + 10) / PAUSE)
    async with httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None)) as client:
        body = {"turns": turns, "pause": PAUSE, "audio": audio}
        calls = [asyncio.ensure_future(client.post(f"http://127.0.0.1:{port}/bot", json=body)) for _ in range(count)]
        await asyncio.sleep(5)
        launcher = psutil.Process(pid)
        processes = [launcher, *launcher.children(recursive=True)]
        began, used = time.monotonic(), cpu_of(processes)
        while time.monotonic() - began < seconds:
            await asyncio.sleep(min(SCRAPE, seconds))
            if scraped:
                (await client.get(f"http://127.0.0.1:{METRICS_PORT}/metrics")).raise_for_status()
        cores = (cpu_of(processes) - used) / (time.monotonic() - began)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    return cores


def measure(count: int, seconds: float, isolation: str, reader: str, *, audio: bool) -> float:
    variables = {"PIPECAT_ISOLATION": isolation, "PIPECAT_IDLE_PROCESSES": str(min(count, 20)), **READERS[reader]}
    with tempfile.TemporaryDirectory() as folder:
        if "PIPECAT_REPORTS_DIR" in variables:
            variables["PIPECAT_REPORTS_DIR"] = folder
        with running("launcher", BOT, **variables) as (process, port):
            is_scraped = reader == "metrics"
            return asyncio.run(converse(port, count, seconds, process.pid, audio=audio, scraped=is_scraped))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observation", description=__doc__)
    parser.add_argument("--calls", type=int, default=80)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--isolation", choices=("none", "process"), default="none")
    parser.add_argument("--audio", action="store_true")
    options = parser.parse_args()
    sink = Process(target=serve_sink, daemon=True)
    sink.start()
    found: dict[str, list[float]] = {reader: [] for reader in READERS}
    for _ in range(options.rounds):
        for reader, values in found.items():
            values.append(measure(options.calls, options.seconds, options.isolation, reader, audio=options.audio))
    floor = statistics.median(found["none"])
    print(f"{options.calls} calls, isolation {options.isolation}: {100 * floor:.1f} % of a core without a reader")
    for reader in list(READERS)[1:]:
        more = statistics.median(found[reader]) - floor
        print(f"with {reader}: {100 * more:+.2f} % (goal of the metrics: at most +1 %)")
    sink.terminate()


if __name__ == "__main__":
    main()
