"""Every environment variable: name, type, default, unit and the one-line error for a wrong value.

This module is the only reader of the environment. :meth:`Settings.load` takes a mapping, so a test needs no
``os.environ`` and the program passes it once. :func:`table` is the source of docs/reference/settings.md.
"""

from __future__ import annotations

import base64
import dataclasses
import ipaddress
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pipecat_base.config.suggestions import nearest
from pipecat_base.errors import SettingsInvalid

T = TypeVar("T")

LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "NONE")
EVENT_LOOPS = ("auto", "asyncio", "uvloop")
ISOLATIONS = ("none", "process")
LOG_FORMATS = ("text", "json")
PROCESS_STARTS = ("auto", "fork", "spawn")
WEBSOCKET_AUTHS = ("none", "token")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ANYWHERE = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
PASSED_THROUGH = "read by your bot or by pipecat"


def variable(
    name: str, default: Any, parse: Callable[[str], Any], text: str, *, unit: str = "", secret: bool = False
) -> Any:
    """A dataclass field that is read from the environment variable ``name``.

    ``parse`` raises ValueError with the words that follow the value: ``is not a port (1-65535)``.
    """
    return dataclasses.field(
        default=default,
        repr=not secret,
        metadata={"name": name, "parse": parse, "text": text, "unit": unit, "secret": secret},
    )


def _text(value: str) -> str:
    return value


def _secret(value: str) -> str:
    # From a file it often comes with a line break, which no header, address or signature could hold.
    return value.strip()


def _boolean(value: str) -> bool:
    lowered = value.strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off"):
        return False
    raise ValueError("is not true or false")


def _unless_false(value: str) -> bool:
    return value.strip().lower() != "false"


