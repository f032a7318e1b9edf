"""Commands that a person types: serve, dev, check, init, doctor, call, token, and what they print."""
