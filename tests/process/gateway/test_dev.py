"""``pipecat-base dev``."""

from __future__ import annotations

import html
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pipecat_base.config.settings import Settings
from pipecat_base.launcher import reload
from tests.support.launchers import CALLS_PER_PROCESS, ISOLATION, PATIENCE, Launcher, until
from tests.support.offers import NO_ICE, SDP

BOT = """
import os
print("imported {number}", os.environ.get("FROM_DOTENV"), os.environ.get("SET"), flush=True)

async def bot(args):
    print("bot {number}", flush=True)
    if hasattr(args, "websocket"):
        async for message in args.websocket.iter_text():
            await args.websocket.send_text(message)

async def teardown():
    print("torn down {number}", flush=True)
"""


def write(folder: Path, number: int) -> None:
    (folder / "bot.py").write_text(BOT.replace("{number}", str(number)))


def dev(folder: Path, *options: str, **variables: Any) -> Launcher:
    launcher = Launcher(folder, command=("dev", *options), wait=False, **variables)
    launcher.wait_for_log("Talk to your bot")
    return launcher


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, 1)
    return tmp_path


def test_it_prints_its_address_and_listens_on_this_machine_only(folder: Path) -> None:
    with dev(folder, PIPECAT_HOST=None) as launcher:
        assert f"http://localhost:{launcher.port}\n" in launcher.log()
        assert f"Ready: bot in bot.py on http://127.0.0.1:{launcher.port}" in launcher.log()
        assert launcher.http.get("/status").json()["bot"] == "bot.py"


def test_variables_of_the_env_file_are_for_the_bot_and_never_over_one_that_is_set(folder: Path) -> None:
    (folder / ".env").write_text("FROM_DOTENV='one # two'\nSET=file\nPIPECAT_LOG_LEVEL=ERROR\n")
    with dev(folder, SET="shell") as launcher:
        assert "imported 1 one # two shell" in launcher.log()
        assert "Ready: " not in launcher.log()  # a setting of ours


def test_a_line_of_the_env_file_that_is_no_variable_is_logged_with_its_number(folder: Path) -> None:
    (folder / ".env").write_text("A=1\nwhat is this\n")
    with dev(folder, "--reload") as launcher:
        launcher.wait_for_log(".env:2: not a variable (NAME=value)")
        assert "python-dotenv" not in launcher.log()
        (folder / ".env").write_text("A=1\nB=2\n\nC D\n")
        launcher.wait_for_log(".env:4: not a variable")


def test_an_error_in_the_env_file_is_reported_and_can_be_fixed(folder: Path) -> None:
    (folder / ".env").write_text("MAX_SESSIONS=abc\n")
    with Launcher(folder, command=("dev", "--reload"), wait=False) as launcher:
        launcher.wait_for_log("Waiting for a change")
        assert 'MAX_SESSIONS: "abc" is not a whole number' in launcher.log()
        (folder / ".env").write_bytes("NAME=ü\n".encode("latin-1"))
        launcher.wait_for_log(".env: not UTF-8")
        # At once: an empty file in between would be a fixed one too.
        (folder / "new").write_text("MAX_SESSIONS=1\n")
        (folder / "new").replace(folder / ".env")
        launcher.wait_for_log("Talk to your bot")
        with connect(launcher.websocket_url("/ws-client")) as call:
            call.send("still there?")
            assert call.recv(timeout=PATIENCE) == "still there?"
            assert launcher.http.post("/start").status_code == 429


def test_a_bot_that_changes_the_folder_is_loaded_again(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "bot.py").write_text("import os\nos.chdir('elsewhere')\nasync def bot(args): ...\n")
    with dev(folder, "--reload") as launcher:
        write(folder, 2)
        launcher.wait_for_log("imported 2")


@pytest.mark.parametrize("name", ["venv", "node_modules"])
def test_a_project_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / "project"
    folder.mkdir(parents=True)
    write(folder, 1)
    with dev(folder, "--reload") as launcher:
        write(folder, 2)
        launcher.wait_for_log("imported 2")


