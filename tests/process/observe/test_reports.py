"""A report for every call: in a file, at an address, by the Session API, however the call has ended."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from pipecat_base.telemetry.call_report import percentiles
from pipecat_base.telemetry.journal import CALLS
from tests.support.callers import dial
from tests.support.launchers import BOTS, CALLS_PER_PROCESS, ISOLATION, Launcher, run, until
from tests.support.report_sink import Sink

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def filed(folder: Path) -> list[dict[str, Any]]:
    path = folder / CALLS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def journals(folder: Path) -> list[Path]:
    return list(folder.glob("journal-*"))


def launch(folder: Path, **variables: Any) -> Launcher:
    return Launcher("observed", PIPECAT_REPORTS_DIR=str(folder), DRAIN_NOTICE="0", **variables)


def test_a_report_holds_what_was_measured(tmp_path: Path) -> None:
    with launch(tmp_path) as launcher:
        body = {"turns": 2, "error": "s3cr3t message", "interrupted": True, "text": "what was said"}
        assert launcher.post(body, x_daily_session_id="s-1").status_code == 200
        assert launcher.stop() == 0
    (report,) = filed(tmp_path)
    assert (report["session_id"], report["transport"], report["peer"]) == ("s-1", "plain", "127.0.0.1")
    assert (report["outcome"], report["reason"]) == ("completed", "The bot returned.")
    assert len(report["latency"]["turns"]) == 2
    assert 0.09 < report["latency"]["p50"] <= report["latency"]["p95"] <= report["latency"]["p99"] < 5
    assert 0.09 < report["first_speech_seconds"] < 5
    assert report["interruptions"] == 2
    assert report["turns"] >= 2
    usage = {entry["kind"]: entry for entry in report["usage"]}
    assert (usage["llm"]["processor"], usage["llm"]["model"]) == ("FakeLLMService#0", "fake-1")
    assert (usage["llm"]["prompt_tokens"], usage["llm"]["completion_tokens"]) == (200, 40)
    assert (usage["tts"]["characters"], usage["stt"]["audio_seconds"]) == (84, 3)
    assert {(t["processor"], t["p50"]) for t in report["ttfb"]} == {
        ("FakeLLMService#0", 0.25),
        ("FakeTTSService#0", 0.125),
    }
    (error,) = report["errors"]
    assert (error["category"], error["exception_type"], error["processor"]) == (
        "connectivity",
        "TimeoutError",
        "Call#0",
    )
    assert 0 < report["bot_seconds"] <= report["seconds"] < 30
    assert report["process"]["peak_memory_bytes"] > 10_000_000
    assert report["process"]["cpu_seconds"] > 0
    assert report["process"]["shared"] is (ISOLATION == "none" or CALLS_PER_PROCESS != "1")
    text = (tmp_path / CALLS).read_text()
    assert "s3cr3t" not in text
    assert "what was said" not in text
    assert journals(tmp_path) == []


@pytest.mark.parametrize("kind", ["Exception", "ValueError"])
def test_a_bot_whose_exception_has_no_text_fails_like_others(tmp_path: Path, kind: str) -> None:
    (tmp_path / "bot.py").write_text(
        f"class Bad({kind}):\n    def __str__(self):\n        raise RuntimeError('no words')\n\n\n"
        "async def bot(args):\n    raise Bad\n"
    )
    with Launcher(tmp_path, PIPECAT_REPORTS_DIR=str(tmp_path), DRAIN_NOTICE="0") as launcher:
        assert launcher.post().json()["error"]["code"] == "bot_failed"
        launcher.wait_for_log("bot in bot.py failed: Bad at bot.py:7 in bot")
        assert launcher.stop() == 0
    (report,) = filed(tmp_path)
    assert report["failure"]["exception_type"] == "Bad"


def test_a_report_has_the_transcript_on_request(tmp_path: Path) -> None:
    with launch(tmp_path, PIPECAT_REPORT_CONTENT="true") as launcher:
        launcher.post({"text": "what was said"})
        launcher.post({"text": "is anybody there?", "answer": ""})
        assert launcher.stop() == 0
    report, silent = filed(tmp_path)
    assert [entry["text"] for entry in silent["transcript"]] == ["is anybody there?"]
    assert {entry["role"]: entry["text"] for entry in report["transcript"]} == {
        "user": "what was said",
        "assistant": "hello to you",
    }


def test_a_bot_that_fails_is_reported_with_its_own_line(tmp_path: Path) -> None:
    with launch(tmp_path) as launcher:
        launcher.post({"raise": "boom"}, x_daily_session_id="s-1")
        launcher.wait_for_log("| s-1 - bot in bot.py failed: ValueError: boom at bot.py:")
        assert launcher.lines("WARNING")
        launcher.wait_for_log("| s-1 - Session ended: failed")
        assert "WARNING" in launcher.lines("Session ended: failed")[0]
        assert launcher.stop() == 0
    (report,) = filed(tmp_path)
    assert (report["outcome"], report["failure"]["exception_type"]) == ("failed", "ValueError")
    assert report["failure"]["where"].startswith("bot.py:")
    assert "boom" not in json.dumps({**report, "failure": None})


def test_the_session_api_has_the_report(tmp_path: Path) -> None:
    with Launcher("observed", PIPECAT_GATEWAY="1") as launcher:
        started = launcher.http.post("/v1/public/agent/start", json={"body": {"raise": "boom"}}).json()["sessionId"]
        ended = until(
            lambda: next(
                (r for r in [launcher.http.get(f"/sessions/{started}").json()] if r["state"] == "ended"), None
            ),
            "its end",
        )
        assert (ended["outcome"], ended["report"]["outcome"]) == ("failed", "failed")
        assert ended["report"]["session_id"] == started


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_for_the_session_api_only_turns_are_reported_and_no_service_is_measured(isolation: str) -> None:
    off: dict[str, Any] = {"PIPECAT_METRICS_PORT": "", "PIPECAT_REPORTS_DIR": ""}
    with Launcher("observed", PIPECAT_GATEWAY="1", PIPECAT_ISOLATION=isolation, **off) as launcher:
        started = launcher.http.post("/v1/public/agent/start", json={"body": {"turns": 1}}).json()["sessionId"]
        until(lambda: launcher.http.get(f"/sessions/{started}").json()["state"] == "ended", "its end")
        report = launcher.http.get(f"/sessions/{started}").json()["report"]
    assert (len(report["latency"]["turns"]), report["usage"], report["ttfb"]) == (1, [], [])


def test_a_call_of_a_phone_provider_is_found_by_its_own_id(tmp_path: Path) -> None:
    start = {"event": "start", "start": {"streamSid": "MZ1", "callSid": "CA123"}}
    (tmp_path / "bot.py").write_text(
        "async def bot(args):\n    async for _ in args.websocket.iter_text():\n        pass\n"
    )
    with Launcher(tmp_path, PIPECAT_REPORTS_DIR=str(tmp_path), DRAIN_NOTICE="0") as launcher:
        with dial(launcher, {}) as phone:
            for message in ({"event": "connected"}, start, *[{"event": "media"}] * 5):
                phone.send(json.dumps(message))
            launcher.wait_for_log("The call is twilio's CA123")
        launcher.wait_for_log("Session ended")
        launcher.wait_for_log("Session started: websocket from 127.0.0.1")
        assert launcher.stop() == 0
    (report,) = filed(tmp_path)
    assert (report["provider"], report["call_id"], report["peer"]) == ("twilio", "CA123", "127.0.0.1")


@pytest.mark.parametrize("calls", [int(os.environ.get("KILLS", "10"))])
def test_processes_that_are_killed_lose_no_report(tmp_path: Path, calls: int) -> None:
    processes = {"PIPECAT_ISOLATION": "process", "PIPECAT_CALLS_PER_PROCESS": "1", "PIPECAT_IDLE_PROCESSES": "4"}
    with Sink() as sink, launch(tmp_path, PIPECAT_REPORT_URL=sink.url(), **processes) as launcher:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda n: launcher.post({"end": "kill"}).status_code, range(calls)))
        assert set(answers) == {500}
        assert launcher.stop() == 0
        reports = filed(tmp_path)
        assert len(reports) == len({report["id"] for report in reports}) == calls
        assert {report["outcome"] for report in reports} == {"failed"}
        assert {report["reason"] for report in reports} == {"The bot's process was killed by SIGKILL."}
        # What was known is in it.
        assert all(report["latency"]["turns"] for report in reports)
        assert all(report["process"]["peak_memory_bytes"] > 10_000_000 for report in reports)
        assert sorted(found["data"]["id"] for found in sink.contents()) == sorted(r["id"] for r in reports)


def test_a_launcher_that_is_killed_loses_no_report(tmp_path: Path) -> None:
    with launch(tmp_path) as launcher, ThreadPoolExecutor() as pool:
        launcher.post({"return": True}, x_daily_session_id="before")
        running = [pool.submit(launcher.post, {"end": "stay"}, x_daily_session_id=f"s-{n}") for n in range(3)]
        until(lambda: len(launcher.lines("Session started")) == 4, "their start")
        until(lambda: sum(path.read_text().count('"begun"') for path in journals(tmp_path)) == 4, "their beginning")
        launcher.signal(signal.SIGKILL)
        launcher.wait()
        for call in running:
            assert call.exception() is not None
    assert {report["session_id"] for report in filed(tmp_path)} == {"before"}
    with launch(tmp_path) as launcher:
        until(lambda: len(filed(tmp_path)) == 4, "the reports of the calls that were cut")
        assert launcher.stop() == 0
    cut = {report["session_id"]: report for report in filed(tmp_path) if report["session_id"] != "before"}
    assert set(cut) == {"s-0", "s-1", "s-2"}
    assert {report["outcome"] for report in cut.values()} == {"failed"}
    assert {report["reason"] for report in cut.values()} == {"The launcher was killed."}
    assert {report["transport"] for report in cut.values()} == {"plain"}
    assert journals(tmp_path) == []


def test_reports_are_sent_signed(tmp_path: Path) -> None:
    with (
        Sink() as sink,
        launch(tmp_path, PIPECAT_REPORT_URL=sink.url("/r?k=1"), PIPECAT_REPORT_SECRET=SECRET) as launcher,
    ):
        launcher.post({"return": True}, x_daily_session_id="s-1")
        ((_, headers, body),) = until(lambda: sink.posts, "the report")
        assert launcher.stop() == 0
        assert SECRET.removeprefix("whsec_") not in launcher.log()
    content = Webhook(SECRET).verify(body, headers)
    assert (content["type"], content["data"]["session_id"]) == ("call.ended", "s-1")
    assert headers["webhook-id"] == content["data"]["id"]
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"s-1", b"s-2"), headers)


def test_rejected_reports_are_retried_also_after_a_restart(tmp_path: Path) -> None:
    with Sink(503) as sink:
        with launch(tmp_path, PIPECAT_REPORT_URL=sink.url()) as launcher:
            for number in range(3):
                launcher.post({"return": True}, x_daily_session_id=f"s-{number}")
            until(lambda: len(sink.posts) >= 2, "a second try")
            assert launcher.stop() == 0
            launcher.wait_for_log("PIPECAT_REPORT_URL does not take reports (HTTP status 503)")
            launcher.wait_for_log("Reports that were not sent: 3; the next start sends them")
        assert len(filed(tmp_path)) == 3
        assert len(journals(tmp_path)) == 1
        sink.posts.clear()
        sink.status = 204
        with launch(tmp_path, PIPECAT_REPORT_URL=sink.url()) as launcher:
            until(lambda: len(sink.posts) == 3, "all of them")
            assert launcher.stop() == 0
        assert {found["data"]["session_id"] for found in sink.contents()} == {"s-0", "s-1", "s-2"}
    assert len(filed(tmp_path)) == 3
    assert journals(tmp_path) == []


def test_a_rejected_report_delays_no_other(tmp_path: Path) -> None:
    with Sink() as sink, launch(tmp_path, PIPECAT_REPORT_URL=sink.url()) as launcher:
        sink.refused = b'"poison"'
        launcher.post({"return": True}, x_daily_session_id="poison")
        until(lambda: sink.posts, "a first try")
        for number in range(3):
            launcher.post({"return": True}, x_daily_session_id=f"s-{number}")
        sent = {"poison", "s-0", "s-1", "s-2"}
        until(lambda: {found["data"]["session_id"] for found in sink.contents()} == sent, "the others")
        until(lambda: str(sink.posts).count('"poison"') >= 3, "it is tried again")
        sink.refused = None
        assert launcher.stop() == 0
    assert journals(tmp_path) == []


def test_a_report_that_is_rejected_for_good_delays_no_other(tmp_path: Path) -> None:
    with Sink(422) as sink, launch(tmp_path, PIPECAT_REPORT_URL=sink.url()) as launcher:
        for number in range(2):
            launcher.post({"return": True}, x_daily_session_id=f"s-{number}")
        until(lambda: len(sink.posts) == 2, "each of them, once")
        launcher.wait_for_log("| s-1 - PIPECAT_REPORT_URL will not take a call's report: HTTP status 422")
        assert launcher.stop() == 0
    assert journals(tmp_path) == []


def test_an_address_that_hangs_delays_no_call(tmp_path: Path) -> None:
    with Sink(None) as sink, launch(tmp_path, PIPECAT_REPORT_URL=sink.url()) as launcher:
        for _ in range(5):
            assert launcher.post({"return": True}).status_code == 200
        until(lambda: sink.posts, "the first to be sent")
        until(lambda: len(filed(tmp_path)) == 5, "their reports in the file")


def test_a_file_that_cannot_be_written_delays_no_call_and_reports_are_filed_once_it_can(tmp_path: Path) -> None:
    (tmp_path / CALLS).mkdir()
    with launch(tmp_path) as launcher:
        for _ in range(2):
            assert launcher.post({"return": True}).status_code == 200
        launcher.wait_for_log("PIPECAT_REPORTS_DIR: a report cannot be written: Is a directory")
        (tmp_path / CALLS).rmdir()
        assert launcher.post({"return": True}).status_code == 200
        until(lambda: len(filed(tmp_path)) == 3, "all reports")
        assert launcher.stop() == 0
        assert len(launcher.lines("cannot be written")) == 1
    assert len({report["id"] for report in filed(tmp_path)}) == 3


FULL_DISK = """
import resource, sys
from pipecat_base.telemetry.journal import Journal

