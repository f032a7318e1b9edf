"""Print the subcommands that ``pipecat cloud --help``, and the help of each group, lists."""

import json
from collections.abc import Iterator
from typing import Any

import typer
from pipecatcloud.cli.entry_point import entrypoint_cli_typer


def commands(command: Any, *names: str) -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield " ".join(names)
        return
    for name, below in command.commands.items():
        if not below.hidden:
            yield from commands(below, *names, name)


print(json.dumps(list(commands(typer.main.get_command(entrypoint_cli_typer)))))
