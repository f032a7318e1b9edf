"""Missing credentials of phone providers, and the advice about them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pipecat_base.bot import dev_credentials
from pipecat_base.bot.dev_credentials import PROVIDERS

TWILIO = next(credentials for credentials in PROVIDERS if credentials.provider == "Twilio")


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({}, ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"]),
        ({"TWILIO_ACCOUNT_SID": "AC1", "TWILIO_AUTH_TOKEN": " "}, ["TWILIO_AUTH_TOKEN"]),
        ({"TWILIO_AUTH_TOKEN": "t"}, ["TWILIO_ACCOUNT_SID"]),
        ({"TWILIO_ACCOUNT_SID": "AC1", "TWILIO_AUTH_TOKEN": "t"}, []),
        ({"TWILIO_ACCOUNT_SID": "AC1", "TWILIO_API_KEY": "SK1", "TWILIO_API_SECRET": "s"}, []),
    ],
)
def test_what_is_unset_or_empty_is_missing_and_an_api_key_is_as_good_as_a_token(
    variables: Mapping[str, str], missing: list[str]
) -> None:
    assert TWILIO.missing(variables) == missing


@pytest.mark.parametrize("error", [ValueError("wrong"), RuntimeError("auto_hang_up"), ValueError("auto_hang_up is on")])
def test_other_failures_get_no_advice(error: Exception) -> None:
    try:
        raise error
    except Exception as raised:
        assert dev_credentials.advice(raised) is None
