"""One file for each route: parse the request or refuse it, then run a session and answer with what it reports."""
