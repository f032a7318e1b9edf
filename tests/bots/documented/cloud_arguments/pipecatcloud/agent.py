"""Stands in for the package: its newer releases have pipecat's classes under these names."""

from pipecat.runner.types import DailyRunnerArguments as DailySessionArguments
from pipecat.runner.types import RunnerArguments as PipecatSessionArguments
from pipecat.runner.types import WebSocketRunnerArguments as WebSocketSessionArguments

__all__ = ["DailySessionArguments", "PipecatSessionArguments", "WebSocketSessionArguments"]
