"""Puts the pages of this repository, and what they link to, where MkDocs reads them: ``python scripts/pages.py``.

Each stays at its path, so that links lead where they lead on GitHub. With ``--check`` it looks for requests to other
hosts in the site that was made.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES, HTML = ROOT / ".site" / "pages", ROOT / ".site" / "html"
LINK = re.compile(r"\]\(([^()\s#]+)|(?:src|srcset)=\"([^\"]+)\"")
REQUEST = re.compile(
    r"<(?:script|img|iframe|source|link(?![^>]*rel=\"?(?:canonical|alternate|next|prev))[^>]*)\b"
    r"[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>"
)


def lay_out() -> None:
    """Every page that git knows, or will know, and the files of this repository that they name."""
    shutil.rmtree(PAGES, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for page in (ROOT / name for name in listed.stdout.split() if (ROOT / name).exists()):
        named = {page.parent / (link or image) for link, image in LINK.findall(page.read_text())}
        for path in {page, *(path.resolve() for path in named if path.is_file())}:
            target = PAGES / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def requests_elsewhere() -> list[str]:
    """Tags of the site that would load something from another host."""
    return [
        f"{page.relative_to(HTML)}: {tag}" for page in HTML.rglob("*.html") for tag in REQUEST.findall(page.read_text())
    ]


def main() -> int:
    """Lay the pages out, or check what was made of them."""
    if sys.argv[1:] != ["--check"]:
        lay_out()
        return 0
    found = requests_elsewhere()
    print("\n".join(found) or f"{len(list(HTML.rglob('*.html')))} pages in {HTML.relative_to(ROOT)}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
