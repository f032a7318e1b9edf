"""What the fuzz tests share: values of every kind, and whether a time grows with a size."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
fuzz = settings(max_examples=EXAMPLES or 100, deadline=None, derandomize=not EXAMPLES)
"""The same hundred examples in each run; ``FUZZ_EXAMPLES=2000`` looks for new ones."""

ANY_TEXT = st.text(max_size=60)
WITH_SURROGATES = st.text(st.characters(exclude_categories=()), max_size=30)
"""JSON's escapes and the environment can hold half a surrogate pair."""
PRINTED = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60)
HEADER_VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=40)
"""As a header's value comes out of Latin-1."""

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | WITH_SURROGATES
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WITH_SURROGATES, inner, max_size=4),
    max_leaves=12,
)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of these fields, of the right kind or of any, and others."""
    some = {name: kind | JSON for name, kind in fields.items()}
    known = st.fixed_dictionaries({}, optional=some)
    return st.builds(lambda ours, others: {**others, **ours}, known, st.dictionaries(ANY_TEXT, JSON, max_size=2))


def connection(headers: dict[str, str] | None = None, query: bytes = b"", path: str = "/", **scope: Any) -> Any:
    """A request's head. Headers are Latin-1."""
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
    defaults = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "scheme": "http"}
    return HTTPConnection({**defaults, "query_string": query, "headers": raw, "server": ("127.0.0.1", 8080), **scope})


def grows_no_faster_than_its_input(step: Callable[[int], Any], size: int, *, times: int = 8) -> bool:
    """Whether ``times`` as much takes at most four ``times`` as long: what is quadratic takes ``times`` squared."""

    def cost(size: int) -> float:
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            step(size)
            best = min(best, time.process_time() - began)
        return best

    return any(cost(size * times) <= 4 * times * max(cost(size), 1e-4) for _ in range(3))
