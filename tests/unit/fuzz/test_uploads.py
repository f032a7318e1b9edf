"""Files: whatever a request's parts are named and however it is cut, it is stored or refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from pipecat_base.api.uploads import UploadRoutes
from pipecat_base.errors import Refusal
from pipecat_base.server.error_responses import refuse
from pipecat_base.sessions.registry import SessionRegistry
from tests.support.hypothesis_values import fuzz

pytestmark = pytest.mark.slow

MOST = 2000


class Storage:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.saved: list[tuple[str, bytes]] = []

    async def save(self, name: str, contents: bytes) -> str:
        self.saved.append((name, contents))
        return f"kept:{len(self.saved)}"

    async def delete(self, url: str) -> None: ...


async def post(storage: Storage, pieces: list[bytes], kind: bytes) -> int:
    """The status of an upload that comes in these pieces."""
    registry = SessionRegistry(max_sessions=None, max_seconds=None, refusal=lambda: None)
    app = Starlette(routes=UploadRoutes(registry, lambda: storage, max_bytes=MOST).routes())
    app.add_exception_handler(Refusal, refuse)  # type: ignore[arg-type]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/files",
        "raw_path": b"/files",
        "query_string": b"",
        "headers": [(b"content-type", kind)],
    }
    coming = iter(pieces)

    async def receive() -> dict[str, Any]:
        piece = next(coming, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    answered: list[Any] = []

    async def send(message: Any) -> None:
        answered.append(message)

    await app(scope, receive, send)
    return int(answered[0]["status"])


QUOTED = st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"").replace(b"\r", b"").replace(b'"', b""))
FILENAMES = QUOTED | st.sampled_from(
    [b"../../etc/passwd", b"a\\b\\c.png", b"/", b"", b"a\0b", b"x" * 300, "ü".encode()]
)
DISPOSITIONS = st.builds(
    lambda name, filename: b'content-disposition: form-data; name="' + name + b'"' + filename,
    st.sampled_from([b"file", b"other", b""]) | QUOTED,
    st.just(b"") | FILENAMES.map(lambda name: b'; filename="' + name + b'"'),
)
PARTS = st.builds(
    lambda disposition, more, content: disposition + b"\r\n" + more + b"\r\n" + content,
    DISPOSITIONS | st.binary(max_size=20),
    st.sampled_from([b"", b"content-type: image/png\r\n", b"content-type: \xff;;=\r\n", b"x" * 50 + b"\r\n"]),
    st.binary(max_size=40),
)
BODIES = st.lists(PARTS, max_size=3).map(
    lambda parts: b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"
) | st.binary(max_size=60)
KINDS = st.sampled_from(
    [
        b"multipart/form-data; boundary=b",
        b'multipart/form-data; boundary="b"; charset=x',
        b"multipart/form-data; boundary=",
        b"multipart/form-data",
        b"application/x-www-form-urlencoded",
        b"",
        b"\xff",
    ]
)


@fuzz
@given(BODIES, KINDS, st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_an_upload_is_stored_or_refused_however_it_is_cut(body: bytes, kind: bytes, sizes: list[int]) -> None:
    async def scene() -> None:
        cut, whole = Storage(), Storage()
        pieces, rest, turn = [], body, 0
        while rest:
            size = sizes[turn % len(sizes)]
            pieces.append(rest[:size])
            rest, turn = rest[size:], turn + 1
        status = await post(cut, pieces, kind)
        assert status in (200, 400)
        assert (status, cut.saved) == (await post(whole, [body], kind), whole.saved)
        assert len(cut.saved) == (1 if status == 200 else 0)
        for name, _ in cut.saved:
            assert "/" not in name
            assert "\\" not in name

    asyncio.run(scene())


@fuzz
@given(st.integers(0, 70_000 + MOST))
def test_a_file_of_any_size_is_stored_or_too_large(size: int) -> None:
    head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
    storage = Storage()
    body = head + b"x" * size + b"\r\n--b--\r\n"
    status = asyncio.run(post(storage, [body[n : n + 4096] for n in range(0, len(body), 4096)], KINDS_OF_FORM))
    assert status == (200 if size <= MOST else 413)
    assert [len(contents) for _, contents in storage.saved] == ([size] if status == 200 else [])


KINDS_OF_FORM = b"multipart/form-data; boundary=b"
