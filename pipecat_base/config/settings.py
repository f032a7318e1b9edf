"""Every environment variable: its name, type, default, unit and meaning, in groups that are the parts' own options.

Values come from a mapping, so that only ``launcher`` and ``cli`` read the environment of the process.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from pipecat_base.config import checks, container_env, parsers
from pipecat_base.errors import SettingsInvalid

LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "NONE")
EVENT_LOOPS = ("auto", "asyncio", "uvloop")
ISOLATIONS = ("none", "process")
LOG_FORMATS = ("text", "json")
START_TRANSPORTS = ("webrtc", "daily", "livekit", "moq", "websocket", "twilio", "telnyx", "plivo", "exotel")
PROCESS_STARTS = ("auto", "fork", "spawn")
WEBSOCKET_AUTHS = ("none", "token")
PASSED_THROUGH = "read by your bot or by pipecat"
HIDDEN = "known to the launcher alone"
"""Replaces a secret in processes that run bots."""


class Secret(Enum):
    """Secrets, by who may read them."""

    SHARED = "the bot, or pipecat in it, may read it"
    LAUNCHER = "hidden from bots"
    CHOSEN = "hidden from bots, and chosen by the operator: it may be too short"


def variable(
    name: str,
    default: Any,
    parse: Callable[[str], Any],
    text: str,
    *,
    unit: str = "",
    secret: Secret | None = None,
) -> Any:
    """A dataclass field that is read from the environment variable ``name``.

    ``parse`` raises ValueError with the words that follow the value: ``is not a port (1-65535)``.
    """
    return dataclasses.field(
        default=default,
        repr=secret is None,
        metadata={"name": name, "parse": parse, "text": text, "unit": unit, "secret": secret},
    )


class SettingsGroup:
    """Options of one part. Times are seconds, sizes bytes.

    Attributes:
        title: Heading in the reference.
    """

    title: ClassVar[str]

    @classmethod
    def variables(cls) -> tuple[dataclasses.Field[Any], ...]:
        """The fields, each with its variable in ``metadata``."""
        return dataclasses.fields(cls)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ServerSettings(SettingsGroup):
    title: ClassVar = "The server and the bot"

    host: str = variable("PIPECAT_HOST", "0.0.0.0", parsers.text, "Address to listen on")
    port: int = variable("PORT", 8080, parsers.port, "TCP port to listen on")
    bot_file: str = variable("PIPECAT_BOT", "bot.py", parsers.text, "The bot's file")
    event_loop: str = variable(
        "PIPECAT_EVENT_LOOP",
        "asyncio",
        parsers.choice(EVENT_LOOPS, str.lower),
        "asyncio, uvloop, or auto: uvloop where it is installed",
    )


@dataclass(frozen=True)
class SessionSettings(SettingsGroup):
    title: ClassVar = "Sessions"

    max_sessions: int | None = variable(
        "MAX_SESSIONS",
        None,
        parsers.count,
        "Concurrent sessions; the next one gets 429. Unset: no limit",
        unit="sessions",
    )
    max_seconds: float | None = variable(
        "MAX_SESSION_SECONDS",
        None,
        parsers.positive_seconds,
        "A session is ended after this long; `X-PCC-Max-Session-Seconds` can only shorten it. Unset: no limit",
        unit="seconds",
    )
    cancel_grace: float = variable(
        "SESSION_CANCEL_GRACE",
        5.0,
        parsers.seconds,
        "How long a cancelled bot may take to clean up (its `finally` blocks)",
        unit="seconds",
    )
    bot_failure_status: int = variable(
        "BOT_FAILURE_STATUS",
        500,
        parsers.http_status,
        "What `POST /bot` answers when the bot failed",
        unit="HTTP status",
    )
    files_dir: str | None = variable(
        "PCC_SESSION_FILES_DIR", None, parsers.text, "Folder with the flow files that `X-Pcc-Flow-Config-File` may name"
    )
    release_memory: bool = variable(
        "PCC_RELEASE_SESSION_MEMORY",
        True,
        parsers.forgiving(parsers.boolean),
        "Collect garbage and return memory to the system after a session, unless another one runs",
    )


@dataclass(frozen=True)
class ServerLimits(SettingsGroup):
    title: ClassVar = "Limits of requests"

    max_body_bytes: int = variable(
        "MAX_BODY_BYTES",
        10 * 1024 * 1024,
        parsers.size,
        "Largest body of a request to the launcher's own routes (more gets 413), and largest flow file",
        unit="bytes",
    )
    max_connections: int | None = variable(
        "PIPECAT_MAX_CONNECTIONS",
        None,
        parsers.count,
        "Open connections, WebSockets included; beyond it idle ones are closed, then new ones get 503. Unset: a third"
        " of the descriptors that `ulimit -n` allows, at most 4096",
    )
    max_head_bytes: int = variable(
        "PIPECAT_MAX_HEAD_BYTES",
        1024 * 1024,
        parsers.size,
        "Largest head of a request: its line (with `?body=`) and its headers, at most 128 of them; more gets 431",
        unit="bytes",
    )
    head_timeout: float = variable(
        "PIPECAT_HEAD_TIMEOUT",
        10.0,
        parsers.positive_seconds,
        "How long a request's head may take to arrive; then 408",
        unit="seconds",
    )
    keep_alive: float = variable(
        "PIPECAT_KEEP_ALIVE",
        75.0,
        parsers.positive_seconds,
        "How long a connection may be idle between two requests. A load balancer in front must give up its idle"
        " connections sooner: most do so after 60 s",
        unit="seconds",
    )
    websocket_ping: float = variable(
        "PIPECAT_WEBSOCKET_PING",
        20.0,
        parsers.seconds,
        "How often WebSockets are pinged. A peer that sends nothing for as long after a ping, neither a pong nor audio,"
        " counts as gone. 0: never",
        unit="seconds",
    )
    body_timeout: float = variable(
        "PIPECAT_BODY_TIMEOUT",
        120.0,
        parsers.positive_seconds,
        "How long a request's body may take to arrive; then 408. Also how long a caller may leave an answer unread",
        unit="seconds",
    )
    max_unfinished_bytes: int = variable(
        "PIPECAT_MAX_UNFINISHED_BYTES",
        128 * 1024 * 1024,
        parsers.size,
        "Memory for all bodies and WebSocket messages that are still arriving; beyond it new ones get 503, or close"
        " code 1013",
        unit="bytes",
    )
    max_frames_per_second: int = variable(
        "PIPECAT_MAX_FRAMES_PER_SECOND",
        1000,
        parsers.count,
        "Frames per second that a WebSocket may send, averaged over ten seconds; more closes it with 1008",
    )


@dataclass(frozen=True)
class WorkerSettings(SettingsGroup):
    title: ClassVar = "A process for each call"

    isolation: str = variable(
        "PIPECAT_ISOLATION",
        "none",
        parsers.choice(ISOLATIONS, str.lower),
        "`process` runs each call in its own process, which is ready before the call arrives",
    )
    idle_processes: int | None = variable(
        "PIPECAT_IDLE_PROCESSES",
        None,
        parsers.count,
        "Calls that can begin at once without waiting for a process: so many are kept ready. Unset: one per CPU, at"
        " most 4",
    )
    calls_per_process: int = variable(
        "PIPECAT_CALLS_PER_PROCESS",
        1,
        parsers.count,
        "With `PIPECAT_ISOLATION=process`: calls that one process runs at once. What ends the process ends them all",
    )
    calls_before_restart: int | None = variable(
        "PIPECAT_CALLS_BEFORE_RESTART",
        None,
        parsers.count,
        "A process takes so many calls, and ends with the last of them. Unset: one with `PIPECAT_CALLS_PER_PROCESS=1`,"
        " any number with more",
    )
    process_start: str = variable(
        "PIPECAT_PROCESS_START",
        "auto",
        parsers.choice(PROCESS_STARTS, str.lower),
        "How processes start: `fork` from one that has imported the bot, or `spawn`, where each imports it. `auto`"
        " forks where that is safe",
    )
    process_timeout: float = variable(
        "PIPECAT_PROCESS_TIMEOUT",
        10.0,
        parsers.seconds,
        "How long a call waits for a process when none is idle; then 503",
        unit="seconds",
    )
    max_memory_bytes: int | None = variable(
        "MAX_SESSION_MEMORY_BYTES",
        None,
        parsers.size,
        "With `PIPECAT_ISOLATION=process`: a process that uses more memory (PSS) than that for each of its calls is"
        " ended; at 80 % a warning is logged",
        unit="bytes",
    )

    @property
    def calls_share_process(self) -> bool:
        return self.isolation == "none" or self.calls_per_process > 1


@dataclass(frozen=True)
class GatewaySettings(SettingsGroup):
    title: ClassVar = "The gateway"

    is_enabled: bool = variable(
        "PIPECAT_GATEWAY",
        False,
        parsers.boolean,
        "Also serve the gateway: `/start`, the Session API, webhooks, the page",
    )
    public_api_keys: tuple[str, ...] = variable(
        "PIPECAT_PUBLIC_API_KEYS",
        (),
        parsers.comma_list,
        "Comma-separated; each request to the gateway needs one: `Authorization: Bearer KEY`",
        secret=Secret.CHOSEN,
    )
    private_api_keys: tuple[str, ...] = variable(
        "PIPECAT_PRIVATE_API_KEYS",
        (),
        parsers.comma_list,
        "Comma-separated; where keys are set, listing all sessions and the management API need one of these",
        secret=Secret.CHOSEN,
    )
    open_routes: tuple[str, ...] = variable(
        "PIPECAT_OPEN_ROUTES",
        (),
        parsers.route_patterns,
        "Comma-separated paths of the bot's own that need no key at the gateway; `*` matches anything:"
        " `/health,/public/*`",
    )
    insecure: bool = variable(
        "PIPECAT_INSECURE",
        False,
        parsers.boolean,
        "Allow a gateway without keys on an address that other machines can reach",
    )
    pod_token: str | None = variable(
        "PIPECAT_POD_TOKEN",
        None,
        parsers.secret,
        "What `X-Pipecat-Pod-Token` must hold on `/bot`, `/ws`, `/ws-client`, `/api/offer` and `/files`. Unset: not"
        " required",
        secret=Secret.CHOSEN,
    )
    agent_name: str | None = variable(
        "PIPECAT_AGENT_NAME",
        None,
        parsers.text,
        "The agent's name in the gateway's paths; other names get 404. Unset: every name",
    )
    public_url: str | None = variable(
        "PIPECAT_PUBLIC_URL",
        None,
        parsers.url,
        "The address at which callers reach the gateway. Unset: taken from each request's headers",
    )

    default_transport: str | None = variable(
        "PIPECAT_DEFAULT_TRANSPORT",
        None,
        parsers.choice(START_TRANSPORTS, str.lower),
        "Transport of a `POST /start` that names none, as `-t` of pipecat's runner. Unset: webrtc",
    )

    @property
    def has_keys(self) -> bool:
        return bool(self.public_api_keys or self.private_api_keys)

    @property
    def serves_this_machine_only(self) -> bool:
        """True without keys: the gateway then refuses requests to names of other machines."""
        return not (self.has_keys or self.insecure)


@dataclass(frozen=True)
class StartSettings(SettingsGroup):
    title: ClassVar = "Start and probes"

    setup_timeout: float = variable(
        "SETUP_TIMEOUT",
        300.0,
        parsers.positive_seconds,
        "How long `setup()` and lifespans may take before the start fails",
        unit="seconds",
    )
    import_timeout: float | None = variable(
        "PIPECAT_IMPORT_TIMEOUT",
        None,
        parsers.positive_seconds,
        "How long the import of the bot may take before the start fails. Unset: no limit",
        unit="seconds",
    )
    readyz_timeout: float = variable(
        "READYZ_TIMEOUT",
        2.0,
        parsers.positive_seconds,
        "How long `readyz()` may take before `/readyz` answers 503",
        unit="seconds",
    )
    ready_when_full: bool = variable(
        "READY_WHEN_FULL", False, parsers.boolean, "`/readyz` stays 200 while `MAX_SESSIONS` are running"
    )
    event_loop_stall_limit: float = variable(
        "EVENT_LOOP_STALL_LIMIT",
        60.0,
        parsers.positive_seconds,
        "When the bot blocks the event loop for longer, `/livez` answers 503",
        unit="seconds",
    )


@dataclass(frozen=True)
class ShutdownSettings(SettingsGroup):
    title: ClassVar = "Shutdown"

    timeout: float = variable(
        "SHUTDOWN_TIMEOUT", 7200.0, parsers.seconds, "How long running sessions may go on after SIGTERM", unit="seconds"
    )
    drain_notice: float = variable(
        "DRAIN_NOTICE",
        2.0,
        parsers.seconds,
        "After SIGTERM, keep answering at least this long so that load balancers notice. Not after Ctrl-C",
        unit="seconds",
    )
    takes_calls: bool = variable(
        "DRAIN_TAKES_CALLS",
        False,
        parsers.boolean,
        "Take new calls during `DRAIN_NOTICE` too, where no other pod can: load balancers still send them here",
    )
    teardown_timeout: float = variable(
        "TEARDOWN_TIMEOUT",
        10.0,
        parsers.positive_seconds,
        "How long `teardown()` and lifespans may take at the end",
        unit="seconds",
    )
    exit_grace: float = variable(
        "PIPECAT_EXIT_GRACE",
        5.0,
        parsers.seconds,
        "How long tasks that outlive `bot()` may go on when their process ends. With `PIPECAT_ISOLATION=process`, for"
        " threads, jobs of executors, exit handlers and SDKs that deliver, too: after the call, without its slot",
        unit="seconds",
    )


@dataclass(frozen=True)
class LogSettings(SettingsGroup):
    title: ClassVar = "Logs"

    level: str = variable(
        "PIPECAT_LOG_LEVEL",
        "DEBUG",
        parsers.forgiving(parsers.choice(LOG_LEVELS, str.upper)),
        f"One of {', '.join(LOG_LEVELS)}; any other value is ignored with a warning",
    )
    caller_data: bool = variable(
        "PIPECAT_LOG_CALLER_DATA",
        False,
        parsers.boolean,
        "Let pipecat's log lines show callers' numbers, parameters, bodies, messages and room tokens. At TRACE whole"
        " frames are logged in any case",
    )
    features_summary: bool = variable(
        "PCC_LOG_FEATURES_SUMMARY", False, parsers.boolean, "Log what is available here, once ready"
    )
    folder: str | None = variable(
        "PCC_LOG_DIR", None, parsers.text, "Folder for `bot.jsonl`: log lines and printed output, as JSON lines"
    )
    termination_log: str | None = variable(
        "PCC_TERMINATION_LOG_PATH",
        None,
        parsers.text,
        "File for the reason of a failed start. Unset: `/dev/termination-log`, where it exists",
    )
    format: str = variable(
        "PIPECAT_LOG_FORMAT",
        "text",
        parsers.choice(LOG_FORMATS, str.lower),
        "`json` writes each log line to standard error as one JSON object",
    )


@dataclass(frozen=True)
class TelemetrySettings(SettingsGroup):
    title: ClassVar = "Metrics, reports and events"

    metrics_port: int | None = variable(
        "PIPECAT_METRICS_PORT",
        None,
        parsers.port,
        "Port of `GET /metrics` for Prometheus; do not publish it. Unset: no metrics",
    )
    metrics_host: str | None = variable(
        "PIPECAT_METRICS_HOST", None, parsers.text, "Address to serve metrics on. Unset: `PIPECAT_HOST`"
    )
    reports_dir: str | None = variable(
        "PIPECAT_REPORTS_DIR",
        None,
        parsers.text,
        "Folder for `calls.jsonl`: a report for every call, one JSON object per line. Unsent reports wait here for the"
        " next start",
    )
    report_url: str | None = variable(
        "PIPECAT_REPORT_URL",
        None,
        parsers.url,
        "Every call's report is posted here, and retried until it is accepted",
        secret=Secret.SHARED,
    )
    report_secret: bytes | None = variable(
        "PIPECAT_REPORT_SECRET",
        None,
        parsers.webhook_secret,
        "Signs reports (Standard Webhooks): `whsec_` followed by base64",
        secret=Secret.LAUNCHER,
    )
    report_content: bool = variable(
        "PIPECAT_REPORT_CONTENT", False, parsers.boolean, "Include the transcript in reports"
    )
    event_publisher: str | None = variable(
        "PIPECAT_EVENT_PUBLISHER_ENDPOINT",
        None,
        parsers.forgiving(parsers.url),
        "The platform's event publisher: each event of a session is posted here",
        secret=Secret.SHARED,
    )
    exclude_content: bool = variable(
        "PCC_EXCLUDE_CONTENT",
        False,
        parsers.unless_false,
        "Send no transcripts to the event publisher; any value but `false` means yes",
    )
    trust_traceparent: tuple[parsers.Network, ...] | None = variable(
        "PIPECAT_TRUST_TRACEPARENT",
        None,
        parsers.callers,
        "Comma-separated addresses and networks of callers whose `traceparent` counts; `*` for all. Unset: all, and"
        " at a gateway with keys none",
    )
    observers: bool = variable(
        "PIPECAT_OBSERVERS",
        True,
        parsers.boolean,
        "Log pipeline start-up times and user-bot latency (pipecat-ai >= 0.0.104)",
    )
    setup_files: tuple[str, ...] = variable(
        "PIPECAT_SETUP_FILES", (), parsers.path_list, "pipecat's per-task setup files; the launcher appends its own"
    )

    @property
    def is_observed(self) -> bool:
        """True if events of calls leave the launcher."""
        return any((self.metrics_port, self.reports_dir, self.report_url, self.event_publisher))


@dataclass(frozen=True)
class WebSocketSettings(SettingsGroup):
    title: ClassVar = "WebSockets"

    auth: str = variable(
        "PIPECAT_WEBSOCKET_AUTH",
        "none",
        parsers.choice(WEBSOCKET_AUTHS, str.lower),
        "`none`, or `token`: each WebSocket needs a single-use token",
    )
    secret: str | None = variable(
        "PIPECAT_WEBSOCKET_SECRET",
        None,
        parsers.text,
        "Signs those tokens; `pipecat-base token` prints one. Unset: random, known only to this process",
        secret=Secret.CHOSEN,
    )
    allowed_origins: tuple[str, ...] = variable(
        "PIPECAT_ALLOWED_ORIGINS",
        (),
        parsers.origins,
        "Comma-separated; WebSockets from other origins are refused, and so are those without one (phones). Unset: all",
    )


@dataclass(frozen=True)
class WhatsAppSettings(SettingsGroup):
    title: ClassVar = "WhatsApp"

    token: str | None = variable(
        "WHATSAPP_TOKEN", None, parsers.secret, "Graph API token; WhatsApp needs all three", secret=Secret.SHARED
    )
    phone_number_id: str | None = variable(
        "WHATSAPP_PHONE_NUMBER_ID", None, parsers.secret, "The business number's id; WhatsApp needs all three"
    )
    app_secret: str | None = variable(
        "WHATSAPP_APP_SECRET",
        None,
        parsers.secret,
        "Checks webhook signatures; WhatsApp needs all three",
        secret=Secret.LAUNCHER,
    )
    verification_token: str | None = variable(
        "WHATSAPP_WEBHOOK_VERIFICATION_TOKEN",
        None,
        parsers.secret,
        "Enables Meta's verification, GET /whatsapp",
        secret=Secret.CHOSEN,
    )


@dataclass(frozen=True)
class ProviderSettings(SettingsGroup):
    title: ClassVar = "Phone providers, Daily and LiveKit"

    twilio_auth_token: str | None = variable(
        "TWILIO_AUTH_TOKEN",
        None,
        parsers.secret,
        "Checks Twilio's signatures on the gateway's webhook",
        secret=Secret.SHARED,
    )
    plivo_auth_token: str | None = variable(
        "PLIVO_AUTH_TOKEN",
        None,
        parsers.secret,
        "Checks Plivo's signatures on the gateway's webhook",
        secret=Secret.SHARED,
    )
    telnyx_public_key: str | None = variable(
        "TELNYX_PUBLIC_KEY", None, parsers.secret, "Checks Telnyx's signatures on the gateway's webhook"
    )
    daily_api_key: str | None = variable(
        "DAILY_API_KEY", None, parsers.secret, "Lets the gateway make Daily rooms", secret=Secret.SHARED
    )
    daily_api_url: str = variable("DAILY_API_URL", "https://api.daily.co/v1", parsers.secret, "Daily's REST API")
    daily_room_url: str | None = variable(
        "DAILY_ROOM_URL",
        None,
        parsers.secret,
        "One Daily room for all sessions of `/start`. Unset: one for each",
    )
    daily_sample_room_url: str | None = variable(
        "DAILY_SAMPLE_ROOM_URL", None, parsers.secret, "The name of `DAILY_ROOM_URL` in older releases of pipecat"
    )
    dialin_secret: str | None = variable(
        "PINLESS_HMAC_SECRET",
        None,
        parsers.secret,
        "Checks Daily's signatures on the dial-in webhook",
        secret=Secret.LAUNCHER,
    )
    livekit_url: str | None = variable("LIVEKIT_URL", None, parsers.secret, "Where the gateway starts LiveKit sessions")
    livekit_api_key: str | None = variable(
        "LIVEKIT_API_KEY", None, parsers.secret, "Signs LiveKit tokens", secret=Secret.SHARED
    )
    livekit_api_secret: str | None = variable(
        "LIVEKIT_API_SECRET", None, parsers.secret, "Signs LiveKit tokens", secret=Secret.SHARED
    )
    livekit_room_name: str | None = variable(
        "LIVEKIT_ROOM_NAME", None, parsers.text, "One LiveKit room for all sessions. Unset: one for each"
    )


@dataclass(frozen=True)
class WebRTCSettings(SettingsGroup):
    title: ClassVar = "WebRTC"

    offer_timeout: float = variable(
        "WEBRTC_OFFER_TIMEOUT",
        120.0,
        parsers.positive_seconds,
        "How long `POST /bot` waits for its offer",
        unit="seconds",
    )
    start_grace: float = variable(
        "PIPECAT_START_GRACE",
        10.0,
        parsers.seconds,
        "While `MAX_SESSIONS` are running: a WebRTC session from `/start` whose caller has not connected after this"
        " long gives its place to one who has",
        unit="seconds",
    )
    connect_timeout: float = variable(
        "WEBRTC_CONNECT_TIMEOUT",
        30.0,
        parsers.positive_seconds,
        "How long a WebRTC peer may take to connect",
        unit="seconds",
    )
    disconnect_timeout: float = variable(
        "WEBRTC_DISCONNECT_TIMEOUT",
        10.0,
        parsers.positive_seconds,
        "A WebRTC peer that sends nothing for this long counts as gone",
        unit="seconds",
    )
    ice_config_url: str | None = variable(
        "ICE_CONFIG_URL",
        None,
        parsers.url,
        "URL that returns ICE servers as JSON. Unset: in the image, the platform's (http://localhost:9090/ice-servers),"
        " if it answers",
    )
    ice_servers: str | None = variable(
        "PIPECAT_ICE_SERVERS",
        None,
        parsers.text,
        "ICE servers: comma-separated URLs, or a JSON object or array",
        secret=Secret.SHARED,
    )
    ice_timeout: float = variable(
        "PIPECAT_ICE_TIMEOUT",
        0.75,
        parsers.positive_seconds,
        "How long an offer waits for STUN and TURN servers. Calls go without a server that does not answer in time",
        unit="seconds",
    )
    udp_ports: tuple[int, int] | None = variable(
        "PIPECAT_UDP_PORTS",
        None,
        parsers.port_range,
        "UDP ports for WebRTC, for firewalls: `40000-40100`. Each call takes one. Unset: any free port",
    )
    ice_deny: tuple[parsers.Network, ...] = variable(
        "PIPECAT_ICE_DENY",
        (),
        parsers.networks,
        "Comma-separated networks: WebRTC candidates in them are not used, whatever an offer names: `10.0.0.0/8`",
    )
    esp32_enabled: bool = variable("ESP32_ENABLED", False, parsers.boolean, "Adapt SDP answers for ESP32 peers")
    esp32_host: str | None = variable(
        "ESP32_HOST", None, parsers.text, "The address at which ESP32 peers reach this machine"
    )


@dataclass(frozen=True)
class FileSettings(SettingsGroup):
    title: ClassVar = "Files, models and the image"

    uploads_folder: str | None = variable(
        "PIPECAT_UPLOADS_FOLDER", None, parsers.text, "Folder for uploads when the bot has no `create_file_storage()`"
    )
    max_upload_bytes: int = variable(
        "PIPECAT_MAX_UPLOAD_BYTES", 50 * 1024 * 1024, parsers.size, "Largest uploaded file; more gets 413", unit="bytes"
    )
    krisp_viva_model: str | None = variable(
        "KRISP_VIVA_FILTER_MODEL_PATH", None, parsers.text, f"Krisp VIVA's model; {PASSED_THROUGH}"
    )
    nltk_data: str | None = variable("NLTK_DATA", None, parsers.text, "Folders with nltk's data; read by nltk")
    image_version: str | None = variable("IMAGE_VERSION", None, parsers.text, "Set when the image is built")


@dataclass(frozen=True)
class Settings:
    """The options of all parts.

    Attributes:
        warnings: Log lines about values that count as unset because they are wrong, and about names that look misspelt.
        flow_config: The flow of sessions that bring none (`dev --flow`).
    """

    server: ServerSettings = ServerSettings()
    sessions: SessionSettings = SessionSettings()
    limits: ServerLimits = ServerLimits()
    workers: WorkerSettings = WorkerSettings()
    gateway: GatewaySettings = GatewaySettings()
    start: StartSettings = StartSettings()
    shutdown: ShutdownSettings = ShutdownSettings()
    logs: LogSettings = LogSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    websockets: WebSocketSettings = WebSocketSettings()
    whatsapp: WhatsAppSettings = WhatsAppSettings()
    providers: ProviderSettings = ProviderSettings()
    webrtc: WebRTCSettings = WebRTCSettings()
    files: FileSettings = FileSettings()
    warnings: tuple[str, ...] = ()
    flow_config: str | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def load(cls, environment: Mapping[str, str], *, shown_as: Mapping[str, str] | None = None) -> Settings:
        """Read every variable; an unset or empty one has its default.

        Args:
            environment: Variables and their values.
            shown_as: Names for error messages, where a value came from the command line: ``{"PORT": "--port"}``.

        Raises:
            SettingsInvalid: one line for each wrong variable. The value of a secret is not shown.
        """
        groups: dict[str, Any] = {}
        wrong: list[str] = []
        environment = container_env.corrected(environment, NAMES)
        warnings = list(checks.misspelt(environment, NAMES))
        warnings += container_env.quoted_values(environment, {*NAMES, *(shown_as or {})})
        for attribute, group in SETTINGS_GROUPS.items():
            values: dict[str, Any] = {}
            for field in group.variables():
                raw = environment.get(field.metadata["name"], "")
                name = (shown_as or {}).get(field.metadata["name"], field.metadata["name"])
                if not raw.strip():
                    continue
                shown = "the value" if field.metadata["secret"] else json.dumps(raw, ensure_ascii=False)
                if container_env.is_service_link(field.metadata["name"], raw):
                    warnings.append(f"{name}: {shown} is the address that Kubernetes sets for a Service; it is ignored")
                    continue
                try:
                    values[field.name] = value = field.metadata["parse"](raw)
                except ValueError as error:
                    if isinstance(error, parsers.Ignored):
                        warnings.append(f"{name}: {shown} {error}; {default_text(field.default)} is used")
                    else:
                        odd = container_env.oddity(raw)
                        wrong.append(f"{name}: {shown} {error}{f'; it {odd}' if odd else ''}")
                else:
                    odd = container_env.oddity(value)
                    warnings += [f"{name}: the value {odd}"] if odd else []
            groups[attribute] = group(**values)
        settings = cls(**groups)
        wrong += checks.blank_secrets(environment, CHOSEN_SECRETS)
        wrong += checks.contradictions(settings)
        if wrong:
            raise SettingsInvalid(wrong)
        chosen = {name: value for name, value in _values(settings) if name in CHOSEN_SECRETS and value}
        return dataclasses.replace(settings, warnings=(*warnings, *checks.short_secrets(chosen)))


SETTINGS_GROUPS: dict[str, type[SettingsGroup]] = {
    field.name: type(field.default)
    for field in dataclasses.fields(Settings)
    if isinstance(field.default, SettingsGroup)
}
"""The groups by their attribute of :class:`Settings`, in the order of the reference."""


def variables() -> Iterator[dataclasses.Field[Any]]:
    """Fields of all groups, in the order of the reference."""
    for group in SETTINGS_GROUPS.values():
        yield from group.variables()


def _values(settings: Settings) -> Iterator[tuple[str, Any]]:
    for attribute, group in SETTINGS_GROUPS.items():
        for field in group.variables():
            yield field.metadata["name"], getattr(getattr(settings, attribute), field.name)


NAMES = tuple(field.metadata["name"] for field in variables())
CHOSEN_SECRETS = tuple(field.metadata["name"] for field in variables() if field.metadata["secret"] is Secret.CHOSEN)
LAUNCHER_SECRETS = tuple(
    field.metadata["name"] for field in variables() if field.metadata["secret"] in (Secret.LAUNCHER, Secret.CHOSEN)
)
"""Variables that no process that runs a bot has."""


def hide_secrets(settings: Settings) -> None:
    """Overwrite the launcher's secrets in place: a bot could find the object from which a copy was made."""
    for attribute, group in SETTINGS_GROUPS.items():
        options = getattr(settings, attribute)
        for field in group.variables():
            value = getattr(options, field.name)
            if value and field.metadata["name"] in LAUNCHER_SECRETS:
                object.__setattr__(options, field.name, (HIDDEN,) if isinstance(value, tuple) else HIDDEN)


def default_text(default: object) -> str:
    """The default as warnings and the reference show it."""
    if default is None or default == ():
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float) and default.is_integer():
        return str(int(default))
    return str(default)
