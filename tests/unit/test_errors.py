"""Refusals, as another process describes them."""

from __future__ import annotations

from typing import Any

import pytest

from pipecat_base.errors import Draining, FlowUnusable, Refusal, UnknownSession, refusal_from, refusals


@pytest.mark.parametrize("kind", refusals())
@pytest.mark.parametrize("field", [None, "body"])
@pytest.mark.parametrize("session_id", [None, "s"])
def test_any_refusal_is_the_same_in_another_process(kind: type[Refusal], field: str | None, session_id: Any) -> None:
    sent = {"code": kind.code, "message": "Why.", "session_id": session_id, "field": field}
    refusal = refusal_from({"error": sent})
    assert type(refusal) is kind
    assert (str(refusal), refusal.message, refusal.field, refusal.session_id) == ("Why.", "Why.", field, session_id)
    assert refusal_from(refusal.body()) is not None
    assert refusal.body()["error"] == {name: value for name, value in sent.items() if value or name != "field"}
    assert refusal.headers("x")
    assert refusal.log_text()


@pytest.mark.parametrize("refusal", [UnknownSession("s"), FlowUnusable("a secret", session_id="s"), Draining("Now.")])
def test_a_refusal_is_told_to_its_caller_as_in_the_process_that_made_it(refusal: Refusal) -> None:
    again = refusal_from(refusal.body())
    assert again is not None
    assert again.body() == refusal.body()
    assert "secret" not in again.log_text()


def test_a_refusal_without_text_has_none() -> None:
    refusal = refusal_from({"error": {"code": "draining"}})
    assert isinstance(refusal, Draining)
    assert (refusal.message, refusal.field, refusal.session_id) == ("", None, None)


@pytest.mark.parametrize(
    "body",
    [
        None,
        5,
        "draining",
        [],
        {},
        {"error": None},
        {"error": "draining"},
        {"error": ["draining"]},
        {"error": {}},
        {"error": {"code": None}},
        {"error": {"code": ["draining"]}},
        {"error": {"code": "unheard_of"}},
        {"error": {"code": "Draining"}},
        {"detail": {"code": "draining"}},
    ],
)
def test_anything_else_is_no_refusal(body: Any) -> None:
    assert refusal_from(body) is None


@pytest.mark.parametrize("value", [5, ["x"], {"x": 1}, True])
def test_fields_of_another_type_are_texts(value: Any) -> None:
    sent = {"code": "draining", "message": value, "field": value, "session_id": value}
    refusal = refusal_from({"error": sent})
    assert refusal is not None
    assert {refusal.message, refusal.field, refusal.session_id} == {str(value)}
