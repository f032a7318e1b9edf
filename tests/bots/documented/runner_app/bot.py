"""Adds a route to the application of pipecat's runner, which does not run here."""

from loguru import logger

from pipecat.runner.run import app, main
from pipecat.runner.types import RunnerArguments


@app.get("/healthz")
async def health():
    return {"status": "ok"}


async def bot(runner_args: RunnerArguments):
    logger.info(f"{runner_args.session_id} brought {runner_args.body}")


if __name__ == "__main__":
    main()
