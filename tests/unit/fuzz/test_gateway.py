"""Addresses, redirects, signatures and documents of the gateway: whatever callers and bots write."""

from __future__ import annotations

import base64
import contextlib
import json
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from pipecat_base.api.whatsapp_calls import webhook
from pipecat_base.auth import signatures
from pipecat_base.auth.internal_headers import PREFIXES
from pipecat_base.auth.tokens import Tokens
from pipecat_base.config.hosts import is_local
from pipecat_base.errors import SignatureMissing, SignatureWrong
from pipecat_base.gateway import providers
from pipecat_base.gateway.addresses import Addresses
from pipecat_base.gateway.forwarding import ForwardedResponse, forwarded, rest_of_path
from tests.support.hypothesis_values import (
    ANY_TEXT,
    HEADER_VALUE,
    JSON,
    PRINTED,
    connection,
    fuzz,
    grows_no_faster_than_its_input,
    objects,
)

pytestmark = pytest.mark.slow

# Addresses.

HOSTS = HEADER_VALUE | st.sampled_from(["a.example", "a.example:80", "[::1]:8080", "[", "a, b", "", ":", "a@b", "//"])


@fuzz
@given(st.dictionaries(st.sampled_from(["host", "x-forwarded-host", "x-forwarded-proto"]), HOSTS))
def test_any_headers_give_an_address(headers: dict[str, str]) -> None:
    seen = connection(headers)
    address = Addresses(None).http(seen)
    assert address.startswith(("http://", "https://"))
    assert Addresses(None).websocket(seen) == address.replace("http", "ws", 1)
    assert Addresses(None).secure_websocket(seen).startswith("wss://")
    assert Addresses("https://bot.example/").http(seen) == "https://bot.example"


@fuzz
@given(HOSTS)
def test_no_host_of_others_is_of_this_machine(host: str) -> None:
    assert is_local(host) in (True, False)
    for stranger in (f"{host}.example", f"localhost.{host}", f"192.0.2.1{host}", f"{host}@a.example"):
        assert not is_local(stranger)


# What is passed on.

PREFIX = "/sessions/s"
WHERE = st.sampled_from(["", "http://127.0.0.1:8080", "http://127.0.0.1", "https://a.example", "//a.example", "http:"])
LOCATIONS = st.builds(
    lambda where, path: f"{where}{path}", WHERE, HEADER_VALUE.map(lambda text: "/" + text) | HEADER_VALUE
)


@fuzz
@given(LOCATIONS.filter(lambda location: "[" not in location and "]" not in location))
def test_a_redirect_leads_below_the_session_or_where_the_bot_says(location: str) -> None:
    with contextlib.suppress(UnicodeError):
        found = ForwardedResponse(None, {"server": ("127.0.0.1", 8080)}, "s", PREFIX)._for_caller(location)  # type: ignore[arg-type]
        assert found == location or found.startswith(f"{PREFIX}/")


@pytest.mark.parametrize("location", ["http://[", "//[x/", "http://a]/"])
def test_a_redirect_to_what_is_no_url_is_left_as_it_is(location: str) -> None:
    passed = ForwardedResponse(None, {"server": ("127.0.0.1", 8080)}, "s", PREFIX)  # type: ignore[arg-type]
    assert passed._for_caller(location) == location


@fuzz
@given(
    st.lists(
        st.tuples(st.sampled_from(["X-Daily-Room-Url", "x-pcc-a", "x-pipecat-b", "x-mine", "host", "x-daily"]), PRINTED)
    ),
    st.binary(max_size=30),
)
def test_what_is_passed_on_has_no_internal_headers_but_the_sessions_id(
    headers: list[tuple[str, str]], raw_path: bytes
) -> None:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    seen = connection()
    seen.scope["headers"] = raw
    passed = forwarded(seen, b"/" + raw_path, session_id="mine")
    internal = [(name, value) for name, value in passed["headers"] if name.startswith(PREFIXES)]
    assert internal == [(b"x-daily-session-id", b"mine")]
    assert all((name, value) in passed["headers"] for name, value in raw if name in (b"x-mine", b"x-daily"))
    assert isinstance(passed["path"], str)


@fuzz
@given(st.binary(max_size=40), st.integers(0, 6))
def test_the_rest_of_a_path_is_a_path(raw_path: bytes, parts: int) -> None:
    seen = connection()
    seen.scope["raw_path"] = raw_path
    rest = rest_of_path(seen, parts)
    assert rest.startswith(b"/")
    assert b"?" not in rest
    assert rest == b"/" or raw_path.split(b"?")[0].endswith(rest)


# Phone providers.

HOST_CHARACTERS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=30)


