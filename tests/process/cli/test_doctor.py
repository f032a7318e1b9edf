"""``pipecat-base doctor``, with servers that the tests start."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aioice.stun import Method
from pipecat.transports.smallwebrtc.connection import IceServer

from pipecat_base.bot.webrtc import probe
from pipecat_base.cli import doctor
from pipecat_base.cli.doctor import checks, ice
from pipecat_base.cli.doctor.checks import Check, Finding, FindingStatus, ok, problem, warning
from pipecat_base.config.settings import Settings
from tests.support.launchers import Launcher, free_port, run, until
from tests.support.stun import StunServer

KEY = "s3cr3t-key-of-the-test"
ACCOUNT = "AC0123456789"
STATUSES = ("ok", "warning", "problem", "not checked")


class Service:
    """Answers with a status that the test chooses, and records requests."""

    def __init__(self) -> None:
        self.status = 200
        self.content = b"{}"
        self.ahead_seconds = 0.0
        self.requests: list[tuple[str, str, str | None]] = []
        """Method, path and Authorization header."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.requests.append((self.command, self.path, self.headers["authorization"]))
                self.send_response_only(service.status)
                self.send_header("date", formatdate(time.time() + service.ahead_seconds, usegmt=True))
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", str(len(service.content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(service.content)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()
    yield found
    found.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bot.py").write_text("async def bot(args): ...\n")
    return tmp_path


