"""Keys, tokens, signatures, origins: who may call which route."""
