"""A starlette that the launcher's fastapi can not work with."""

from pipecatcloud_system import app  # noqa: F401


async def bot(args): ...