def test_a_gateway_for_others_shows_a_code_for_their_phones(folder: Path) -> None:
    with dev(folder, "--insecure", PIPECAT_HOST="0.0.0.0", PIPECAT_PUBLIC_URL="https://bot.example") as launcher:
        assert "From elsewhere:    https://bot.example" in launcher.log()
        assert "█" in launcher.log() or "▀" in launcher.log()


@pytest.mark.parametrize("public_url", [None, "https://bot.example"])
def test_in_a_container_no_address_of_its_own_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public_url: str | None
) -> None:
    (tmp_path / "mark").touch()
    monkeypatch.setattr(reload, "CONTAINER_FILES", (str(tmp_path / "no"), str(tmp_path / "mark")))
    shown = reload.banner(Settings.load({"PIPECAT_PUBLIC_URL": public_url or "", "PIPECAT_INSECURE": "1"}))
    assert ("█" in shown or "▀" in shown) is (public_url is not None)
    assert ("set PIPECAT_PUBLIC_URL" in shown) is (public_url is None)
    assert "http://1" not in shown


def test_without_reload_a_change_changes_nothing(folder: Path) -> None:
    with dev(folder) as launcher:
        write(folder, 2)
        assert launcher.http.post("/v1/public/agent/start").status_code == 200
        launcher.wait_for_log("bot 1")
        assert launcher.stop() == 0
        assert "torn down 1" in launcher.log()
        assert "imported 2" not in launcher.log()


def test_with_reload_a_changed_bot_is_loaded_by_the_same_process_on_the_same_port(folder: Path) -> None:
    (folder / ".env").write_text("FROM_DOTENV=old\n")
    with dev(folder, "--reload") as launcher:
        assert "imported 1 old" in launcher.log()
        (folder / ".env").write_text("FROM_DOTENV=new\n")
        launcher.wait_for_log("imported 1 new")
        launcher.wait_for_log("Reloaded: ")
        write(folder, 2)
        launcher.wait_for_log("imported 2 new")
        launcher.wait_for_log("Reloaded: ", times=2)
        assert launcher.http.post("/v1/public/agent/start").status_code == 200
        launcher.wait_for_log("bot 2")
        assert "torn down 1" in launcher.log()
        assert launcher.log().count("Talk to your bot") == 1
        assert launcher.stop() == 0


def test_a_pending_session_of_start_survives_a_change(folder: Path) -> None:
    with dev(folder, "--reload", PIPECAT_WEBSOCKET_AUTH="token") as launcher:
        content = launcher.http.post("/start", json={"transport": "websocket"}).json()
        write(folder, 2)
        launcher.wait_for_log("Reloaded: ")
        with connect(f"{content['wsUrl']}?token={content['token']}") as client:
            client.send("still valid")
            assert client.recv(timeout=10) == "still valid"
        with pytest.raises(InvalidStatus), connect(f"{content['wsUrl']}?token={content['token']}"):
            pass


def test_code_that_hangs_does_not_keep_the_next_change_from_being_loaded(folder: Path) -> None:
    with dev(folder, "--reload") as launcher:
        (folder / "bot.py").write_text("import time\nprint('hanging', flush=True)\ntime.sleep(1000)\n")
        launcher.wait_for_log("hanging")
        assert launcher.http.post("/v1/public/agent/start").status_code == 200
        write(folder, 2)
        launcher.wait_for_log("Reloaded: ")
        assert launcher.http.post("/v1/public/agent/start").status_code == 200
        launcher.wait_for_log("bot 2")


def test_settings_of_the_launcher_in_the_env_file_count_from_the_next_start(folder: Path) -> None:
    with dev(folder, "--reload") as launcher:
        (folder / ".env").write_text("MAX_SESSIONS=1\nMINE=x\n")
        launcher.wait_for_log("MAX_SESSIONS: these are the launcher's own settings; restart to apply")
        launcher.wait_for_log("Reloaded: ")
        (folder / ".env").write_text("MAX_SESSIONS=abc\n")
        launcher.wait_for_log('MAX_SESSIONS: "abc" is not a whole number')
        assert launcher.http.post("/v1/public/agent/start").status_code == 200


