"""GET /metrics: the same values in one process and with a process for each call."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pipecat.utils.errors import ErrorCategory
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pipecat_base.server.limits import SPARE_CONNECTIONS
from pipecat_base.server.metrics_server import MAX_SCRAPE_CONNECTIONS
from pipecat_base.telemetry.events import Event
from pipecat_base.telemetry.metrics import (
    ERROR_CATEGORIES,
    MAX_AMOUNT_PER_EVENT,
    MAX_LABEL_VALUES,
    MAX_PEERS_PER_SESSION,
    Metrics,
)
from pipecat_base.workers.revision import Revision
from tests.support.attackers import Flood
from tests.support.launchers import CALLS_PER_PROCESS, ISOLATION, PATIENCE, Launcher, free_port, measured, run, until


class Scraped:
    """A launcher with metrics."""

    def __init__(self, bot: str | Path = "observed", **variables: Any) -> None:
        self.port = free_port()
        self.launcher = Launcher(bot, PIPECAT_METRICS_PORT=str(self.port), DRAIN_NOTICE="0", **variables)

    def get(self) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}/metrics", trust_env=False)

    def text(self) -> str:
        return self.get().text

    def value(self, name: str, **labels: str) -> float | None:
        """The value of a sample, if there is one."""
        for family in text_string_to_metric_families(self.text()):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return None

    def wait_for(self, wanted: float, name: str, **labels: str) -> None:
        until(lambda: self.value(name, **labels) == wanted, f"{name}{labels} to be {wanted}")


@pytest.fixture(scope="module")
def scraped() -> Iterator[Scraped]:
    found = Scraped(MAX_SESSIONS="3")
    with found.launcher:
        yield found


def test_a_call_is_counted_with_all_its_measurements(scraped: Scraped) -> None:
    before = {
        "ended": scraped.value("pipecat_sessions_total", transport="plain", outcome="completed") or 0,
        "turns": scraped.value("pipecat_user_bot_latency_seconds_count") or 0,
    }
    assert scraped.launcher.post({"turns": 2, "error": "bad"}).status_code == 200
    scraped.wait_for(before["ended"] + 1, "pipecat_sessions_total", transport="plain", outcome="completed")
    assert scraped.value("pipecat_sessions_active", transport="plain") == 0
    assert scraped.value("pipecat_user_bot_latency_seconds_count") == before["turns"] + 2
    assert scraped.value("pipecat_first_bot_speech_seconds_count") == 1
    assert scraped.value("pipecat_service_ttfb_seconds_sum", kind="llm", model="fake-1") == 0.5
    assert scraped.value("pipecat_service_ttfb_seconds_sum", kind="tts", model="none") == 0.25
    assert scraped.value("pipecat_tokens_total", direction="in") == 200
    assert scraped.value("pipecat_tokens_total", direction="out") == 40
    assert scraped.value("pipecat_characters_total") == 84
    assert scraped.value("pipecat_audio_seconds_total", direction="in") == 3
    assert 0.08 < (scraped.value("pipecat_audio_seconds_total", direction="out") or 0) < 5
    assert scraped.value("pipecat_errors_total", category="connectivity") == 1
    assert scraped.value("pipecat_turns_total", interrupted="true") == 0
    assert scraped.value("pipecat_turns_total", interrupted="false") == 3  # the greeting is one
    assert scraped.value("pipecat_session_start_seconds_count") == 1
    assert (scraped.value("pipecat_session_duration_seconds_sum", transport="plain") or 0) > 0.3
    assert scraped.value("pipecat_process_wait_seconds_count") == int(ISOLATION == "process")


def test_outcomes_and_refusals_are_counted_separately(scraped: Scraped) -> None:
    assert scraped.launcher.post({"raise": "boom"}).status_code == 500
    scraped.wait_for(1, "pipecat_sessions_total", transport="plain", outcome="failed")
    assert scraped.launcher.http.post("/bot", content=b"{").status_code == 400
    scraped.wait_for(1, "pipecat_refusals_total", reason="malformed")
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(scraped.launcher.post, {"end": "stay"}) for _ in range(3)]
        scraped.wait_for(3, "pipecat_sessions_active", transport="plain")
        assert scraped.launcher.post({}).status_code == 429
        scraped.wait_for(1, "pipecat_refusals_total", reason="at_capacity")
        if ISOLATION == "process" and CALLS_PER_PROCESS == "1":
            scraped.wait_for(3, "pipecat_processes", state="busy")
            assert scraped.value("pipecat_processes", state="lead") == 1
            scraped.wait_for(min(4, os.cpu_count() or 1), "pipecat_processes", state="idle")
        assert scraped.value("pipecat_places") == 3
        # What they do is over when the launcher is stopped; that is seen in a report.
        scraped.launcher.signal()
        scraped.wait_for(1, "pipecat_state", state="draining")
        scraped.launcher.signal()
        for call in running:
            call.exception()


def test_a_request_that_is_refused_before_it_is_parsed_is_counted() -> None:
    scraped = Scraped()
    with scraped.launcher, socket.create_connection(("127.0.0.1", scraped.launcher.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 200 + b"\r\n")
        assert b" 431 " in sock.recv(1000)
        scraped.wait_for(1, "pipecat_refusals_total", reason="head_too_large")
        assert scraped.value("pipecat_state", state="ready") == 1
        until(lambda: scraped.value("pipecat_event_loop_lag_seconds_count", process="launcher"), "the loop's lag")
        assert (scraped.value("process_resident_memory_bytes") or 0) > 1_000_000
        assert "session_id" not in scraped.text()


def test_slow_connections_do_not_delay_a_scrape() -> None:
    scraped = Scraped()
    with scraped.launcher, contextlib.ExitStack() as stack:
        process = psutil.Process(scraped.launcher.process.pid)
        threads, files = process.num_threads(), process.num_fds()
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", scraped.port))) for _ in range(200)]
        # For a fifth of a second new connections may not be closed for others: a scrape may get 503 until then.
        until(lambda: scraped.get().status_code == 200, "the connections to have been there for a moment")
        for letter in b"GET /metrics HTTP/1.1\r\nx: "[:5]:
            for sock in slow:
                with contextlib.suppress(OSError):  # one more than may be
                    sock.send(bytes([letter]))
            with measured() as seconds:
                assert scraped.value("pipecat_state", state="ready") == 1
                assert seconds() < 1
            assert process.num_threads() <= threads
            assert process.num_fds() - files <= MAX_SCRAPE_CONNECTIONS + SPARE_CONNECTIONS
        assert scraped.launcher.stop() == 0


def test_a_scrape_whose_head_never_ends_is_cut_off_after_the_head_timeout() -> None:
    scraped = Scraped(PIPECAT_HEAD_TIMEOUT="0.5")
    with scraped.launcher, socket.create_connection(("127.0.0.1", scraped.port), timeout=PATIENCE) as sock:
        with Flood(sock, b"G", rate=20) as flood:
            until(lambda: flood.is_refused, "the end of it")
        assert flood.sent < 200


def test_a_name_that_cannot_be_encoded_spoils_no_scrape(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "from pipecat_base.telemetry.session_context import current\n\n\nasync def bot(args):\n"
        "    fields = {'kind': 'ttfb', 'processor': 'LLM#0', 'model': '\\ud800', 'seconds': 0.1}\n"
        "    current.get().emit('service_latency', fields)\n"
        "    current.get().emit('error', {'category': 'x' * 9_000_000, 'message': object()})\n"
    )
    scraped = Scraped(tmp_path)
    with scraped.launcher:
        assert scraped.launcher.post().status_code == 200
        scraped.wait_for(1, "pipecat_sessions_total", transport="plain", outcome="completed")
        assert scraped.value("pipecat_service_ttfb_seconds_count", kind="llm", model="?") == 1


def test_a_call_that_blocks_its_own_process_does_not_count_as_lag_of_the_launcher() -> None:
    scraped = Scraped(PIPECAT_ISOLATION="process")

    def late(process: str) -> float:
        """Number of samples above two seconds."""
        name = "pipecat_event_loop_lag_seconds"
        at_all = scraped.value(f"{name}_count", process=process) or 0
        return at_all - (scraped.value(f"{name}_bucket", process=process, le="2.0") or 0)

    with scraped.launcher, ThreadPoolExecutor() as pool:
        call = pool.submit(scraped.launcher.post, {"block": 3, "end": "stay"})
        until(lambda: late("call"), "the lag of its process")
        until(lambda: late("launcher") == 0, "two scrapes without a sample between them")
        scraped.launcher.signal(signal.SIGKILL)
        call.exception()


def test_metrics_have_a_port_of_their_own() -> None:
    scraped = Scraped()
    with scraped.launcher:
        assert scraped.launcher.http.get("/metrics").status_code == 404
        ended = run("serve", cwd=scraped.launcher.folder, PIPECAT_METRICS_PORT=str(scraped.port))
        assert ended.returncode == 23
        assert "PIPECAT_METRICS_PORT" in ended.stderr


def test_without_a_port_no_metrics_module_is_imported(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("async def bot(args): ...\n")
    off: dict[str, Any] = {"PIPECAT_METRICS_PORT": "", "PIPECAT_REPORTS_DIR": ""}
    with Launcher(tmp_path, PYTHONPROFILEIMPORTTIME="1", **off) as launcher:
        assert " pipecat_base.launcher.launcher\n" in launcher.log()
        for module in ("prometheus_client", "urllib.request", "opentelemetry", "pipecat_base.telemetry.metrics"):
            assert f" {module}\n" not in launcher.log()


def test_labels_that_bots_make_up_are_bounded() -> None:
    metrics = Metrics()
    for number in range(3 * MAX_LABEL_VALUES):
        fields = {"kind": "ttfb", "processor": f"LLM#{number}", "model": f"model-{number}", "seconds": 0.1}
        metrics.handle(Event("service_latency", "s", fields))
        metrics.handle(Event("error", "s", {"category": f"made up {number}"}))
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    models = {s.labels["model"] for s in samples if s.name == "pipecat_service_ttfb_seconds_count"}
    assert len(models) == MAX_LABEL_VALUES + 1
    assert "other" in models
    assert len({s.labels["category"] for s in samples if s.name == "pipecat_errors_total"}) == MAX_LABEL_VALUES + 1


def test_packets_are_counted_once() -> None:
    metrics = Metrics()
    metrics.handle(Event("session_admitted", "s", {"transport": "webrtc"}))
    for received, lost in ((100, 3), (200, 3), (300, 5), (400, 4), (350, 5)):
        metrics.handle(Event("webrtc_stats", "s", {"packets_received": received, "packets_lost": lost, "peer": "p"}))
    metrics.handle(Event("webrtc_stats", "s", {"packets_received": 50, "packets_lost": 2, "peer": "its next"}))
    assert metrics.registry.get_sample_value("pipecat_webrtc_packets_received_total") == 450
    assert metrics.registry.get_sample_value("pipecat_webrtc_packets_lost_total") == 7
    metrics.handle(Event("session_ended", "s", {"transport": "webrtc", "outcome": "completed"}))
    for number in range(2 * MAX_PEERS_PER_SESSION):  # of another session of this id
        metrics.handle(Event("webrtc_stats", "s", {"packets_received": 10, "peer": "p" * number}))
    assert (
        metrics.registry.get_sample_value("pipecat_webrtc_packets_received_total") == 450 + 10 * MAX_PEERS_PER_SESSION
    )


@pytest.mark.parametrize(
    ("name", "fields", "metric", "labels", "wanted"),
    [
        ("webrtc_connected", {"connect_secs": 0.25}, "webrtc_connect_seconds_sum", {}, 0.25),
        ("process_wait", {"wait_secs": 0.25}, "process_wait_seconds_sum", {}, 0.25),
        ("loop_lag", {"lag_secs": 0.25}, "event_loop_lag_seconds_sum", {"process": "launcher"}, 0.25),
        ("process_loop_lag", {"lag_secs": 0.25}, "event_loop_lag_seconds_sum", {"process": "call"}, 0.25),
        ("turn", {"interrupted": True}, "turns_total", {"interrupted": "true"}, 1),
        ("turn", {}, "turns_total", {"interrupted": "false"}, 1),
        ("service_usage", {"prompt_tokens": 1e10}, "tokens_total", {"direction": "in"}, MAX_AMOUNT_PER_EVENT),
        (
            "speech_event",
            {"kind": "bot_speech_stopped", "started_at": 100.0, "timestamp": 102.5},
            "audio_seconds_total",
            {"direction": "out"},
            2.5,
        ),
        (  # the clock was set back
            "speech_event",
            {"kind": "bot_speech_stopped", "started_at": 102.5, "timestamp": 100.0},
            "audio_seconds_total",
            {"direction": "out"},
            0,
        ),
    ],
)
def test_an_event_is_counted_in_its_unit(
    name: str, fields: dict[str, Any], metric: str, labels: dict[str, str], wanted: float
) -> None:
    metrics = Metrics()
    metrics.handle(Event(name, "s", fields))
    assert metrics.registry.get_sample_value(f"pipecat_{metric}", labels) == wanted


@pytest.mark.parametrize(("slots", "wanted"), [(None, float("inf")), (3, 3)])
def test_without_a_limit_of_sessions_the_slots_are_infinite(slots: int | None, wanted: float) -> None:
    metrics = Metrics()
    metrics.describe(pipecat=None, slots=slots)
    assert metrics.registry.get_sample_value("pipecat_places") == wanted


def test_no_series_holds_the_creation_time_of_another() -> None:
    assert "_created" not in generate_latest(Metrics().registry).decode()


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("pipecat_sessions_total", {"transport": "webrtc", "outcome": "failed"}),
        ("pipecat_sessions_active", {"transport": "plain"}),
        ("pipecat_refusals_total", {"reason": "at_capacity"}),
        ("pipecat_refusals_total", {"reason": "head_too_large"}),
        ("pipecat_errors_total", {"category": "connectivity"}),
        ("pipecat_turns_total", {"interrupted": "true"}),
        ("pipecat_tokens_total", {"direction": "out"}),
        ("pipecat_audio_seconds_total", {"direction": "in"}),
        ("pipecat_event_loop_lag_seconds_count", {"process": "launcher"}),
        ("pipecat_event_loop_lag_seconds_count", {"process": "call"}),
    ],
)
def test_series_begin_at_zero_so_that_a_rate_counts_the_first_event(name: str, labels: dict[str, str]) -> None:
    assert Metrics().registry.get_sample_value(name, labels) == 0


def test_the_categories_of_errors_are_pipecats() -> None:
    assert set(ERROR_CATEGORIES) == {category.value for category in ErrorCategory}


class FakeWorker:
    """A worker; while its state is read, another thread adds one."""

    def __init__(self, workers: set[FakeWorker], *, busy: bool = False, ready: bool = True) -> None:
        self._workers = workers
        self._busy = busy
        self._ready = ready
        workers.add(self)

    @property
    def calls(self) -> int:
        self._workers.add(object.__new__(FakeWorker))
        return int(self._busy)

    @property
    def idle(self) -> Any:
        return self

    def done(self) -> bool:
        return self._ready


def test_processes_are_counted_while_others_are_made() -> None:
    revision = object.__new__(Revision)
    workers: set[FakeWorker] = set()
    control_worker, idle = FakeWorker(workers), FakeWorker(workers)
    for is_busy, is_ready in ((True, True), (False, False), (False, True)):
        FakeWorker(workers, busy=is_busy, ready=is_ready)
    vars(revision).update(control_worker=control_worker, _open=[idle], _workers=workers)
    assert revision.counts == {"lead": 1, "idle": 1, "busy": 1, "starting": 1, "ending": 1}
