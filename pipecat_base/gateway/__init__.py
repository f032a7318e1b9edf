"""The gateway starts sessions, forwards requests to them, answers phone providers, checks keys, serves the page."""
