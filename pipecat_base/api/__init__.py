"""One module for each route of a pod, and the parsing of requests."""
