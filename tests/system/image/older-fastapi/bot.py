"""The Session API with an older fastapi of the project's own."""

import fastapi
import starlette

from pipecatcloud_system import app


@app.get("/versions")
async def versions():
    return {package.__name__: [package.__version__, package.__file__] for package in (fastapi, starlette)}


async def bot(args): ...
