"""A starlette that the launcher's fastapi cannot work with."""

from pipecatcloud_system import app  # noqa: F401


async def bot(args): ...
