"""Pipeline start-up times and user-bot latency in the log.

pipecat loads this file by its path, from PIPECAT_SETUP_FILES, for every pipeline: it must import nothing of this
package. Both observers exist since pipecat-ai 0.0.104. pipecat >= 1.3 calls ``setup_pipeline_worker`` and warns about
a file without ``setup_worker_runner``; older ones call ``setup_pipeline_task``.
"""

from __future__ import annotations

from typing import Any

from loguru import logger


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
    latency = UserBotLatencyObserver()

    @startup.event_handler("on_startup_timing_report")
    async def on_startup(observer: Any, report: Any) -> None:
        slowest = sorted(report.processor_timings, key=lambda timing: timing.duration_secs, reverse=True)[:3]
        parts = ", ".join(f"{timing.processor_name} {timing.duration_secs:.3f} s" for timing in slowest)
        logger.info(f"Pipeline started in {report.total_duration_secs:.3f} s ({parts})")

    @startup.event_handler("on_transport_timing_report")
    async def on_transport(observer: Any, report: Any) -> None:
        if report.client_connected_secs is not None:
            logger.info(f"Client connected {report.client_connected_secs:.3f} s after the pipeline's start")

    @latency.event_handler("on_first_bot_speech_latency")
    async def on_first_speech(observer: Any, seconds: float) -> None:
        logger.info(f"First bot speech {seconds:.3f} s after the client connected")

    @latency.event_handler("on_latency_measured")
    async def on_latency(observer: Any, seconds: float) -> None:
        logger.info(f"User-bot latency {seconds:.3f} s")

    worker.add_observer(startup)
    worker.add_observer(latency)


setup_pipeline_task = setup_pipeline_worker
