"""The image's optional step: nltk's data, fetched from a server on loopback."""

from __future__ import annotations

import hashlib
import http.server
import io
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launchers import ROOT, free_port


def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        zipped.writestr("punkt_tab/english/collocations.tab", "a\tb\n")
        zipped.writestr("../outside", "no\n")
    return content.getvalue()


ARCHIVE = archive()  # once: a zip tells the time that it was made, so a second one has another SHA-256


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path != "/missing" else 404)
            if self.path == "/truncated":
                self.send_header("content-length", str(2 * len(ARCHIVE)))
            self.end_headers()
            self.wfile.write(ARCHIVE)

        def log_message(self, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fetch(mode: str, url: str, folder: Path, sha256: str | None = None) -> subprocess.CompletedProcess[str]:
    sha256 = sha256 or hashlib.sha256(ARCHIVE).hexdigest()
    command = [sys.executable, str(ROOT / "image" / "fetch-nltk-data.py"), mode, url, sha256, str(folder / "data")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_is_unpacked_where_nltk_looks_and_nowhere_else(served: str, tmp_path: Path) -> None:
    result = fetch("required", f"{served}/punkt_tab.zip", tmp_path)
    assert (result.returncode, result.stdout) == (0, "nltk data: punkt_tab is in this image\n"), result.stderr
    assert (tmp_path / "data/tokenizers/punkt_tab/english/collocations.tab").read_text() == "a\tb\n"
    assert not (tmp_path / "data/outside").exists()


@pytest.mark.parametrize("path", ["/punkt_tab.zip", "/missing", "/truncated", None])
@pytest.mark.parametrize(("mode", "status"), [("optional", 0), ("required", 1)])
def test_a_failure_is_told_and_leaves_nothing(
    served: str, tmp_path: Path, path: str | None, mode: str, status: int
) -> None:
    url = f"{served}{path}" if path else f"http://127.0.0.1:{free_port()}/"
    result = fetch(mode, url, tmp_path, sha256="0" * 64)
    assert result.returncode == status
    assert result.stderr.startswith(f"nltk data: {url} is not in this image: ")
    assert len(result.stderr.splitlines()) == 1
    assert [file for file in (tmp_path / "data").rglob("*") if file.is_file()] == []


def test_it_can_be_left_out_and_a_wrong_mode_is_named(tmp_path: Path) -> None:
    assert fetch("no", "http://nowhere.invalid/", tmp_path).returncode == 0
    result = fetch("maybe", "http://nowhere.invalid/", tmp_path / "other")
    assert result.returncode == 2
    assert "NLTK_DATA is maybe; it is one of no, optional, required" in result.stderr
