"""``--help``: every command has examples, and they work."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from pipecat_base.cli import main, usage
from tests.support.launchers import Launcher, free_port, run

EXAMPLES = [line for command in usage.COMMANDS.values() for line in command.examples]
ENDS = [line for line in EXAMPLES if not {"serve", "dev", "call"} & set(line.split())]


def split(line: str) -> tuple[dict[str, str], list[str]]:
    """Variables and arguments."""
    words = shlex.split(line)
    at = words.index("pipecat-base")
    return dict(word.split("=", 1) for word in words[:at]), words[at + 1 :]


def test_every_command_is_listed_in_one_line_and_has_examples() -> None:
    assert set(main.commands()) == set(usage.COMMANDS)
    printed = run("--help", cwd=Path.cwd()).stdout.splitlines()
    for name, command in usage.COMMANDS.items():
        assert f"    {name:<11}{command.summary}" in printed
        assert usage.epilog(command) in main.commands()[name].format_help()
        assert all(name in line.split() for line in command.examples)
        assert max(map(len, usage.epilog(command).splitlines())) <= 80
    assert max(map(len, printed)) <= 80


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_have_no_mistake(line: str) -> None:
    _, (name, *arguments) = split(line)
    main.commands()[name].parse_args(arguments)


@pytest.mark.parametrize("line", ENDS)
def test_examples_run(line: str, tmp_path: Path) -> None:
    variables, arguments = split(line)
    if "init" not in arguments:
        (tmp_path / "bot.py").write_text("async def bot(args): ...\n")
    if "token" in arguments:
        variables["PIPECAT_WEBSOCKET_SECRET"] = "secret"
    if "doctor" in arguments:
        variables = {"DAILY_API_URL": "http://127.0.0.1:1", **variables, "PIPECAT_ICE_SERVERS": "[]"}
    ended = run(*arguments, cwd=tmp_path, **variables)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout


@pytest.mark.parametrize("command", ["serve", "dev"])
def test_examples_of_servers_serve(command: str, tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("async def bot(args): ...\n")
    for line in usage.COMMANDS[command].examples:
        variables, arguments = split(line.replace("9000", str(port := free_port())))
        chosen = port if "--port" in arguments else None
        with Launcher(tmp_path, command=arguments, port=chosen, **dict[str, Any](variables)) as launcher:
            assert launcher.post().status_code == 200
