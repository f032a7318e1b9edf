"""GET /pcc/capabilities: what the platform reads once after a deployment."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.launchers import BOTS, Launcher, run, until

NAMES = ["transport.daily", "transport.moq", "transport.webrtc", "transport.websocket", "whatsapp"]
WITHOUT_WHATSAPP = "Missing environment variables: WHATSAPP_TOKEN, WHATSAPP_PHONE_NUMBER_ID, WHATSAPP_APP_SECRET"


def check_schema(content: bytes) -> dict[str, Any]:
    """Exactly what the platform takes; the entries."""
    assert len(content) <= 16384
    document = json.loads(content)
    assert content == json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert set(document) == {"version", "capabilities"}
    assert document["version"] == 1
    entries: dict[str, Any] = document["capabilities"]
    assert list(entries) == NAMES
    for name, entry in entries.items():
        assert re.fullmatch(r"[a-z0-9]+([._-][a-z0-9]+)*", name)
        assert set(entry) == ({"available"} if entry["available"] is True else {"available", "reason"})
        assert re.fullmatch(r"[ -Z\\^-~]{1,256}", entry.get("reason", "-"))
    return entries


def test_the_document(obedient: Launcher) -> None:
    response = obedient.http.get("/pcc/capabilities?any=query")
    assert response.status_code == 200
    entries = check_schema(response.content)
    for name in ("transport.daily", "transport.webrtc", "transport.websocket"):
        assert entries[name] == {"available": True}
    assert entries["whatsapp"] == {"available": False, "reason": WITHOUT_WHATSAPP}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-length"] == str(len(response.content))


def test_other_methods_and_paths(obedient: Launcher) -> None:
    length = obedient.http.get("/pcc/capabilities").headers["content-length"]
    head = obedient.http.head("/pcc/capabilities")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", length)
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        refused = obedient.http.request(method, "/pcc/capabilities")
        assert (refused.status_code, refused.headers["allow"], refused.content) == (405, "GET, HEAD", b"")
    assert obedient.http.get("/pcc/capabilities/").status_code == 404
    with pytest.raises(InvalidStatus), connect(obedient.websocket_url("/pcc/capabilities"), proxy=None):
        pass


def test_no_route_of_the_bots_takes_it_over(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "from pipecatcloud_system import app\n\n\n@app.get('/{path:path}')\n"
        "async def all(path):\n    return 'mine'\n\n\nasync def bot(args): ...\n"
    )
    with Launcher(tmp_path, WHATSAPP_TOKEN="s3cr3t-token") as launcher:
        assert launcher.http.get("/other").json() == "mine"
        entries = check_schema(launcher.http.get("/pcc/capabilities").content)
        missing = "Missing environment variables: WHATSAPP_PHONE_NUMBER_ID, WHATSAPP_APP_SECRET"
        assert entries["whatsapp"] == {"available": False, "reason": missing}


def test_while_starting_it_is_503() -> None:
    with Launcher("slow_setup", wait=False) as launcher:

        def answered() -> int | None:
            try:
                return launcher.http.get("/pcc/capabilities").status_code
            except Exception:
                return None

        assert until(answered, "an answer") == 503


def test_a_transport_whose_package_is_broken_is_not_promised(tmp_path: Path) -> None:
    (tmp_path / "pipecat" / "runner").mkdir(parents=True)
    (tmp_path / "pipecat" / "__init__.py").write_text("")
    (tmp_path / "pipecat" / "runner" / "__init__.py").write_text("")
    (tmp_path / "pipecat" / "runner" / "types.py").write_text("raise OSError('caf\\xe9 [broken]\\n' + 300 * 'x')\n")
    (tmp_path / "bot.py").write_text("async def bot(args): ...\n")
    with Launcher(tmp_path) as launcher:
        entries = check_schema(launcher.http.get("/pcc/capabilities").content)
        reason = entries["transport.webrtc"]["reason"]
        assert reason.startswith("pipecat.runner.types does not import: OSError: caf\\xe9 (broken) xxx")
        assert len(reason) == 256
        # Bots that do not need it are served.
        assert launcher.post({}).status_code == 200


def test_where_it_cannot_be_built_it_is_404_and_all_else_is_served(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "from pipecat_base.bot.features import FeatureManager\n\n\ndef broken(manager):\n"
        "    raise ImportError('s broken')\n\n\nFeatureManager.capabilities = broken\n\n\nasync def bot(args): ...\n"
    )
    with Launcher(tmp_path) as launcher:
        for method in ("GET", "HEAD", "POST"):
            response = launcher.http.request(method, "/pcc/capabilities")
            assert (response.status_code, response.content) == (404, b"")
        launcher.wait_for_log("Not reporting capabilities: ImportError: s broken")
        assert launcher.log().count("Not reporting capabilities") == 1
        assert launcher.post({}).status_code == 200


def test_check_prints_it() -> None:
    printed = run("check", cwd=BOTS / "obedient").stdout.splitlines()[-1]
    assert printed.startswith("/pcc/capabilities: ")
    check_schema(printed.removeprefix("/pcc/capabilities: ").encode())
    answer = json.loads(run("check", "--json", cwd=BOTS / "obedient").stdout)
    assert list(answer["capabilities"]["capabilities"]) == NAMES


def test_the_gateway_serves_it_too() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_PUBLIC_API_KEYS="pk") as launcher:
        check_schema(launcher.http.get("/pcc/capabilities").content)


def test_a_request_that_is_cut_off_leaves_the_document_to_the_next() -> None:
    with Launcher("obedient") as launcher:
        with socket.create_connection(("127.0.0.1", launcher.port)) as sock:
            sock.sendall(b"GET /pcc/capabilities HTTP/1.1\r\nhost: localhost\r\n\r\n")
        check_schema(launcher.http.get("/pcc/capabilities").content)
