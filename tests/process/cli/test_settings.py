from __future__ import annotations

import dataclasses
import json
import math
import operator
import re
import string
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipecat_base.config import reference
from pipecat_base.config.settings import Settings
from pipecat_base.errors import SettingsInvalid
from tests.support.launchers import BOTS, ROOT, Launcher, run

NAMES = [row.variable for row in reference.table()]
CONTRACT = {
    "ESP32_ENABLED",
    "ESP32_HOST",
    "ICE_CONFIG_URL",
    "IMAGE_VERSION",
    "PCC_LOG_DIR",
    "PCC_LOG_FEATURES_SUMMARY",
    "PCC_RELEASE_SESSION_MEMORY",
    "PCC_SESSION_FILES_DIR",
    "PCC_TERMINATION_LOG_PATH",
    "PIPECAT_ALLOWED_ORIGINS",
    "PIPECAT_ICE_SERVERS",
    "PIPECAT_LOG_LEVEL",
    "PIPECAT_SETUP_FILES",
    "PIPECAT_UPLOADS_FOLDER",
    "PIPECAT_WEBSOCKET_AUTH",
    "PORT",
    "SHUTDOWN_TIMEOUT",
    "WHATSAPP_APP_SECRET",
    "WHATSAPP_PHONE_NUMBER_ID",
    "WHATSAPP_TOKEN",
    "WHATSAPP_WEBHOOK_VERIFICATION_TOKEN",
}


def test_every_variable_of_the_replaced_image_is_read() -> None:
    assert set(NAMES) >= CONTRACT
    assert len(set(NAMES)) == len(NAMES)


def test_the_defaults_are_those_of_the_replaced_image() -> None:
    settings = Settings.load({})
    assert (settings.server.port, settings.shutdown.timeout, settings.logs.level) == (8080, 7200, "DEBUG")
    assert (settings.logs.features_summary, settings.websockets.auth, settings.sessions.max_sessions) == (
        False,
        "none",
        None,
    )


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("PORT", "abc", 'PORT: "abc" is not a port (1–65535)'),
        ("PORT", "0", 'PORT: "0" is not a port (1–65535)'),
        ("PORT", "65536", 'PORT: "65536" is not a port (1–65535)'),
        ("PORT", "8_080", 'PORT: "8_080" is not a port (1–65535)'),
        ("PORT", "８０", 'PORT: "８０" is not a port (1–65535)'),
        ("SHUTDOWN_TIMEOUT", "soon", 'SHUTDOWN_TIMEOUT: "soon" is not a number of seconds (0 or more)'),
        ("SHUTDOWN_TIMEOUT", "-1", 'SHUTDOWN_TIMEOUT: "-1" is not a number of seconds (0 or more)'),
        ("SHUTDOWN_TIMEOUT", "inf", 'SHUTDOWN_TIMEOUT: "inf" is not a number of seconds (0 or more)'),
        ("MAX_SESSION_SECONDS", "0", 'MAX_SESSION_SECONDS: "0" is not a number of seconds (more than 0)'),
        ("MAX_SESSIONS", "1.5", 'MAX_SESSIONS: "1.5" is not a whole number (1 or more)'),
        ("BOT_FAILURE_STATUS", "99", 'BOT_FAILURE_STATUS: "99" is not an HTTP status (200–599)'),
        ("READY_WHEN_FULL", "maybe", 'READY_WHEN_FULL: "maybe" is not true or false'),
        ("PIPECAT_WEBSOCKET_AUTH", "basic", 'PIPECAT_WEBSOCKET_AUTH: "basic" is not one of none, token'),
        ("ICE_CONFIG_URL", "nope", 'ICE_CONFIG_URL: "nope" is not an HTTP address (http://host:port/path)'),
        (
            "PIPECAT_TRUST_TRACEPARENT",
            "10.0.0.0/8,proxy",
            'PIPECAT_TRUST_TRACEPARENT: "10.0.0.0/8,proxy" is not * or a comma list of addresses and networks '
            "(10.0.0.0/8)",
        ),
        (
            "PIPECAT_ALLOWED_ORIGINS",
            "https://a.example,b.example",
            'PIPECAT_ALLOWED_ORIGINS: "https://a.example,b.example" is not a comma list of origins '
            "(https://app.example.com)",
        ),
        (
            "PIPECAT_ALLOWED_ORIGINS",
            "https://a.example/",
            'PIPECAT_ALLOWED_ORIGINS: "https://a.example/" is not a comma list of origins (https://app.example.com)',
        ),
        (
            "PIPECAT_ICE_DENY",
            "10.0.0.0/8, metadata",
            'PIPECAT_ICE_DENY: "10.0.0.0/8, metadata" is not a comma list of networks (10.0.0.0/8,fd00::/8)',
        ),
        *(
            ("PIPECAT_UDP_PORTS", value, f'PIPECAT_UDP_PORTS: "{value}" is not a range of ports (40000-40100)')
            for value in ("40100-40000", "0-10", "40000-", "-5", "1-70000", "40000:40100", "a-b")
        ),
        ("PIPECAT_KEEP_ALIVE", "0", 'PIPECAT_KEEP_ALIVE: "0" is not a number of seconds (more than 0)'),
        ("PIPECAT_WEBSOCKET_PING", "-1", 'PIPECAT_WEBSOCKET_PING: "-1" is not a number of seconds (0 or more)'),
        ("PIPECAT_ICE_TIMEOUT", "soon", 'PIPECAT_ICE_TIMEOUT: "soon" is not a number of seconds (more than 0)'),
        (
            "PIPECAT_ICE_DENY",
            "10.0.0.1/8",
            'PIPECAT_ICE_DENY: "10.0.0.1/8" is not a comma list of networks (10.0.0.0/8,fd00::/8)',
        ),
        (
            "ESP32_ENABLED",
            "true",
            "ESP32_HOST: not set, and ESP32_ENABLED needs the address that ESP32 peers reach",
        ),
    ],
)
def test_a_wrong_value_is_one_line(name: str, value: str, line: str) -> None:
    with pytest.raises(SettingsInvalid) as error:
        Settings.load({name: value})
    assert error.value.report() == f"pipecat-base: settings_invalid: {line}"


