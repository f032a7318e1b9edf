"""Processes for calls: the pool, the fork server, messages between processes, socket handoff."""
