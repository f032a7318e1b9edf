"""A span for each session, below the request's span and above pipecat's own.

OpenTelemetry is the bot's dependency. A bot that sets up tracing keeps its own exporter, for sessions' spans too.
"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipecat_base.bot import installed, sources
from pipecat_base.config import environment
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.registry import Session

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTERS = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
}
SETS_TRACING_UP = rb"\b(setup_tracing|set_tracer_provider)\b"
# Short, as a crash loses the spans that are not exported yet.
EXPORT_INTERVAL_SECONDS = 1.0
NAME = "pipecat-base"


class Span:
    def __init__(self, span: Any = None) -> None:
        self._span = span

    def end(self, outcome: str, message: str) -> None:
        if self._span is None:
            return
        self._span.set_attribute("session.outcome", outcome)
        if outcome == "failed":
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, message))


class Spans:
    """Makes sessions' spans. Of many processes, one ``warns`` why there are none."""

    def __init__(self, variables: Mapping[str, str], *, bot_sets_up: Callable[[], bool], warns: bool = True) -> None:
        self._variables = variables
        self._bot_sets_up = bot_sets_up
        self._warns = warns
        self._provider: Any = None
        self.is_on = False

    def import_modules(self) -> None:
        """Import what :meth:`open` needs, for processes that are forked later."""
        self._exporter()

    def open(self) -> None:
        """Start to export, in a thread of the process that runs sessions."""
        exporter = self._exporter()
        if exporter is None:
            return
        self.is_on = True
        from opentelemetry import trace

        if self._bot_sets_up() or not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            return
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({} if "OTEL_SERVICE_NAME" in self._variables else {"service.name": NAME})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter.OTLPSpanExporter(), schedule_delay_millis=1000 * EXPORT_INTERVAL_SECONDS)
        )
        trace.set_tracer_provider(self._provider)

    @contextmanager
    def of(self, session: Session) -> Iterator[Span]:
        """Entered around a session's bot, whose spans become children of this one."""
        if not self.is_on:
            yield Span()
            return
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = session.caller.traceparent
        context = TraceContextTextMapPropagator().extract({} if parent is None else {"traceparent": parent})
        attributes = {"session.id": session.id, "session.transport": session.transport.value}
        tracer = trace.get_tracer(NAME)
        with tracer.start_as_current_span("session", context, attributes=attributes) as span:
            yield Span(span)

    def close(self, within: float) -> None:
        if self._provider is None:
            return
        closing = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        closing.start()
        closing.join(within)
        if closing.is_alive():
            logger.warning("OTEL_EXPORTER_OTLP_ENDPOINT does not take spans in time: some are lost")

    def _exporter(self) -> Any:
        variables = self._variables
        if (
            not any(variables.get(name) for name in ENDPOINTS)
            or variables.get("OTEL_SDK_DISABLED", "").lower() == "true"
        ):
            return None
        protocol = next((variables[name] for name in PROTOCOLS if variables.get(name)), "http/protobuf")
        module = EXPORTERS.get(protocol)
        if module is None:
            self._warn(f"{json.dumps(protocol)} is none of {', '.join(EXPORTERS)}")
            return None
        if not installed.has("opentelemetry.sdk.trace", module):
            package = f"opentelemetry-exporter-otlp-proto-{protocol.partition('/')[0]}"
            self._warn(f"OpenTelemetry is not installed here; pip install {package}")
            return None
        try:
            importlib.import_module("opentelemetry.sdk.trace.export")
            return importlib.import_module(module)
        except Exception as error:
            self._warn(f"OpenTelemetry cannot be imported ({type(error).__name__}: {error})")
            return None

    def _warn(self, reason: str) -> None:
        if self._warns:
            logger.warning(f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but there are no traces: {reason}")


def spans_for(project: str, *, warns: bool = True) -> Spans:
    return Spans(environment.read(), bot_sets_up=lambda: sources.mentions(project, SETS_TRACING_UP), warns=warns)
