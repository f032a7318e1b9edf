"""``POST /files``, of a pod and through the gateway."""

from __future__ import annotations

import os
import signal
import stat
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.process.gateway.conftest import stop_all
from tests.support.launchers import PATIENCE, PIPECAT, Launcher, until

needs_uploads = pytest.mark.skipif(PIPECAT < (1, 13), reason="uploads need pipecat-ai >= 1.13")
LIMIT = 2_000_000
TEXT_PART = b'--x\r\ncontent-disposition: form-data; name="file"\r\n\r\na\r\n--x--\r\n'


@pytest.fixture(scope="module")
def uploads() -> Iterator[Launcher]:
    with Launcher("gateway", PIPECAT_GATEWAY="1", STORAGE="1", PIPECAT_MAX_UPLOAD_BYTES=str(LIMIT)) as launcher:
        yield launcher
        stop_all(launcher)


def started(launcher: Launcher, prefix: str = "") -> str:
    """Where a new session takes files."""
    answer = launcher.http.post(f"{prefix}/start", json={"transport": "daily"}).json()
    assert answer["fileUploadUrl"] == f"{prefix}/sessions/{answer['sessionId']}/files"
    return str(answer["fileUploadUrl"])


@pytest.mark.parametrize("prefix", ["", "/v1/public/my-agent"])
def test_a_sessions_file_is_answered_as_rtvi_wants_it_and_deleted_at_its_end(uploads: Launcher, prefix: str) -> None:
    url = started(uploads, prefix)
    answer = uploads.http.post(url, files={"file": ("photo.png", b"\x89PNG", "image/png")})
    assert answer.status_code == 200, answer.text
    stored = answer.json()["source"]["url"]
    assert answer.json() == {"name": "photo.png", "source": {"type": "url", "url": stored}, "format": "image/png"}
    assert {"said": True, "saved": stored, "filename": "photo.png", "size": 4, "type": "bytes"} in uploads.said()
    uploads.http.delete(url.removesuffix("/files").replace(prefix, ""))
    until(lambda: {"said": True, "deleted": stored} in uploads.said(), "deleted")


def test_a_file_before_any_session_stays(uploads: Launcher) -> None:
    answer = uploads.http.post("/files", files={"file": ("notes.unknown", b"x")})
    assert answer.json()["format"] == "application/octet-stream"
    websocket = uploads.http.post("/start", json={"transport": "websocket"}).json()
    assert websocket["fileUploadUrl"] == "/files"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\..\\passwd", "a/passwd"])
def test_a_name_never_becomes_a_path(uploads: Launcher, name: str) -> None:
    answer = uploads.http.post("/files", files={"file": (name, b"x")})
    assert answer.json()["name"] == "passwd"
    assert uploads.said()[-1]["filename"] == "passwd"


@pytest.mark.parametrize("length", ["declared", "chunked"])
def test_a_file_that_is_too_large_is_413_and_stored_nowhere(uploads: Launcher, length: str) -> None:
    before = len(uploads.said())
    content = b"x" * (LIMIT + 1)
    boundary = "b0undary"
    head = f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="big"\r\n\r\n'.encode()
    body = head + content + f"\r\n--{boundary}--\r\n".encode()

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    kind = {"content-type": f"multipart/form-data; boundary={boundary}"}
    answer = uploads.http.post("/files", content=body if length == "declared" else chunks(), headers=kind)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert len(uploads.said()) == before


def test_the_largest_file_is_taken(uploads: Launcher) -> None:
    answer = uploads.http.post("/files", files={"file": ("big", b"x" * LIMIT)})
    assert answer.status_code == 200
    assert uploads.said()[-1]["size"] == LIMIT


