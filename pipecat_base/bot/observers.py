"""Observers of a pipeline, which log a few lines and emit events to the session's context.

pipecat loads this file by its path, from PIPECAT_SETUP_FILES, for every pipeline: it must import nothing of this
package, and works with every supported pipecat. pipecat-ai 0.0.104 brought the timing observers, later releases the
others. Before 1.3 it called ``setup_pipeline_task``. Times are seconds; ``start_time`` is seconds since 1970.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
import warnings
from typing import Any

from loguru import logger

PREFIX = "[pcc-observability]"
CONTEXT_MODULE = "pipecat_base.telemetry.session_context"


async def setup_worker_runner(runner: Any) -> None:
    """Exists because pipecat warns about a file without it."""


async def setup_pipeline_worker(worker: Any) -> None:
    module = sys.modules.get(CONTEXT_MODULE)
    session = None if module is None else module.current.get()
    observers: list[Any] = []
    _observe_timing(worker, session, observers)
    if session is not None:
        for setup in (_measure_services, _observe_services, _observe_turns, _observe_transcripts, _trace):
            try:
                setup(worker, session, observers)
            except Exception as error:  # a later pipecat
                what = setup.__name__.strip("_")
                logger.debug(f"{PREFIX} {what} is not possible here: {type(error).__name__}: {error}")
    if observers:
        worker.add_observer(_combined(observers))


setup_pipeline_task = setup_pipeline_worker

# Frames that pass many times in a second, and that no observer here needs.
AUDIO_AND_VIDEO = (
    "InputAudioRawFrame",
    "UserAudioRawFrame",
    "OutputAudioRawFrame",
    "InputImageRawFrame",
    "OutputImageRawFrame",
    "UserSpeakingFrame",
    "BotSpeakingFrame",
)


def _combined(observers: list[Any]) -> Any:
    """Combine observers: pipecat gives each a queue and a task, which every frame of audio would wake."""
    from pipecat.frames import frames
    from pipecat.observers.base_observer import BaseObserver

    ignored = {getattr(frames, name) for name in AUDIO_AND_VIDEO if hasattr(frames, name)}

    class CombinedObserver(BaseObserver):
        is_started = False

        @property
        def observe_every_push(self) -> bool:
            # Startup timing needs the frame that each processor pushes on.
            return not self.is_started

        async def setup(self, task_manager: Any) -> None:
            await super().setup(task_manager)
            await self._dispatch("setup", task_manager)

        async def cleanup(self) -> None:
            await super().cleanup()
            await self._dispatch("cleanup")

        async def on_processor_setup(self, data: Any) -> None:
            await self._dispatch("on_processor_setup", data)

        async def on_startup_warmup(self, data: Any) -> None:
            # Called by pipecat before 1.12.
            await self._dispatch("on_startup_warmup", data)

        async def on_pipeline_started(self) -> None:
            self.is_started = True
            await self._dispatch("on_pipeline_started")

        async def on_process_frame(self, data: Any) -> None:
            if type(data.frame) not in ignored:
                await self._dispatch("on_process_frame", data)

        async def on_push_frame(self, data: Any) -> None:
            if type(data.frame) in ignored:
                return
            is_first = getattr(data, "first_push", True)  # an older pipecat does not say
            await self._dispatch("on_push_frame", data, to=[o for o in observers if is_first or o.observe_every_push])

        async def _dispatch(self, event: str, *data: Any, to: list[Any] | None = None) -> None:
            for observer in tuple(observers) if to is None else to:
                try:
                    await getattr(observer, event)(*data)
                except Exception as error:
                    observers.remove(observer)
                    kind = type(observer).__name__
                    logger.warning(f"{PREFIX} {kind} failed and is left out: {type(error).__name__}: {error}")

    return CombinedObserver()


def _observe_timing(worker: Any, session: Any, observers: list[Any]) -> None:
    try:
        from pipecat.observers.startup_timing_observer import StartupTimingObserver
        from pipecat.observers.user_bot_latency_observer import UserBotLatencyObserver
    except ImportError:
        return

    def emit(name: str, fields: dict[str, Any]) -> None:
        if session is not None:
            session.emit(name, fields)

    async def on_startup(observer: Any, report: Any) -> None:
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
        emit("startup_timing", _fields(report))

    async def on_transport(observer: Any, report: Any) -> None:
        parts = [f"start_time={report.start_time:.3f}"]
        for name in ("bot_connected", "client_connected"):
            seconds = getattr(report, f"{name}_secs")
            if seconds is not None:
                parts.append(f"{name}={seconds:.3f}s")
        logger.info(f"{PREFIX} Transport timing | {' | '.join(parts)}")
        emit("transport_timing", _fields(report))

    async def on_latency(observer: Any, seconds: float) -> None:
        logger.info(f"{PREFIX} User-bot latency | latency={seconds:.3f}s")
        emit("user_bot_latency", {"latency_secs": round(seconds, 3), "timestamp": time.time()})

    async def on_breakdown(observer: Any, breakdown: Any) -> None:
        started = breakdown.user_turn_start_time
        start_time = "" if started is None else f" start_time={started:.3f} |"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its successor's lines differ
            events = breakdown.chronological_events()
        logger.info(f"{PREFIX} Latency breakdown |{start_time} events: {json.dumps(events)}")
        emit("latency_breakdown", _fields(breakdown))

    async def on_first_speech(observer: Any, seconds: float) -> None:
        logger.info(f"{PREFIX} First bot speech | latency={seconds:.3f}s")
        emit("first_bot_speech_latency", {"latency_secs": round(seconds, 3), "timestamp": time.time()})

    startup = StartupTimingObserver()
    startup.add_event_handler("on_startup_timing_report", on_startup)
    startup.add_event_handler("on_transport_timing_report", on_transport)
    latency = UserBotLatencyObserver()
    latency.add_event_handler("on_latency_measured", on_latency)
    _add_if_known(latency, "on_latency_breakdown", on_breakdown)
    _add_if_known(latency, "on_first_bot_speech_latency", on_first_speech)
    observers += [startup, latency]


def _measure_services(worker: Any, session: Any, observers: list[Any]) -> None:
    """Turn on the services' own metrics if a sink needs them."""
    if session.options.metrics:
        worker.params.enable_metrics = True
        worker.params.enable_usage_metrics = True


