"""A span for each session, with the request's above it and pipecat's own below it, at a collector on loopback."""

from __future__ import annotations

import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pipecat_base.bot.spans import Spans
from tests.support.callers import close_code, dial
from tests.support.launchers import Launcher, until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Collector:
    """Takes OTLP over HTTP.

    Attributes:
        spans: All that have come.
        services: Names of those that have sent them.
    """

    def __init__(self, *, answers: bool = True) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                for found in content.resource_spans:
                    names = {a.key: a.value.string_value for a in found.resource.attributes}
                    collector.services.add(names["service.name"])
                    collector.spans += [span for scope in found.scope_spans for span in scope.spans]
                self.send_response(200 if answers else 503)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


def launch(bot: str | Path, collector: Collector) -> Launcher:
    return Launcher(bot, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, DRAIN_NOTICE="0")


def attributes(span: Any) -> dict[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in span.attributes}


def test_a_session_has_a_span_between_the_requests_and_pipecats() -> None:
    with (
        Collector() as collector,
        Launcher("observed", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, DRAIN_NOTICE="0") as launcher,
    ):
        headers = {"x_daily_session_id": "s-1", "traceparent": f"00-{TRACE}-{PARENT}-01"}
        assert launcher.post({"turns": 1}, **headers).status_code == 200
        (session,) = until(lambda: collector.named("session"), "the session's span")
        assert launcher.stop() == 0
        assert session.trace_id.hex() == TRACE
        assert session.parent_span_id.hex() == PARENT
        assert attributes(session)["session.id"] == "s-1"
        assert attributes(session)["session.outcome"] == "completed"
        (conversation,) = until(lambda: collector.named("conversation"), "pipecat's span")
        assert conversation.parent_span_id == session.span_id
        assert attributes(conversation)["conversation.id"] == "s-1"
        assert {span.parent_span_id for span in collector.named("turn")} == {conversation.span_id}
        assert collector.services == {"pipecat-base"}


def test_a_bot_that_fails_fails_its_span() -> None:
    with (
        Collector() as collector,
        Launcher("observed", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SERVICE_NAME="mine") as launcher,
    ):
        launcher.post({"raise": "s3cr3t"})
        (session,) = until(lambda: collector.named("session"), "the session's span")
        assert session.status.code == 2
        assert attributes(session)["session.outcome"] == "failed"
        assert "s3cr3t" not in str(collector.spans)
        assert collector.services == {"mine"}


def test_a_bot_that_enables_pipecats_spans_has_each_once() -> None:
    with Collector() as collector, launch("observed", collector) as launcher:
        launcher.post({"turns": 1, "trace": True})
        (session,) = until(lambda: collector.named("session"), "the session's span")
        assert launcher.stop() == 0
        (conversation,) = collector.named("conversation")
        assert conversation.trace_id == session.trace_id
        turns = collector.named("turn")
        numbers = [a.value.int_value for turn in turns for a in turn.attributes if a.key == "turn.number"]
        assert len(numbers) == len(set(numbers)) == len(turns) > 1


@pytest.mark.parametrize(
    ("variables", "are_made"),
    [
        ({}, False),
        ({"ENDPOINT": ""}, False),
        ({"ENDPOINT": "http://127.0.0.1:9"}, True),
        ({"TRACES_ENDPOINT": "http://127.0.0.1:9"}, True),
        ({"ENDPOINT": "http://127.0.0.1:9", "PROTOCOL": "smoke"}, False),
        ({"ENDPOINT": "http://127.0.0.1:9", "PROTOCOL": "smoke", "TRACES_PROTOCOL": "http/protobuf"}, True),
    ],
)
@pytest.mark.parametrize("is_disabled", [False, True])
def test_opentelemetrys_variables_enable_spans(variables: dict[str, str], are_made: bool, is_disabled: bool) -> None:
    disabled = {"OTEL_SDK_DISABLED": "TRUE"} if is_disabled else {}
    named = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()}
    spans = Spans({**named, **disabled}, bot_sets_up=lambda: True)
    spans.open()
    assert spans.is_on is (are_made and not is_disabled)


def test_a_bot_that_sets_tracing_up_keeps_its_own_exporter(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "import os\n"
        "from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter\n"
        "from pipecat.utils.tracing.setup import setup_tracing\n\n\n"
        "async def bot(args):\n"
        "    setup_tracing('mine', OTLPSpanExporter(os.environ['MINE'] + '/v1/traces'))\n"
        "    from opentelemetry import trace\n"
        "    trace.get_tracer('bot').start_span('work').end()\n"
        "    trace.get_tracer_provider().force_flush()\n"
    )
    with Collector() as theirs, Collector() as ours:
        with Launcher(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=ours.url, MINE=theirs.url, DRAIN_NOTICE="0") as launcher:
            assert launcher.post().status_code == 200
            until(lambda: theirs.named("work"), "the bot's own span")
            assert launcher.stop() == 0
        assert not ours.spans


@pytest.mark.parametrize("answers", [False, None])
def test_a_collector_that_rejects_spans_delays_no_call_and_no_shutdown(answers: bool | None) -> None:
    with Collector(answers=False) as collector:
        url = collector.url if answers is False else "http://127.0.0.1:9"
        with Launcher("observed", OTEL_EXPORTER_OTLP_ENDPOINT=url, DRAIN_NOTICE="0") as launcher:
            assert launcher.post({"return": True}).status_code == 200
            assert launcher.stop() == 0


def test_a_collector_that_hangs_delays_the_shutdown_within_a_bound_and_lost_spans_are_logged() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Launcher("observed", OTEL_EXPORTER_OTLP_ENDPOINT=url, DRAIN_NOTICE="0") as launcher:
            assert launcher.post({"return": True}).status_code == 200
            assert launcher.stop() == 0
            launcher.wait_for_log("OTEL_EXPORTER_OTLP_ENDPOINT does not take spans in time: some are lost")


