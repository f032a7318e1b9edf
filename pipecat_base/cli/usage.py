"""What ``--help`` says of each command beside its options: a few words for the list, and examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """Of one command.

    Attributes:
        words: What it does, for the list of commands.
        examples: Command lines, and what each does.
    """

    words: str
    examples: Mapping[str, str]

    def text(self) -> str:
        """The examples, a line each."""
        width = max(map(len, self.examples))
        return "\n".join(f"{line:<{width}}   # {does}" for line, does in self.examples.items())


COMMANDS: Mapping[str, Usage] = {
    "init": Usage(
        "write a bot that works into a folder",
        {
            "pipecat-base init my-bot": "into a new folder",
            "pipecat-base init": "into this one; no file is overwritten",
        },
    ),
    "serve": Usage(
        "serve bot.py (this is the default)",
        {
            "pipecat-base serve": "bot.py, on port 8080",
            "MAX_SESSIONS=10 pipecat-base serve --port 9000": "for ten calls at once",
        },
    ),
    "dev": Usage(
        "serve it with a page to talk to it, and reload it",
        {
            "pipecat-base dev --reload": "open http://localhost:8080",
            "pipecat-base dev --host 0.0.0.0 --insecure": "for your network, without a key",
        },
    ),
    "check": Usage(
        "find mistakes in bot.py without serving it",
        {
            "pipecat-base check": "is bot.py fine?",
            "pipecat-base check --no-env-file --json": "as in an image, for a program",
        },
    ),
    "doctor": Usage(
        "find what is wrong on this machine",
        {
            "pipecat-base doctor": "network, keys, versions, clock, limits",
            "pipecat-base doctor --json": "for a program",
        },
    ),
    "call": Usage(
        "call a running bot, and measure the call",
        {
            "pipecat-base call speech.wav": "as Twilio would",
            "pipecat-base call speech.wav --webrtc": "as a browser would",
        },
    ),
    "token": Usage(
        "print a token for one WebSocket",
        {
            "pipecat-base token": "signed with PIPECAT_WEBSOCKET_SECRET",
            "pipecat-base token --lifetime 60": "good for a minute, not five",
        },
    ),
    "settings": Usage(
        "print every environment variable",
        {
            "pipecat-base settings": "in Markdown",
            "pipecat-base settings --format json": "for a program",
        },
    ),
    "errors": Usage(
        "print every exit status",
        {
            "pipecat-base errors": "in Markdown",
            "pipecat-base errors --format json": "for a program",
        },
    ),
}
GENERAL = Usage(
    "",
    {
        "pipecat-base init my-bot": "a bot to begin with",
        "pipecat-base dev --reload": "talk to it: http://localhost:8080",
        "pipecat-base dev --help": "each command has examples",
    },
)


def epilog(usage: Usage) -> str:
    """What stands below the options."""
    return "examples:\n" + "\n".join(f"  {line}" for line in usage.text().splitlines())