def test_a_file_is_in_memory_once() -> None:
    size = 48 * 1024 * 1024
    with Launcher("gateway", STORAGE="1") as launcher:
        launcher.http.post("/files", files={"file": ("small", b"x")})
        process = psutil.Process(launcher.process.pid)
        before = process.memory_info().rss
        assert launcher.http.post("/files", files={"file": ("big", b"x" * size)}).status_code == 200
        peak = int(Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    assert peak - before < 1.5 * size


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {}),
        (b"hello", {"content-type": "text/plain"}),
        (b"hello", {"content-type": "multipart/form-data"}),
        (b"hello", {"content-type": "multipart/form-data; boundary=x"}),
        (TEXT_PART, {"content-type": "multipart/form-data; boundary=x"}),
    ],
)
def test_a_malformed_upload_is_400(uploads: Launcher, content: bytes, headers: dict[str, str]) -> None:
    answer = uploads.http.post("/files", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed"), answer.text


def test_a_session_takes_a_hundred_files_and_all_are_deleted(uploads: Launcher) -> None:
    url = started(uploads)
    statuses = [uploads.http.post(url, files={"file": ("a", b"a")}).status_code for _ in range(101)]
    assert statuses == [200] * 100 + [413]
    deleted = sum("deleted" in said for said in uploads.said())
    uploads.http.delete(url.removesuffix("/files"))
    until(lambda: sum("deleted" in said for said in uploads.said()) == deleted + 100, "all deleted")


def test_a_file_that_is_stored_only_after_its_sessions_end_is_deleted_again(uploads: Launcher) -> None:
    url = started(uploads)
    with ThreadPoolExecutor() as pool:
        uploading = pool.submit(uploads.http.post, url, files={"file": ("slow.txt", b"x")})
        until(lambda: any("saving" in said for said in uploads.said()), "the storage to be asked")
        uploads.http.delete(url.removesuffix("/files"))
        answer = uploading.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_session")
    (saved,) = [said["saved"] for said in uploads.said() if said.get("filename") == "slow.txt"]
    until(lambda: {"said": True, "deleted": saved} in uploads.said(), "deleted")


def test_a_storage_of_the_bots_own_keeps_what_it_likes(uploads: Launcher) -> None:
    deleted = sum("deleted" in said for said in uploads.said())
    for _ in range(105):
        assert uploads.http.post("/files", files={"file": ("a", b"a")}).status_code == 200
    assert sum("deleted" in said for said in uploads.said()) == deleted


def test_two_files_at_once_are_400(uploads: Launcher) -> None:
    answer = uploads.http.post("/files", files=[("file", ("a", b"a")), ("file", ("b", b"b"))])
    assert answer.status_code == 400


def test_a_failing_storage_is_500_without_details(uploads: Launcher) -> None:
    answer = uploads.http.post("/files", files={"file": ("refused.txt", b"x")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "storage_failed")
    assert "s3cr3t" not in answer.text
    assert "s3cr3t reason" in uploads.log()


def test_without_storage_nothing_is_advertised_and_the_route_is_the_bots(gateway: Launcher) -> None:
    assert gateway.http.post("/files").status_code == 404
    assert "fileUploadUrl" not in gateway.http.post("/start").json()


@pytest.mark.needs_newest_packages
def test_pipecats_own_storage_keeps_files_in_the_folder_of_the_variable(tmp_path: Path) -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_UPLOADS_FOLDER=str(tmp_path)) as launcher:
        if PIPECAT < (1, 13):
            assert "uploads need pipecat-ai >= 1.13; they are off" in launcher.log()
            assert "fileUploadUrl" not in launcher.http.post("/start").json()
            answer = launcher.http.post("/files", files={"file": ("notes.txt", b"hello")})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_served")
            return
        url = started(launcher)
        answer = launcher.http.post(url, files={"file": ("notes.txt", b"hello")})
        stored = answer.json()["source"]["url"]
        assert stored.startswith("pipecat:")
        assert (tmp_path / stored.removeprefix("pipecat:")).read_bytes() == b"hello"
        launcher.http.delete(url.removesuffix("/files"))
        until(lambda: not names_in(tmp_path), "deleted")
        launcher.stop()
    assert not list(tmp_path.iterdir())


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def upload(launcher: Launcher, url: str = "/files") -> str:
    """The name of the file in PIPECAT_UPLOADS_FOLDER."""
    answer = launcher.http.post(url, files={"file": ("notes.txt", b"hello")})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["source"]["url"]).removeprefix("pipecat:")


