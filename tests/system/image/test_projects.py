"""Users' projects, each in the folder of its name: built as documented, only FROM being ours, and called."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipecat_base.cli.call import audio
from tests.system.image.docker import Container, built, call, copied, docker, running
from tests.support.launchers import ROOT, run, until
from tests.support.tones import pitch


@pytest.mark.parametrize("case", ["uv", "pip", "pipecat-0.0.104", "pipecat-0.0.91", "other-python"])
def test_an_echo_bot_holds_a_call(case: str, tmp_path: Path) -> None:
    with running(case, tmp_path) as container:
        said = call(container, tmp_path)
        lost = re.search(r"lost (\d+) \(", said)
        # The resampler of an older pipecat keeps the last 160 ms of a call to itself.
        assert lost is not None, said
        assert int(lost[1]) <= (0 if case in ("uv", "pip") else 10), said
        heard, _ = audio.read_wav(str(tmp_path / "tone.reply.wav"))
        assert pitch(heard) == pytest.approx(440, abs=5)
        where = container.run("python", "-c", "import pipecat, sys; print(pipecat.__file__, sys.version)")
        assert where.startswith("/usr/local/lib/" if case == "pip" else "/app/.venv/lib/")
        assert f"/python{'3.11' if case in ('pipecat-0.0.91', 'other-python') else '3.12'}/" in where
        if case == "uv":
            # Not the headless one: it links libGL.
            assert container.run("python", "-c", "import cv2; print(cv2.__version__)")
        if case == "pip":
            # Where the bot's environment has a package too, its version is the one.
            assert container.run("pip", "list", "--format", "freeze").count("starlette==0.46.2") == 1


@pytest.mark.parametrize("example", ["echo", "assistant"])
def test_an_example_builds_as_it_is(example: str) -> None:
    """Each has ``pipecat-base check`` in its Dockerfile."""
    with built(ROOT / "examples" / example) as image:
        if example == "assistant":
            with Container(image) as container:
                assert container.exit_status() == 21
                assert "OPENAI_API_KEY is not set (docker run -e OPENAI_API_KEY)" in container.log()
        with Container(image, "-e", "OPENAI_API_KEY=not-one").wait_until_ready() as container:
            assert container.run("/opt/pipecat-base/health") == "HTTP/1.1 200 OK"


def test_the_project_of_init_builds_and_holds_a_call(tmp_path: Path) -> None:
    assert run("init", "my-bot", cwd=tmp_path).returncode == 0
    account = ("-e", "TWILIO_ACCOUNT_SID=none", "-e", "TWILIO_AUTH_TOKEN=none")
    with built(tmp_path / "my-bot") as image, Container(image, *account).wait_until_ready() as container:
        assert "lost 0 (" in call(container, tmp_path)
        heard, _ = audio.read_wav(str(tmp_path / "tone.reply.wav"))
        assert pitch(heard) == pytest.approx(440, abs=5)


def test_modules_folders_and_variables_of_the_project_are_there(tmp_path: Path) -> None:
    with running("without-fastapi", tmp_path) as container:
        said = container.http.get(f"http://{container.address}/secret").json()
        assert said["length"] == len("not-so-secret")
        assert said["httpx"].startswith("/app/.venv/")
        assert container.post("/bot", json={}).status_code == 200
        container.wait_for_log("Hello, Ada")


def test_the_projects_versions_are_used(tmp_path: Path) -> None:
    with running("older-fastapi", tmp_path) as container:
        versions = container.http.get(f"http://{container.address}/versions").json()
        assert versions["fastapi"][0] == "0.115.6"
        assert versions["starlette"][0].startswith("0.41.")
        assert all(path.startswith("/app/.venv/") for _, path in versions.values())
        assert container.post("/bot", json={}).status_code == 200
        (warning,) = [line for line in container.log().splitlines() if "lacks the security fixes of" in line]
        assert f"starlette {versions['starlette'][0]} lacks" in warning
        assert "CVE-2025-54121" in warning


def test_packages_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with built(copied("conflict", tmp_path)) as image:
        for command in ("serve", "check"):
            with Container(image, command=(command,)) as container:
                assert container.exit_status() == 25
                (line,) = [line for line in container.log().splitlines() if "packages_conflict" in line]
                assert "The launcher's fastapi " in line
                assert "your environment has starlette 0.41.3." in line
                assert "Add fastapi to your requirements.txt or pyproject.toml" in line
                assert "Traceback" not in container.log()
        # A mistake of the bot's own is told as that.
        (tmp_path / "bot.py").write_text("import redis\n")
        with Container(image, "-v", f"{tmp_path}/bot.py:/app/bot.py:ro", command=("check",)) as container:
            assert container.exit_status() == 13
            assert "bot.py:1 needs the package redis" in container.log()
        # A bot without the Session API does not need the one that does not fit.
        (tmp_path / "bot.py").write_text("async def bot(args): ...\n")
        with Container(image, "-v", f"{tmp_path}/bot.py:/app/bot.py:ro").wait_until_ready() as container:
            assert container.post("/bot", json={}).status_code == 200


@pytest.mark.parametrize(("case", "where"), [("nonroot-pip", "/opt/bot/lib/"), ("nonroot-uv", "/app/.venv/lib/")])
def test_a_project_of_the_nonroot_image_runs_as_anybody(case: str, where: str, tmp_path: Path) -> None:
    with built(copied(case, tmp_path)) as image:
        for user in ([], ["--user", "23456:0"]):
            with Container(image, *user, "--read-only", "--tmpfs", "/tmp").wait_until_ready() as container:
                assert container.run("id", "-u") == ("23456" if user else "10001")
                assert container.post("/bot", json={}).status_code == 200
                container.wait_for_log(f"said {where}")
        kept = ["run", "--rm", "--user", "0", "--entrypoint", "du", image, "-s", "/home/bot", "/root"]
        assert all(int(line.split()[0]) < 100 for line in docker(*kept).splitlines()), "a cache stayed in the image"


def test_a_virtual_environment_that_can_not_be_run_is_named(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").symlink_to("/opt/homebrew/bin/python3.13")
    (project / "bot.py").write_text("async def bot(args): ...\n")
    (project / "Dockerfile").write_text("FROM pipecat-base:slim\nCOPY . .\n")
    with built(project) as image, Container(image).wait_until_ready() as container:
        assert "/app/.venv has no Python that can be run here" in container.log()


def test_services_that_pre_app_starts_run_beside_the_bot(tmp_path: Path) -> None:
    with running("datadog", tmp_path) as container:
        assert container.post("/bot", json={}, headers={"x-daily-session-id": "logged"}).status_code == 200
        sent = until(lambda: container.run("cat", "/var/log/my-bot/sent"), "the agent has read the log")
        records = [json.loads(line)["record"] for line in sent.splitlines()]
        assert "logged" in [r["extra"]["session_id"] for r in records if r["message"] == "taking a call"]
        for process in ("/run/crond.pid", "/run/agent.pid"):
            container.run("sh", "-c", f"kill -0 $(cat {process})")
        docker("stop", "-t", "30", container.id)
        assert container.exit_status() == 0
