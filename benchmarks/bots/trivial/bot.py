"""Ends at once; with a socket, when the client leaves."""


async def bot(args):
    websocket = getattr(args, "websocket", None)
    if websocket is not None:
        async for message in websocket.iter_bytes():
            await websocket.send_bytes(message)
