"""Chooses its transport with `match` over the kinds of arguments."""

from parts import talk
from pipecat.runner.types import (
    DailyRunnerArguments,
    RunnerArguments,
    SmallWebRTCRunnerArguments,
    WebSocketRunnerArguments,
)

BOTH_WAYS = {"audio_in_enabled": True, "audio_out_enabled": True}


async def bot(runner_args: RunnerArguments):
    match runner_args:
        case DailyRunnerArguments():
            from pipecat.transports.daily.transport import DailyParams, DailyTransport

            transport = DailyTransport(runner_args.room_url, runner_args.token, "Matched", DailyParams(**BOTH_WAYS))
        case SmallWebRTCRunnerArguments():
            from pipecat.transports.base_transport import TransportParams
            from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport

            transport = SmallWebRTCTransport(
                webrtc_connection=runner_args.webrtc_connection, params=TransportParams(**BOTH_WAYS)
            )
        case WebSocketRunnerArguments():
            from pipecat.serializers.protobuf import ProtobufFrameSerializer
            from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport

            transport = FastAPIWebsocketTransport(
                websocket=runner_args.websocket,
                params=FastAPIWebsocketParams(serializer=ProtobufFrameSerializer(), **BOTH_WAYS),
            )
    await talk(transport)


if __name__ == "__main__":
    from pipecat.runner.run import main

    main()
