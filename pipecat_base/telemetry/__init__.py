"""Events of sessions and what consumes them: metrics, reports, the event publisher."""
