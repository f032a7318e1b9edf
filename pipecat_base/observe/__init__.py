"""What operators see of calls: one stream of facts, and four readers: metrics, reports, events, traces."""
