from __future__ import annotations

import asyncio
import base64
import codecs
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipecat_base.api.requests import decode_body, parse_json
from pipecat_base.errors import Malformed
from pipecat_base.server.large_json import SMALL_NODES, SwitchableDecoder, dumps, is_large
from tests.support.launchers import Launcher


@pytest.fixture(scope="module")
def api() -> Iterator[Launcher]:
    with Launcher("obedient", PIPECAT_GATEWAY="1") as launcher:
        yield launcher


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
    assert parse_json(decode_body(text)) == ({} if body is None else body)


@given(st.text(max_size=80))
def test_any_text_is_a_body_or_refused(text: str) -> None:
    try:
        parse_json(decode_body(text))
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
        parse_json(decode_body(text[:-cut]))


@pytest.mark.parametrize("raw", [b"[" * 100_000, b"1" * 5000, b"NaN", b'{"a": Infinity}', b"\xff", b"{", b"{}x"])
def test_what_python_would_take_or_choke_on_is_refused(raw: bytes) -> None:
    for decoder in (json.JSONDecoder, SwitchableDecoder):
        with pytest.raises(Malformed):
            parse_json(raw, decoder)


@given(JSON)
def test_a_text_with_a_bom_and_windows_line_ends_is_read_as_without(body: Any) -> None:
    raw = codecs.BOM_UTF8 + json.dumps(body, indent=1).replace("\n", "\r\n").encode() + b"\r\n"
    for decoder in (json.JSONDecoder, SwitchableDecoder):
        assert parse_json(raw, decoder) == ({} if body is None else body)
    assert parse_json(codecs.BOM_UTF8 + b"\r\n") == {}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/bot", {"do": "return"}, 200),
        ("/start", {"transport": "plain", "body": {"do": "return"}}, 200),
        ("/v1/public/agent/start", {"body": {"padding": "x" * 100_000}}, 200),
        ("/daily-dialin-webhook", {"test": "test"}, 200),
        ("/api/offer", {"sdp": "", "type": "offer"}, 400),
    ],
)
def test_every_route_takes_a_json_body_with_a_bom(api: Launcher, path: str, body: Any, status: int) -> None:
    answers = [api.http.post(path, content=bom + json.dumps(body).encode()) for bom in (b"", codecs.BOM_UTF8)]
    assert [answer.status_code for answer in answers] == [status, status], answers[1].text
    assert "JSON" not in answers[1].text


@given(JSON)
def test_a_large_text_is_read_as_a_small_one_is(body: Any) -> None:
    raw = json.dumps(body).encode()
    assert parse_json(raw, SwitchableDecoder) == parse_json(raw)


@given(JSON)
def test_a_large_value_is_written_as_a_small_one_is(body: Any) -> None:
    large = [body, [0] * SMALL_NODES]
    assert json.loads(asyncio.run(dumps(large))) == large
    assert json.loads(asyncio.run(dumps(body))) == body


@pytest.mark.parametrize(
    ("value", "large"),
    [
        ({"a": 1, "b": ["c"] * 100}, False),
        ("x" * 60_000, False),
        ("x" * 70_000, True),
        ([1] * 3000, True),
        ({"a": [[["x" * 70_000]]]}, True),
        ({str(key): None for key in range(3000)}, True),
        ({"k" * 70_000: None}, True),
        ([10**4000] * 20, True),
        ([[[]] * 100] * 100, True),
    ],
)
def test_what_takes_long_to_write_is_large(value: Any, large: bool) -> None:
    assert is_large(value) is large


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1e309", "1.8E+308", "9" * 400 + ".0"])
@pytest.mark.parametrize("form", ["%s", '{"a": [%s]}', '{"a": {"b": %s}, "c": 1}'])
def test_a_number_that_is_no_finite_float_is_refused_and_the_message_says_so(form: str, number: str) -> None:
    with pytest.raises(Malformed, match="A number in the JSON is too large"):
        parse_json((form % number).encode())


@pytest.mark.parametrize("path", ["/bot", "/start", "/api/offer"])
def test_a_route_answers_400_to_a_number_that_is_no_finite_float(api: Launcher, path: str) -> None:
    answer = api.http.post(path, content=b'{"sdp": "x", "type": "offer", "body": {"a": 1e999}}')
    assert answer.status_code == 400
    assert "A number in the JSON is too large" in answer.text


@pytest.mark.parametrize("number", ["1e308", "-1.7976931348623157e308", "1e-999", "0.1", "-0.0"])
def test_a_finite_number_is_taken_as_it_is(number: str) -> None:
    assert parse_json(number.encode()) == float(number)


@pytest.mark.parametrize("nothing", ["", " ", "bnVsbA==", "bnVsbA"])
def test_nothing_is_an_empty_object(nothing: str) -> None:
    assert parse_json(decode_body(nothing)) == {}


def test_what_the_platform_takes_is_taken_whatever_it_is_made_of() -> None:
    keys = {f"{number:x}": 1 for number in range(105_000)}
    raw = json.dumps(keys, separators=(",", ":")).encode()
    assert len(raw) < 1024 * 1024
    assert parse_json(raw) == keys
