from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipecat_base.errors import Malformed
from pipecat_base.routes.requests import decode_body, parse_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.booleans(), st.booleans(), st.booleans())
def test_every_way_of_writing_base64_gives_the_body(body: Any, url_safe: bool, padded: bool, spaced: bool) -> None:
    raw = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        raw.decode()
    except UnicodeDecodeError:
        return  # a lone surrogate is not UTF-8
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(raw).decode()
    text = text if padded else text.rstrip("=")
    text = text.replace("+", " ") if spaced else text
    assert decode_body(text) == ({} if body is None else body)


@given(st.text(max_size=80))
def test_any_text_is_a_body_or_refused(text: str) -> None:
    try:
        decode_body(text)
    except Malformed as refusal:
        assert refusal.field == "body"


@given(st.binary(max_size=80))
def test_any_bytes_are_json_or_refused(raw: bytes) -> None:
    try:
        value = parse_json(raw)
    except Malformed as refusal:
        assert refusal.status == 400
    else:
        assert value == {} or value == json.loads(raw)


@given(JSON.filter(lambda body: body is not None), st.integers(1, 4))
def test_a_cut_body_is_refused_or_still_whole(body: Any, cut: int) -> None:
    """Base64 that lost its end must never be half-run."""
    text = base64.b64encode(json.dumps({"body": body}).encode()).decode().rstrip("=")
    with pytest.raises(Malformed):
        decode_body(text[:-cut])


@pytest.mark.parametrize("raw", [b"[" * 100_000, b"1" * 5000, b"NaN", b'{"a": Infinity}', b"\xff", b"{", b"{}x"])
def test_what_python_would_take_or_choke_on_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse_json(raw)


@pytest.mark.parametrize("nothing", ["", " ", "bnVsbA==", "bnVsbA"])
def test_nothing_is_an_empty_object(nothing: str) -> None:
    assert decode_body(nothing) == {}
