"""The token bucket of WebSocket frames and of workers' messages."""

from __future__ import annotations

from pipecat_base.server.rate_limit import RateLimit


def test_a_long_silence_allows_no_larger_burst() -> None:
    now = 0.0
    limit = RateLimit(5, clock=lambda: now)
    for _ in range(2):
        assert [limit.take() for _ in range(60)].count(True) == 50
        now += 3600


def test_units_come_back_at_the_rate() -> None:
    now = 0.0
    limit = RateLimit(5, clock=lambda: now)
    assert limit.take(50)
    assert not limit.take()
    now += 0.5
    assert limit.take(2)
    assert not limit.take()


def test_a_refused_request_uses_nothing() -> None:
    limit = RateLimit(5, clock=lambda: 0.0)
    assert not limit.take(51)
    assert limit.take(50)
    assert limit.take(0)
