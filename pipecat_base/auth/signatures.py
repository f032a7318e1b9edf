"""Signatures of phone providers and Daily, compared in constant time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from pipecat_base.errors import SignatureMissing, SignatureWrong

TWILIO = "x-twilio-signature"
PLIVO = "x-plivo-signature-v3"
PLIVO_NONCE = "x-plivo-signature-v3-nonce"
TELNYX = "telnyx-signature-ed25519"
TELNYX_TIMESTAMP = "telnyx-timestamp"
DAILY = "x-pinless-signature"
DAILY_TIMESTAMP = "x-pinless-timestamp"

TOLERANCE_SECONDS = 300.0
MIN_MILLISECONDS = 1e11
"""Timestamps above this count milliseconds, as Daily's do."""

Pairs = Sequence[tuple[str, str]]


def check_twilio(token: str, headers: Mapping[str, str], url: str, form: Pairs) -> None:
    """HMAC-SHA1 of the URL and the sorted form (twilio.com/docs/usage/webhooks/webhooks-security).

    For a stream's handshake ``url`` begins with ``wss`` and ``form`` is empty.
    """
    given = _header(headers, TWILIO)
    fields: dict[str, set[str]] = {}
    for name, value in form:
        fields.setdefault(name, set()).add(value)
    text = "".join(f"{name}{value}" for name in sorted(fields) for value in sorted(fields[name]))
    expected = (_base64_hmac(token.encode(), f"{each}{text}", "sha1") for each in _with_and_without_port(url))
    _compare([given], expected, TWILIO)


def check_plivo(token: str, headers: Mapping[str, str], method: str, url: str, form: Pairs) -> None:
    """HMAC-SHA256 of the URL, the sorted parameters and a nonce (plivo.com/docs, signature validation)."""
    given = _header(headers, PLIVO)
    nonce = _header(headers, PLIVO_NONCE)
    parts = _split(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    text = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    if method == "GET":
        query = [*query, *form]
    if query or form:
        text += "?" + "&".join(f"{name}={value}" for name, value in sorted(query))
    if form and method != "GET":
        text += ("." if query else "") + "".join(f"{name}{value}" for name, value in sorted(form))
    expected = _base64_hmac(token.encode(), f"{text}.{nonce}", "sha256")
    _compare(given.split(","), [expected], PLIVO)


def check_telnyx(
    public_key: str, headers: Mapping[str, str], body: bytes, *, clock: Callable[[], float] = time.time
) -> None:
    """Ed25519 over ``timestamp|body`` (developers.telnyx.com, webhook signing). The key is base64 of 32 bytes."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    given = _header(headers, TELNYX)
    timestamp = _fresh(_header(headers, TELNYX_TIMESTAMP), TELNYX_TIMESTAMP, clock())
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key))
    try:
        key.verify(base64.b64decode(given), f"{timestamp}|".encode() + body)
    except (InvalidSignature, ValueError):
        raise SignatureWrong("Not signed with TELNYX_PUBLIC_KEY's private key.", field=TELNYX) from None


def check_daily(
    secret: str, headers: Mapping[str, str], body: bytes, *, clock: Callable[[], float] = time.time
) -> None:
    """HMAC-SHA256 over ``timestamp.body`` (docs.daily.co, pinless dial-in). ``secret`` is base64."""
    given = _header(headers, DAILY)
    timestamp = _fresh(_header(headers, DAILY_TIMESTAMP), DAILY_TIMESTAMP, clock())
    signed = hmac.new(base64.b64decode(secret), timestamp.encode() + b"." + body, hashlib.sha256)
    _compare([given], [base64.b64encode(signed.digest()).decode()], DAILY)


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "").strip()
    if not value:
        raise SignatureMissing("This request has no signature.", field=name)
    return value


def _fresh(timestamp: str, name: str, now: float) -> str:
    try:
        seconds = float(timestamp)
    except ValueError:
        raise SignatureWrong("Not a time in Unix seconds.", field=name) from None
    if not abs(now - (seconds / 1000 if seconds > MIN_MILLISECONDS else seconds)) <= TOLERANCE_SECONDS:
        raise SignatureWrong(f"More than {TOLERANCE_SECONDS:g} s from this machine's clock.", field=name)
    return timestamp


def _base64_hmac(key: bytes, text: str, algorithm: str) -> str:
    return base64.b64encode(hmac.new(key, text.encode(errors="replace"), algorithm).digest()).decode()


def _compare(given: Iterable[str], expected: Iterable[str], field: str) -> None:
    wanted = [value.encode() for value in expected]
    matches = [hmac.compare_digest(one.strip().encode(errors="replace"), want) for one in given for want in wanted]
    if not any(matches):
        raise SignatureWrong("The signature is not made with the secret that is set here for this URL.", field=field)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # a host of "[", for example
        raise SignatureWrong("This request's URL could not have been signed.", field="host") from None


def _with_and_without_port(url: str) -> list[str]:
    """Twilio signs some URLs with their port and some without, as its own validators allow for."""
    parts = _split(url)
    port = 443 if parts.scheme in ("https", "wss") else 80
    host = parts.netloc.rpartition("@")[2]
    bare = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
    return [urlunsplit(parts._replace(netloc=netloc)) for netloc in dict.fromkeys((host, bare, f"{bare}:{port}"))]
