"""The pages of the documentation, and the blocks in them.

A comment right before a block says how it is tried::

    <!-- not run: needs Docker -->            not at all, and why
    <!-- until: Ready -->                     until its output has this text; then it is stopped
    <!-- with: pipecat-base in page -->       while this runs; "page" is a folder with the bot that stands above
    <!-- at: . -->                            in this folder, and not in that of the other command

Of a Python block: ``<!-- part: why -->`` for one that is no whole bot though it looks like one, and
``<!-- file: tools.py -->`` for a file beside the bot.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.launchers import ROOT

BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
COMMENT = re.compile(r"^ *<!-- (?P<name>not run|until|with|at|part|file): (?P<value>[^\n]*) -->\s*\Z", re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """What stands between two fences.

    Attributes:
        line: Of its first fence.
        notes: What the comments before it say.
        before: The page up to it.
    """

    page: Path
    line: int
    language: str
    text: str
    notes: dict[str, str]
    before: int

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page that people read, as git knows them, and those that are new."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(path for name in listed.stdout.split() if (path := ROOT / name).exists())


def blocks(page: Path) -> list[Block]:
    """In their order."""
    content = page.read_text()
    found = []
    for match in BLOCK.finditer(content):
        notes: dict[str, str] = {}
        above = content[: match.start()]
        while (emit := COMMENT.search(above)) is not None:
            notes[emit["name"]] = emit["value"]
            above = above[: emit.start()]
        text = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        line = content.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match["language"], text, notes, match.start()))
    return found


def prose(page: Path) -> str:
    """The page without its blocks and code spans."""
    return re.sub(r"`[^`\n]*`", "", BLOCK.sub("", page.read_text()))


def links(page: Path) -> list[str]:
    """Those that lead to a place in this repository."""
    return [link for link in LINK.findall(prose(page)) if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and the site make them."""
    found: dict[str, int] = {}
    for heading in HEADING.findall(BLOCK.sub("", page.read_text())):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{number}" if number else slug for slug, last in found.items() for number in range(last + 1)}
