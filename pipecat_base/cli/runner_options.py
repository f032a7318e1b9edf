"""Options of pipecat's runner: ``dev`` takes some, and refuses the others with a line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pipecat_base.errors import SettingsInvalid

WHATSAPP = (
    "WHATSAPP_APP_SECRET",
    "WHATSAPP_PHONE_NUMBER_ID",
    "WHATSAPP_TOKEN",
    "WHATSAPP_WEBHOOK_VERIFICATION_TOKEN",
)
MOQ = "a bot that serves MoQ does so on port 4080, with a certificate of its own; POST /start may name a namespace"
REFUSED: Mapping[tuple[str, ...], str] = {
    ("-d", "--direct"): 'dev always serves; start a Daily session with POST /start and {"createDailyRoom": true}',
    ("-f", "--downloads-folder", "--folder"): "no folder is served; give the bot a route of its own"
    " (from pipecatcloud_system import app)",
    ("--uploads-folder-max-files",): "there is no such limit: a session's files are deleted at its end",
    ("--runner-body",): "a WebSocket session has the body of its address (?body=); pipecat-base call has --body @FILE",
    ("--no-dialin",): "the dial-in webhook is always served; PINLESS_HMAC_SECRET keeps others from it",
    ("--moq-connect", "--moq-bind", "--moq-namespace", "--moq-bot-id", "--moq-client-id"): MOQ,
    ("--moq-tls-cert", "--moq-tls-key", "--moq-tls-insecure", "--moq-tls-generate"): MOQ,
}


class _Refused(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> NoReturn:
        parser.error(f"{option}: {self.const}")


def add(parser: argparse.ArgumentParser) -> None:
    def option(*names: str, **how: Any) -> None:
        parser.add_argument(*names, default=argparse.SUPPRESS, **how)

    option("-x", "--proxy", metavar="HOST", help="public host name of a tunnel to this machine (PIPECAT_PUBLIC_URL)")
    option("-u", "--uploads-folder", metavar="FOLDER", help="folder for uploads (PIPECAT_UPLOADS_FOLDER)")
    option("--ws-auth", metavar="none|token", help="WebSockets need a token, or none (PIPECAT_WEBSOCKET_AUTH)")
    option("--ice-servers", nargs="*", metavar="SERVER", help="STUN and TURN servers (PIPECAT_ICE_SERVERS)")
    option("--allowed-origins", nargs="*", metavar="ORIGIN", help="origins of pages (PIPECAT_ALLOWED_ORIGINS)")
    option("--esp32", action="store_true", help="adapt WebRTC answers for ESP32 peers, which reach --host")
    option("--whatsapp", action="store_true", help="do not start without WhatsApp's variables")
    option("-v", "--verbose", action="count", help="log everything, whole frames too (PIPECAT_LOG_LEVEL=TRACE)")
    for name in ("--dialin", "--moq-serve"):  # always so here
        option(name, action="store_true", help=argparse.SUPPRESS)
    for names, instead in REFUSED.items():
        for name in names:
            option(name, action=_Refused, nargs="*", const=instead, help=argparse.SUPPRESS)


def variables(options: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Values of settings, each with the option that gives it, by the settings' names."""
    given = vars(options)
    found: dict[str, tuple[str, str]] = {}
    if "proxy" in given:
        found["PIPECAT_PUBLIC_URL"] = (f"https://{given['proxy'].rpartition('://')[2].rstrip('/')}", "--proxy")
    if "uploads_folder" in given:
        found["PIPECAT_UPLOADS_FOLDER"] = (given["uploads_folder"], "--uploads-folder")
    if "ws_auth" in given:
        found["PIPECAT_WEBSOCKET_AUTH"] = (given["ws_auth"], "--ws-auth")
    if "ice_servers" in given:
        found["PIPECAT_ICE_SERVERS"] = (_ice_servers(given["ice_servers"]), "--ice-servers")
    if "allowed_origins" in given:
        found["PIPECAT_ALLOWED_ORIGINS"] = (",".join(given["allowed_origins"]), "--allowed-origins")
    if "verbose" in given:
        found["PIPECAT_LOG_LEVEL"] = ("TRACE", "--verbose")
    if "esp32" in given:
        found["ESP32_ENABLED"] = ("true", "--esp32")
        if "host" in given:
            found["ESP32_HOST"] = (given["host"], "--host")
    return found


def require(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Raise SettingsInvalid if ``--whatsapp`` lacks a variable."""
    missing = [name for name in WHATSAPP if not environment.get(name, "").strip()]
    if "whatsapp" in options and missing:
        raise SettingsInvalid([f"{name}: not set, and --whatsapp needs it" for name in missing])


def _ice_servers(servers: Sequence[str]) -> str:
    return json.dumps([_ice_server(server) for server in servers])


def _ice_server(server: str) -> Any:
    if not server.lstrip().startswith("{"):
        return {"urls": server}
    try:
        return json.loads(server)
    except ValueError:
        raise SettingsInvalid([f"--ice-servers: {json.dumps(server)} is not a JSON object"]) from None
