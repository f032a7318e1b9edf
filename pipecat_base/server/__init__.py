"""The listener, the HTTP and WebSocket protocols and their bounds, the event loop, signals, the lifecycle."""