def test_a_module_next_to_the_bot_is_watched_too(folder: Path) -> None:
    (folder / "part").mkdir()
    with dev(folder, "--reload") as launcher:
        (folder / "part" / "module.py").write_text("x = 1\n")
        launcher.wait_for_log("imported 1", times=2)


def test_packages_and_other_files_are_not_watched(folder: Path) -> None:
    others = [".venv/lib/package.py", "node_modules/tool.py", ".git/hook.py", "__pycache__/old.py", "notes.txt"]
    for other in others:
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
    with dev(folder, "--reload") as launcher:
        for other in others:
            (folder / other).write_text("x = 1\n")
        (folder / "module.py").write_text("x = 1\n")
        launcher.wait_for_log("Reloaded: ")
        assert {line.partition("Changed: ")[2] for line in launcher.lines("Changed: ")} == {"module.py"}


def test_a_running_call_is_not_cut_and_the_next_one_gets_the_new_code_at_once(folder: Path) -> None:
    with dev(folder, "--reload") as launcher:
        with connect(launcher.websocket_url("/ws-client")) as client:
            client.send("one")
            assert client.recv(timeout=10) == "one"
            write(folder, 2)
            launcher.wait_for_log("Reloaded: bot in bot.py; the old code still runs for ")
            (session,) = launcher.http.get("/sessions").json()["sessions"]
            (line,) = launcher.lines("Reloaded: ")
            assert f"still runs for {session['sessionId']} (running, " in line
            assert "DELETE /sessions/ID" in line
            assert session["outdated"] is True
            client.send("two")
            assert client.recv(timeout=10) == "two"
            assert launcher.http.post("/v1/public/agent/start").status_code == 200
            launcher.wait_for_log("bot 2")
            client.send("three")
            assert client.recv(timeout=10) == "three"
            # A process for each call: those that had none are gone.
            assert ISOLATION == "process" or "torn down 1" not in launcher.log()
        launcher.wait_for_log("torn down 1")
        launcher.wait_for_log("The last session of bot in bot.py that ran the old code has ended")
        assert launcher.stop() == 0


def test_stopping_the_last_session_ends_the_old_code(folder: Path) -> None:
    with dev(folder, "--reload") as launcher:
        with connect(launcher.websocket_url("/ws-client")) as client:
            client.send("one")
            assert client.recv(timeout=10) == "one"
            write(folder, 2)
            launcher.wait_for_log("Reloaded: ")
            (session,) = launcher.http.get("/sessions").json()["sessions"]
            assert launcher.http.delete(f"/sessions/{session['sessionId']}").status_code == 200
            launcher.wait_for_log("The last session of bot in bot.py that ran the old code has ended")
        assert launcher.lines("torn down 1")


@pytest.mark.needs_newest_packages
def test_a_session_that_waits_for_its_caller_ends_and_a_new_start_gets_the_new_code(folder: Path) -> None:
    (folder / "bot.py").write_text(TELLS.replace("{number}", "1"))
    with dev(folder, "--reload", **NO_ICE) as launcher:
        asked = {"transport": "webrtc", "body": {"name": "Ada"}}
        for number in (2, 3):
            session_id = launcher.http.post("/start", json=asked).json()["sessionId"]
            until(lambda: waits(launcher), "the session waits")
            (folder / "bot.py").write_text(TELLS.replace("{number}", str(number)))
            assert until_ended(launcher, session_id)["outcome"] == "drained"
            launcher.wait_for_log(f"torn down {number - 1}")
        offer = {"sdp": SDP, "type": "offer"}
        refused = launcher.http.post(f"/sessions/{session_id}/api/offer", json=offer)
        assert (refused.status_code, "This session has ended" in refused.text) == (404, True)
        launcher.wait_for_log("Reloaded: ", times=2)
        assert "the old code goes on" not in launcher.log()
        session_id = launcher.http.post("/start", json=asked).json()["sessionId"]
        assert launcher.http.post(f"/sessions/{session_id}/api/offer", json=offer).status_code == 200
        launcher.wait_for_log(f"bot 3 {session_id} Ada")
        assert not {"bot 1", "bot 2"} & {line[:5] for line in launcher.log().splitlines()}


