"""Pipecat Cloud's API: an organization of one agent, in one region, with one deployment."""