def _webhook_secret(value: str) -> bytes:
    # https://www.standardwebhooks.com: the key in base64, after this prefix
    try:
        key = base64.b64decode(value.strip().removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not 24 <= len(key) <= 64:
        raise ValueError("is not a webhook secret (whsec_ and base64 of 24 to 64 bytes)")
    return key


def _number(value: str, minimum: float, words: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(words) from None
    if not math.isfinite(number) or number < minimum:
        raise ValueError(words)
    return number


def _seconds(value: str) -> float:
    return _number(value, 0, "is not a number of seconds (0 or more)")


def _positive_seconds(value: str) -> float:
    words = "is not a number of seconds (more than 0)"
    number = _number(value, 0, words)
    if number == 0:
        raise ValueError(words)
    return number


def _integer(minimum: int, maximum: int | None, words: str) -> Callable[[str], int]:
    def parse(value: str) -> int:
        try:
            # int() would also take "1_000" and other alphabets' digits.
            if not value.strip().lstrip("+-").isascii() or "_" in value:
                raise ValueError
            number = int(value)
        except ValueError:
            raise ValueError(words) from None
        if number < minimum or (maximum is not None and number > maximum):
            raise ValueError(words)
        return number

    return parse


def _choice(choices: tuple[str, ...], fold: Callable[[str], str]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        folded = fold(value.strip())
        if folded not in choices:
            raise ValueError(f"is not one of {', '.join(choices)}")
        return folded

    return parse


def _list(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _callers(value: str) -> tuple[Network, ...]:
    if value.strip() == "*":
        return ANYWHERE
    try:
        return tuple(ipaddress.ip_network(part, strict=False) for part in _list(value))
    except ValueError:
        raise ValueError("is not * or a comma list of addresses and networks (10.0.0.0/8)") from None


def _origins(value: str) -> tuple[str, ...]:
    origins = _list(value)
    for origin in origins:
        scheme, separator, host = origin.partition("://")
        if not (scheme and separator and host) or "/" in host:
            raise ValueError("is not a comma list of origins (https://app.example.com)")
    return origins


def _networks(value: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part) for part in _list(value))
    except ValueError:
        raise ValueError("is not a comma list of networks (10.0.0.0/8,fd00::/8)") from None


def _route_patterns(value: str) -> tuple[str, ...]:
    patterns = _list(value)
    if not all(pattern.startswith("/") for pattern in patterns):
        raise ValueError("is not a comma list of paths (/health,/public/*)")
    return patterns


def _url(value: str) -> str:
    scheme, _, rest = value.strip().partition("://")
    if scheme.lower() not in ("http", "https") or not rest:
        raise ValueError("is not an HTTP address (http://host:port/path)")
    return value.strip()


def _paths(value: str) -> tuple[str, ...]:
    return tuple(part for part in value.split(os.pathsep) if part)


_port = _integer(1, 65535, "is not a port (1–65535)")
_count = _integer(1, None, "is not a whole number (1 or more)")
_size = _integer(1, None, "is not a number of bytes (1 or more)")
_status = _integer(200, 599, "is not an HTTP status (200–599)")


class Ignored(ValueError):
    """A value that the replaced image goes on without: so does this one, and says so."""


def _forgiving(parse: Callable[[str], T]) -> Callable[[str], T]:
    """As ``parse``, but a wrong value counts as unset."""

    def forgiving(value: str) -> T:
        try:
            return parse(value)
        except ValueError as error:
            raise Ignored(*error.args) from None

    return forgiving


@dataclass(frozen=True)
class Settings:
    """What the environment asks for. Times are seconds, sizes bytes.

    Attributes:
        warnings: Lines for the log: values that count as unset because they are wrong, names that look misspelt.
    """

    host: str = variable("PIPECAT_HOST", "0.0.0.0", _text, "Address to listen on")
    port: int = variable("PORT", 8080, _port, "TCP port to listen on")
    bot: str = variable("PIPECAT_BOT", "bot.py", _text, "The bot's file")
    event_loop: str = variable(
        "PIPECAT_EVENT_LOOP",
        "asyncio",
        _choice(EVENT_LOOPS, str.lower),
        "asyncio, uvloop, or auto: uvloop where it is installed",
    )

    max_sessions: int | None = variable(
        "MAX_SESSIONS", None, _count, "Concurrent sessions; the next one gets 429. Unset: no limit", unit="sessions"
    )
    max_session_seconds: float | None = variable(
        "MAX_SESSION_SECONDS",
        None,
        _positive_seconds,
        "A session is ended after this long; `X-PCC-Max-Session-Seconds` can only shorten it. Unset: no limit",
        unit="seconds",
    )
    session_cancel_grace: float = variable(
        "SESSION_CANCEL_GRACE",
        5.0,
        _seconds,
        "How long a cancelled bot may take to clean up (its `finally` blocks)",
        unit="seconds",
    )
    bot_failure_status: int = variable(
        "BOT_FAILURE_STATUS", 500, _status, "What `POST /bot` answers when the bot failed", unit="HTTP status"
    )
    session_files_dir: str | None = variable(
        "PCC_SESSION_FILES_DIR", None, _text, "Folder with the flow files that `X-Pcc-Flow-Config-File` may name"
    )
    release_session_memory: bool = variable(
        "PCC_RELEASE_SESSION_MEMORY",
        True,
        _forgiving(_boolean),
        "Collect garbage and return memory to the system after a session, unless another one runs",
    )

    max_body_bytes: int = variable(
        "MAX_BODY_BYTES",
        10 * 1024 * 1024,
        _size,
        "Largest body of a request to the launcher's own routes (more gets 413), and largest flow file",
        unit="bytes",
    )
    max_connections: int | None = variable(
        "PIPECAT_MAX_CONNECTIONS",
        None,
        _count,
        "Open connections, WebSockets included; beyond it idle ones are closed, then new ones get 503. Unset: a third"
        " of the descriptors that `ulimit -n` allows, at most 4096",
    )
    max_head_bytes: int = variable(
        "PIPECAT_MAX_HEAD_BYTES",
        1024 * 1024,
        _size,
        "Largest head of a request: its line (with `?body=`) and its headers, at most 128 of them; more gets 431",
        unit="bytes",
    )
    head_timeout: float = variable(
        "PIPECAT_HEAD_TIMEOUT",
        10.0,
        _positive_seconds,
        "How long a request's head may take to arrive; then 408",
        unit="seconds",
    )
    body_timeout: float = variable(
        "PIPECAT_BODY_TIMEOUT",
        120.0,
        _positive_seconds,
        "How long a request's body may take to arrive; then 408. Also how long a caller may leave an answer unread",
        unit="seconds",
    )
    max_unfinished_bytes: int = variable(
        "PIPECAT_MAX_UNFINISHED_BYTES",
        128 * 1024 * 1024,
        _size,
        "Memory for all bodies and WebSocket messages that are still arriving; beyond it new ones get 503, or close"
        " code 1013",
        unit="bytes",
    )
    max_frames_per_second: int = variable(
        "PIPECAT_MAX_FRAMES_PER_SECOND",
        1000,
        _count,
        "Frames per second that a WebSocket may send, averaged over ten seconds; more closes it with 1008",
    )

    isolation: str = variable(
        "PIPECAT_ISOLATION",
        "none",
        _choice(ISOLATIONS, str.lower),
        "`process` runs each call in its own process, which is ready before the call arrives",
    )
    idle_processes: int | None = variable(
        "PIPECAT_IDLE_PROCESSES",
        None,
        _count,
        "Processes kept ready for the next calls. Unset: one per CPU, at most 4",
    )
    process_start: str = variable(
        "PIPECAT_PROCESS_START",
        "auto",
        _choice(PROCESS_STARTS, str.lower),
        "How processes start: `fork` from one that has imported the bot, or `spawn`, where each imports it. `auto`"
        " forks where that is safe",
    )
    process_timeout: float = variable(
        "PIPECAT_PROCESS_TIMEOUT",
        10.0,
        _seconds,
        "How long a call waits for a process when none is idle; then 503",
        unit="seconds",
    )
    max_session_memory_bytes: int | None = variable(
        "MAX_SESSION_MEMORY_BYTES",
        None,
        _size,
        "With `PIPECAT_ISOLATION=process`: a call whose process uses more memory (PSS) is ended; at 80 % a warning is"
        " logged",
        unit="bytes",
    )

    gateway: bool = variable(
        "PIPECAT_GATEWAY", False, _boolean, "Also serve the gateway: `/start`, the Session API, webhooks, the page"
    )
    public_api_keys: tuple[str, ...] = variable(
        "PIPECAT_PUBLIC_API_KEYS",
        (),
        _list,
        "Comma-separated; each request to the gateway needs one: `Authorization: Bearer KEY`",
        secret=True,
    )
    private_api_keys: tuple[str, ...] = variable(
        "PIPECAT_PRIVATE_API_KEYS",
        (),
        _list,
        "Comma-separated; where keys are set, listing all sessions and the management API need one of these",
        secret=True,
    )
    open_routes: tuple[str, ...] = variable(
        "PIPECAT_OPEN_ROUTES",
        (),
        _route_patterns,
        "Comma-separated paths of the bot's own that need no key at the gateway; `*` matches anything:"
        " `/health,/public/*`",
    )
    insecure: bool = variable(
        "PIPECAT_INSECURE", False, _boolean, "Allow a gateway without keys on an address that other machines can reach"
    )
    pod_token: str | None = variable(
        "PIPECAT_POD_TOKEN",
        None,
        _secret,
        "What `X-Pipecat-Pod-Token` must hold on `/bot`, `/ws`, `/ws-client`, `/api/offer` and `/files`. Unset: not"
        " required",
        secret=True,
    )
    agent_name: str | None = variable(
        "PIPECAT_AGENT_NAME",
        None,
        _text,
        "The agent's name in the gateway's paths; other names get 404. Unset: every name",
    )
    public_url: str | None = variable(
        "PIPECAT_PUBLIC_URL",
        None,
        _url,
        "The address at which callers reach the gateway. Unset: taken from each request's headers",
    )

    setup_timeout: float = variable(
        "SETUP_TIMEOUT",
        300.0,
        _positive_seconds,
        "How long `setup()` and lifespans may take before the start fails",
        unit="seconds",
    )
    readyz_timeout: float = variable(
        "READYZ_TIMEOUT",
        2.0,
        _positive_seconds,
        "How long `readyz()` may take before `/readyz` answers 503",
        unit="seconds",
    )
    ready_when_full: bool = variable(
        "READY_WHEN_FULL", False, _boolean, "`/readyz` stays 200 while `MAX_SESSIONS` are running"
    )
    event_loop_stall_limit: float = variable(
        "EVENT_LOOP_STALL_LIMIT",
        60.0,
        _positive_seconds,
        "When the bot blocks the event loop for longer, `/livez` answers 503",
        unit="seconds",
    )

    shutdown_timeout: float = variable(
        "SHUTDOWN_TIMEOUT", 7200.0, _seconds, "How long running sessions may go on after SIGTERM", unit="seconds"
    )
    drain_notice: float = variable(
        "DRAIN_NOTICE",
        2.0,
        _seconds,
        "After SIGTERM, keep answering at least this long so that load balancers notice. Not after Ctrl-C",
        unit="seconds",
    )
    teardown_timeout: float = variable(
        "TEARDOWN_TIMEOUT",
        10.0,
        _positive_seconds,
        "How long `teardown()` and lifespans may take at the end",
        unit="seconds",
    )

    log_level: str = variable(
        "PIPECAT_LOG_LEVEL",
        "DEBUG",
        _forgiving(_choice(LOG_LEVELS, str.upper)),
        f"One of {', '.join(LOG_LEVELS)}; any other value is ignored with a warning",
    )
    log_caller_data: bool = variable(
        "PIPECAT_LOG_CALLER_DATA",
        False,
        _boolean,
        "Let pipecat's log lines show callers' numbers, parameters, bodies, messages and room tokens. At TRACE whole"
        " frames are logged in any case",
    )
    log_features_summary: bool = variable(
        "PCC_LOG_FEATURES_SUMMARY", False, _boolean, "Log what is available here, once ready"
    )
    log_dir: str | None = variable(
        "PCC_LOG_DIR", None, _text, "Folder for `bot.jsonl`: log lines and printed output, as JSON lines"
    )
    termination_log: str | None = variable(
        "PCC_TERMINATION_LOG_PATH",
        None,
        _text,
        "File for the reason of a failed start. Unset: `/dev/termination-log`, where it exists",
    )
    log_format: str = variable(
        "PIPECAT_LOG_FORMAT",
        "text",
        _choice(LOG_FORMATS, str.lower),
        "`json` writes each log line to standard error as one JSON object",
    )
    metrics_port: int | None = variable(
        "PIPECAT_METRICS_PORT",
        None,
        _port,
        "Port of `GET /metrics` for Prometheus; do not publish it. Unset: no metrics",
    )
    metrics_host: str | None = variable(
        "PIPECAT_METRICS_HOST", None, _text, "Address to serve metrics on. Unset: `PIPECAT_HOST`"
    )
    reports_dir: str | None = variable(
        "PIPECAT_REPORTS_DIR",
        None,
        _text,
        "Folder for `calls.jsonl`: a report for every call, one JSON object per line. Unsent reports wait here for the"
        " next start",
    )
    report_url: str | None = variable(
        "PIPECAT_REPORT_URL",
        None,
        _url,
        "Every call's report is posted here, and retried until it is accepted",
        secret=True,
    )
    report_secret: bytes | None = variable(
        "PIPECAT_REPORT_SECRET",
        None,
        _webhook_secret,
        "Signs reports (Standard Webhooks): `whsec_` followed by base64",
        secret=True,
    )
    report_content: bool = variable("PIPECAT_REPORT_CONTENT", False, _boolean, "Include the transcript in reports")
    event_publisher: str | None = variable(
        "PIPECAT_EVENT_PUBLISHER_ENDPOINT",
        None,
        _forgiving(_url),
        "The platform's event publisher: each event of a session is posted here",
        secret=True,
    )
    exclude_content: bool = variable(
        "PCC_EXCLUDE_CONTENT",
        False,
        _unless_false,
        "Send no transcripts to the event publisher; any value but `false` means yes",
    )
    trust_traceparent: tuple[Network, ...] | None = variable(
        "PIPECAT_TRUST_TRACEPARENT",
        None,
        _callers,
        "Comma-separated addresses and networks of callers whose `traceparent` counts; `*` for all. Unset: all, and"
        " at a gateway with keys none",
    )
    observers: bool = variable(
        "PIPECAT_OBSERVERS", True, _boolean, "Log pipeline start-up times and user-bot latency (pipecat-ai >= 0.0.104)"
    )
    setup_files: tuple[str, ...] = variable(
        "PIPECAT_SETUP_FILES", (), _paths, "pipecat's per-task setup files; the launcher appends its own"
    )

    websocket_auth: str = variable(
        "PIPECAT_WEBSOCKET_AUTH",
        "none",
        _choice(WEBSOCKET_AUTHS, str.lower),
        "`none`, or `token`: each WebSocket needs a single-use token",
    )
    websocket_secret: str | None = variable(
        "PIPECAT_WEBSOCKET_SECRET",
        None,
        _text,
        "Signs those tokens; `pipecat-base token` prints one. Unset: random, known only to this process",
        secret=True,
    )
    allowed_origins: tuple[str, ...] = variable(
        "PIPECAT_ALLOWED_ORIGINS",
        (),
        _origins,
        "Comma-separated; WebSockets from other origins are refused, and so are those without one (phones). Unset: all",
    )

    whatsapp_token: str | None = variable(
        "WHATSAPP_TOKEN", None, _secret, "Graph API token; WhatsApp needs all three", secret=True
    )
    whatsapp_phone_number_id: str | None = variable(
        "WHATSAPP_PHONE_NUMBER_ID", None, _secret, "The business number's id; WhatsApp needs all three"
    )
    whatsapp_app_secret: str | None = variable(
        "WHATSAPP_APP_SECRET", None, _secret, "Checks webhook signatures; WhatsApp needs all three", secret=True
    )
    whatsapp_verification_token: str | None = variable(
        "WHATSAPP_WEBHOOK_VERIFICATION_TOKEN", None, _secret, "Enables Meta's verification, GET /whatsapp", secret=True
    )

    twilio_auth_token: str | None = variable(
        "TWILIO_AUTH_TOKEN", None, _secret, "Checks Twilio's signatures on the gateway's webhook", secret=True
    )
    plivo_auth_token: str | None = variable(
        "PLIVO_AUTH_TOKEN", None, _secret, "Checks Plivo's signatures on the gateway's webhook", secret=True
    )
    telnyx_public_key: str | None = variable(
        "TELNYX_PUBLIC_KEY", None, _secret, "Checks Telnyx's signatures on the gateway's webhook"
    )
    daily_api_key: str | None = variable(
        "DAILY_API_KEY", None, _secret, "Lets the gateway make Daily rooms", secret=True
    )
    daily_api_url: str = variable("DAILY_API_URL", "https://api.daily.co/v1", _secret, "Daily's REST API")
    dialin_secret: str | None = variable(
        "PINLESS_HMAC_SECRET", None, _secret, "Checks Daily's signatures on the dial-in webhook", secret=True
    )
    livekit_url: str | None = variable("LIVEKIT_URL", None, _secret, "Where the gateway starts LiveKit sessions")
    livekit_api_key: str | None = variable("LIVEKIT_API_KEY", None, _secret, "Signs LiveKit tokens", secret=True)
    livekit_api_secret: str | None = variable("LIVEKIT_API_SECRET", None, _secret, "Signs LiveKit tokens", secret=True)
    livekit_room_name: str | None = variable(
        "LIVEKIT_ROOM_NAME", None, _text, "One LiveKit room for all sessions. Unset: one for each"
    )

    webrtc_offer_timeout: float = variable(
        "WEBRTC_OFFER_TIMEOUT", 120.0, _positive_seconds, "How long `POST /bot` waits for its offer", unit="seconds"
    )
    start_grace: float = variable(
        "PIPECAT_START_GRACE",
        10.0,
        _seconds,
        "While `MAX_SESSIONS` are running: a WebRTC session from `/start` whose caller has not connected after this"
        " long gives its place to one who has",
        unit="seconds",
    )
    webrtc_connect_timeout: float = variable(
        "WEBRTC_CONNECT_TIMEOUT", 30.0, _positive_seconds, "How long a WebRTC peer may take to connect", unit="seconds"
    )
    webrtc_disconnect_timeout: float = variable(
        "WEBRTC_DISCONNECT_TIMEOUT",
        10.0,
        _positive_seconds,
        "A WebRTC peer that sends nothing for this long counts as gone",
        unit="seconds",
    )
    ice_config_url: str | None = variable(
        "ICE_CONFIG_URL",
        None,
        _url,
        "URL that returns ICE servers as JSON. Unset: in the image, the platform's (http://localhost:9090/ice-servers),"
        " if it answers",
    )
    ice_servers: str | None = variable(
        "PIPECAT_ICE_SERVERS", None, _text, "ICE servers: comma-separated URLs, or a JSON object or array", secret=True
    )
    ice_deny: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = variable(
        "PIPECAT_ICE_DENY",
        (),
        _networks,
        "Comma-separated networks: WebRTC candidates in them are not used, whatever an offer names: `10.0.0.0/8`",
    )
    esp32_enabled: bool = variable("ESP32_ENABLED", False, _boolean, "Adapt SDP answers for ESP32 peers")
    esp32_host: str | None = variable("ESP32_HOST", None, _text, "The address at which ESP32 peers reach this machine")

    uploads_folder: str | None = variable(
        "PIPECAT_UPLOADS_FOLDER", None, _text, "Folder for uploads when the bot has no `create_file_storage()`"
    )
    max_upload_bytes: int = variable(
        "PIPECAT_MAX_UPLOAD_BYTES", 50 * 1024 * 1024, _size, "Largest uploaded file; more gets 413", unit="bytes"
    )
    krisp_viva_model: str | None = variable(
        "KRISP_VIVA_FILTER_MODEL_PATH", None, _text, f"Krisp VIVA's model; {PASSED_THROUGH}"
    )
    nltk_data: str | None = variable("NLTK_DATA", None, _text, "Folders with nltk's data; read by nltk")
    image_version: str | None = variable("IMAGE_VERSION", None, _text, "Set when the image is built")
    warnings: tuple[str, ...] = ()

    @property
    def is_observed(self) -> bool:
        """Whether somebody outside wants to know of calls."""
        return any((self.metrics_port, self.reports_dir, self.report_url, self.event_publisher))

    @property
    def has_keys(self) -> bool:
        """Whether the gateway asks for keys."""
        return bool(self.public_api_keys or self.private_api_keys)

    @classmethod
    def load(cls, environment: Mapping[str, str], *, said_as: Mapping[str, str] | None = None) -> Settings:
        """Read every variable; an unset or empty one is its default.

        Args:
            environment: Variables and their values.
            said_as: How a wrong value's variable is called where it came from elsewhere: ``{"PORT": "--port"}``.

        Raises:
            SettingsInvalid: one line for each variable that is wrong. A secret's value is not shown.
        """
        values: dict[str, Any] = {}
        wrong: list[str] = []
        warnings = list(misspelt(environment))
        for field in _variables():
            raw = environment.get(field.metadata["name"], "")
            name = (said_as or {}).get(field.metadata["name"], field.metadata["name"])
            if not raw.strip():
                continue
            try:
                values[field.name] = field.metadata["parse"](raw)
            except ValueError as error:
                shown = "the value" if field.metadata["secret"] else json.dumps(raw, ensure_ascii=False)
                if isinstance(error, Ignored):
                    warnings.append(f"{name}: {shown} {error}; {_shown(field.default)} is used")
                else:
                    wrong.append(f"{name}: {shown} {error}")
        settings = cls(**values, warnings=(*warnings, *_short_secrets(values)))
        wrong += _protecting_nothing(settings, environment)
        if settings.esp32_enabled and settings.esp32_host is None:
            wrong.append("ESP32_HOST: not set, and ESP32_ENABLED needs the address that ESP32 peers reach")
        if settings.gateway:
            wrong += _wrong_for_a_gateway(settings)
        if wrong:
            raise SettingsInvalid(wrong)
        return settings


def _variables() -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(Settings) if "name" in field.metadata]


def misspelt(environment: Mapping[str, str]) -> Iterator[str]:
    """Lines about variables that were probably meant for the launcher, each beginning with its name."""
    known = [field.metadata["name"] for field in _variables()]
    unset = [name for name in known if not environment.get(name, "").strip()]
    others = [name for name in sorted(set(environment).difference(known)) if not _is_service_link(environment[name])]
    near = nearest(others, unset)
    for name in others:
        bare = name.removeprefix("PIPECAT_")
        meant = bare if bare != name and bare in unset else near.get(name)
        if meant is not None:
            yield f"{name}: pipecat-base does not read this variable; is {meant} meant?"


def _is_service_link(value: str) -> bool:
    """What Kubernetes sets for a Service, PIPECAT_PORT for one that is called pipecat."""
    return value.startswith(("tcp://", "udp://"))


SECRETS_OF_OURS = (
    "PIPECAT_PUBLIC_API_KEYS",
    "PIPECAT_PRIVATE_API_KEYS",
    "PIPECAT_POD_TOKEN",
    "PIPECAT_WEBSOCKET_SECRET",
    "WHATSAPP_WEBHOOK_VERIFICATION_TOKEN",
)
"""Made up by whoever runs the launcher, not given by a service."""
SHORTEST_SECRET = 16
"""Characters."""


def _short_secrets(values: Mapping[str, Any]) -> Iterator[str]:
    for field in _variables():
        name, value = field.metadata["name"], values.get(field.name)
        if name in SECRETS_OF_OURS and value:
            each = value if isinstance(value, tuple) else (value,)
            if any(len(secret) < SHORTEST_SECRET for secret in each):
                yield (
                    f"{name}: fewer than {SHORTEST_SECRET} characters can be guessed; `openssl rand -hex 24` makes a "
                    "good one"
                )


def _protecting_nothing(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    """What somebody has set to close something, and what is open all the same."""
    for field in _variables():
        name, value = field.metadata["name"], environment.get(field.metadata["name"], "")
        # An empty variable counts as unset, but a pod without its token would be open to all.
        is_set = bool(value) or (name == "PIPECAT_POD_TOKEN" and name in environment)
        if name in SECRETS_OF_OURS and is_set and not value.replace(",", "").strip():
            yield f"{name}: the value is blank, and would protect nothing; set a secret, or take the variable away"
    if settings.has_keys and not settings.gateway:
        name = "PIPECAT_PUBLIC_API_KEYS" if settings.public_api_keys else "PIPECAT_PRIVATE_API_KEYS"
        yield (
            f"{name}: keys protect nothing without the gateway; set PIPECAT_GATEWAY=1, or PIPECAT_POD_TOKEN for a pod"
        )


def _wrong_for_a_gateway(settings: Settings) -> Iterator[str]:
    """What a pod does not mind: it passes some of these on to the bot."""
    if not (settings.has_keys or settings.insecure or is_local(settings.host)):
        yield (
            f"PIPECAT_PUBLIC_API_KEYS: not set, and a gateway on {settings.host} can be reached from elsewhere; "
            "set keys, listen on 127.0.0.1 (PIPECAT_HOST), or say --insecure (PIPECAT_INSECURE)"
        )
    if settings.public_url is not None and not (settings.has_keys or settings.insecure):
        yield (
            "PIPECAT_PUBLIC_API_KEYS: not set, and PIPECAT_PUBLIC_URL says that others reach this gateway; set keys "
            "or say --insecure (PIPECAT_INSECURE)"
        )
    if settings.telnyx_public_key is not None and _decoded_length(settings.telnyx_public_key) != 32:
        yield "TELNYX_PUBLIC_KEY: the value is not a public key (base64 of 32 bytes)"
    if settings.dialin_secret is not None and not _decoded_length(settings.dialin_secret):
        yield "PINLESS_HMAC_SECRET: the value is not base64"
    if not settings.daily_api_url.startswith(("http://", "https://")):
        yield f"DAILY_API_URL: {json.dumps(settings.daily_api_url)} is not an HTTP address (http://host:port/path)"


def _decoded_length(value: str) -> int:
    """Of base64; 0 when it is none."""
    try:
        return len(base64.b64decode(value, validate=True))
    except ValueError:
        return 0


GATEWAYS_SECRETS = (
    "PIPECAT_PUBLIC_API_KEYS",
    "PIPECAT_PRIVATE_API_KEYS",
    "PIPECAT_POD_TOKEN",
    "PIPECAT_WEBSOCKET_SECRET",
    "WHATSAPP_APP_SECRET",
    "WHATSAPP_WEBHOOK_VERIFICATION_TOKEN",
    "PINLESS_HMAC_SECRET",
    "PIPECAT_REPORT_SECRET",
)
"""Of the launcher and its gateway alone: no process that runs a bot has them. What pipecat reads itself is not here."""


HIDDEN = "known to the launcher alone"
"""In place of a secret that is set."""


def hide_secrets(settings: Settings) -> None:
    """Overwrite the gateway's secrets in place: copies are not enough, as a bot could find what they were made of."""
    for field in _variables():
        value = getattr(settings, field.name)
        if field.metadata["name"] in GATEWAYS_SECRETS and value:
            hidden = (HIDDEN,) if isinstance(value, tuple) else HIDDEN
            object.__setattr__(settings, field.name, hidden)


def is_local(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


GROUPS = {
    "PIPECAT_HOST": "The server and the bot",
    "MAX_SESSIONS": "Sessions",
    "MAX_BODY_BYTES": "Limits of requests",
    "PIPECAT_ISOLATION": "A process for each call",
    "PIPECAT_GATEWAY": "The gateway",
    "SETUP_TIMEOUT": "Start and probes",
    "SHUTDOWN_TIMEOUT": "Shutdown",
    "PIPECAT_LOG_LEVEL": "Logs",
    "PIPECAT_METRICS_PORT": "Metrics, reports and events",
    "PIPECAT_WEBSOCKET_AUTH": "WebSockets",
    "WHATSAPP_TOKEN": "WhatsApp",
    "TWILIO_AUTH_TOKEN": "Phone providers, Daily and LiveKit",
    "WEBRTC_OFFER_TIMEOUT": "WebRTC",
    "PIPECAT_UPLOADS_FOLDER": "Files, models and the image",
}
"""Headings of the reference, by the first variable below each."""


@dataclass(frozen=True)
class Row:
    """One line of the reference table."""

    group: str
    variable: str
    default: str
    unit: str
    meaning: str


def table() -> list[Row]:
    """Every variable, in the order of :class:`Settings`."""
    rows, group = [], ""
    for field in _variables():
        name = field.metadata["name"]
        group = GROUPS.get(name, group)
        rows.append(Row(group, name, _shown(field.default), field.metadata["unit"], field.metadata["text"]))
    return rows


def markdown() -> str:
    """Tables of GitHub-flavoured Markdown, below headings."""
    lines: list[str] = []
    group = None
    for row in table():
        if row.group != group:
            group = row.group
            lines += ["", f"## {group}", "", "| variable | default | unit | meaning |", "|---|---|---|---|"]
        default = f"`{row.default}`" if row.default else "-"
        lines.append(f"| `{row.variable}` | {default} | {row.unit} | {row.meaning} |")
    return "\n".join(lines).strip()


def as_json() -> str:
    """The table as a JSON array of objects."""
    return json.dumps([dataclasses.asdict(row) for row in table()], indent=2, ensure_ascii=False)


def _shown(default: object) -> str:
    if default is None or default == ():
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float) and default.is_integer():
        return str(int(default))
    return str(default)
