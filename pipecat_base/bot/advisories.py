"""Security fixes of the packages that parse callers' bytes.

pyproject.toml requires those that every supported pipecat-ai can be installed with. In the image the bot's pins come
first: the launcher serves with a version that lacks a fix, and warns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from pipecat_base.bot.packages import Release, release_of, text_of


class Fixes(NamedTuple):
    """The oldest release that the launcher can use, and by advisory, oldest first, the first release with the fix."""

    works_from: Release
    released_in: Mapping[str, Release]


# fastapi, uvicorn and websockets have all known fixes in the oldest releases that the launcher can use.
FIXES: Mapping[str, Fixes] = {
    "h11": Fixes((0, 14), {"CVE-2025-43859": (0, 16)}),
    "python-multipart": Fixes(
        (0, 0, 18),
        {
            "CVE-2026-40347": (0, 0, 26),
            "CVE-2026-42561": (0, 0, 27),
            "CVE-2026-53537": (0, 0, 30),
            "CVE-2026-53538": (0, 0, 30),
            "CVE-2026-53539": (0, 0, 30),
            "CVE-2026-53540": (0, 0, 31),
        },
    ),
    "starlette": Fixes(
        (0, 41),
        {
            "CVE-2025-54121": (0, 47, 2),
            "CVE-2025-62727": (0, 49, 1),
            "CVE-2026-48710": (1, 0, 1),
            "CVE-2026-48817": (1, 1),
            "PYSEC-2026-248": (1, 3),
            "CVE-2026-54283": (1, 3, 1),
        },
    ),
}


def warnings(versions: Mapping[str, str], *, unused: Collection[str] = ()) -> list[str]:
    lines = []
    for name, fixes in FIXES.items():
        if name in versions and name not in unused:
            release = release_of(versions[name])
            missing = {advisory: fixed for advisory, fixed in fixes.released_in.items() if release < fixed}
            if missing:
                lines.append(
                    f"{name} {versions[name]} lacks the security fixes of {', '.join(missing)}:"
                    f" install {name}>={text_of(max(missing.values()))}"
                )
    return lines
