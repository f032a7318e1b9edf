"""The name that the replaced image gives to :mod:`pipecat_base.bot.features`."""

from pipecat_base.bot.features import Feature, FeatureManager, FeatureStatus

__all__ = ["Feature", "FeatureManager", "FeatureStatus"]
