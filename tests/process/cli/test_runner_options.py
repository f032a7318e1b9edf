"""``pipecat-base dev`` in place of pipecat's development runner."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipecat_base.cli import main as cli
from pipecat_base.cli import runner_options
from pipecat_base.config.settings import NAMES, Settings
from pipecat_base.errors import SettingsInvalid
from tests.support.launchers import PYTHON, ROOT, Launcher, environment, run

pytestmark = pytest.mark.needs_newest_packages

MIGRATE = (
    (ROOT / "docs" / "guide" / "migrate.md").read_text().split("## From pipecat's own runner")[1].split("\n## ")[0]
)
OPTIONS_OF_RUNNER = """
import argparse, json
from pipecat.runner import run
parser = argparse.ArgumentParser()
parser.parse_args = lambda: (print(json.dumps([a.option_strings for a in parser._actions])), exit())
run.main(parser)
"""
BOT = """
import os
{lines}
print("imported with", os.environ.get("ENV"), flush=True)

async def bot(args):
    print("called with", os.environ.get("ENV"), flush=True)
"""


@cache
def options_of_runner() -> list[list[str]]:
    result = subprocess.run(
        [PYTHON, "-c", OPTIONS_OF_RUNNER], env=environment(), capture_output=True, text=True, check=True
    )
    found: list[list[str]] = json.loads(result.stdout.splitlines()[-1])
    return [names for names in found if "--help" not in names]


def variables_of_runner() -> set[str]:
    import pipecat.runner

    sources = [path.read_text() for path in Path(pipecat.runner.__path__[0]).glob("*.py")]
    return {name for text in sources for name in re.findall(r'(?:getenv\(|environ(?:\.get\(|\[))\s*"(\w+)"', text)}


def settings_of(*arguments: str, **variables: str) -> Settings:
    given = runner_options.variables(cli.commands()["dev"].parse_args(arguments))
    values = {name: value for name, (value, _) in given.items()}
    return Settings.load({"PIPECAT_HOST": "127.0.0.1", **variables, **values})


def test_each_option_of_the_runner_is_taken_or_refused_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(options_of_runner()) > 25
    refused = {name for names in runner_options.REFUSED for name in names}
    known = {name for action in cli.commands()["dev"]._actions for name in action.option_strings}
    names = {name for names in options_of_runner() for name in names if names != ["-t", "--transport"]}
    assert names - known == set()
    for name in refused:
        for arguments in ([name], [name, "value"]):
            with pytest.raises(SystemExit) as end:
                cli.commands()["dev"].parse_args(arguments)
            assert end.value.code == 2
            assert f"{name}: " in capsys.readouterr().err


def test_the_migration_guide_has_each_option_and_each_variable_of_the_runner() -> None:
    options = {name for names in options_of_runner() for name in names if len(names) == 1 or name.startswith("--")}
    # pipecat reads the serializers' variables here, too; the last is for the runner's banner.
    of_others = re.compile("TWILIO_|TELNYX_|PLIVO_|NO_COLOR$")
    variables = {name for name in variables_of_runner() - set(NAMES) if not of_others.match(name)}
    assert {"ENV", "VONAGE_TOKEN"} <= variables
    cells = re.findall(r"`([^`]+)`", "".join(line for line in MIGRATE.splitlines() if line.startswith("|")))
    named = {word for cell in cells for word in re.split(r"[ =]", cell)}
    assert (options | variables) - named - {"--transport"} == set()


@pytest.mark.parametrize(
    ("arguments", "group", "field", "value"),
    [
        (["-x", "bot.ngrok.io", "--insecure"], "gateway", "public_url", "https://bot.ngrok.io"),
        (["--proxy", "https://bot.ngrok.io/"], "gateway", "public_url", "https://bot.ngrok.io"),
        (["-u", "up"], "files", "uploads_folder", "up"),
        (["--ws-auth", "token"], "websockets", "auth", "token"),
        (
            ["--ice-servers", "stun:a:1", '{"urls": "turn:b", "username": "u", "credential": "c"}'],
            "webrtc",
            "ice_servers",
            '[{"urls": "stun:a:1"}, {"urls": "turn:b", "username": "u", "credential": "c"}]',
        ),
        (
            ["--allowed-origins", "https://a.example", "https://b.example"],
            "websockets",
            "allowed_origins",
            ("https://a.example", "https://b.example"),
        ),
        (["--esp32", "--host", "192.168.1.2"], "webrtc", "esp32_host", "192.168.1.2"),
        (["-v"], "logs", "level", "TRACE"),
        (["-vv"], "logs", "level", "TRACE"),
        (["--dialin", "--moq-serve"], "server", "port", 8080),
    ],
)
def test_an_option_of_the_runner_is_the_setting(arguments: list[str], group: str, field: str, value: Any) -> None:
    assert getattr(getattr(settings_of(*arguments), group), field) == value


def test_an_option_wins_over_its_variable() -> None:
    assert settings_of("-u", "option", PIPECAT_UPLOADS_FOLDER="variable").files.uploads_folder == "option"


def test_whatsapp_needs_its_variables() -> None:
    options = cli.commands()["dev"].parse_args(["--whatsapp"])
    given = dict.fromkeys(runner_options.WHATSAPP, "x")
    runner_options.require(options, given)
    with pytest.raises(SettingsInvalid, match="WHATSAPP_TOKEN: not set, and --whatsapp needs it"):
        runner_options.require(options, {**given, "WHATSAPP_TOKEN": " "})


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--ws-auth", "perhaps"], '--ws-auth: "perhaps" is not one of none, token'),
        (["--ice-servers", "{"], '--ice-servers: "{" is not a JSON object'),
        (["--esp32"], "ESP32_HOST: not set, and ESP32_ENABLED needs the address that ESP32 peers reach"),
        (["-x", "bot.ngrok.io"], "set keys or say --insecure"),
        (["--whatsapp"], "WHATSAPP_APP_SECRET: not set, and --whatsapp needs it"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path: Path, arguments: list[str], line: str) -> None:
    (tmp_path / "bot.py").write_text("async def bot(args): ...\n")
    result = run("dev", *arguments, cwd=tmp_path, PIPECAT_HOST=None)
    assert line in result.stderr
    assert ("Traceback" in result.stderr, result.returncode) == (False, 24)


@pytest.mark.parametrize("options", [(), ("--reload",)])
def test_dev_sets_env_to_local(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "bot.py").write_text(BOT.format(lines=""))
    with Launcher(tmp_path, command=("dev", *options)) as launcher:
        launcher.wait_for_log("imported with local")
        assert launcher.http.post("/v1/public/agent/start").status_code == 200
        launcher.wait_for_log("called with local")
        assert "ENV: " not in launcher.log()


@pytest.mark.parametrize("options", [(), ("--reload",)])
def test_dev_sets_env_also_over_another_value_as_the_runner_does(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / ".env").write_text("ENV=production\n")
    load = "from dotenv import load_dotenv\nload_dotenv(override=True)"
    (tmp_path / "bot.py").write_text(BOT.format(lines=load))
    with Launcher(tmp_path, command=("dev", *options)) as launcher:
        launcher.wait_for_log("ENV: dev sets it to local, as pipecat's runner does, in place of production")
        assert launcher.http.post("/v1/public/agent/start").status_code == 200
        launcher.wait_for_log("called with local")


def test_a_bot_that_is_served_keeps_its_env(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(BOT.format(lines=""))
    with Launcher(tmp_path, ENV="production") as launcher:
        launcher.wait_for_log("imported with production")


def test_the_runners_own_functions_tell_the_launchers_address(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "from pipecat.runner.run import app, runner_host, runner_port\n@app.get('/mine')\ndef mine(): ...\n"
        "async def bot(args): print('at', runner_host(), runner_port(), flush=True)\n"
    )
    with Launcher(tmp_path, command=("dev",)) as launcher:
        launcher.wait_for_log("/mine: not served, as pipecat's runner does not run here; write")
        assert launcher.http.post("/v1/public/agent/start").status_code == 200
        launcher.wait_for_log(f"at 127.0.0.1 {launcher.port}")
