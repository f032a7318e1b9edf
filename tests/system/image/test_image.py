"""The image, in real containers: what is in it, how it starts, and how it ends."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import httpx
import pytest

from pipecat_base.cli.call import audio
from tests.system.image.docker import FULL, SLIM, Container, call, docker
from tests.support.launchers import BOTS, ROOT, run, until
from tests.support.tones import pitch, tone

SAYS_VARIABLES = """
import os


async def bot(args):
    print("said", {name: os.environ.get(name) for name in args.body}, flush=True)
"""


SPY = """
import os

def readable():
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        names = [f"/proc/{pid}/environ", f"/proc/{pid}/cmdline"]
        try:
            names += [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd") if pid != str(os.getpid())]
        except OSError:
            pass
        for name in names:
            try:
                if not os.path.isfile(name) and "/fd/" in name:
                    continue
                yield open(name, errors="replace").read()
            except OSError:
                pass

async def bot(args):
    found = "".join(readable())
    assert "seen-by-all" in found and "seen-from-pre-app" in found
    assert "s3cret" not in found, found
"""


def project(folder: Path, bot: str = "async def bot(args): ...\n", pre_app: str | None = None) -> list[str]:
    """The options that mount a project."""
    (folder / "bot.py").write_text(bot)
    options = ["-v", f"{folder}/bot.py:/app/bot.py:ro"]
    if pre_app is not None:
        (folder / "pre-app.sh").write_text(pre_app)
        options += ["-v", f"{folder}/pre-app.sh:/app/pre-app.sh:ro"]
    return options


def test_a_bot_is_served_and_stopped(tmp_path: Path) -> None:
    with Container(SLIM, *project(tmp_path), "-e", "DRAIN_NOTICE=0").wait_until_ready() as container:
        assert container.post("/bot", json={}).json() == {}
        assert container.stop() < 5
        assert container.exit_status() == 0
        assert "Stopped" in container.log()


@pytest.mark.parametrize("image", [SLIM, f"{SLIM}-nonroot"])
@pytest.mark.parametrize("entrypoint", [True, False])
def test_python_app_py_starts_the_launcher(tmp_path: Path, image: str, entrypoint: bool) -> None:
    options = ["--entrypoint", "python"] if entrypoint else []
    command = ("app.py",) if entrypoint else ("python", "app.py")
    with Container(image, *project(tmp_path), *options, "-e", "DRAIN_NOTICE=0", command=command) as container:
        container.wait_until_ready()
        assert container.post("/bot", json={}).json() == {}
        assert container.run("/opt/pipecat-base/health") == "HTTP/1.1 200 OK"
        assert container.stop() < 5
        assert container.exit_status() == 0


def test_a_projects_own_app_py_replaces_the_images(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("NAME = 'mine'\n")
    bot = "import app\n\n\nasync def bot(args):\n    print('app is', app.NAME, flush=True)\n"
    with Container(SLIM, *project(tmp_path, bot), "-v", f"{tmp_path}/app.py:/app/app.py:ro") as container:
        assert container.wait_until_ready().post("/bot", json={}).json() == {}
        assert "app is mine" in container.log()


def test_it_is_a_gateway_with_its_page_when_asked(tmp_path: Path) -> None:
    key = {"authorization": "Bearer pk_test"}
    command = ("dev", "--host", "0.0.0.0")
    options = [*project(tmp_path), "-e", "PIPECAT_PUBLIC_API_KEYS=pk_test"]
    with Container(SLIM, *options, command=command).wait_until_ready() as container:
        assert container.http.get(f"http://{container.address}/").text.startswith("<!doctype html>")
        assert container.http.get(f"http://{container.address}/page/app.js").status_code == 200
        assert container.post("/v1/public/agent/start").status_code == 401
        assert container.post("/v1/public/agent/start", headers=key).status_code == 200
    with Container(SLIM, *project(tmp_path), command=command) as container:
        assert container.exit_status() == 24
        assert "PIPECAT_PUBLIC_API_KEYS: not set" in container.log()


def test_it_runs_with_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    hardened = ["--user", "23456:0", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
    hardened += ["--security-opt", "no-new-privileges"]
    with Container(SLIM, *project(tmp_path), *hardened).wait_until_ready() as container:
        assert container.post("/bot", json={}).status_code == 200
        # The mounted file has a place to be mounted on; nothing else was written.
        assert docker("diff", container.id).split("\n") == ["C /app", "A /app/bot.py"]


def test_it_serves_without_a_network(tmp_path: Path) -> None:
    with Container(SLIM, *project(tmp_path), "--network", "none") as container:
        until(lambda: "Ready: " in container.log(), "ready")
        container.run("/opt/pipecat-base/health")


def test_a_process_that_the_bot_spawns_is_not_a_second_launcher() -> None:
    mounted = [option for name in ("bot", "work") for option in ("-v", f"{BOTS}/processes/{name}.py:/app/{name}.py:ro")]
    with Container(SLIM, *mounted).wait_until_ready() as container:
        assert container.post("/bot", json={"number": 12}).status_code == 200
        container.wait_for_log("squared 144")
        assert container.log().count("Ready: ") == 1


@pytest.mark.parametrize(
    ("mounted", "inside", "module"),
    [
        ("/opt/krisp_viva/krisp_audio", "__init__.py", "krisp_audio"),
        ("/opt/krisp_viva/krisp_audio", "krisp_audio/__init__.py", "krisp_audio"),
        ("/opt/krisp_viva/krisp_audio", "krisp_audio.py", "krisp_audio"),
        ("/krisp/python/pipecat_ai_krisp", "__init__.py", "pipecat_ai_krisp"),
        ("/krisp/python/pipecat_ai_krisp", "pipecat_ai_krisp/__init__.py", "pipecat_ai_krisp"),
    ],
)
def test_krisp_is_importable_when_it_is_mounted(tmp_path: Path, mounted: str, inside: str, module: str) -> None:
    file = tmp_path / "sdk" / inside
    file.parent.mkdir(parents=True)
    file.write_text("VERSION = 7\n")
    bot = f"import {module}\nprint('krisp', {module}.VERSION, flush=True)\nasync def bot(args): ...\n"
    options = [*project(tmp_path, bot), "-v", f"{tmp_path}/sdk:{mounted}:ro"]
    with Container(SLIM, *options).wait_until_ready() as container:
        container.wait_for_log("krisp 7")


def test_it_is_healthy_while_it_lives(tmp_path: Path) -> None:
    bot = "import time\nasync def bot(args):\n    time.sleep(60)\n"
    settings = ["--health-interval", "1s", "--health-retries", "1", "-e", "EVENT_LOOP_STALL_LIMIT=2"]
    with Container(SLIM, *project(tmp_path, bot), *settings).wait_until_ready() as container:
        until(lambda: container.health() == "healthy", "healthy")
        assert container.run("/opt/pipecat-base/health") == "HTTP/1.1 200 OK"
        with pytest.raises(httpx.TimeoutException):
            container.post("/bot", json={}, timeout=0.5)
        until(lambda: container.health() == "unhealthy", "unhealthy")


@pytest.mark.parametrize(
    ("options", "command"),
    [
        (["-e", "PORT=9000"], ()),
        (["-e", "PIPECAT_HOST=127.0.0.2"], ()),
        (["--sysctl", "net.ipv6.conf.lo.disable_ipv6=0", "-e", "PIPECAT_HOST=::1"], ()),
        ([], ("--port", "9000")),
        ([], ("serve", "--port=9000", "--host=127.0.0.2")),
    ],
)
def test_its_health_is_asked_where_it_listens(tmp_path: Path, options: list[str], command: tuple[str, ...]) -> None:
    pre_app = "export PORT=9001\n" if not command and "PORT=9000" not in options else None
    with Container(SLIM, *project(tmp_path, pre_app=pre_app), *options, command=command) as container:
        container.wait_for_log("Ready: ")
        assert container.run("/opt/pipecat-base/health") == "HTTP/1.1 200 OK"


def test_a_bot_that_can_not_be_read_is_named_with_who_can_not(tmp_path: Path) -> None:
    options = project(tmp_path)
    (tmp_path / "bot.py").chmod(0o600)
    with Container(SLIM, *options, "--user", "10001:10001") as container:
        assert container.exit_status() == 10
        assert "bot_not_found: /app/bot.py cannot be read by uid 10001." in container.log()


def test_it_can_be_started_again(tmp_path: Path) -> None:
    bot = "import os\nasync def bot(args):\n    os._exit(9)\n"
    with Container(SLIM, *project(tmp_path, bot), "--restart", "on-failure").wait_until_ready() as container:
        with pytest.raises(httpx.TransportError):
            container.post("/bot", json={})
        until(lambda: container.log().count("Ready: ") == 2, "ready again, by the engine's policy")
        docker("restart", "-t", "10", container.id)
        until(lambda: container.log().count("Ready: ") == 3, "ready again, as asked")
        assert container.log().count("Stopped") == 1
        container.wait_until_ready()


@pytest.mark.parametrize(
    ("pre_app", "says"),
    [
        ("export COLOUR='blue green'\nWORD=kept-here\n", {"COLOUR": "blue green", "WORD": None}),
        ("#!/bin/bash\nshopt -s nullglob\nparts=(a b)\nexport COLOUR=${parts[1]}\n", {"COLOUR": "b"}),
        ("export COLOUR=red\nexit 0\n", {"COLOUR": "red"}),
        ("export COLOUR=$(printf 'two\\nlines \"and\" $quotes')\n", {"COLOUR": 'two\nlines "and" $quotes'}),
        ("sleep 300 &\n", {"COLOUR": None}),
        ("trap 'echo bye' EXIT\nexport COLOUR=red\n", {"COLOUR": "red"}),
        ("#!/usr/bin/env bash\nset -Ceu\ncd /\nexport COLOUR=red\n", {"COLOUR": "red"}),
        ("export status=9 file=/app/bot.py exported=x shell=zsh\n", {"status": "9", "file": "/app/bot.py", "exported": "x"}),
        ("#!/bin/bash\nf() { :; }\nexport -f f\nunset GIVEN\n", {"GIVEN": None, "a.b-c": "d", "UID": "7"}),
    ],
)
def test_what_pre_app_exports_reaches_the_bot(tmp_path: Path, pre_app: str, says: dict[str, str | None]) -> None:
    options = [*project(tmp_path, SAYS_VARIABLES, pre_app), "-e", "GIVEN=1", "-e", "a.b-c=d", "-e", "UID=7"]
    with Container(SLIM, *options, "--read-only").wait_until_ready() as container:
        container.post("/bot", json=says)
        container.wait_for_log(f"said {says}")
        assert "line " not in container.log()  # no complaint of a shell's
        assert container.run("sh", "-c", "ls -A /dev/shm /tmp | grep -v :$ || true") == ""


@pytest.mark.parametrize(
    ("pre_app", "mode", "status", "reason"),
    [
        ("echo on its way\nfalse || exit 7\n", 0o644, 7, "/app/pre-app.sh ended with status 7"),
        ("#!/bin/bash -e\nfalse\nexport COLOUR=red\n", 0o644, 1, "/app/pre-app.sh ended with status 1"),
        ("export COLOUR=red\r\n", 0o644, 1, "/app/pre-app.sh has Windows line ends"),
        ("export COLOUR=red\n", 0o600, 1, "/app/pre-app.sh is not a file that uid 10001 can read"),
    ],
)
def test_a_pre_app_that_fails_stops_the_container_and_is_named(
    tmp_path: Path, pre_app: str, mode: int, status: int, reason: str
) -> None:
    options = project(tmp_path, pre_app=pre_app)
    (tmp_path / "pre-app.sh").chmod(mode)
    with Container(SLIM, *options, "--user", "10001:10001", "-e", "SECRET=hunter2") as container:
        assert container.exit_status() == status
        assert f"pre_app_failed: {reason}" in container.log()
        assert "Ready" not in container.log()
        assert "/tmp/" not in docker("diff", container.id)


@pytest.mark.parametrize("image", [SLIM, f"{SLIM}-nonroot"])
def test_no_process_of_a_container_shows_a_bot_the_launchers_secrets(image: str, tmp_path: Path) -> None:
    pre_app = "export PIPECAT_WEBSOCKET_SECRET=s3cret-of-websockets FROM_PRE_APP=seen-from-pre-app\n"
    options = ["-e", "PIPECAT_ISOLATION=process", "-e", "PIPECAT_POD_TOKEN=s3cret-of-the-pod", "-e", "OPEN=seen-by-all"]
    with Container(image, *project(tmp_path, SPY, pre_app), *options).wait_until_ready() as container:
        answer = container.post("/bot", json={}, headers={"x-pipecat-pod-token": "s3cret-of-the-pod"})
        assert answer.status_code == 200, container.log()


def test_pre_app_is_not_halted_at_a_terminal(tmp_path: Path) -> None:
    options = project(tmp_path, SAYS_VARIABLES, "read answer\nexport ANSWER=${answer:-none}\n")
    with Container(SLIM, *options, "-i", "-t").wait_until_ready() as container:
        container.post("/bot", json={"ANSWER": 1})
        container.wait_for_log("said {'ANSWER': 'none'}")
        assert "Done" not in container.log()


def test_what_pre_app_exports_is_missed_out_loud_where_it_can_not_be_kept(tmp_path: Path) -> None:
    options = [*project(tmp_path, SAYS_VARIABLES, "export COLOUR=blue\n"), "--tmpfs", "/dev/shm:ro"]
    with Container(SLIM, *options, "--read-only").wait_until_ready() as container:
        container.post("/bot", json={"COLOUR": 1})
        container.wait_for_log("said {'COLOUR': None}")
        assert "what /app/pre-app.sh exports is lost: neither /dev/shm nor /tmp can be written" in container.log()


def test_what_pre_app_leaves_behind_is_reaped(tmp_path: Path) -> None:
    pre_app = "sh -c '(sleep 0.2; exit 0) & exit 0'\n"
    with Container(SLIM, *project(tmp_path, pre_app=pre_app)).wait_until_ready() as container:
        states = "cat /proc/[0-9]*/stat 2>/dev/null | cut -d' ' -f3"
        until(lambda: "Z" not in container.run("sh", "-c", states), "no zombie")


@pytest.mark.parametrize("slow", ["pre-app", "pre-app in bash", "import", "setup", "blocking setup", "setup that blocks the loop"])
def test_it_can_be_stopped_before_it_is_ready(tmp_path: Path, slow: str) -> None:
    wait = "print('here', flush=True); time.sleep(60)"
    first = {
        "pre-app": "",
        "pre-app in bash": "",
        "import": f"import time; {wait}",
        "setup": "async def setup():\n    import asyncio\n    print('here', flush=True); await asyncio.sleep(60)",
        "blocking setup": f"def setup():\n    import time\n    {wait}",
        "setup that blocks the loop": f"async def setup():\n    import time\n    {wait}",
    }[slow]
    bot = f"{first}\nasync def bot(args): ...\n"
    pre_app = {"pre-app": "echo here; sleep 60\n", "pre-app in bash": "#!/bin/bash\necho here; sleep 60\n"}.get(slow)
    with Container(SLIM, *project(tmp_path, bot, pre_app)) as container:
        container.wait_for_log("here")
        assert container.stop(20) < 10
        assert container.exit_status() == 0
        said = "SIGTERM received before the server was up; nothing to drain, exiting"
        assert [line for line in container.log().splitlines() if "SIGTERM" in line] == [said]


def test_why_it_could_not_start_is_where_kubernetes_looks(tmp_path: Path) -> None:
    (tmp_path / "message").write_text("")
    options = [*project(tmp_path, "x = 1\n"), "-v", f"{tmp_path}/message:/dev/termination-log"]
    with Container(SLIM, *options) as container:
        assert container.exit_status() == 17
        said = "Refusing to start: bot.py has no function `bot`; it has no functions at all. "
        assert (tmp_path / "message").read_text().startswith(said)


def test_the_token_refresher_beside_it_is_told_of_its_end(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    options = [*project(tmp_path), "-v", f"{tmp_path}/shared:/var/run/token-refresher", "-e", "DRAIN_NOTICE=0"]
    with Container(SLIM, *options).wait_until_ready() as container:
        assert list((tmp_path / "shared").iterdir()) == []
        container.stop()
        assert container.exit_status() == 0
        assert [file.name for file in (tmp_path / "shared").iterdir()] == ["shutdown"]


SAYS_ITS_LAST = """
import os

print("printed at import")


async def bot(args):
    print("printed last")
    os._exit(3)
"""


def test_its_last_words_are_in_the_lane_and_on_the_console(tmp_path: Path) -> None:
    """Its process 1 ends with the launcher, and takes everything with it."""
    options = [*project(tmp_path, SAYS_ITS_LAST), "-v", f"{tmp_path}/logs:/logs", "-e", "PCC_LOG_DIR=/logs/bot"]
    for number in range(5):
        with Container(SLIM, *options, "--cpus", "0.5").wait_until_ready() as container:
            with pytest.raises(httpx.TransportError):
                container.post("/bot", json={}, headers={"x-daily-session-id": f"s-{number}"})
            assert container.exit_status() == 3
            container.wait_for_log("printed last")
            lines = (tmp_path / "logs" / "bot" / "bot.jsonl").read_text().splitlines()
            records = [json.loads(line) for line in lines]
            (last,) = [r for r in records if r["line"] == "printed last" and r["session_id"] == f"s-{number}"]
            assert last["stream"] == "stdout"
            assert len([r for r in records if r["line"] == "printed at import"]) == number + 1


ANSWERS_AT_THE_PLATFORMS_ADDRESS = """
import http.server
import threading


class Sidecar(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked for", self.path, flush=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"iceConfig": {"iceServers": [{"urls": "stun:127.0.0.1:3478"}]}}')


server = http.server.ThreadingHTTPServer(("127.0.0.1", 9090), Sidecar)
threading.Thread(target=server.serve_forever, daemon=True).start()


async def bot(args): ...  # speaks WebRTC
"""


def test_it_asks_for_ice_servers_where_the_platform_has_them(tmp_path: Path) -> None:
    with Container(FULL, *project(tmp_path, ANSWERS_AT_THE_PLATFORMS_ADDRESS)) as container:
        container.wait_for_log("asked for /ice-servers")
        container.wait_for_log("stun:127.0.0.1:3478 does not answer")  # as nothing listens there
        assert container.log().count("WARNING") == 1


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("check", "is fine"),
        ("doctor", "the launcher's and yours fit each other"),
        ("settings", "MAX_SESSIONS"),
        ("pwd", "/app"),
    ],
)
def test_a_command_can_be_given(tmp_path: Path, argument: str, says: str) -> None:
    with Container(SLIM, *project(tmp_path), command=(argument,)) as container:
        assert container.exit_status() == 0
        assert says in container.log()


def test_a_mistake_in_the_bot_is_one_line_and_its_status(tmp_path: Path) -> None:
    with Container(SLIM, *project(tmp_path, "async def bot(args) ...\n")) as container:
        assert container.exit_status() == 12
        assert "bot_syntax_error" in container.log()


ECHO = ["-v", f"{ROOT}/examples/echo/bot.py:/app/bot.py:ro"]


def test_full_holds_a_call_without_a_lost_frame_on_the_smallest_profile(tmp_path: Path) -> None:
    with Container(FULL, *ECHO, "--cpus", "0.5", "--memory", "1g").wait_until_ready() as container:
        assert "lost 0 (0.0 %)" in call(container, tmp_path)
        heard, _ = audio.read_wav(str(tmp_path / "tone.reply.wav"))
        assert pitch(heard) == pytest.approx(440, abs=5)


def test_a_browser_can_call_it(tmp_path: Path) -> None:
    with Container(FULL, *ECHO).wait_until_ready() as container:
        audio.write_wav(str(tmp_path / "tone.wav"), tone(440, 3.0, 16000), 16000)
        url = f"http://{container.address}/api/offer"
        said = run("call", "tone.wav", "--webrtc", "--url", url, cwd=tmp_path).stdout
        assert "lost 0 (0.0 %)" in said
        heard, rate = audio.read_wav(str(tmp_path / "tone.reply.wav"))
        assert pitch(heard, rate) == pytest.approx(440, abs=5)


def test_docker_stop_lets_a_call_finish(tmp_path: Path) -> None:
    with Container(FULL, *ECHO, "-e", "SHUTDOWN_TIMEOUT=30").wait_until_ready() as container:
        said: list[str] = []
        calling = threading.Thread(target=lambda: said.append(call(container, tmp_path, 4.0)))
        calling.start()
        container.wait_for_log("Session started")
        time.sleep(0.5)
        container.stop(60)
        calling.join()
        assert "lost 0 (0.0 %)" in said[0]
        assert container.exit_status() == 0


def test_full_runs_as_nobody_in_particular_too(tmp_path: Path) -> None:
    with Container(f"{FULL}-nonroot", *ECHO, "--read-only", "--tmpfs", "/tmp").wait_until_ready() as container:
        assert container.run("id", "-u") == "10001"
        assert "lost 0 (0.0 %)" in call(container, tmp_path)


def test_an_idle_container_needs_little_memory(tmp_path: Path) -> None:
    with Container(SLIM, *project(tmp_path), "--memory", "60m").wait_until_ready() as container:
        assert container.post("/bot", json={}).status_code == 200
        said = json.loads(docker("stats", "--no-stream", "--format", "{{json .}}", container.id))["MemUsage"]
        assert float(said.split("MiB")[0]) < 60e6 / (1 << 20)


def test_a_bot_that_eats_its_memory_is_killed_and_seen(tmp_path: Path) -> None:
    bot = "async def bot(args):\n    b = bytearray(512 << 20)\n    for i in range(0, len(b), 4096):\n        b[i] = 1\n"
    with Container(SLIM, *project(tmp_path, bot), "--memory", "200m", "--memory-swap", "200m") as container:
        container.wait_until_ready()
        with pytest.raises(Exception, match=r"disconnected|reset|closed"):
            container.post("/bot", json={})
        assert container.exit_status() == 137
        assert docker("inspect", container.id, "--format", "{{.State.OOMKilled}}") == "true"