# By module: the class, and our event for each of its events.
OBSERVERS = {
    "service_metrics_observer": (
        "ServiceMetricsObserver",
        {"on_service_latency": "service_latency", "on_service_usage": "service_usage"},
    ),
    "speaking_observer": ("SpeakingObserver", {"on_speech_event": "speech_event"}),
    "function_call_observer": ("FunctionCallObserver", {"on_function_call_event": "function_call_event"}),
    "error_observer": ("ErrorObserver", {"on_error": "error"}),
}


def _observe_services(worker: Any, session: Any, observers: list[Any]) -> None:
    for module_name, (class_name, events) in OBSERVERS.items():
        try:
            module = importlib.import_module(f"pipecat.observers.{module_name}")
        except ImportError:
            continue
        observer = getattr(module, class_name)()
        for observed, event in events.items():
            _add_if_known(observer, observed, _emitter(session, event))
        observers.append(observer)


def _emitter(session: Any, event: str) -> Any:
    async def emit(observer: Any, record: Any) -> None:
        session.emit(event, _fields(record))

    return emit


def _observe_turns(worker: Any, session: Any, observers: list[Any]) -> None:
    from pipecat.frames.frames import CancelFrame, EndFrame
    from pipecat.observers.base_observer import BaseObserver

    tracker = getattr(worker, "turn_tracking_observer", None)
    if tracker is None:
        return

    class Endings(BaseObserver):
        # pipecat reports the turn in which the pipeline ends as interrupted.
        is_over = False

        async def on_push_frame(self, data: Any) -> None:
            if isinstance(data.frame, EndFrame | CancelFrame):
                self.is_over = True

    async def on_turn_ended(observer: Any, number: int, seconds: float, was_interrupted: bool) -> None:
        await asyncio.sleep(0)  # the frame that ended it may not have reached the other observer
        fields = {"number": number, "duration_secs": seconds, "interrupted": was_interrupted and not endings.is_over}
        session.emit("turn", fields)

    endings = Endings()
    observers.append(endings)
    tracker.add_event_handler("on_turn_ended", on_turn_ended)


def _observe_transcripts(worker: Any, session: Any, observers: list[Any]) -> None:
    if not session.options.content:
        return

    async def on_user(aggregator: Any, *values: Any) -> None:
        message = values[-1]
        _emit_text(session, {"role": "user", "text": message.content, "turn_started_at": message.timestamp})

    async def on_assistant(aggregator: Any, message: Any) -> None:
        fields = {"role": "assistant", "text": message.content, "turn_started_at": message.timestamp}
        _emit_text(session, {**fields, "interrupted": message.interrupted})

    for processor in _processors(worker):
        events = getattr(processor, "_event_handlers", {})
        # Speech-to-speech pipelines give the user's text only with the first of these events, others with both.
        user = "on_user_turn_message_added" if "on_user_turn_message_added" in events else "on_user_turn_stopped"
        if user in events:
            processor.add_event_handler(user, on_user)
        if "on_assistant_turn_stopped" in events:
            processor.add_event_handler("on_assistant_turn_stopped", on_assistant)


def _emit_text(session: Any, fields: dict[str, Any]) -> None:
    if fields["text"]:
        session.emit("transcript", {**fields, "timestamp": time.time()})


def _processors(worker: Any) -> list[Any]:
    found: list[Any] = []
    waiting = [getattr(worker, "_pipeline", None)]
    while waiting:
        processor = waiting.pop()
        if processor is not None and processor not in found:
            found.append(processor)
            waiting += getattr(processor, "processors", None) or getattr(processor, "_processors", None) or []
    return found


def _trace(worker: Any, session: Any, observers: list[Any]) -> None:
    """Turn on pipecat's spans below the session's, unless the bot has."""
    if not session.options.traces or worker._enable_tracing or worker.turn_tracking_observer is None:
        return
    from pipecat.observers.user_bot_latency_observer import UserBotLatencyObserver
    from pipecat.utils.tracing.tracing_context import TracingContext
    from pipecat.utils.tracing.turn_trace_observer import TurnTraceObserver

    latency = UserBotLatencyObserver()
    context = TracingContext()
    tracer = TurnTraceObserver(
        worker.turn_tracking_observer,
        latency_tracker=latency,
        conversation_id=session.session_id,
        tracing_context=context,
    )
    observers += [latency, tracer]
    worker._enable_tracing, worker._tracing_context, worker._turn_trace_observer = True, context, tracer


def _fields(record: Any) -> dict[str, Any]:
    # The launcher drops fields that the event may not have, such as a message.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        dump = getattr(record, "model_dump", None)
        found: dict[str, Any] = dict(vars(record)) if dump is None else dump(mode="json")
    return found


def _add_if_known(observer: Any, event: str, handler: Any) -> None:
    # An older pipecat logs an error for a handler of an event that it does not know.
    if event in getattr(observer, "_event_handlers", {event: None}):
        observer.add_event_handler(event, handler)
