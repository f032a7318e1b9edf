"""Path parameters declared for OpenAPI only; the agent's name is checked by a shared dependency."""

from __future__ import annotations

from typing import Any

from fastapi import Depends


async def _agent(agent: str) -> None: ...


async def _organization(organization: str) -> None: ...


_DECLARED = {"{agent}": Depends(_agent), "{organization}": Depends(_organization)}


def parameters(path: str) -> list[Any]:
    return [declared for name, declared in _DECLARED.items() if name in path]
