"""Sessions: the registry, slots, outcomes, transports, and the contract of a pod."""
