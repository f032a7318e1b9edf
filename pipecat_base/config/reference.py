"""The reference of all variables: docs/reference/settings.md, and ``pipecat-base settings``."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from pipecat_base.config.settings import SETTINGS_GROUPS, default_text


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    group: str
    variable: str
    default: str
    unit: str
    meaning: str


def table() -> list[Row]:
    """Every variable, in the order of :class:`~pipecat_base.config.settings.Settings`."""
    return [
        Row(
            group.title,
            field.metadata["name"],
            default_text(field.default),
            field.metadata["unit"],
            field.metadata["text"],
        )
        for group in SETTINGS_GROUPS.values()
        for field in group.variables()
    ]


def markdown() -> str:
    """Tables of GitHub-flavoured Markdown, below headings."""
    lines: list[str] = []
    group = None
    for row in table():
        if row.group != group:
            group = row.group
            lines += ["", f"## {group}", "", "| variable | default | unit | meaning |", "|---|---|---|---|"]
        default = f"`{row.default}`" if row.default else "-"
        lines.append(f"| `{row.variable}` | {default} | {row.unit} | {row.meaning} |")
    return "\n".join(lines).strip()


def as_json() -> str:
    """The table as a JSON array of objects."""
    return json.dumps([dataclasses.asdict(row) for row in table()], indent=2, ensure_ascii=False)
