"""Suggestions for misspelled names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

SHORTEST_SUGGESTION = 5
SHORT_NAME = 10
SHORT_NAME_CUTOFF, LONG_NAME_CUTOFF = 0.8, 0.85  # one wrong letter in a short name, two in a long one


def nearest(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """The known name that each misspelled name resembles; ignores case and ``_``, but not the first letter."""
    by_folded = {_fold(name): name for name in known}
    found = {}
    for name in names:
        folded = _fold(name)
        similar = [other for other in by_folded if other[:1] == folded[:1] and len(other) >= SHORTEST_SUGGESTION]
        cutoff = SHORT_NAME_CUTOFF if len(folded) < SHORT_NAME else LONG_NAME_CUTOFF
        for match in get_close_matches(folded, similar, n=1, cutoff=cutoff):
            found[name] = by_folded[match]
    return found


def _fold(name: str) -> str:
    return name.lower().replace("_", "")