def with_foreign_files(folder: Path) -> set[str]:
    """Files that no launcher has made: one of a user's, and one as pipecat's own storage names them."""
    names = {"notes.txt", uuid.uuid4().hex, "f" * 12 + "0" * 19 + "g"}
    for name in names:
        (folder / name).write_text("mine")
        os.utime(folder / name, (0, 0))
    return names


@pytest.mark.needs_newest_packages
@needs_uploads
def test_files_of_no_session_are_bounded_over_restarts(tmp_path: Path) -> None:
    foreign = with_foreign_files(tmp_path)
    stored: list[str] = []
    for _ in range(3):
        with Launcher("gateway", PIPECAT_UPLOADS_FOLDER=str(tmp_path)) as launcher:
            stored += [upload(launcher) for _ in range(60)]
            launcher.stop()
    assert {path.name for path in tmp_path.iterdir()} - foreign == set(stored[-100:])
    assert foreign <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.needs_newest_packages
@needs_uploads
def test_a_start_deletes_what_a_killed_launcher_has_left_of_its_sessions_and_nothing_else(tmp_path: Path) -> None:
    foreign = with_foreign_files(tmp_path)
    variables: dict[str, Any] = {"PIPECAT_GATEWAY": "1", "PIPECAT_UPLOADS_FOLDER": str(tmp_path)}
    with Launcher("gateway", **variables) as alive, Launcher("gateway", **variables) as killed:
        loose, kept = upload(alive), upload(alive, started_plain(alive))
        left = {upload(killed, started_plain(killed)) for _ in range(2)}
        kill_at_once(killed)
        with Launcher("gateway", **variables) as restarted:  # beside one that uses the folder
            assert names_in(tmp_path) == {loose, kept} | left | foreign
            restarted.stop()
        alive.http.delete(f"/sessions/{alive.http.get('/sessions').json()['sessions'][0]['sessionId']}")
        until(lambda: kept not in names_in(tmp_path), "the end of the session")
        alive.stop()
    assert names_in(tmp_path) == {loose} | left | foreign
    with Launcher("gateway", **variables) as alone:
        assert names_in(tmp_path) == {loose} | foreign
        assert upload(alone, started_plain(alone)) in names_in(tmp_path)


@pytest.mark.needs_newest_packages
@needs_uploads
def test_a_call_whose_process_dies_leaves_no_file_behind(tmp_path: Path) -> None:
    variables: dict[str, Any] = {"PIPECAT_GATEWAY": "1", "PIPECAT_UPLOADS_FOLDER": str(tmp_path)}
    with Launcher("gateway", PIPECAT_ISOLATION="process", **variables) as launcher:
        upload(launcher, started_plain(launcher))
        (fork_client,) = psutil.Process(launcher.process.pid).children()
        (template,) = fork_client.children()
        lead, *others = sorted(template.children(), key=lambda child: child.create_time())
        assert len(names_in(tmp_path)) == 1
        for worker in others:
            worker.kill()
        until(lambda: not names_in(tmp_path), "all of it to be deleted")
        assert lead.is_running()


@pytest.mark.needs_newest_packages
@needs_uploads
def test_no_other_user_reads_uploads(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_UPLOADS_FOLDER=str(folder)) as launcher:
        upload(launcher)
        upload(launcher, started_plain(launcher))
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
        assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)} == {0o700}


def kill_at_once(launcher: Launcher) -> None:
    """As a container is killed: with all of its processes, so that none cleans up after another."""
    below = psutil.Process(launcher.process.pid).children(recursive=True)
    launcher.signal(signal.SIGSTOP)
    for process in below:
        process.suspend()
    for process in below:
        process.kill()
    launcher.signal(signal.SIGKILL)
    launcher.wait()
    psutil.wait_procs(below, PATIENCE)


def started_plain(launcher: Launcher) -> str:
    """Where a session takes files whose bot stays."""
    answer = launcher.http.post("/v1/public/agent/start", json={"body": {"do": "stay"}}).json()
    launcher.told(answer["sessionId"])
    return str(answer["fileUploadUrl"])
