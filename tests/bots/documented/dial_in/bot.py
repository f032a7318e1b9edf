"""Answers a phone number of Daily's."""

from loguru import logger

from parts import talk
from pipecat.runner.types import DailyDialinRequest, RunnerArguments
from pipecat.transports.daily.transport import DailyDialinSettings, DailyParams, DailyTransport


async def bot(runner_args: RunnerArguments):
    request = DailyDialinRequest.model_validate(runner_args.body)
    call = DailyDialinSettings(
        call_id=request.dialin_settings.call_id, call_domain=request.dialin_settings.call_domain
    )
    if request.dialin_settings.From:
        logger.info(f"Rung up by {request.dialin_settings.From}")
    transport = DailyTransport(
        runner_args.room_url,
        runner_args.token,
        "Dial-in",
        DailyParams(
            api_key=request.daily_api_key,
            api_url=request.daily_api_url,
            dialin_settings=call,
            audio_in_enabled=True,
            audio_out_enabled=True,
        ),
    )

    @transport.event_handler("on_first_participant_joined")
    async def joined(transport, participant):
        logger.info("The caller is in the room")

    await talk(transport)


if __name__ == "__main__":
    from pipecat.runner.run import main

    main()
