"""Names that the platform has many of, and a gateway one."""

from __future__ import annotations

from datetime import UTC, datetime

HERE = "here"
"""The organization, the region, and the deployment."""


def iso(at: datetime) -> str:
    """Format a time as JavaScript does; the command line reads no other format."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