TELLS = """
async def bot(args):
    print("bot {number}", args.session_id, args.body["name"], flush=True)

async def teardown():
    print("torn down {number}", flush=True)
"""


def waits(launcher: Launcher) -> list[str]:
    """Sessions that wait for their caller."""
    listed = launcher.http.get("/sessions").json()["sessions"]
    return [session["sessionId"] for session in listed if session["state"] == "waiting"]


def test_a_broken_bot_is_reported_and_the_old_code_still_takes_calls(folder: Path) -> None:
    with dev(folder, "--reload") as launcher:
        (folder / "bot.py").write_text("async def bot(args:\n")
        launcher.wait_for_log("Waiting for a change")
        assert "bot_syntax_error" in launcher.log()
        told = launcher.http.get("/status").json()
        assert told["problem"] == (
            "The bot cannot be served (bot_syntax_error); its terminal says why. "
            "New calls still run the code before it."
        )
        assert told["mistake"] == SYNTAX_ERROR
        assert launcher.http.get("/").status_code == 200
        assert launcher.http.post("/v1/public/agent/start").status_code == 200
        launcher.wait_for_log("bot 1")
        write(folder, 2)
        launcher.wait_for_log("Reloaded: ")
        assert not {"problem", "mistake"} & set(launcher.http.get("/status").json())
        assert launcher.http.post("/v1/public/agent/start").status_code == 200
        launcher.wait_for_log("bot 2")


def test_a_bot_that_is_broken_at_the_start_is_reported_and_can_be_fixed(folder: Path) -> None:
    (folder / "bot.py").write_text("async def bot(args:\n")
    with Launcher(folder, command=("dev", "--reload"), wait=False) as launcher:
        launcher.wait_for_log("Waiting for a change")
        assert launcher.http.get("/livez").json() == {"status": "starting"}
        refused = launcher.http.post("/start")  # nobody knows how long it will take
        assert refused.status_code == 503
        assert "(bot_syntax_error); its terminal says why" in refused.text
        assert refused.headers["content-type"] == "application/json"
        page = launcher.http.get("/?x=1")
        assert (page.status_code, page.headers["content-type"]) == (503, "text/html; charset=utf-8")
        assert "Fix that line: async def bot(args:" in page.text
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        told = launcher.http.get("/status")
        assert (told.status_code, told.json()["mistake"]) == (503, SYNTAX_ERROR)
        write(folder, 2)
        launcher.wait_for_log("imported 2")
        until(launcher.is_ready, "ready")


SYNTAX_ERROR = {
    "code": "bot_syntax_error",
    "message": "bot.py, line 1: '(' was never closed.",
    "remedy": "Fix that line: async def bot(args:",
    "frames": [],
}


