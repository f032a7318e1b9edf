"""A client and a bot that cannot reach each other: three network namespaces, client | TURN | bot, no forwarding.

Needs root, ``ip`` and coturn's ``turnserver``; ``.ci/run`` installs the latter.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipecat_base.cli.call import audio
from tests.support.launchers import ROOT, Launcher, until
from tests.support.tones import pitch, tone

CLIENT, TURN_AT_CLIENT = "10.91.1.1", "10.91.1.2"
BOT, TURN_AT_BOT = "10.91.2.1", "10.91.2.2"
CREDENTIALS = {"username": "user", "credential": "pass"}
FORWARDER = """
import asyncio, sys


async def pipe(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def forward(reader, writer):
    there = await asyncio.open_connection(sys.argv[3], int(sys.argv[4]))
    await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer), return_exceptions=True)


async def main():
    server = await asyncio.start_server(forward, sys.argv[1], int(sys.argv[2]))
    print("forwarding", flush=True)
    await server.serve_forever()


asyncio.run(main())
"""
"""HTTP gets through, as it does through a platform's proxy; nothing else does."""


def sh(*command: str) -> None:
    subprocess.run(command, check=True)


def inside(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace]


@pytest.fixture(scope="module")
def namespaces() -> Iterator[dict[str, str]]:
    # Not a skip: whoever asks for these tests means to have them run.
    assert os.geteuid() == 0, "network namespaces need root"
    for tool, package in (("ip", "iproute2"), ("turnserver", "coturn")):
        assert shutil.which(tool), f"{tool} is not installed: apt-get install {package}"
    names = {role: f"pb-{role}-{os.getpid()}" for role in ("client", "turn", "bot")}
    links = (("client", CLIENT, TURN_AT_CLIENT), ("bot", BOT, TURN_AT_BOT))
    with contextlib.ExitStack() as stack:
        for name in names.values():
            sh("ip", "netns", "add", name)
            stack.callback(sh, "ip", "netns", "del", name)
            sh(*inside(name), "ip", "link", "set", "lo", "up")
        for role, address, turn_address in links:
            sh("ip", "link", "add", "veth0", "netns", names[role], "type", "veth", "peer", role, "netns", names["turn"])
            for end, at, device in ((names[role], address, "veth0"), (names["turn"], turn_address, role)):
                sh(*inside(end), "ip", "addr", "add", f"{at}/24", "dev", device)
                sh(*inside(end), "ip", "link", "set", device, "up")
        sh(*inside(names["turn"]), "sysctl", "-q", "-w", "net.ipv4.ip_forward=0")
        yield names


@pytest.fixture(scope="module")
def turn(namespaces: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """coturn, which listens on the bot's side and relays on the client's; its log."""
    log = tmp_path_factory.mktemp("turn") / "log"
    options = ["--listening-ip", TURN_AT_BOT, "--relay-ip", TURN_AT_CLIENT, "--lt-cred-mech", "--user", "user:pass"]
    quiet = ["--realm", "test", "--no-cli", "--no-tls", "--no-dtls", "--no-stdout-log", "--simple-log", "--log-file"]
    files = [str(log), "--pidfile", f"{log}.pid", "--userdb", f"{log}.db", "--verbose"]
    process = subprocess.Popen([*inside(namespaces["turn"]), "turnserver", "-n", *options, *quiet, *files])
    try:
        until(lambda: log.exists() and "listener opened" in log.read_text(), "coturn to listen")
        yield log
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def serving(namespaces: dict[str, str], **variables: Any) -> Iterator[tuple[Launcher, str]]:
    """The echo bot in its namespace, and the address at which the client reaches its HTTP."""
    bot = Launcher(
        ROOT / "examples" / "echo",
        wait=False,
        prefix=inside(namespaces["bot"]),
        PIPECAT_HOST=BOT,
        WEBRTC_CONNECT_TIMEOUT="3",
        **variables,
    )
    there = [TURN_AT_CLIENT, str(bot.port), BOT, str(bot.port)]
    with bot:
        bot.wait_for_log("Ready: ")
        forwarder = subprocess.Popen(
            [*inside(namespaces["turn"]), sys.executable, "-c", FORWARDER, *there], stdout=subprocess.PIPE
        )
        try:
            assert forwarder.stdout is not None
            assert forwarder.stdout.readline() == b"forwarding\n"
            yield bot, f"http://{TURN_AT_CLIENT}:{bot.port}/api/offer"
        finally:
            forwarder.kill()
            forwarder.communicate()


def call(namespaces: dict[str, str], url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """From the client's namespace, with host candidates only."""
    audio.write_wav(str(folder / "tone.wav"), tone(440, 2.0, 16000), 16000)
    command = [sys.executable, "-m", "pipecat_base", "call", "tone.wav", "--webrtc", "--url", url]
    return subprocess.run(
        [*inside(namespaces["client"]), *command], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def heard(folder: Path) -> float:
    samples, rate = audio.read_wav(str(folder / "tone.reply.wav"))
    begin = next(n for n, sample in enumerate(samples) if sample > 5000) + rate // 10
    return pitch(samples[begin : begin + rate], rate)


def servers(*urls: str) -> str:
    return json.dumps([{"urls": list(urls), **CREDENTIALS}])


UDP, TCP = f"turn:{TURN_AT_BOT}:3478", f"turn:{TURN_AT_BOT}:3478?transport=tcp"


@pytest.mark.parametrize(
    ("listed", "over_tcp"),
    [(servers(UDP), False), (servers(TCP), True), (servers("https://not-ice", TCP, UDP), False)],
    ids=["UDP", "TCP", "TCP is listed first, after a malformed one"],
)
def test_a_call_is_relayed(namespaces: dict[str, str], turn: Path, tmp_path: Path, listed: str, over_tcp: bool) -> None:
    before = len(turn.read_text())
    with serving(namespaces, PIPECAT_ICE_SERVERS=listed) as (bot, url):
        result = call(namespaces, url, tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr + bot.log()
        assert heard(tmp_path) == pytest.approx(440, abs=5)
    log = turn.read_text()[before:]
    assert "incoming packet ALLOCATE processed, success" in log
    probes_over_tcp = listed.count("transport=tcp")
    assert (log.count("tcp or tls connected") > probes_over_tcp) is over_tcp


def test_without_turn_the_client_is_told_and_the_place_is_free(namespaces: dict[str, str], tmp_path: Path) -> None:
    with serving(namespaces, PIPECAT_ICE_SERVERS="[]", MAX_SESSIONS="1") as (bot, url):
        result = call(namespaces, url, tmp_path)
        assert result.returncode == 1
        assert "no connection to the bot came about" in result.stderr
        bot.wait_for_log("Session ended: disconnected")


def test_a_turn_server_that_is_gone_ends_only_the_call_that_needs_it(
    namespaces: dict[str, str], tmp_path: Path
) -> None:
    gone = servers("turn:10.91.2.99:3478")
    with serving(namespaces, PIPECAT_ICE_SERVERS=gone, MAX_SESSIONS="1") as (bot, url):
        for number in (1, 2):
            assert "no connection to the bot came about" in call(namespaces, url, tmp_path).stderr
            bot.wait_for_log("Session ended: disconnected", times=number)
