"""The routes of a pod, a module each, and the parsing of requests."""
