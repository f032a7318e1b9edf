"""Names that were meant to be others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

SHORTEST = 5
"""Letters: shorter names are near to too much."""


def nearest(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Of names that look misspelt, the known one that each is nearest to.

    That is one slip of a finger away, in a long one two; capitals and ``_`` count for nothing.
    """
    by_letter: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for other in known:
        wanted = _fold(other)
        if len(wanted) >= SHORTEST:
            by_letter[wanted[0]].append((wanted, other))
    found = {}
    for name in names:
        folded = _fold(name)
        best: tuple[int, str] | None = None
        for wanted, other in by_letter.get(folded[:1], ()):
            most = 1 if len(wanted) < 2 * SHORTEST else 2
            if abs(len(folded) - len(wanted)) <= most:
                slips = _distance(folded, wanted)
                if slips <= most and (best is None or slips < best[0]):
                    best = slips, other
        if best is not None:
            found[name] = best[1]
    return found


def _fold(name: str) -> str:
    return name.lower().replace("_", "")


def _distance(left: str, right: str) -> int:
    """Letters to leave out, put in, change, or exchange with their neighbour (optimal string alignment)."""
    table = [list(range(len(right) + 1))]
    for i, a in enumerate(left, 1):
        row = [i]
        for j, b in enumerate(right, 1):
            cost = min(table[i - 1][j] + 1, row[j - 1] + 1, table[i - 1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, table[i - 2][j - 2] + 1)
            row.append(cost)
        table.append(row)
    return table[-1][-1]