def test_a_wrong_value_ends_the_program_with_its_status() -> None:
    result = run("serve", "--port", "abc", cwd=BOTS / "obedient", MAX_SESSIONS="many")
    assert result.stderr == (
        'pipecat-base: settings_invalid: --port: "abc" is not a port (1–65535)\n'
        'pipecat-base: settings_invalid: MAX_SESSIONS: "many" is not a whole number (1 or more)\n'
    )
    assert result.returncode == 24


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        ("PORT", " 9000 ", "server.port", 9000),
        ("SHUTDOWN_TIMEOUT", "1.5", "shutdown.timeout", 1.5),
        ("SHUTDOWN_TIMEOUT", "", "shutdown.timeout", 7200),
        ("PIPECAT_LOG_LEVEL", "info", "logs.level", "INFO"),
        ("PCC_LOG_FEATURES_SUMMARY", "TRUE", "logs.features_summary", True),
        ("PCC_LOG_FEATURES_SUMMARY", "0", "logs.features_summary", False),
        ("PIPECAT_ALLOWED_ORIGINS", "https://a, ,https://b", "websockets.allowed_origins", ("https://a", "https://b")),
        (
            "PIPECAT_ICE_DENY",
            "10.0.0.0/8, fd00::/8,192.0.2.7",
            "webrtc.ice_deny",
            tuple(map(ip_network, ("10.0.0.0/8", "fd00::/8", "192.0.2.7/32"))),
        ),
        ("PIPECAT_SETUP_FILES", "/a.py:/b.py", "telemetry.setup_files", ("/a.py", "/b.py")),
    ],
)
def test_a_right_value_is_read(name: str, value: str, attribute: str, expected: object) -> None:
    assert operator.attrgetter(attribute)(Settings.load({name: value})) == expected


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        (
            "PIPECAT_LOG_LEVEL",
            "loud\n",
            'PIPECAT_LOG_LEVEL: "loud\\n" is not one of TRACE, DEBUG, INFO, WARNING, ERROR, NONE; DEBUG is used',
        ),
        (
            "PCC_RELEASE_SESSION_MEMORY",
            "maybe",
            'PCC_RELEASE_SESSION_MEMORY: "maybe" is not true or false; true is used',
        ),
    ],
)
def test_what_the_replaced_image_goes_on_with_is_ignored_with_a_warning(name: str, value: str, line: str) -> None:
    settings = Settings.load({name: value})
    assert settings.warnings == (line,)
    assert (settings.logs.level, settings.sessions.release_memory) == ("DEBUG", True)
    variables: dict[str, Any] = {name: value}
    with Launcher("obedient", **variables) as launcher:
        launcher.wait_for_log(line)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MAX_SESIONS", "MAX_SESSIONS"),
        ("MAX_SESSION", "MAX_SESSIONS"),
        ("MAXSESSIONS", "MAX_SESSIONS"),
        ("PIPECAT_MAX_SESSIONS", "MAX_SESSIONS"),
        ("PIPECAT_PORT", "PORT"),
        ("PIPECAT_PUBLIC_APIKEY", "PIPECAT_PUBLIC_API_KEYS"),
        ("pipecat_isolation", "PIPECAT_ISOLATION"),
        ("TWILIO_AUTH_TOEKN", "TWILIO_AUTH_TOKEN"),
    ],
)
def test_a_variable_that_is_nearly_ours_is_a_warning(name: str, meant: str) -> None:
    warning = f"{name}: pipecat-base does not read this variable; is {meant} meant?"
    assert Settings.load({name: "1"}).warnings == (warning,)


