"""pipecat-base: serve a Pipecat bot. The user writes ``bot.py``; this package does the rest."""

__version__ = "0.1.0"
LAUNCHER = f"pipecat-base/{__version__}"