def settings(**values: Any) -> Settings:
    """Settings with these values, given as ``group__field``."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        group, _, field = name.partition("__")
        groups.setdefault(group, {})[field] = value
    made = Settings()
    return dataclasses.replace(
        made, **{group: dataclasses.replace(getattr(made, group), **fields) for group, fields in groups.items()}
    )


def status_and_text(finding: Finding) -> tuple[str, str]:
    return finding.status.value, finding.text


def diagnose(folder: Path, *options: str, **variables: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """The exit status, and the findings by check."""
    examined = run("doctor", "--json", *options, cwd=folder, **{"DAILY_API_URL": "http://127.0.0.1:1", **variables})
    assert examined.stderr == ""
    answer = json.loads(examined.stdout)
    assert answer["ok"] is (examined.returncode == 0)
    found: dict[str, list[dict[str, str]]] = {}
    for each in answer["checks"]:
        assert each["status"] in STATUSES
        found.setdefault(each["check"], []).append(each)
    return examined.returncode, found


def test_a_machine_without_problems(folder: Path, service: Service) -> None:
    with StunServer() as stun, StunServer() as turn:
        servers: list[Any] = [f"stun:127.0.0.1:{stun.port}"]
        servers.append({"urls": f"turn:127.0.0.1:{turn.port}", "username": "user", "credential": turn.credential})
        status, found = diagnose(
            folder, DAILY_API_KEY=KEY, DAILY_API_URL=f"{service.url}/v1", PIPECAT_ICE_SERVERS=json.dumps(servers)
        )
    assert status == 0
    for name in ("python", "pipecat-ai", "port", "open files", "stun", "turn", "daily", "clock"):
        assert [each["status"] for each in found[name]] == ["ok"], found[name]
    assert found["stun"][0]["text"].endswith("it sees this machine as 127.0.0.1")
    assert found["turn"][0]["text"].endswith("takes the credentials and relays at 192.0.2.7")
    assert turn.asked == [Method.ALLOCATE, Method.ALLOCATE, Method.REFRESH], "what was allocated is given back"
    assert ("GET", "/v1/rooms?limit=1", f"Bearer {KEY}") in service.requests
    assert {method for method, *_ in service.requests} == {"GET", "HEAD"}


def test_problems_are_shown_with_their_fix_and_without_secrets(folder: Path, service: Service) -> None:
    service.status = 401
    (folder / ".env").write_text(f"DAILY_API_KEY={KEY}\nMAX_SESSIONS=many\n")
    with socket.create_server(("127.0.0.1", 0)) as taken, StunServer() as turn:
        examined = run(
            "doctor",
            "--port",
            str(taken.getsockname()[1]),
            cwd=folder,
            DAILY_API_URL=service.url,
            PIPECAT_ICE_SERVERS=json.dumps(
                [{"urls": f"turn:127.0.0.1:{turn.port}", "username": "user", "credential": "s3cr3t-and-wrong"}]
            ),
        )
    assert (examined.returncode, examined.stderr) == (1, "")
    lines = examined.stdout.splitlines()
    for beginning, text in (
        ("ok           .env", "sets DAILY_API_KEY, MAX_SESSIONS"),
        ("problem      settings", '.env:2: MAX_SESSIONS: "many" is not a whole number (1 or more). Correct it.'),
        ("problem      port", "Address already in use. Set PORT or PIPECAT_HOST, or stop what uses it."),
        ("problem      daily", f"{service.host} refuses DAILY_API_KEY with 401. Get a valid one from "),
        ("problem      turn", "refuses an allocation: 401 Unauthorized. Check username and credential."),
    ):
        (line,) = [line for line in lines if line.startswith(beginning)]
        assert text in line
    assert lines[-1] == "4 problems, no warnings"
    assert "s3cr3t" not in examined.stdout


def test_a_port_that_a_launcher_listens_on_is_no_problem(obedient: Launcher, folder: Path) -> None:
    status, found = diagnose(folder, "--port", str(obedient.port), "--host", "127.0.0.1", PIPECAT_ICE_SERVERS="[]")
    assert status == 0
    assert found["port"][0]["text"] == f"{obedient.port} on 127.0.0.1 is in use, by a pipecat-base that runs already"


def test_a_bad_list_of_ice_servers_is_a_problem(folder: Path) -> None:
    _, broken = diagnose(folder, PIPECAT_ICE_SERVERS='[{"urls"')
    assert [(each["status"], each["text"]) for each in broken["ice servers"]] == [
        ("problem", "PIPECAT_ICE_SERVERS is not JSON; no ICE servers are used")
    ]
    _, none = diagnose(folder, PIPECAT_ICE_SERVERS="[]")
    assert [(each["status"], each["text"]) for each in none["ice servers"]] == [
        ("warning", "none: only callers in the same network connect")
    ]
    _, unreachable = diagnose(folder, ICE_CONFIG_URL="http://127.0.0.1:1/ice")
    (unreachable_list,) = unreachable["ice servers"]
    assert unreachable_list["status"] == "problem"
    assert unreachable_list["text"].startswith("ICE_CONFIG_URL did not give ICE servers (")


def test_servers_of_the_ice_url_are_checked(folder: Path, service: Service) -> None:
    with StunServer() as stun:
        servers = [{"urls": [f"stun:127.0.0.1:{port}"]} for port in (stun.port, free_port())]
        service.content = json.dumps({"iceConfig": {"iceServers": servers}}).encode()
        status, found = diagnose(folder, ICE_CONFIG_URL=service.url)
    assert status == 1
    assert [each["status"] for each in found["stun"]] == ["ok", "problem"]
    assert "ice servers" not in found


def test_an_ice_url_that_hangs_delays_no_other_check(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        status, found = diagnose(folder, ICE_CONFIG_URL=f"http://127.0.0.1:{silent.getsockname()[1]}/ice")
    assert status == 0
    assert [(each["status"], each["text"]) for each in found["ice servers"]] == [
        ("not checked", "it took longer than 3 s")
    ]
    assert found["port"][0]["status"] == "ok"


def stun(port: int, failure: Callable[[str, str, str], Finding] = problem, timeout: float = 0.75) -> Finding:
    server = IceServer(urls=f"stun:127.0.0.1:{port}")
    (finding,) = ice.examine(server, timeout, partial(failure, "stun"))
    return finding


def test_a_lost_stun_request_is_sent_again() -> None:
    with StunServer(loses=2) as server:
        finding = stun(server.port, timeout=5)
    assert finding.status is FindingStatus.OK, finding
    assert len(server.asked) == 3


@pytest.mark.parametrize("failure", [problem, warning])
def test_a_stun_server_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, failure: Callable[[str, str, str], Finding]
) -> None:
    monkeypatch.setattr(probe, "STUN_TIMEOUT_SECONDS", 0.6)
    status = failure("", "", "").status
    with StunServer(loses=100) as silent:
        dead = stun(silent.port, failure)
    assert (dead.status, dead.text) == (status, f"stun:127.0.0.1:{silent.port} does not answer over UDP within 0.6 s")
    assert "TURN server" in dead.fix
    port = free_port()
    closed = stun(port, failure)
    assert (closed.status, closed.text) == (
        status,
        f"stun:127.0.0.1:{port} does not answer over UDP: Connection refused",
    )


def test_a_server_that_is_slower_than_calls_wait_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "RETRY_SECONDS", 0.1)
    with StunServer(delay=0.3) as slow:
        finding = stun(slow.port, timeout=0.2)
    assert finding.status is FindingStatus.PROBLEM
    assert finding.text == f"stun:127.0.0.1:{slow.port} answers after 0.3 s, and calls wait for 0.2 s"
    assert finding.fix.startswith("Raise PIPECAT_ICE_TIMEOUT")


def turn(port: int, credential: str | None = StunServer.credential, transport: str = "udp") -> Finding:
    server = IceServer(
        urls=f"turn:127.0.0.1:{port}?transport={transport}", username="user", credential=credential or ""
    )
    (finding,) = ice.examine(server, 0.75, partial(problem, "turn"))
    return finding


def test_a_turn_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TURN_TIMEOUT_SECONDS", 0.6)
    with StunServer(loses=100) as silent:
        finding = turn(silent.port)
    url = f"turn:127.0.0.1:{silent.port}?transport=udp"
    assert status_and_text(finding) == ("problem", f"{url} does not answer within 0.6 s")
    port = free_port()
    assert status_and_text(turn(port, transport="tcp"))[1].startswith(f"turn:127.0.0.1:{port}?transport=tcp: ")
    lacking = "turn:127.0.0.1:1?transport=udp has no username or no credential"
    assert status_and_text(turn(1, None)) == ("problem", lacking)


@pytest.mark.skipif(shutil.which("turnserver") is None, reason="this machine lacks coturn: apt-get install coturn")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_coturn_is_a_turn_server(tmp_path: Path, transport: str) -> None:
    port = free_port()
    files = ["--log-file", str(tmp_path / "log"), "--pidfile", str(tmp_path / "pid"), "--userdb", str(tmp_path / "db")]
    listen = ["--listening-ip", "127.0.0.1", "--listening-port", str(port), "--relay-ip", "127.0.0.1"]
    quiet = ["--no-cli", "--no-tls", "--no-dtls", "--no-stdout-log", "--simple-log", "--realm", "test"]
    user = ["--lt-cred-mech", "--user", f"user:{StunServer.credential}", "--allow-loopback-peers"]
    server = subprocess.Popen(["turnserver", "-n", *listen, *quiet, *user, *files])
    try:
        until(lambda: _listens(port), "coturn to listen")
        good = turn(port, transport=transport)
        assert (good.status, good.text) == (
            FindingStatus.OK,
            f"turn:127.0.0.1:{port}?transport={transport} takes the credentials and relays at 127.0.0.1",
        )
        assert status_and_text(turn(port, "wrong", transport)) == (
            "problem",
            f"turn:127.0.0.1:{port}?transport={transport} refuses an allocation: 401 Unauthorized",
        )
    finally:
        server.kill()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, "ok"), (400, "problem"), (401, "problem"), (403, "problem"), (302, "not checked"), (500, "not checked")],
)
def test_keys_are_tried_and_nothing_is_changed(service: Service, status: int, expected: str) -> None:
    service.status = status
    with_keys = settings(
        providers__daily_api_key=KEY,
        providers__daily_api_url=service.url,
        whatsapp__token=KEY,
        whatsapp__phone_number_id="12/3",
        whatsapp__app_secret=KEY,
    )
    found = [
        *checks.daily(with_keys),
        *checks.twilio({"TWILIO_ACCOUNT_SID": ACCOUNT, "TWILIO_AUTH_TOKEN": KEY}, service.url),
        *checks.whatsapp(with_keys, service.url),
    ]
    assert [(finding.check, finding.status.value) for finding in found] == [
        ("daily", expected),
        ("twilio", expected),
        ("whatsapp", expected),
    ]
    assert [(method, path) for method, path, _ in service.requests] == [
        ("GET", "/rooms?limit=1"),
        ("GET", f"/2010-04-01/Accounts/{ACCOUNT}.json"),
        ("GET", "/12%2F3?fields=id"),
    ]
    assert KEY not in repr(found)


def test_keys_that_are_not_set_have_no_findings(service: Service) -> None:
    assert checks.daily(settings()) == []
    assert checks.twilio({}, service.url) == []
    assert checks.whatsapp(settings(), service.url) == []


def test_incomplete_keys_are_reported(service: Service) -> None:
    (twilio,) = checks.twilio({"TWILIO_ACCOUNT_SID": ACCOUNT}, service.url)
    assert status_and_text(twilio) == ("warning", "TWILIO_AUTH_TOKEN is not set: pipecat hangs up with both")
    (stand_in,) = checks.twilio({"TWILIO_ACCOUNT_SID": "none", "TWILIO_AUTH_TOKEN": "none"}, service.url)
    assert stand_in.status is FindingStatus.NOT_CHECKED
    (whatsapp,) = checks.whatsapp(settings(whatsapp__token=KEY), service.url)
    assert status_and_text(whatsapp) == ("warning", "off without WHATSAPP_PHONE_NUMBER_ID, WHATSAPP_APP_SECRET")
    assert service.requests == []


@pytest.mark.parametrize("key", [f"{KEY}\nx", f"{KEY}ключ"])
def test_a_key_that_no_header_can_hold_is_not_shown(service: Service, key: str) -> None:
    (finding,) = checks.daily(settings(providers__daily_api_key=key, providers__daily_api_url=service.url))
    assert finding.status is FindingStatus.NOT_CHECKED
    assert "has characters that cannot be sent" in finding.text
    assert "s3cr3t" not in repr(finding)


def test_an_unreachable_service_is_not_checked() -> None:
    (finding,) = checks.daily(settings(providers__daily_api_key=KEY, providers__daily_api_url="http://127.0.0.1:1"))
    assert status_and_text(finding) == ("not checked", "127.0.0.1:1 cannot be reached: Connection refused")


def test_a_password_in_an_address_is_not_shown() -> None:
    (finding,) = checks.daily(
        settings(providers__daily_api_key=KEY, providers__daily_api_url="http://me:s3cr3t@127.0.0.1:1/v1")
    )
    assert finding.text.startswith("127.0.0.1:1 cannot be reached: ")
    assert "s3cr3t" not in repr(finding)


@pytest.mark.parametrize(
    ("ahead", "status", "beginning"),
    [(0.0, "ok", "agrees with"), (-300.0, "warning", "300 s ahead of"), (300.0, "warning", "300 s behind")],
)
def test_the_clock_is_compared_with_a_server_s(service: Service, ahead: float, status: str, beginning: str) -> None:
    service.ahead_seconds, service.status = ahead, 401
    (finding,) = checks.clock(service.url)
    text = finding.text.replace("299 s", "300 s").replace("301 s", "300 s")
    assert (finding.status, text.startswith(beginning)) == (status, True), text


def test_a_clock_is_not_checked_without_a_server() -> None:
    (finding,) = checks.clock("http://127.0.0.1:1")
    assert status_and_text(finding) == ("not checked", "no server could be asked for the time: Connection refused")


@pytest.mark.parametrize(
    ("values", "descriptors", "status"),
    [
        ({}, 256, FindingStatus.OK),
        ({"sessions__max_sessions": 85}, 256, FindingStatus.OK),
        ({"sessions__max_sessions": 86}, 256, FindingStatus.PROBLEM),
        ({"sessions__max_sessions": 10, "limits__max_connections": 9}, 4096, FindingStatus.PROBLEM),
    ],
)
def test_open_files_are_compared_with_max_sessions(
    values: dict[str, Any], descriptors: int, status: FindingStatus
) -> None:
    finding = checks.open_files(settings(**values), descriptors)
    assert finding.status is status
    if status is FindingStatus.PROBLEM and descriptors == 256:
        assert "ulimit -n 258" in finding.fix
        assert checks.open_files(settings(**values), 258).status is FindingStatus.OK


def test_memory_and_cpus_of_the_cgroup_are_read(tmp_path: Path) -> None:
    of_process, cgroups = tmp_path / "cgroup", tmp_path / "fs"
    (cgroups / "pods" / "mine").mkdir(parents=True)
    of_process.write_text("1:name=systemd:/x\n0::/pods/mine\n")
    (cgroups / "pods" / "mine" / "memory.max").write_text("max\n")
    assert checks.cgroup_limit("memory.max", of_process, cgroups) is None
    (cgroups / "pods" / "memory.max").write_text("268435456\n")
    limit = checks.cgroup_limit("memory.max", of_process, cgroups)
    assert status_and_text(checks.memory(settings(), limit)) == (
        "warning",
        "the limit is 256 MiB, which is little for pipecat",
    )
    isolated = {"workers__isolation": "process", "sessions__max_sessions": 10, "workers__max_memory_bytes": 2**28}
    assert checks.memory(settings(**isolated), 2.0**31).status is FindingStatus.WARNING
    assert checks.memory(settings(**isolated), 2.0**32).status is FindingStatus.OK
    assert checks.memory(settings(), None).status is FindingStatus.OK
    (cgroups / "pods" / "cpu.max").write_text("50000 100000\n")
    assert checks.cgroup_limit("cpu.max", of_process, cgroups) == 0.5
    assert checks.cpus(4, 0.5).status is FindingStatus.WARNING
    assert status_and_text(checks.cpus(4, 1.5)) == ("ok", "1.5 of 4")
    assert status_and_text(checks.cpus(4, None)) == ("ok", "4")


def test_folders_must_be_folders(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    chosen = settings(
        logs__folder=str(tmp_path),
        telemetry__reports_dir=str(tmp_path / "new" / "er"),
        files__uploads_folder=str(tmp_path / "file" / "x"),
    )
    found = checks.folders(chosen)
    assert [status_and_text(finding) for finding in found] == [
        ("ok", "can be written to"),
        ("ok", "can be made"),
        ("problem", f"{tmp_path / 'file'} is not a folder"),
    ]
    assert found[2].fix == "Set PIPECAT_UPLOADS_FOLDER to another one."


def test_packages_that_conflict_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = "import sys; print('fastapi 0.1 has requirement starlette<1, but you have starlette 2.'); sys.exit(1)"
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__init__.py").touch()
    (tmp_path / "pip" / "__main__.py").write_text(says)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (finding,) = checks.packages(settings(), None)
    assert status_and_text(finding) == ("warning", "fastapi 0.1 has requirement starlette<1, but you have starlette 2")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    listed = {"pipecat-base": {"version": "1", "needs": {"h11": [(">=", [9])]}}, "h11": {"version": "9", "needs": {}}}
    (tmp_path / "packages.json").write_text(json.dumps({"python": "3.11", "packages": listed}))
    (finding,) = checks.packages(settings(), str(tmp_path))
    assert finding.status is FindingStatus.PROBLEM
    assert "pipecat-base 1 needs h11>=9, but your environment has h11 " in finding.text


def test_checks_run_at_once_and_one_that_hangs_is_given_up() -> None:
    together, never = threading.Barrier(2), threading.Event()

    def meet() -> list[Finding]:
        together.wait(10)
        return [ok("meets", "both")]

    def hang() -> list[Finding]:
        never.wait(20)
        return []

    def fail() -> list[Finding]:
        raise ValueError(KEY)

    four: list[Check] = [("hangs", hang), ("a", meet), ("b", meet), ("fails", fail)]
    found = list(doctor.run(four, 1.0))
    never.set()
    assert [status_and_text(finding) for finding in found] == [
        ("not checked", "it took longer than 1 s"),
        ("ok", "both"),
        ("ok", "both"),
        ("not checked", "an unexpected ValueError"),
    ]


def test_lines_are_columns_and_are_counted() -> None:
    assert doctor.as_text([ok("a", "fine"), problem("longer", "broken", "Fix it.")]) == (
        "ok           a       fine\nproblem      longer  broken. Fix it.\n\n1 problem, no warnings"
    )


def test_a_bot_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("raise SystemExit(3)\n")
    status, _ = diagnose(tmp_path, PIPECAT_ICE_SERVERS="[]")
    assert status == 0
