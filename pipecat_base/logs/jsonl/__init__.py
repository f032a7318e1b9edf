"""``$PCC_LOG_DIR/bot.jsonl``: log lines and printed output as JSON lines; the tee process outlives a crash."""
