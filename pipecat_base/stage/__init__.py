"""The only code that imports, calls and contains the user's ``bot.py``, and what it needs of pipecat and aiortc."""
