"""Signatures, checked against the providers' own packages or their output."""

from __future__ import annotations

import base64
import hashlib
import hmac
import string
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import MultiDict
from twilio.request_validator import RequestValidator

from pipecat_base.auth import signatures
from pipecat_base.errors import SignatureMissing, SignatureWrong

NOW = 1_800_000_000
TEXT = st.text(string.printable + "äß€", max_size=8)


@given(st.dictionaries(TEXT, TEXT, max_size=5), st.dictionaries(TEXT, TEXT, max_size=3))
def test_signatures_of_twilios_package_are_valid(form: dict[str, str], query: dict[str, str]) -> None:
    url = f"https://bot.example/telephony/twilio{'?' + urlencode(query) if query else ''}"
    signature = RequestValidator("t0ken").compute_signature(url, form)
    signatures.check_twilio("t0ken", {signatures.TWILIO: signature}, url, list(form.items()))
    with pytest.raises(SignatureWrong):
        signatures.check_twilio("another", {signatures.TWILIO: signature}, url, list(form.items()))


def test_twilio_may_sign_a_field_that_comes_twice() -> None:
    form = [("a", "1"), ("a", "2"), ("a", "1")]
    signature = RequestValidator("t0ken").compute_signature("https://bot.example/", MultiDict(form))
    signatures.check_twilio("t0ken", {signatures.TWILIO: signature}, "https://bot.example/", form)


@pytest.mark.parametrize("signed", ["https://bot.example:443/x", "https://bot.example/x"])
@pytest.mark.parametrize("seen", ["https://bot.example:443/x", "https://bot.example/x"])
def test_twilio_may_sign_with_the_port_or_without(signed: str, seen: str) -> None:
    signature = RequestValidator("t0ken").compute_signature(signed, {})
    signatures.check_twilio("t0ken", {signatures.TWILIO: signature}, seen, [])


PLIVO = [
    ("POST", "?B=%26", [], "5HeOfAKO2PfTqxTbiiufz2TX4LncLq7JvSw7tWEcfug="),
    ("GET", "", [], "jdYKhv3LvuEjml4rKEpIe6Nf8YvqC4VIrhrkw8ReknA="),
    ("GET", "?B=.+%26%26&B=.%2Ba%2F", [], "XivZtVo8SuX8zm873VfyQBMwX7HGKQXzCAbhu2FeEpY="),
    ("POST", "?c=B11", [("To", "&/="), ("a", "Ba&+")], "KIq3+D+7iqw8W0BH1bLawMyrHZ8sYjbrbAcgr7slJho="),
    ("POST", "?B=1.a%2B", [("CallUUID", " ")], "bwD/ZYhIkR6wD94POwwcOtqOGrd2/0beajQDC2EX1/w="),
]
"""Made with plivo 4, nonce 12345, token tok3n."""


@pytest.mark.parametrize(("method", "query", "form", "signature"), PLIVO)
def test_signatures_of_plivos_package_are_valid(
    method: str, query: str, form: list[tuple[str, str]], signature: str
) -> None:
    url = f"https://bot.example:8443/telephony/plivo{query}"
    headers = {signatures.PLIVO: f"b3RoZXI=, {signature}", signatures.PLIVO_NONCE: "12345"}
    signatures.check_plivo("tok3n", headers, method, url, form)
    with pytest.raises(SignatureWrong):
        signatures.check_plivo("tok3n", {**headers, signatures.PLIVO_NONCE: "12346"}, method, url, form)
    with pytest.raises(SignatureWrong):
        signatures.check_plivo("tok3n", headers, method, url, [*form, ("x", "y")])


def test_a_telnyx_signature_is_valid_while_it_is_fresh() -> None:
    private = Ed25519PrivateKey.generate()
    public = base64.b64encode(private.public_key().public_bytes_raw()).decode()
    signature = base64.b64encode(private.sign(f"{NOW}|body".encode())).decode()
    headers = {signatures.TELNYX: signature, signatures.TELNYX_TIMESTAMP: str(NOW)}
    signatures.check_telnyx(public, headers, b"body", clock=lambda: NOW + 299)
    for body, clock in ((b"another", NOW), (b"body", NOW + 301), (b"body", NOW - 301)):
        with pytest.raises(SignatureWrong):
            signatures.check_telnyx(public, headers, body, clock=lambda at=clock: at)  # type: ignore[misc]


@pytest.mark.parametrize("timestamp", [str(NOW), str(NOW * 1000)])
def test_a_daily_signature_is_valid_while_it_is_fresh_in_seconds_or_milliseconds(timestamp: str) -> None:
    secret = base64.b64encode(b"the secret").decode()
    digest = hmac.new(b"the secret", f"{timestamp}.body".encode(), hashlib.sha256).digest()
    headers = {signatures.DAILY: base64.b64encode(digest).decode(), signatures.DAILY_TIMESTAMP: timestamp}
    signatures.check_daily(secret, headers, b"body", clock=lambda: NOW)
    for body, clock in ((b"another", NOW), (b"body", NOW + 301)):
        with pytest.raises(SignatureWrong):
            signatures.check_daily(secret, headers, body, clock=lambda at=clock: at)  # type: ignore[misc]


@given(st.text(max_size=20), st.text(max_size=20))
def test_garbage_is_refused_without_another_error(signature: str, timestamp: str) -> None:
    secret = base64.b64encode(bytes(32)).decode()
    rubbish = dict.fromkeys((signatures.TWILIO, signatures.PLIVO, signatures.TELNYX, signatures.DAILY), signature)
    rubbish |= {signatures.PLIVO_NONCE: timestamp, signatures.TELNYX_TIMESTAMP: timestamp}
    rubbish |= {signatures.DAILY_TIMESTAMP: timestamp}
    with pytest.raises((SignatureMissing, SignatureWrong)):
        signatures.check_twilio("t", rubbish, "https://bot.example/", [])
    with pytest.raises((SignatureMissing, SignatureWrong)):
        signatures.check_plivo("t", rubbish, "POST", "https://bot.example/", [])
    with pytest.raises((SignatureMissing, SignatureWrong)):
        signatures.check_telnyx(secret, rubbish, b"")
    with pytest.raises((SignatureMissing, SignatureWrong)):
        signatures.check_daily(secret, rubbish, b"")
