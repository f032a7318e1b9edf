"""Keys that are set: does the service take them? And what its clock says."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from pipecat_base.cli.doctor import web
from pipecat_base.cli.doctor.findings import Finding, not_checked, ok, problem, warning
from pipecat_base.config.settings import Settings

MAX_DRIFT = 30.0
"""Seconds: signatures and tokens are good for minutes, and a Date header is rounded to seconds."""
TWILIO_ACCOUNT = "AC"
"""How an account's id begins: https://www.twilio.com/docs/glossary/what-is-a-sid"""
REFUSED = (400, 401, 403, 404)
"""Statuses that say that the key, or what it is for, is wrong."""


@dataclass(frozen=True)
class ServiceAddresses:
    """Of the services that no setting has an address for."""

    twilio: str = "https://api.twilio.com"
    graph: str = "https://graph.facebook.com/v23.0"


def daily(settings: Settings) -> Sequence[Finding]:
    """DAILY_API_KEY. https://docs.daily.co/reference/rest-api/rooms/list-rooms"""
    if settings.providers.daily_api_key is None:
        return []
    url = f"{settings.providers.daily_api_url.rstrip('/')}/rooms?limit=1"
    headers = {"Authorization": f"Bearer {settings.providers.daily_api_key}"}
    return [_asked("daily", "DAILY_API_KEY", url, headers, "dashboard.daily.co > Developers")]


def twilio(variables: Mapping[str, str], address: str) -> Sequence[Finding]:
    """TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN. https://www.twilio.com/docs/iam/api/account"""
    account, token = (variables.get(name, "").strip() for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"))
    if not (account or token):
        return []
    if not (account and token):
        missing = "TWILIO_AUTH_TOKEN" if account else "TWILIO_ACCOUNT_SID"
        return [warning("twilio", f"{missing} is not set: pipecat hangs up with both", f"Set {missing}.")]
    if not account.startswith(TWILIO_ACCOUNT):
        return [not_checked("twilio", f"TWILIO_ACCOUNT_SID is a stand-in: an account's begins with {TWILIO_ACCOUNT}")]
    url = f"{address}/2010-04-01/Accounts/{quote(account, safe='')}.json"
    headers = {"Authorization": f"Basic {base64.b64encode(f'{account}:{token}'.encode()).decode()}"}
    return [_asked("twilio", "TWILIO_ACCOUNT_SID with TWILIO_AUTH_TOKEN", url, headers, "console.twilio.com")]


def whatsapp(settings: Settings, address: str) -> Sequence[Finding]:
    """WHATSAPP_TOKEN, for its number.

    https://developers.facebook.com/docs/graph-api/reference/whats-app-business-account-to-number-current-status/
    """
    needed = {
        "WHATSAPP_TOKEN": settings.whatsapp.token,
        "WHATSAPP_PHONE_NUMBER_ID": settings.whatsapp.phone_number_id,
        "WHATSAPP_APP_SECRET": settings.whatsapp.app_secret,
    }
    if not any(needed.values()):
        return []
    missing = ", ".join(name for name, value in needed.items() if not value)
    found = [warning("whatsapp", f"off without {missing}", f"Set {missing}.")] if missing else []
    token, number = settings.whatsapp.token, settings.whatsapp.phone_number_id
    if token and number:
        url = f"{address}/{quote(number, safe='')}?fields=id"
        headers = {"Authorization": f"Bearer {token}"}
        name = "WHATSAPP_TOKEN with WHATSAPP_PHONE_NUMBER_ID"
        found.append(_asked("whatsapp", name, url, headers, "developers.facebook.com > WhatsApp > API Setup"))
    return found


def _asked(check: str, name: str, url: str, headers: Mapping[str, str], source: str) -> Finding:
    host = _host(url)
    try:
        status = web.request(url, headers).status
    except web.Unreachable as error:
        return not_checked(check, f"{host} cannot be reached: {error}")
    if status in REFUSED:
        return problem(check, f"{host} refuses {name} with {status}", f"Get a valid one from {source}.")
    if status != 200:
        return not_checked(check, f"{host} answered {status}")
    return ok(check, f"{host} accepts {name}")


def clock(urls: Sequence[str]) -> Sequence[Finding]:
    """Whether this machine's is right, by the first of these servers that answers."""
    reason = ""
    for url in urls:
        asked = time.time()
        try:
            answer = web.request(url, method="HEAD")
        except web.Unreachable as error:
            reason = f": {error}"
            continue
        here = (asked + time.time()) / 2
        try:
            there = parsedate_to_datetime(answer.date or "").timestamp()
        except ValueError:
            continue
        return [_compared(here - there, _host(url))]
    return [not_checked("clock", f"no server could be asked for the time{reason}")]


def _compared(ahead: float, host: str) -> Finding:
    if abs(ahead) <= MAX_DRIFT:
        return ok("clock", f"agrees with {host}")
    direction = "ahead of" if ahead > 0 else "behind"
    return warning(
        "clock",
        f"{abs(ahead):.0f} s {direction} {host}: signatures and tokens may be refused",
        "Synchronise it: timedatectl set-ntp true.",
    )


def _host(url: str) -> str:
    """With its port, and without a password."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2]
