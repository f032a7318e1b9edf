"""Its lifespan begins, its setup fails."""

import contextlib

from pipecatcloud_system import add_lifespan_to_app


@contextlib.asynccontextmanager
async def lifespan(app):
    print("begun", flush=True)
    yield
    print("left", flush=True)


add_lifespan_to_app(lifespan)


def setup():
    raise RuntimeError("no database")


async def bot(args): ...