@pytest.mark.parametrize(
    "variables",
    [
        {
            "PATH": "/bin",
            "HOSTNAME": "pod-1",
            "HOST": "x",
            "PORTS": "1",
            "OPENAI_API_KEY": "x",
            "DEEPGRAM_API_KEY": "x",
        },
        {"DAILY_API_KEY2": "the second", "DAILY_API_KEY": "the first"},
        {"BOT_PORT_8080_TCP_ADDR": "10.0.0.1", "BOT_SERVICE_PORT": "8080", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        {"PIPECAT_PORT": "tcp://10.0.0.1:80", "PIPECAT_SERVICE_PORT": "80"},
        {"LIVEKIT_TOKEN": "x", "TWILIO_ACCOUNT_SID": "x", "TWILIO_API_KEY": "x", "LOG_LEVEL": "DEBUG"},
    ],
)
def test_variables_of_others_are_none_of_our_business(variables: dict[str, str]) -> None:
    assert Settings.load(variables).warnings == ()


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=30)))
def test_any_environment_gives_settings_or_one_line_for_each_wrong_variable(environment: dict[str, str]) -> None:
    try:
        Settings.load(environment)
    except SettingsInvalid as error:
        report = error.report()
        assert 1 <= len(report.split("\n")) <= len(environment) + 1
        assert all(re.match(r"pipecat-base: settings_invalid: [A-Z0-9_]+: ", line) for line in report.split("\n"))


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_seconds_are_finite_and_not_negative(number: float) -> None:
    right = math.isfinite(number) and number >= 0
    try:
        assert Settings.load({"SHUTDOWN_TIMEOUT": repr(number)}).shutdown.timeout == number
    except SettingsInvalid:
        assert not right


@given(st.text(alphabet=string.printable, min_size=1, max_size=20).filter(str.strip))
def test_a_secret_is_never_shown(secret: str) -> None:
    settings = Settings.load({"WHATSAPP_TOKEN": f"tok-{secret}-tok"})
    assert f"tok-{secret}-tok" not in repr(settings)


def test_the_table_as_json() -> None:
    rows = json.loads(run("settings", "--format", "json", cwd=ROOT).stdout)
    assert [row["variable"] for row in rows] == NAMES
    assert rows == [dataclasses.asdict(row) for row in reference.table()]


def test_a_line_break_after_a_secret_is_no_part_of_it() -> None:
    settings = Settings.load({"WHATSAPP_APP_SECRET": "secret\n", "WHATSAPP_TOKEN": " token "})
    assert (settings.whatsapp.app_secret, settings.whatsapp.token) == ("secret", "token")


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"PIPECAT_PUBLIC_API_KEYS": "pk_0123456789abcdef"}, "PIPECAT_PUBLIC_API_KEYS: keys protect nothing"),
        ({"PIPECAT_PRIVATE_API_KEYS": "sk_0123456789abcdef"}, "PIPECAT_PRIVATE_API_KEYS: keys protect nothing"),
        ({"PIPECAT_POD_TOKEN": " "}, "PIPECAT_POD_TOKEN: the value is blank"),
        ({"PIPECAT_POD_TOKEN": ""}, "PIPECAT_POD_TOKEN: the value is blank"),
        ({"PIPECAT_POD_TOKEN": "\n"}, "PIPECAT_POD_TOKEN: the value is blank"),
        ({"PIPECAT_GATEWAY": "1", "PIPECAT_PUBLIC_API_KEYS": " , "}, "PIPECAT_PUBLIC_API_KEYS: the value is blank"),
        ({"PIPECAT_WEBSOCKET_SECRET": " "}, "PIPECAT_WEBSOCKET_SECRET: the value is blank"),
    ],
)
def test_what_would_protect_nothing_is_an_error(environment: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        Settings.load({"PIPECAT_HOST": "127.0.0.1", **environment})
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "warns"),
    [
        ("PIPECAT_POD_TOKEN", "x", True),
        ("PIPECAT_POD_TOKEN", "x" * 15, True),
        ("PIPECAT_POD_TOKEN", "x" * 16, False),
        ("PIPECAT_PUBLIC_API_KEYS", "pk_0123456789abcdef,k", True),
        ("PIPECAT_PUBLIC_API_KEYS", "pk_0123456789abcdef", False),
        ("PIPECAT_WEBSOCKET_SECRET", "secret", True),
        ("WHATSAPP_WEBHOOK_VERIFICATION_TOKEN", "v", True),
        ("WHATSAPP_WEBHOOK_VERIFICATION_TOKEN", "", False),
    ],
)
def test_a_short_secret_is_warned_of_by_name_alone(name: str, value: str, warns: bool) -> None:
    lines = Settings.load({"PIPECAT_GATEWAY": "1", "PIPECAT_HOST": "127.0.0.1", name: value}).warnings
    assert [line.partition(":")[0] for line in lines] == ([name] if warns else [])
    assert not any(value in line for line in lines if len(value) > 1)