def install(packages: Path, name: str) -> None:
    """As installers do it: the record comes last."""
    (packages / f"{name}.py").write_text("number = 7\n")
    (packages / f"{name}-1.0.dist-info").mkdir(parents=True)
    (packages / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    (packages / f"{name}-1.0.dist-info" / "RECORD").touch()


@pytest.mark.parametrize("from_the_start", [True, False], ids=["at the start", "after a change"])
def test_a_missing_package_is_noticed_once_it_is_installed(folder: Path, from_the_start: bool) -> None:
    packages = folder / ".venv" / "lib" / "site-packages"
    packages.mkdir(parents=True)
    needs = (
        "import missing_one, missing_two\nprint('number', missing_two.number, flush=True)\nasync def bot(args): ...\n"
    )
    if from_the_start:
        (folder / "bot.py").write_text(needs)
    with Launcher(folder, command=("dev", "--reload"), wait=False, PYTHONPATH=str(packages)) as launcher:
        if not from_the_start:
            launcher.wait_until_ready()
            (folder / "bot.py").write_text(needs)
        launcher.wait_for_log("needs the package missing_one, which is not installed")
        launcher.wait_for_log("Waiting for a change")
        install(packages, "missing_one")
        launcher.wait_for_log("needs the package missing_two, which is not installed")
        launcher.wait_for_log("Waiting for a change", times=2)
        install(packages, "missing_two")
        launcher.wait_for_log("number 7")
        launcher.wait_until_ready()
        install(packages, "not_needed")
        time.sleep(0.5)  # five looks at the folder: nothing is missing any more
        assert "not_needed" not in launcher.log()


def test_an_error_that_is_not_valid_unicode_is_reported(folder: Path) -> None:
    (folder / "bot.py").write_text("raise ValueError('half a \\ud800 pair')\n")
    with Launcher(folder, command=("dev", "--reload"), wait=False) as launcher:
        launcher.wait_for_log("Waiting for a change")
        assert "half a" in launcher.http.get("/").text
        assert launcher.http.get("/livez").status_code == 200


@pytest.mark.parametrize(
    "fails", ["async def bot(args:\n", "async def bot(args): ...\ndef setup(): raise ValueError\n"]
)
def test_requests_for_another_host_see_no_bot_error(folder: Path, fails: str) -> None:
    """Before there is a loop, and once there is one."""
    (folder / "bot.py").write_text(fails)
    elsewhere = [{"host": "evil.example"}, {"x-forwarded-host": "tunnel.example"}]
    with Launcher(folder, command=("dev", "--reload"), wait=False) as launcher:
        launcher.wait_for_log("Waiting for a change")
        for headers in elsewhere:
            told = launcher.http.get("/status", headers=headers)
            page = launcher.http.get("/", headers=headers)
            assert (told.status_code, "mistake" in told.json(), "bot.py" in page.text) == (503, False, False)
            assert "its terminal says why" in page.text
            for answer in (told, page):
                assert answer.headers["retry-after"]
                assert answer.headers["x-pipecat-launcher"]


def test_with_keys_bot_errors_are_shown_only_in_the_terminal(folder: Path) -> None:
    key = {"authorization": "Bearer public-key-1"}
    with dev(folder, "--reload", PIPECAT_PUBLIC_API_KEYS="public-key-1") as launcher:
        (folder / "bot.py").write_text("async def bot(args): raise KeyError('name')\n")
        launcher.wait_for_log("Reloaded: ")
        session_id = launcher.http.post("/v1/public/agent/start", headers=key).json()["sessionId"]
        ended = until(lambda: end_of(launcher, session_id, key), "the session's end")
        assert ended["message"] == "The bot raised KeyError; its log has the traceback."
        assert "mistake" not in ended
        (folder / "bot.py").write_text("async def bot(args:\n")
        launcher.wait_for_log("Waiting for a change")
        told = launcher.http.get("/status", headers=key).json()
        assert "its terminal says why" in told["problem"]
        assert "mistake" not in told


def end_of(launcher: Launcher, session_id: str, headers: dict[str, str] | None = None) -> dict[str, Any] | None:
    """Of a session that has ended; None before that."""
    told: dict[str, Any] = launcher.http.get(f"/sessions/{session_id}", headers=headers).json()
    return told if told["state"] == "ended" else None


def until_ended(launcher: Launcher, session_id: str) -> dict[str, Any]:
    ended: dict[str, Any] = until(lambda: end_of(launcher, session_id), "the session's end")
    return ended


@pytest.mark.parametrize("options", [(), ("--reload",)])
def test_an_exception_of_the_bot_is_shown_with_its_own_lines(folder: Path, options: tuple[str, ...]) -> None:
    (folder / "helpers.py").write_text("def look_up(body):\n    return body['name']\n")
    (folder / "bot.py").write_text("from helpers import look_up\nasync def bot(args):\n    look_up(args.body)\n")
    with dev(folder, *options) as launcher:
        session_id = launcher.http.post("/v1/public/agent/start").json()["sessionId"]
        ended = until(lambda: end_of(launcher, session_id), "the session's end")
        assert ended["mistake"] == {
            "said": "KeyError: 'name'",
            "frames": ["bot.py:3 in bot: look_up(args.body)", "helpers.py:2 in look_up: return body['name']"],
        }


def test_a_gateway_in_production_shows_no_bot_error(folder: Path) -> None:
    (folder / "bot.py").write_text("async def bot(args): raise KeyError('name')\n")
    with Launcher(folder, PIPECAT_GATEWAY="1") as launcher:
        session_id = launcher.http.post("/v1/public/agent/start").json()["sessionId"]
        ended = until(lambda: end_of(launcher, session_id), "the session's end")
        assert (ended["outcome"], "mistake" in ended) == ("failed", False)


def test_module_globals_are_shared_between_calls(folder: Path) -> None:
    count = "n = 0\nasync def bot(args):\n    global n\n    n += 1\n    print('call', n, flush=True)\n"
    (folder / "bot.py").write_text(count)
    with dev(folder, "--reload") as launcher:
        for _ in range(3):
            assert launcher.http.post("/v1/public/agent/start").status_code == 200
        if ISOLATION == "none":
            launcher.wait_for_log("call 3")
        elif CALLS_PER_PROCESS == "1":
            launcher.wait_for_log("call 1", times=3)
        else:
            launcher.wait_for_log("\ncall ", times=3)


def test_a_bot_that_crashes_in_a_call_takes_the_next(folder: Path) -> None:
    (folder / "bot.py").write_text(
        "import os\nasync def bot(args):\n    if args.body: os._exit(3)\n    print('served', flush=True)\n"
    )
    with dev(folder, "--reload") as launcher:
        assert launcher.http.post("/v1/public/agent/start", json={"body": {"die": 1}}).status_code in (200, 502)
        launcher.wait_for_log("Session ended: failed")
        assert launcher.http.post("/v1/public/agent/start").status_code == 200  # it waits for the new process
        launcher.wait_for_log("served")


def test_a_bot_whose_setup_fails_is_reported_and_can_be_fixed(folder: Path) -> None:
    (folder / "bot.py").write_text("async def bot(args): ...\ndef setup(): raise ValueError('no key')\n")
    with Launcher(folder, command=("dev", "--reload"), wait=False) as launcher:
        launcher.wait_for_log("Waiting for a change")
        assert "setup_failed" in launcher.log()
        refused = launcher.http.post("/start")
        assert (refused.status_code, "(setup_failed)" in refused.text) == (503, True)
        frame = "bot.py:2 in setup: def setup(): raise ValueError('no key')"
        assert launcher.http.get("/status").json()["mistake"] == {
            "code": "setup_failed",
            "message": "setup() of bot.py raised ValueError: no key.",
            "remedy": "The log has the traceback.",
            "frames": [frame],
        }
        assert f"<pre>{html.escape(frame)}</pre>" in launcher.http.get("/").text
        (folder / "bot.py").write_text("async def bot(args:\n")  # another one
        until(lambda: launcher.http.get("/status").json()["mistake"] == SYNTAX_ERROR, "the newer mistake")
        write(folder, 2)
        launcher.wait_until_ready()
        launcher.wait_for_log("Talk to your bot")


def test_a_first_start_that_fails_without_reload_ends(folder: Path) -> None:
    (folder / "bot.py").unlink()
    with Launcher(folder, command=("dev",), wait=False) as launcher:
        assert launcher.wait() == 10
        assert "bot_not_found" in launcher.log()


def test_ctrl_c_ends_a_start_that_waits_for_a_change(folder: Path) -> None:
    (folder / "bot.py").write_text("async def bot(args:\n")
    with Launcher(folder, command=("dev", "--reload"), wait=False) as launcher:
        launcher.wait_for_log("Waiting for a change")
        launcher.signal(signal.SIGINT)
        assert launcher.wait() == 130


@pytest.mark.needs_newest_packages
def test_ctrl_c_does_not_wait_for_a_caller_who_has_not_come() -> None:
    with Launcher("gateway", command=("dev",)) as launcher:
        assert launcher.http.post("/start", json={"transport": "webrtc"}).status_code == 200
        launcher.signal(signal.SIGINT)
        assert launcher.wait() == 0
