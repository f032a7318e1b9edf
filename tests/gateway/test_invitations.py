from __future__ import annotations

from pipecat_base.gateway import invitations
from pipecat_base.gateway.invitations import Invitations


def test_an_invitation_is_good_until_its_time_is_over() -> None:
    now = [100.0]
    open_ones = Invitations(lifetime=300, clock=lambda: now[0])
    open_ones.invite("a", {"name": "Ada"})
    now[0] += 299
    found = open_ones.find("a")
    assert found is not None
    assert found.body == b'{"name": "Ada"}'
    now[0] += 2
    assert open_ones.find("a") is None
    assert open_ones.find("b") is None


def test_there_are_never_more_than_the_most() -> None:
    open_ones = Invitations(clock=lambda: 0.0)
    for number in range(invitations.MOST + 5):
        open_ones.invite(str(number), None)
    assert open_ones.find("4") is None
    assert open_ones.find("5") is not None
    assert open_ones.find(str(invitations.MOST + 4)) is not None


def test_their_bodies_never_take_more_than_the_largest() -> None:
    open_ones = Invitations(clock=lambda: 0.0)
    for number in range(10):
        open_ones.invite(str(number), "x" * (invitations.LARGEST // 4))
    assert [str(n) for n in range(10) if open_ones.find(str(n))] == ["7", "8", "9"]


def test_one_that_was_withdrawn_is_gone() -> None:
    open_ones = Invitations()
    open_ones.invite("a", None)
    assert open_ones.withdraw("a")
    assert open_ones.find("a") is None
    assert not open_ones.withdraw("a")
