"""Variables and files as ``docker run --env-file``, Kubernetes and people's editors leave them."""

from __future__ import annotations

import codecs
import io
import json
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from hypothesis import example, given
from hypothesis import strategies as st

from pipecat_base.cli.call import audio
from pipecat_base.cli.call.command import _body
from pipecat_base.cli.call.scenario import from_file
from pipecat_base.config.container_env import corrected, is_service_link, unquoted
from pipecat_base.config.settings import NAMES, Settings
from pipecat_base.errors import SettingsInvalid
from tests.support.launchers import Launcher, run

KEY = "pk_0123456789abcdef"
GATEWAY = {"PIPECAT_GATEWAY": "1", "PIPECAT_HOST": "127.0.0.1"}
KEEPS = "`docker run --env-file` keeps"


@pytest.mark.parametrize(
    "value", [f'"{KEY}"', f"'{KEY}'", f' "{KEY}"  # mine', f"'{KEY}'\r", f"\ufeff{KEY}", f"{KEY}\r\n", f'"{KEY}",']
)
def test_a_key_in_quotation_marks_or_with_an_editors_marks_is_the_key(value: str) -> None:
    settings = Settings.load({**GATEWAY, "PIPECAT_PUBLIC_API_KEYS": value})
    assert (settings.gateway.public_api_keys, settings.warnings) == ((KEY,), ())


@pytest.mark.parametrize("value", [f'"{KEY}","sk_{KEY}"', f"{KEY}\r\nsk_{KEY}\r\n", f"'{KEY}, sk_{KEY}'"])
def test_keys_of_a_list_may_be_quoted_one_by_one_or_have_a_line_each(value: str) -> None:
    settings = Settings.load({**GATEWAY, "PIPECAT_PUBLIC_API_KEYS": value})
    assert (settings.gateway.public_api_keys, settings.warnings) == ((KEY, f"sk_{KEY}"), ())


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (f"{KEY} # mine", f"holds a comment (#), which {KEEPS}"),
        (f'"{KEY}', "begins or ends with a quotation mark"),
        (f"“{KEY}”", "begins or ends with a quotation mark"),
        (f'x,"{KEY}', "begins or ends with a quotation mark"),
    ],
)
def test_a_mark_that_may_be_a_part_of_a_secret_is_named_and_the_secret_is_not(value: str, says: str) -> None:
    warnings = Settings.load({**GATEWAY, "PIPECAT_PUBLIC_API_KEYS": value}).warnings
    assert warnings[0] == f"PIPECAT_PUBLIC_API_KEYS: the value {says}"
    assert KEY not in "".join(warnings)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("4 # calls", f'"4 # calls" is not a whole number (1 or more); it holds a comment (#), which {KEEPS}'),
        ('"4', '"\\"4" is not a whole number (1 or more); it begins or ends with a quotation mark'),
    ],
)
def test_an_error_names_the_mark(value: str, line: str) -> None:
    with pytest.raises(SettingsInvalid) as error:
        Settings.load({"MAX_SESSIONS": value})
    assert error.value.lines == (f"MAX_SESSIONS: {line}",)


SERVERS = '[{"urls": "turn:t.example", "username": "u", "credential": "a #\'b"}]'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (SERVERS, SERVERS),
        ('\'[{"urls": "stun:s.example"}]\'', '[{"urls": "stun:s.example"}]'),
        ('"[{\\"urls\\": \\"stun:s.example\\"}]"', '[{"urls": "stun:s.example"}]'),
        ('"stun:s.example"', "stun:s.example"),
    ],
)
def test_json_keeps_its_own_quotation_marks(value: str, expected: str) -> None:
    settings = Settings.load({"PIPECAT_ICE_SERVERS": value})
    assert (settings.webrtc.ice_servers, settings.warnings) == (expected, ())


@example("\\", "'")  # its last quotation mark is escaped
@example("a\\", '"')
@given(st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=20), st.sampled_from("'\""))
def test_a_quoted_value_is_read_as_dev_reads_it(inner: str, quote: str) -> None:
    value = f"{quote}{inner}{quote}"
    found = dotenv_values(stream=io.StringIO(f"NAME={value}\n"), interpolate=False)
    if unquoted(value) != value:
        assert found == {"NAME": unquoted(value)}


def test_a_bom_is_no_part_of_the_first_name_and_the_bots_own_values_stay() -> None:
    given = {
        "\ufeffOPENAI_API_KEY": '"sk"',
        "\ufeffA": "with",
        "A": "without",
        "TEXT": '"a" "b"',
        "MAX_SESSIONS": '"4"',
    }
    expected = {"OPENAI_API_KEY": '"sk"', "A": "without", "TEXT": '"a" "b"', "MAX_SESSIONS": "4"}
    assert corrected(given, NAMES) == expected
    assert Settings.load(given).warnings == (
        "OPENAI_API_KEY: the quotation marks are part of the value, as `docker run --env-file` leaves them; your bot"
        " may want it without",
    )