journal = Journal(sys.argv[1], sends=False)
before = resource.getrlimit(resource.RLIMIT_FSIZE)
journal.end({"id": "one", "seconds": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
try:
    journal.end({"id": "two", "reason": "x" * 200})
except OSError as error:
    print(error.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, before)
journal.end({"id": "three"})
journal.close()
"""


def test_a_full_disk_leaves_no_half_a_line(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True, check=True)
    assert ended.stdout == "File too large\n"
    assert [report["id"] for report in filed(tmp_path)] == ["one", "two", "three"]
    assert journals(tmp_path) == []


def test_settings_that_cannot_be_used_end_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = run("serve", cwd=BOTS / "observed", PIPECAT_REPORTS_DIR=str(tmp_path / "file"))
    assert ended.returncode == 24
    assert "PIPECAT_REPORTS_DIR: " in ended.stderr
    ended = run("serve", cwd=tmp_path, PIPECAT_REPORT_SECRET="short")
    assert ended.returncode == 24
    assert "PIPECAT_REPORT_SECRET: the value is not a webhook secret" in ended.stderr


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], (None, None, None)),
        ([1.0], (1.0, 1.0, 1.0)),
        ([2.0, 1.0], (1.0, 2.0, 2.0)),
        ([float(n) for n in range(1, 101)], (50.0, 95.0, 99.0)),
    ],
)
def test_percentiles_are_of_the_nearest_rank(values: list[float], wanted: tuple[float | None, ...]) -> None:
    assert tuple(percentiles(values).values()) == wanted
