"""Has Krisp's filter wherever it runs: its SDK is there only where the platform mounts it."""

from parts import talk
from pipecat.audio.filters.krisp_viva_filter import KrispVivaFilter
from pipecat.runner.types import DailyRunnerArguments
from pipecat.transports.daily.transport import DailyParams, DailyTransport


async def bot(args: DailyRunnerArguments):
    transport = DailyTransport(
        args.room_url,
        args.token,
        "Quiet",
        DailyParams(audio_in_enabled=True, audio_in_filter=KrispVivaFilter(), audio_out_enabled=True),
    )
    await talk(transport)
