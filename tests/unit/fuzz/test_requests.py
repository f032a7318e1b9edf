"""Heads and bodies of requests: whatever they hold, the answer is a value or a refusal."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipecat_base.api import flow_config, requests
from pipecat_base.auth.internal_headers import has_token
from pipecat_base.auth.keys import Keys, bearer_of
from pipecat_base.errors import Malformed, TooLarge
from pipecat_base.server.error_responses import request_line, session_id_in
from pipecat_base.server.handshake import subprotocols
from pipecat_base.server.paths import SESSION_ID, SESSION_ID_LENGTH, TOKEN_PATHS
from pipecat_base.server.websocket import MAX_REASON_BYTES, _short
from tests.support.hypothesis_values import (
    ANY_TEXT,
    HEADER_VALUE,
    JSON,
    WITH_SURROGATES,
    connection,
    fuzz,
    grows_no_faster_than_its_input,
    objects,
)

pytestmark = pytest.mark.slow


@fuzz
@given(HEADER_VALUE | st.text(st.characters(codec="latin-1"), min_size=250, max_size=300))
def test_a_session_id_is_short_printable_ascii_or_refused(value: str) -> None:
    try:
        found = requests.session_id(connection({SESSION_ID: value}))
    except Malformed as refusal:
        assert refusal.field == SESSION_ID
    else:
        assert 0 < len(found) <= SESSION_ID_LENGTH
        assert found.isascii()
        assert found.isprintable()
        assert found == value.strip() or not value.strip()


@fuzz
@given(HEADER_VALUE)
def test_a_session_id_for_the_log_draws_nothing_in_a_terminal(value: str) -> None:
    found = session_id_in([(SESSION_ID.encode(), value.encode("latin-1"))])
    assert found is not None
    assert len(found) <= SESSION_ID_LENGTH
    assert found.isascii()
    assert found == "" or found.isprintable()


@fuzz
@given(HEADER_VALUE | st.floats().map(repr) | st.integers().map(str))
def test_a_limit_is_a_number_of_seconds_or_ignored(value: str) -> None:
    found = requests.max_seconds(connection({requests.MAX_SECONDS: value}), "s")
    assert found is None or (math.isfinite(found) and found > 0)


@fuzz
@given(st.binary(max_size=80) | JSON.map(lambda body: b"body=" + base64.b64encode(json.dumps(body).encode())))
def test_any_query_gives_a_body(query: bytes) -> None:
    asyncio.run(requests.query_body(connection(query=query), "s"))


@pytest.mark.parametrize(
    "make",
    [
        lambda size: b'{"a": "' + b"x" * size + b'"}',
        lambda size: b"[" + b"1," * (size // 4) + b"1]",
        lambda size: b" " * size,
        lambda size: b'"' + b"\\u0041" * (size // 6) + b'"',
    ],
    ids=["a text", "numbers", "nothing", "escapes"],
)
def test_a_body_takes_no_longer_than_it_is_long(make: Callable[[int], bytes]) -> None:
    assert grows_no_faster_than_its_input(lambda size: requests.parse_json(make(size)), 200_000)


def test_a_body_in_a_query_takes_no_longer_than_it_is_long() -> None:
    def decode(size: int) -> None:
        requests.decode_body(base64.b64encode(b'"' + b"x" * size + b'"').decode())
        with contextlib.suppress(Malformed):
            requests.decode_body("=" * size)

    assert grows_no_faster_than_its_input(decode, 200_000)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b"[[],", b'[{"a":', b'"",', b'"a":1,', b"1,"])
def test_a_body_of_too_many_parts_is_refused_before_it_is_read(opening: bytes) -> None:
    with pytest.raises(TooLarge):
        requests.parse_json(opening * 2 * requests.MAX_WEIGHT)


# Flows.


@fuzz
@given(JSON | objects(body=JSON, flow_config=ANY_TEXT), st.none() | st.just("1") | HEADER_VALUE)
def test_an_envelope_is_opened_or_refused(content: Any, version: str | None) -> None:
    try:
        body, flow = flow_config.open_envelope(content, version)
    except Malformed:
        assert version is not None
        return
    if version is None:
        assert (body, flow) == (content, None) or body != body or content != content
    else:
        assert flow is not None
        assert flow.strip()
        assert flow.encode()


NAMES = WITH_SURROGATES | st.sampled_from(["..", ".", "a/../b", "/etc/passwd", "a\0", "sub", "link", "x" * 256])


@fuzz
@given(name=NAMES)
def test_a_flows_name_never_leads_out_of_its_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "flows"
    if not folder.exists():
        (folder / "sub").mkdir(parents=True)
        (folder.parent / "outside").write_text("outside")
        (folder / "link").symlink_to(folder.parent / "outside")
        (folder / "fine").write_text("inside")
    files = flow_config.FlowFiles(str(folder), max_bytes=100)
    try:
        found = files._read(name)
    except flow_config._Unusable as why:
        assert len(str(why)) < 4000
    else:
        assert (name, found) == ("fine", "inside")


# Credentials.


@fuzz
@given(HEADER_VALUE, HEADER_VALUE.filter(str.strip))
def test_a_key_is_known_or_not(value: str, key: str) -> None:
    keys = Keys([key.strip()])
    given_key = bearer_of(connection({"authorization": value}))
    assert keys.allows(connection({"authorization": value})) is (given_key == key.strip())
    assert keys.allows(connection({"authorization": f"bEaReR {key}"}))
    assert not keys.allows(connection())


@fuzz
@given(HEADER_VALUE, HEADER_VALUE)
def test_a_pods_token_is_known_or_not(value: str, token: str) -> None:
    raw = [(b"x-pipecat-pod-token", value.encode())]
    assert has_token({"headers": raw}, token.encode()) is (value == token)
    assert not has_token({"headers": raw}, None)
    assert not has_token({"headers": []}, token.encode())


# What the log says of them.


@fuzz
@given(
    st.sampled_from(["", *TOKEN_PATHS, "/start"]),
    st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"").replace(b" ", b"")),
)
def test_a_requests_line_has_neither_query_nor_token_nor_a_character_of_another_line(prefix: str, rest: bytes) -> None:
    raw = prefix.encode() + rest
    line = request_line({"type": "http", "method": "GET", "path": unquote(raw.decode("ascii", "replace"))})
    assert "?" not in line
    assert line.isprintable()
    if prefix in TOKEN_PATHS:
        assert line == f"GET {prefix}..."


@fuzz
@given(st.lists(HEADER_VALUE, max_size=4))
def test_subprotocols_are_parts_of_what_was_offered(values: list[str]) -> None:
    for part in subprotocols(values):
        assert any(part in value for value in values)
        assert "," not in part


@fuzz
@given(st.text(max_size=300))
def test_a_reason_fits_a_close_frame(reason: str) -> None:
    shown = _short(reason)
    assert len(shown.encode()) <= MAX_REASON_BYTES
    assert reason.startswith(shown)
    assert shown == reason or len(shown.encode()) > MAX_REASON_BYTES - 4
