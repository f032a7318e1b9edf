"""Speaks a protocol of its own on its WebSocket."""

from loguru import logger

from pipecat.runner.types import WebSocketRunnerArguments


async def bot(args: WebSocketRunnerArguments):
    logger.info(f"{args.session_id} brought {args.body}")
    await args.websocket.send_text("Good morning")
    async for message in args.websocket.iter_text():
        await args.websocket.send_text(message.upper())
