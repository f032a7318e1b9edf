"""Pipeline start-up times and user-bot latency in the log, in lines that begin with ``[pcc-observability]``.

pipecat loads this file by its path, from PIPECAT_SETUP_FILES, for every pipeline: it must import nothing of this
package. Both observers exist since pipecat-ai 0.0.104, the breakdown of a latency since a later one. pipecat >= 1.3
calls ``setup_pipeline_worker`` and warns about a file without ``setup_worker_runner``; older ones call
``setup_pipeline_task``. Times are seconds, but ``start_time``, which is seconds since 1970.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

from loguru import logger

PREFIX = "[pcc-observability]"


async def setup_worker_runner(runner: Any) -> None:
    """Nothing to do for a runner."""


async def setup_pipeline_worker(worker: Any) -> None:
    """Add both observers to a pipeline that is being set up."""
    try:
        from pipecat.observers.startup_timing_observer import StartupTimingObserver
        from pipecat.observers.user_bot_latency_observer import UserBotLatencyObserver
    except ImportError:
        return
    startup = StartupTimingObserver()
    startup.add_event_handler("on_startup_timing_report", _log_startup)
    startup.add_event_handler("on_transport_timing_report", _log_transport)
    latency = UserBotLatencyObserver()
    latency.add_event_handler("on_latency_measured", _log_latency)
    _add_if_known(latency, "on_latency_breakdown", _log_breakdown)
    _add_if_known(latency, "on_first_bot_speech_latency", _log_first_speech)
    worker.add_observer(startup)
    worker.add_observer(latency)


setup_pipeline_task = setup_pipeline_worker


async def _log_startup(observer: Any, report: Any) -> None:
    processors = [
        {
            "name": timing.processor_name,
            "offset": round(timing.start_offset_secs, 3),
            "duration": round(timing.duration_secs, 3),
        }
        for timing in report.processor_timings
    ]
    total = f"start_time={report.start_time:.3f} | total={report.total_duration_secs:.3f}s"
    logger.info(f"{PREFIX} Startup timing | {total} | processors: {json.dumps(processors)}")


async def _log_transport(observer: Any, report: Any) -> None:
    parts = [f"start_time={report.start_time:.3f}"]
    for name in ("bot_connected", "client_connected"):
        seconds = getattr(report, f"{name}_secs")
        if seconds is not None:
            parts.append(f"{name}={seconds:.3f}s")
    logger.info(f"{PREFIX} Transport timing | {' | '.join(parts)}")


async def _log_latency(observer: Any, seconds: float) -> None:
    logger.info(f"{PREFIX} User-bot latency | latency={seconds:.3f}s")


async def _log_breakdown(observer: Any, breakdown: Any) -> None:
    started = breakdown.user_turn_start_time
    start_time = "" if started is None else f" start_time={started:.3f} |"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the lines of its successor are others
        events = breakdown.chronological_events()
    logger.info(f"{PREFIX} Latency breakdown |{start_time} events: {json.dumps(events)}")


async def _log_first_speech(observer: Any, seconds: float) -> None:
    logger.info(f"{PREFIX} First bot speech | latency={seconds:.3f}s")


def _add_if_known(observer: Any, event: str, handler: Any) -> None:
    """An older pipecat has no such event, and logs an error for a handler of one that it does not know."""
    if event in getattr(observer, "_event_handlers", {event: None}):
        observer.add_event_handler(event, handler)
