"""Real pipecat pipelines over real sockets: phone calls and a plain client, each hearing its own tone."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from pipecat_base.cli.call import audio
from tests.support import phones
from tests.support.launchers import PIPECAT, ROOT, Launcher, in_one_process, run
from tests.support.phones import FRAME, call
from tests.support.tones import pitch, tone

HELD_BACK = 10 if version("pipecat-ai").startswith("0.") else 0
"""Frames at most that pipecat before 1.0 still has in its resamplers when a call ends."""


@pytest.mark.parametrize("provider", phones.PROVIDERS, ids=lambda provider: provider.name)
def test_a_phone_call_hears_its_own_tone(echo: Launcher, provider: phones.Provider) -> None:
    heard = call(echo, provider, 440)
    assert len(heard) > 8000
    assert pitch(heard) == pytest.approx(440, abs=5)


def test_calls_at_once_are_not_crossed(echo: Launcher) -> None:
    frequencies = [300 + 150 * n for n in range(6)]
    with ThreadPoolExecutor(len(frequencies)) as pool:
        heard = list(pool.map(lambda frequency: call(echo, phones.twilio(), frequency), frequencies))
    assert [pitch(samples) for samples in heard] == [pytest.approx(frequency, abs=5) for frequency in frequencies]


def test_a_plain_client_hears_its_own_tone(echo: Launcher) -> None:
    """As the JavaScript client does: protobuf in binary frames on /ws-client."""
    from pipecat.frames import protobufs

    frames_pb2: Any = __import__(f"{protobufs.__name__}.frames_pb2", fromlist=["Frame"])
    samples, rate, heard, rates = tone(660, 1.5, 16000), 16000, b"", set()
    with connect(echo.websocket_url("/ws-client"), proxy=None) as websocket:

        def listen() -> None:
            nonlocal heard
            try:
                for raw in websocket:
                    frame = frames_pb2.Frame.FromString(raw)
                    if frame.WhichOneof("frame") == "audio":
                        heard += frame.audio.audio
                        rates.add(frame.audio.sample_rate)
            except ConnectionClosed:
                pass

        listener = threading.Thread(target=listen)
        listener.start()
        for start in range(0, len(samples), 320):
            chunk = phones.to_pcm(samples[start : start + 320])
            message = frames_pb2.Frame(audio=frames_pb2.AudioRawFrame(audio=chunk, sample_rate=rate, num_channels=1))
            websocket.send(message.SerializeToString())
            time.sleep(0.02)
        time.sleep(0.3)
    listener.join(10)
    returned = phones.from_pcm(heard)
    (rate,) = rates
    assert len(returned) > rate
    assert pitch(returned, rate) == pytest.approx(660, abs=5)


def test_the_pipelines_log_carries_the_session_and_its_latencies() -> None:
    with Launcher(ROOT / "examples" / "echo", PIPECAT_LOG_LEVEL="DEBUG") as launcher:
        call(launcher, phones.twilio(), 440, 0.5)
        launcher.wait_for_log("Session ended: completed")
        launcher.wait_for_log("[pcc-observability] Startup timing | ")
        log = launcher.log()
        (started,) = [line for line in log.splitlines() if "[pcc-observability] Startup timing | " in line]
        (ended,) = [line for line in log.splitlines() if "Session ended: completed" in line]
        session = ended.split(" | ")[3].split(" - ")[0]
        assert len(session) == 36
        assert f"| {session} - [pcc-observability] Startup timing | " in started
        assert re.search(r"\| start_time=\d+\.\d{3} \| total=\d+\.\d{3}s \| processors: (\[.*\])$", started)
        timings = json.loads(started.partition("processors: ")[2])
        assert timings
        assert all(set(timing) == {"name", "offset", "duration"} for timing in timings)
        (connected,) = [line for line in log.splitlines() if "[pcc-observability] Transport timing | " in line]
        assert re.search(r"Transport timing \| start_time=\d+\.\d{3} \| client_connected=\d+\.\d{3}s$", connected)
        assert "has no setup_" not in log
        assert "deprecated" not in log.lower()


@pytest.mark.skipif(PIPECAT < (1, 14), reason="the cascade bot is written for pipecat-ai 1.14")
def test_a_cascades_latencies_are_in_the_lines_that_the_platform_documents(tmp_path: Path) -> None:
    speech, rate = audio.read_wav(str(ROOT / "examples" / "speech.wav"))
    audio.write_wav(str(tmp_path / "speech.wav"), speech[: 4 * rate], rate)
    # After the bot's greeting, however long it takes to load its models: there is no first speech of one interrupted.
    (tmp_path / "call.toml").write_text('[[say]]\nwav = "speech.wav"\nanswered = 0.3\n')
    with Launcher(ROOT / "benchmarks" / "bots" / "cascade") as launcher:
        run("call", "--scenario", "call.toml", "--url", launcher.websocket_url(), "--tail", "2", cwd=tmp_path)
        for kind, form in (
            ("First bot speech", r"latency=\d+\.\d{3}s"),
            ("User-bot latency", r"latency=\d+\.\d{3}s"),
            ("Latency breakdown", r"(start_time=\d+\.\d{3} \| )?events: (?P<json>\[.*\])"),
        ):
            launcher.wait_for_log(f" - [pcc-observability] {kind} | ")
            for line in launcher.lines(f"[pcc-observability] {kind} | "):
                found = re.search(rf"\[pcc-observability\] {kind} \| {form}$", line)
                assert found, line
                assert isinstance(json.loads(found.groupdict().get("json") or "[]"), list)
        assert "deprecated" not in launcher.log().lower()


def test_the_observers_can_be_turned_off() -> None:
    with Launcher(ROOT / "examples" / "echo", PIPECAT_OBSERVERS="false") as launcher:
        call(launcher, phones.twilio(), 440, 0.5)
        launcher.wait_for_log("Session ended: completed")
        assert "[pcc-observability] Startup timing | " not in launcher.log()


def test_the_users_own_setup_files_still_run(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "async def setup_worker_runner(runner): ...\n\n\n"
        "async def setup_pipeline_worker(worker):\n    print('my setup file ran', flush=True)\n\n\n"
        "setup_pipeline_task = setup_pipeline_worker\n"
    )
    with Launcher(ROOT / "examples" / "echo", PIPECAT_SETUP_FILES=str(mine)) as launcher:
        call(launcher, phones.twilio(), 440, 0.5)
        launcher.wait_for_log("my setup file ran")
        launcher.wait_for_log("[pcc-observability] Startup timing | ")


def test_a_phone_call_hears_no_gap_while_the_launcher_drains() -> None:
    with Launcher(ROOT / "examples" / "echo", DRAIN_NOTICE="0") as launcher, ThreadPoolExecutor() as pool:
        calling = pool.submit(call, launcher, phones.twilio(), 440, 3.0, tail=1.0)
        launcher.wait_for_log("Session started")
        time.sleep(1)
        launcher.signal(signal.SIGTERM)
        heard = calling.result()
        assert launcher.wait(timeout=15) == 0
        assert len(heard) >= 0.99 * 3 * 8000 - HELD_BACK * FRAME
        middle = heard[4000:20000]
        quiet = [i for i in range(0, len(middle), FRAME) if max(map(abs, middle[i : i + FRAME])) < 1000]
        assert quiet == []


def test_the_call_command_measures_a_call(echo: Launcher, tmp_path: Path) -> None:
    wav = tmp_path / "tone.wav"
    audio.write_wav(str(wav), tone(500, 1.5, 16000), 16000)
    result = run("call", str(wav), "--url", echo.websocket_url(), "--calls", "2", "--tail", "0.5", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    figures = r"call 2: an echo: sent 100 frames, received (\d+), lost 0 \(0.0 %\), first audio after \d+ ms, "
    second = re.search(figures + r"speech came back after \d+ ms, longest gap \d+ ms\n", result.stdout)
    assert second, result.stdout
    assert 75 - HELD_BACK < int(second[1]) <= 100
    assert re.search(r"calls 2, frames sent 200, received \d+, lost 0\n", result.stdout)
    heard, rate = audio.read_wav(str(tmp_path / "tone.reply.wav"))
    assert rate == 8000
    assert pitch(heard) == pytest.approx(500, abs=5)


def test_the_call_command_measures_a_webrtc_call(echo: Launcher, tmp_path: Path) -> None:
    audio.write_wav(str(tmp_path / "tone.wav"), tone(500, 2.0, 16000), 16000)
    url = f"http://127.0.0.1:{echo.port}/api/offer"
    for _ in range(3):  # a machine that is busy tears an echo over WebRTC apart
        result = run("call", "tone.wav", "--webrtc", "--url", url, "--calls", "2", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        if result.stdout.count("an echo") == 2:
            break
    figures = r"call 2: an echo: sent \d+ frames, received (\d+), lost 0 \(0.0 %\), first audio after \d+ ms, "
    second = re.search(figures + r"speech came back after \d+ ms, longest gap \d+ ms\n", result.stdout)
    assert second, result.stdout
    assert int(second[1]) > 100
    heard, rate = audio.read_wav(str(tmp_path / "tone.reply.wav"))
    assert rate == 48000
    begin = next(n for n, sample in enumerate(heard) if sample > 5000) + rate // 10
    assert pitch(heard[begin : begin + rate], rate) == pytest.approx(500, abs=5)


@in_one_process
def test_a_call_whose_bot_is_killed_is_cut_off(tmp_path: Path) -> None:
    audio.write_wav(str(tmp_path / "tone.wav"), tone(500, 5.0, 8000), 8000)
    with Launcher(ROOT / "examples" / "echo") as launcher, ThreadPoolExecutor() as pool:
        calling = pool.submit(run, "call", "tone.wav", "--url", launcher.websocket_url(), cwd=tmp_path)
        launcher.wait_for_log("Session started")
        time.sleep(1)
        launcher.process.kill()
        result = calling.result()
    assert result.returncode == 1
    assert re.search(r"call 1: .*, cut off: without a close frame", result.stdout), result.stdout


def test_the_call_command_says_when_the_bot_ends_a_webrtc_call(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("async def bot(args): ...\n")
    audio.write_wav(str(tmp_path / "tone.wav"), tone(500, 3.0, 16000), 16000)
    with Launcher(tmp_path, PIPECAT_ICE_SERVERS="[]") as launcher:
        url = f"http://127.0.0.1:{launcher.port}/api/offer"
        result = run("call", "tone.wav", "--webrtc", "--url", url, cwd=tmp_path)
        refused = run("call", "tone.wav", "--webrtc", "--url", url.replace("offer", "nothing"), cwd=tmp_path)
    assert result.returncode == 1
    assert "heard nothing, ended by the bot: its connection is closed; its log says why" in result.stdout
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "refused the call: 404" in refused.stderr


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"sdp": 5, "type": "answer"}, "did not answer with"),
        ({"sdp": "v=0", "type": "offer"}, "did not answer with"),
        ({"sdp": "garbage", "type": "answer"}, "did not answer with"),
        ([], "did not answer with a JSON object"),
        ({"sdp": "v=0"}, "did not answer with SDP"),
    ],
)
def test_an_answer_that_is_none_is_one_line(tmp_path: Path, answer: Any, says: str) -> None:
    (tmp_path / "bot.py").write_text(
        "from pipecatcloud_system import app\n\n\n"
        f"@app.post('/other')\nasync def other():\n    return {answer!r}\n\n\n"
        "async def bot(args): ...\n"
    )
    audio.write_wav(str(tmp_path / "tone.wav"), tone(500, 0.2, 16000), 16000)
    with Launcher(tmp_path) as launcher:
        url = f"http://127.0.0.1:{launcher.port}/other"
        result = run("call", "tone.wav", "--webrtc", "--url", url, cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
    assert says in result.stderr


@pytest.mark.parametrize("webrtc", [[], ["--webrtc"]])
def test_of_several_calls_those_that_were_taken_are_measured(tmp_path: Path, webrtc: list[str]) -> None:
    audio.write_wav(str(tmp_path / "tone.wav"), tone(500, 1.0, 16000), 16000)
    with Launcher(ROOT / "examples" / "echo", PIPECAT_ICE_SERVERS="[]", MAX_SESSIONS="1") as launcher:
        url = f"http://127.0.0.1:{launcher.port}/api/offer" if webrtc else launcher.websocket_url() + "?token=secret"
        result = run("call", "tone.wav", *webrtc, "--url", url, "--calls", "2", cwd=tmp_path)
    assert result.returncode == 1
    assert re.search(r"\ncall \d: an echo: sent \d+ frames, received ", result.stdout)
    assert re.search(r"call \d: .* refused the call: 429 at_capacity: MAX_SESSIONS", result.stderr)
    assert "secret" not in result.stderr


@pytest.mark.parametrize(
    ("act", "says"),
    [
        ("await args.websocket.receive_text()", "heard nothing, ended by the bot: 1000 the bot returned"),
        ("raise ValueError", "heard nothing, cut off: 1011 the bot failed; its log says why"),
        (
            "[await args.websocket.send_text('hello') for _ in range(3)]\n    await args.websocket.receive_text()",
            "heard nothing but 3 messages that are not the provider's, ended by the bot: 1000 the bot returned",
        ),
    ],
)
def test_the_call_command_says_how_a_call_without_audio_ended(tmp_path: Path, act: str, says: str) -> None:
    (tmp_path / "bot.py").write_text(f"async def bot(args):\n    {act}\n")
    audio.write_wav(str(tmp_path / "tone.wav"), tone(500, 0.5))
    with Launcher(tmp_path) as launcher:
        result = run("call", "tone.wav", "--url", launcher.websocket_url(), cwd=tmp_path)
    assert result.returncode == 1
    assert says in result.stdout
    assert not (tmp_path / "tone.reply.wav").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.wav"], "No such file"),
        (["broken.wav"], "broken.wav is not a PCM WAV file"),
        (["tone.wav", "--url", "ws://127.0.0.1:9/ws"], "nothing answers at ws://127.0.0.1:9/ws"),
        (["tone.wav", "--url", "ftp://x/y"], "ftp://x/y is not an address to call"),
        (
            ["tone.wav", "--url", "http://127.0.0.1:9", "--key", "pk_secret"],
            "nothing answers at http://127.0.0.1:9/start",
        ),
        (["tone.wav", "--body", "{"], "--body is not JSON"),
        (["tone.wav", "--body", "[]"], "it must be a JSON object"),
        (["tone.wav", "--provider", "plivo", "--from", "+1"], "the streams of plivo have no numbers"),
        (["tone.wav", "--webrtc", "--from", "+1"], "--from, --to and --provider are for phone calls"),
        ([], "give what the caller says: FILE.wav, or --scenario FILE.toml"),
        (["tone.wav", "--webrtc", "--url", "http://127.0.0.1:9/api/offer"], "nothing answers at http://127.0.0.1:9"),
        (["tone.wav", "--webrtc", "--url", "ws://x"], "ws://x is not an address to call"),
    ],
)
def test_a_call_that_can_not_be_made_is_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    audio.write_wav(str(tmp_path / "tone.wav"), tone(500, 0.1))
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    result = run("call", *arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("package", ["numpy", "soxr"])
def test_a_package_that_is_missing_is_named_in_one_line(tmp_path: Path, package: str) -> None:
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError(name={package!r})\n")
    result = run("call", "tone.wav", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == f'pipecat-base call needs {package}: pip install "pipecat-base[call]"\n'