@fuzz
@given(HOST_CHARACTERS, ANY_TEXT, ANY_TEXT)
@example("a", "\x00", "\ufffe")
def test_a_document_is_xml_that_holds_the_stream(host: str, caller: str, called: str) -> None:
    stream = f"wss://{host}/ws"
    seen = providers.Webhook("POST", "https://a/", Headers({}), b"", [("From", caller), ("To", called)])
    for provider in providers.PROVIDERS.values():
        if provider.document is None:
            continue
        root = ElementTree.fromstring(f"<Response>{provider.document(stream, seen)}</Response>")
        (found,) = root.iter("Stream")
        assert (found.text if provider.name == "plivo" else found.get("url")) == stream
        numbers = {each.get("name"): each.get("value") for each in root.iter("Parameter")}
        assert set(numbers.items()) <= {("from_number", caller), ("to_number", called)}


PAIRS = st.lists(st.tuples(PRINTED | st.sampled_from(["CallSid", "CallUUID", "CallControlId"]), ANY_TEXT), max_size=4)


@fuzz
@given(st.sampled_from([signatures.TWILIO, signatures.TELNYX, signatures.PLIVO, "x-a"]), HEADER_VALUE, PAIRS)
def test_a_provider_is_recognised_or_not(header: str, value: str, form: list[tuple[str, str]]) -> None:
    seen = providers.Webhook("POST", "https://a/", Headers({header: value}), b"", form)
    assert providers.recognise(seen) in (*providers.PROVIDERS.values(), None)


URLS = st.builds(
    lambda scheme, host, rest: f"{scheme}://{host}{rest}",
    st.sampled_from(["https", "http", "wss"]),
    HOSTS,
    st.sampled_from(["/x", "?a=1&a=2", "?a", "#", "/%", ""]) | HEADER_VALUE,
)


@fuzz
@given(URLS, PAIRS, HEADER_VALUE, st.sampled_from(["GET", "POST"]))
def test_no_address_and_no_form_is_signed_by_accident(
    url: str, form: list[tuple[str, str]], value: str, method: str
) -> None:
    refused = (SignatureMissing, SignatureWrong)
    with pytest.raises(refused):
        signatures.check_twilio("t", {signatures.TWILIO: value}, url, form)
    with pytest.raises(refused):
        signatures.check_plivo("t", {signatures.PLIVO: value, signatures.PLIVO_NONCE: value}, method, url, form)


def test_signatures_take_no_longer_than_what_they_sign() -> None:
    def check(size: int) -> None:
        form = [(f"a{n}", "b") for n in range(size)]
        with contextlib.suppress(SignatureWrong):
            signatures.check_twilio("t", {signatures.TWILIO: "x"}, "https://a/" + "?" * size, form)
        with contextlib.suppress(SignatureWrong):
            plivo = {signatures.PLIVO: "x," * size, signatures.PLIVO_NONCE: "x"}
            signatures.check_plivo("t", plivo, "POST", "https://a/?" + "a=1&" * size, form)

    assert grows_no_faster_than_its_input(check, 500)


# WhatsApp.

CALLS = st.lists(objects(id=ANY_TEXT, event=st.sampled_from(["connect", "terminate"]), session=objects(sdp=ANY_TEXT)))
CHANGES = st.lists(objects(value=objects(calls=CALLS, messages=JSON)), max_size=2)


@fuzz
@given(JSON | objects(entry=st.lists(objects(changes=CHANGES), max_size=2)))
def test_any_event_of_whatsapp_is_a_call_or_ignored_by_its_kind(content: Any) -> None:
    for event in webhook.events(content):
        if isinstance(event, webhook.Other):
            assert event.kind.isprintable()
            assert len(event.kind) < 100
        elif isinstance(event, webhook.Connect):
            assert event.call_id
            assert isinstance(event.caller, str)
            assert event.offer.keys() == {"sdp", "type"}


@fuzz
@given(st.binary(max_size=40), HEADER_VALUE)
def test_no_body_is_signed_by_whatsapp_by_accident(body: bytes, signature: str) -> None:
    with pytest.raises(SignatureWrong):
        webhook.check_signature("secret", body, signature)


# Tokens that we have signed, and that hold what we never put there.


@fuzz
@given(
    JSON.filter(lambda claims: not isinstance(claims, dict))
    | objects(exp=st.floats(allow_nan=False) | st.integers(-(10**300), 10**300), jti=ANY_TEXT, sid=ANY_TEXT),
    ANY_TEXT,
)
def test_what_is_signed_and_no_token_is_refused(claims: Any, session_id: str) -> None:
    tokens = Tokens("secret", clock=lambda: 1e9)
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    token = f"{payload}.{tokens._sign(payload)}"
    good = tokens.is_valid(token, session_id)
    assert good in (True, False)
    if good:
        assert float(claims["exp"]) > 1e9
        assert claims.get("sid", session_id) == session_id


@pytest.mark.parametrize("expires", [float("nan"), 10**400], ids=["NaN", "400 digits"])
def test_a_token_that_is_signed_with_no_time_is_refused(expires: float) -> None:
    tokens = Tokens("secret")
    payload = base64.urlsafe_b64encode(json.dumps({"exp": expires}).encode()).decode()
    assert not tokens.is_valid(f"{payload}.{tokens._sign(payload)}")
