"""The loguru set-up, bot.jsonl, redaction and tracebacks."""