def test_a_provider_that_the_bots_packages_have_set_is_used(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n\n"
        "getattr(trace, 'set_tracer' + '_provider')(TracerProvider())  # a source would name it\n"
        "\n\nasync def bot(args): ...\n"
    )
    with Collector() as collector, launch(tmp_path, collector) as launcher:
        assert launcher.post().status_code == 200
        assert launcher.stop() == 0
        assert "Overriding of current TracerProvider" not in launcher.log()
        assert not collector.spans


def test_the_bots_sentry_keeps_working(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "import sentry_sdk\n\n"
        "def send(envelope):\n    print('{\"said\": true}', flush=True)\n\n\n"
        "sentry_sdk.init('http://key@127.0.0.1:9/1', transport=send)\n\n\n"
        "async def bot(args):\n    raise ValueError('boom')\n"
    )
    with Collector() as collector, launch(tmp_path, collector) as launcher:
        assert launcher.post().status_code == 500
        until(launcher.said, "the event for Sentry")
        until(lambda: collector.named("session"), "the session's span")


def test_the_reason_for_missing_traces_is_logged_once_for_all_processes() -> None:
    variables: dict[str, Any] = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "DRAIN_NOTICE": "0"}
    with Launcher("observed", OTEL_EXPORTER_OTLP_PROTOCOL="smoke", **variables) as launcher:
        for _ in range(3):
            assert launcher.post({"return": True}).status_code == 200
        launcher.wait_for_log("there are no traces")
        assert launcher.stop() == 0
        assert len(launcher.lines('there are no traces: "smoke" is none of http/protobuf, grpc')) == 1


KEYS: dict[str, Any] = {"PIPECAT_GATEWAY": "1", "PIPECAT_PUBLIC_API_KEYS": "pk_one"}
STRANGER, COLLEAGUE = {"x-forwarded-for": "198.51.100.1"}, {"x-forwarded-for": "10.0.0.7"}


def trust(networks: str) -> dict[str, Any]:
    return {"PIPECAT_TRUST_TRACEPARENT": networks}


@pytest.mark.parametrize(
    ("variables", "headers", "counts"),
    [
        ({}, STRANGER, True),
        (trust("10.0.0.0/8"), STRANGER, False),
        (KEYS, {}, False),
        ({**KEYS, **trust("127.0.0.1")}, {}, True),
        ({**KEYS, **trust("127.0.0.1")}, STRANGER, False),
        ({**KEYS, **trust("192.0.2.1, 10.0.0.0/8")}, COLLEAGUE, True),
        ({**KEYS, **trust("192.0.2.1, 10.0.0.0/8")}, STRANGER, False),
        ({**KEYS, **trust("*")}, STRANGER, True),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_callers_traceparent_counts_where_the_caller_is_trusted_with_it(
    variables: dict[str, Any], headers: dict[str, str], counts: bool, is_stream: bool
) -> None:
    given = {**headers, "traceparent": f"00-{TRACE}-{PARENT}-01", "authorization": "Bearer pk_one"}
    with Collector() as collector:
        with Launcher(
            "observed",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_TRACES_SAMPLER="parentbased_always_off",
            DRAIN_NOTICE="0",
            **variables,
        ) as launcher:
            if is_stream:
                with dial(launcher, {"return": True}, additional_headers=given) as websocket:
                    close_code(websocket)
            else:
                path = "/v1/public/agent/start" if variables.get("PIPECAT_GATEWAY") else "/bot"
                assert launcher.http.post(path, json={"body": {"return": True}}, headers=given).status_code == 200
            launcher.wait_for_log("Session ended: ")
            assert launcher.stop() == 0
        assert [span.trace_id.hex() for span in collector.named("session")] == ([TRACE] if counts else [])


def test_a_session_whose_traceparent_does_not_count_has_a_trace_of_its_own() -> None:
    with Collector() as collector:
        with Launcher("observed", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, DRAIN_NOTICE="0", **KEYS) as launcher:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-00", "authorization": "Bearer pk_one"}
            launcher.http.post("/v1/public/agent/start", json={"body": {"return": True}}, headers=headers)
            launcher.wait_for_log("Session ended: ")
            assert launcher.stop() == 0
        (session,) = collector.named("session")
        assert session.trace_id.hex() != TRACE
        assert session.parent_span_id == b""


def test_no_query_string_is_exported(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "from pipecatcloud_system import app\n\n\n"
        "@app.get('/mine')\nasync def mine():\n    return {}\n\n\n"
        "async def bot(args): ...\n"
    )
    variables: dict[str, Any] = {
        "WHATSAPP_TOKEN": "t",
        "WHATSAPP_PHONE_NUMBER_ID": "1",
        "WHATSAPP_APP_SECRET": "s",
        "WHATSAPP_WEBHOOK_VERIFICATION_TOKEN": "v",
        "PIPECAT_GATEWAY": "1",
    }
    with Collector() as collector:
        with Launcher(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, DRAIN_NOTICE="0", **variables) as launcher:
            for path in ("/mine", "/whatsapp", "/v1/public/webhooks/o/a/whatsapp", "/status", "/nowhere"):
                launcher.http.get(f"{path}?hub.mode=subscribe&hub.verify_token=s3cr3t&body=s3cr3t")
            launcher.http.get("/ws/s3cr3t")
            with dial(launcher, "s3cr3t") as websocket:
                close_code(websocket)
            until(lambda: collector.named("session"), "the session's span")
            assert launcher.stop() == 0
        assert "s3cr3t" not in str(collector.spans)
