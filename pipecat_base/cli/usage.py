"""Texts of ``--help``, apart from those of the options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """Help of one command; ``examples`` are command lines, with a comment on each."""

    summary: str
    description: str
    examples: Mapping[str, str]

    def text(self) -> str:
        width = max(map(len, self.examples))
        return "\n".join(f"{line:<{width}}   # {comment}" for line, comment in self.examples.items())


COMMANDS: Mapping[str, Usage] = {
    "init": Usage(
        "create a working bot in a folder",
        "Create a working bot in a folder, with requirements, Dockerfile and .env.example.",
        {
            "pipecat-base init my-bot": "into a new folder",
            "pipecat-base init": "into this one; no file is overwritten",
        },
    ),
    "serve": Usage(
        "serve bot.py (this is the default)",
        "Import the bot and serve it until a signal arrives.",
        {
            "pipecat-base serve": "bot.py, on port 8080",
            "MAX_SESSIONS=10 pipecat-base serve --port 9000": "for ten calls at once",
        },
    ),
    "dev": Usage(
        "serve it with a test page; reload it on change",
        "Serve the bot during development, with a page to talk to it and Pipecat Cloud's API.",
        {
            "pipecat-base dev --reload": "open http://localhost:8080",
            "pipecat-base dev --host 0.0.0.0 --insecure": "for your network, without a key",
        },
    ),
    "check": Usage(
        "find mistakes in bot.py without serving it",
        "Import and validate the bot without running setup() or serving it, and list the features that work here.",
        {
            "pipecat-base check": "is bot.py fine?",
            "pipecat-base check --no-env-file --json": "as in an image, for a program",
        },
    ),
    "doctor": Usage(
        "find what is wrong on this machine",
        "Find what is wrong on this machine, and how to fix it.",
        {
            "pipecat-base doctor": "network, keys, versions, clock, limits",
            "pipecat-base doctor --json": "for a program",
        },
    ),
    "call": Usage(
        "call a running bot, and measure the call",
        "Call a running bot with a recording, as a phone provider or a browser would.",
        {
            "pipecat-base call speech.wav": "as Twilio would",
            "pipecat-base call speech.wav --webrtc": "as a browser would",
        },
    ),
    "token": Usage(
        "print a token for one WebSocket",
        "Print a single-use WebSocket token, signed with PIPECAT_WEBSOCKET_SECRET.",
        {
            "pipecat-base token": "signed with PIPECAT_WEBSOCKET_SECRET",
            "pipecat-base token --lifetime 60": "good for a minute, not five",
        },
    ),
    "settings": Usage(
        "print every environment variable",
        "Print the table of environment variables.",
        {
            "pipecat-base settings": "in Markdown",
            "pipecat-base settings --format json": "for a program",
        },
    ),
    "errors": Usage(
        "print every exit status",
        "Print the table of exit statuses.",
        {
            "pipecat-base errors": "in Markdown",
            "pipecat-base errors --format json": "for a program",
        },
    ),
}
GENERAL = Usage(
    "",
    "Serve a Pipecat bot.",
    {
        "pipecat-base init my-bot": "a bot to start from",
        "pipecat-base dev --reload": "talk to it: http://localhost:8080",
        "pipecat-base dev --help": "each command has examples",
    },
)


def epilog(usage: Usage) -> str:
    return "examples:\n" + "\n".join(f"  {line}" for line in usage.text().splitlines())