def test_the_launcher_and_the_bot_get_what_dev_would_give_them(tmp_path: Path) -> None:
    (tmp_path / "voice.py").write_bytes(
        codecs.BOM_UTF8 + b"import os\r\nN = 'DAILY_API_KEY', 'FIRST', 'CARTESIA_API_KEY'\r\n"
        b"async def bot(args):\r\n    print('got', [os.environ.get(n) for n in N], flush=True)"
    )
    variables: dict[str, Any] = {
        "\ufeffFIRST": "1",
        "PIPECAT_BOT": '"voice.py"',
        "PIPECAT_GATEWAY": "'1'",
        "PIPECAT_LOG_FORMAT": '"json"',
        "DAILY_API_KEY": '"daily"',
        "CARTESIA_API_KEY": '"cartesia"',
        "\ufeffPIPECAT_PUBLIC_API_KEYS": f'"{KEY}"',
        "MAX_SESSIONS": '"1"',
    }
    with Launcher(tmp_path, **variables) as launcher:
        start = "/v1/public/agent/start"
        assert launcher.http.post(start, headers={"authorization": f"Bearer {KEY}"}).status_code == 200
        assert launcher.http.post(start).status_code == 401
        launcher.wait_for_log("got ['daily', '1', '\\\"cartesia\\\"']")
        assert "CARTESIA_API_KEY: the quotation marks are part of the value" in launcher.log()
        assert KEY not in launcher.log()


@pytest.mark.parametrize(
    ("service", "port"),
    [("PIPECAT_METRICS", "9464"), ("PIPECAT", "8080"), ("PIPECAT_BASE", "80"), ("MAX_SESSION", "1")],
)
def test_the_links_of_a_service_are_ignored(service: str, port: str) -> None:
    address = f"{service}_PORT_{port}_TCP"
    links = {
        f"{service}_SERVICE_HOST": "10.0.0.9",
        f"{service}_SERVICE_PORT": port,
        f"{service}_SERVICE_PORT_HTTP": port,
        f"{service}_PORT": f"tcp://10.0.0.9:{port}",
        address: f"tcp://10.0.0.9:{port}",
        f"{address}_PROTO": "tcp",
        f"{address}_PORT": port,
        f"{address}_ADDR": "10.0.0.9",
    }
    assert all(is_service_link(name, value) for name, value in links.items())
    named = [line.partition(":")[0] for line in Settings.load(links).warnings]
    assert named == (["PIPECAT_METRICS_PORT"] if service == "PIPECAT_METRICS" else [])


@pytest.mark.parametrize("address", ["tcp://10.0.0.9:9464", "udp://[fd00::9]:9464"])
@pytest.mark.parametrize("name", ["PORT", "PIPECAT_METRICS_PORT"])
def test_a_link_over_a_setting_is_ignored_with_a_line(name: str, address: str) -> None:
    settings = Settings.load({name: address})
    assert (settings.server.port, settings.telemetry.metrics_port) == (8080, None)
    assert settings.warnings == (
        f'{name}: "{address}" is the address that Kubernetes sets for a Service; it is ignored',
    )


def test_a_launcher_starts_beside_a_service_of_its_settings_name() -> None:
    link: dict[str, Any] = {"PIPECAT_METRICS_PORT": "tcp://10.0.0.9:9464"}
    with Launcher("obedient", **link) as launcher:
        launcher.wait_for_log("is the address that Kubernetes sets for a Service")


def test_call_ignores_the_address_of_a_service_too(tmp_path: Path) -> None:
    audio.write_wav(str(tmp_path / "tone.wav"), [0] * 800, 8000)
    result = run("call", "tone.wav", cwd=tmp_path, PORT="tcp://10.0.0.9:80")
    assert "ws://127.0.0.1:8080/ws" in result.stdout + result.stderr


def test_the_env_file_may_have_a_bom_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_bytes(b"import os\r\nprint(os.environ['FIRST'], '|')\r\nasync def bot(args): ...")
    (tmp_path / ".env").write_bytes(codecs.BOM_UTF8 + b'FIRST="1"\r\nMAX_SESSIONS=many')
    result = run("check", cwd=tmp_path)
    assert result.stderr == (
        'pipecat-base: settings_invalid: .env:2: MAX_SESSIONS: "many" is not a whole number (1 or more)\n'
    )
    (tmp_path / ".env").write_bytes(codecs.BOM_UTF8 + b'FIRST="1"\r\nMAX_SESSIONS=2')
    assert "1 |\n" in run("check", cwd=tmp_path).stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [("A=1\n".encode("utf-16"), "not UTF-8; save it"), ("A=1\n".encode("utf-16-le"), "holds a NUL character")],
)
def test_an_env_file_in_another_encoding_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "bot.py").write_text("async def bot(args): ...\n")
    (tmp_path / ".env").write_bytes(content)
    result = run("check", cwd=tmp_path)
    assert result.returncode == 24
    assert result.stderr.startswith(f"pipecat-base: settings_invalid: {tmp_path}/.env: {says}")
    assert result.stderr.count("\n") == 1


def test_files_of_a_call_may_have_a_bom_and_windows_line_ends(tmp_path: Path) -> None:
    audio.write_wav(str(tmp_path / "a.wav"), [0] * 800, 8000)
    lines = f'[[say]]\r\nwav = "{tmp_path}/a.wav"\r\nat = 0'
    (tmp_path / "scenario.toml").write_bytes(codecs.BOM_UTF8 + lines.encode())
    assert len(from_file(str(tmp_path / "scenario.toml")).turns) == 1
    (tmp_path / "body.json").write_bytes(
        codecs.BOM_UTF8 + json.dumps({"a": 1}, indent=1).replace("\n", "\r\n").encode()
    )
    assert _body(f"@{tmp_path}/body.json") == {"a": 1}
