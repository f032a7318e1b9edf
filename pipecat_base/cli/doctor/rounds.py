"""Checks at once, within a bound. They block, each in a thread of its own: a resolver that hangs holds nobody up."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipecat_base.cli.doctor.findings import Finding, not_checked


@dataclass(frozen=True)
class Check:
    """Something to look at.

    Attributes:
        name: What its findings are called.
        look: Finds out. May block, and may raise.
    """

    name: str
    look: Callable[[], Sequence[Finding]]


def run(checks: Sequence[Check], within: float) -> list[Finding]:
    """What all of them found, in their order.

    Args:
        within: Seconds. A check that takes longer is given up, and its thread left behind.
    """
    answers: queue.SimpleQueue[tuple[int, Sequence[Finding]]] = queue.SimpleQueue()

    def look(number: int, check: Check) -> None:
        answers.put((number, _look(check)))

    for number, check in enumerate(checks):
        threading.Thread(target=look, args=(number, check), name=check.name, daemon=True).start()
    found: dict[int, Sequence[Finding]] = {}
    deadline = time.monotonic() + within
    while len(found) < len(checks):
        try:
            number, findings = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        found[number] = findings
    late = f"it took longer than {within:g} s"
    return [
        finding for number, check in enumerate(checks) for finding in found.get(number, [not_checked(check.name, late)])
    ]


def _look(check: Check) -> Sequence[Finding]:
    try:
        return check.look()
    except Exception as error:
        # Its words may hold what was sent: a key.
        return [not_checked(check.name, f"an unexpected {type(error).__name__}")]
