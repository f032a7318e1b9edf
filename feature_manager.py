"""The name that the replaced image gives to :mod:`pipecat_base.bot.features`."""

from pipecat_base.bot.features import Feature, FeatureManager, Status

__all__ = ["Feature", "FeatureManager", "Status"]
