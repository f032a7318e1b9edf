"""Parameters of paths that only the OpenAPI document needs: whom they name is checked for all routes at once."""

from __future__ import annotations

from typing import Any

from fastapi import Depends


async def _agent(agent: str) -> None: ...


async def _organization(organization: str) -> None: ...


_DECLARED = {"{agent}": Depends(_agent), "{organization}": Depends(_organization)}


def parameters(path: str) -> list[Any]:
    """The dependencies by which a route declares them."""
    return [declared for name, declared in _DECLARED.items() if name in path]
