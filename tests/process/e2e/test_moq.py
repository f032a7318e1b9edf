"""MoQ sessions of the platform: a relay that the bot dials, whose URL holds a token."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.launchers import PIPECAT, Launcher, until

TOKEN = "s3cr3t+moq/token=="
RELAY = "https://relay.example:4443/moq?jwt=s3cr3t%2Bmoq%2Ftoken%3D%3D&x=1&sid=moq-session&env=pipecat_base"
HEADERS = {
    "x_daily_transport_type": "moq",
    "x_moq_relay_url": RELAY,
    "x_moq_namespace": "room/1",
    "x_daily_room_url": "https://d/r",
    "x_daily_room_token": "t",
}

needs_moq = pytest.mark.skipif(PIPECAT < (1, 12), reason="MOQRunnerArguments.relay_url came with pipecat-ai 1.12")

BOT = """
import json, os, sys
from urllib.parse import unquote

from loguru import logger

logger.add(os.environ["SINK"], format="{message}")


async def bot(args):
    fields = {name: getattr(args, name) for name in
              ("session_id", "namespace", "participant_id", "peer_id", "body", "flow_config")}
    fields["repr_is_clean"] = "s3cr3t" not in repr(args) and "relay" not in repr(args)
    fields["right_url"] = args.relay_url == os.environ["RIGHT"]
    print(json.dumps({"said": True, "type": type(args).__name__, "args": fields}), flush=True)
    logger.info(f"the arguments are {args!r}")
    logger.info(f"in whole {args.relay_url}, decoded {unquote(args.relay_url)}")
    raise ValueError(f"could not dial {args.relay_url}: token {unquote(args.relay_url).partition('jwt=')[2]}")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bot, and a stand-in for the module of the moq extra."""
    made = tmp_path_factory.mktemp("moq")
    (made / "bot.py").write_text(textwrap.dedent(BOT))
    (made / "moq.py").write_text("")
    return made


@pytest.fixture(scope="module")
def launcher(folder: Path) -> Iterator[Launcher]:
    variables: dict[str, Any] = {"RIGHT": RELAY, "SINK": str(folder / "sink.log"), "PCC_LOG_DIR": str(folder)}
    with Launcher(folder, PYTHONPATH=str(folder), BOT_FAILURE_STATUS="200", **variables) as running:
        yield running


@needs_moq
def test_the_bot_gets_the_relay_and_nothing_shows_its_url(launcher: Launcher, folder: Path) -> None:
    envelope = {"body": {"a": 1}, "flow_config": "flow"}
    response = launcher.post(envelope, x_daily_session_id="moq-session", x_pcc_start_envelope="1", **HEADERS)
    assert response.status_code == 200
    (said,) = until(launcher.said, "what it was given")  # what is printed passes through another process
    assert said["type"] in ("MOQRunnerArguments", "MOQSessionArguments")
    assert said["args"] == {
        "session_id": "moq-session",
        "namespace": "room/1",
        "participant_id": "response",
        "peer_id": "request",
        "body": {"a": 1},
        "flow_config": "flow",
        "right_url": True,
        "repr_is_clean": True,
    }
    launcher.wait_for_log("could not dial <relay URL>")
    # What the launcher says of it is clean in a sink of the bot's own, too; what the bot says there is its own.
    own = (folder / "sink.log").read_text()
    (failed,) = [line for line in own.splitlines() if line.startswith("ValueError: ")]
    capture = (folder / "bot.jsonl").read_text()
    for text in (launcher.log(), response.text, failed, own[own.index("bot in bot.py failed") :], capture):
        for secret in (RELAY, "s3cr3t", TOKEN, "relay.example"):
            assert secret not in text
    assert launcher.lines("| moq-session - the arguments are MOQ")
    # Pieces of the URL that are words elsewhere are left there.
    assert launcher.lines("pipecat_base.bot.runner:")
    assert launcher.lines("| moq-session - in whole <relay URL>, decoded <relay URL>")


@needs_moq
@pytest.mark.parametrize("missing", ["x_moq_relay_url", "x_moq_namespace"])
def test_a_start_without_a_relay_is_refused(launcher: Launcher, missing: str) -> None:
    headers = {name: value for name, value in HEADERS.items() if name != missing}
    response = launcher.post({}, x_daily_session_id=f"no-{missing}", **headers)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "moq_refused"
    reason = "its start carries no relay URL or namespace (X-Moq-Relay-Url, X-Moq-Namespace)"
    assert error["message"] == f"Refusing MoQ session no-{missing}: {reason}"
    (line,) = launcher.lines(f"| no-{missing} - Refused POST /bot")
    assert "| ERROR " in line
    assert reason in line


def test_where_moq_is_not_installed_a_start_is_refused_with_the_reason_of_the_capabilities(obedient: Launcher) -> None:
    document = obedient.http.get("/pcc/capabilities").json()
    reason = document["capabilities"]["transport.moq"]["reason"]
    if PIPECAT >= (1, 12):
        assert reason == "No module named 'moq'"
    response = obedient.post({}, x_daily_session_id="moq-none", **HEADERS)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == f"Refusing MoQ session moq-none: {reason}"
    assert not obedient.lines("| moq-none - Session started")


def test_a_wrong_envelope_is_refused_first(obedient: Launcher) -> None:
    response = obedient.post({}, x_pcc_start_envelope="1", **HEADERS)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "malformed")


def test_other_spellings_are_other_transports(obedient: Launcher) -> None:
    headers = {**HEADERS, "x_daily_transport_type": "MOQ"}
    assert obedient.post({}, x_daily_session_id="moq-upper", **headers).status_code == 200
    assert obedient.arguments("moq-upper")["room_url"] == "https://d/r"
