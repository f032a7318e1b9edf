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
    assert found.body == {"name": "Ada"}
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
