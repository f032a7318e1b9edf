import contextlib

from pipecatcloud_system import add_lifespan_to_app


@contextlib.asynccontextmanager
async def lifespan(app):
    raise RuntimeError("no cache")
    yield


add_lifespan_to_app(lifespan)


async def bot(args): ...
