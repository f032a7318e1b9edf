"""Security fixes of the packages that parse callers' bytes.

pyproject.toml requires them, as far as each supported pipecat-ai can be installed beside them. In the image the bot's
pins come first: the launcher serves with a version that lacks a fix, and warns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pipecat_base.bot.packages import Release, release_of, text_of


@dataclass(frozen=True)
class Fixes:
    """Security fixes of one package.

    Attributes:
        works_from: The oldest release that the launcher can use.
        released_in: By advisory, the first release with the fix, the oldest first.
    """

    works_from: Release
    released_in: Mapping[str, Release]


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
"""By package. fastapi, uvicorn and websockets have all known fixes in the oldest releases that the launcher can use."""


def warnings(versions: Mapping[str, str], *, unused: Collection[str] = ()) -> list[str]:
    """One line for each package that lacks a security fix.

    Args:
        versions: By package, the version that is imported.
        unused: Packages that this start does not import.
    """
    return [
        f"{name} {versions[name]} lacks the security fixes of {', '.join(missing)}:"
        f" install {name}>={text_of(max(missing.values()))}"
        for name, fixes in FIXES.items()
        if name in versions and name not in unused
        if (missing := _missing(release_of(versions[name]), fixes))
    ]


def _missing(release: Release, fixes: Fixes) -> dict[str, Release]:
    return {advisory: fixed for advisory, fixed in fixes.released_in.items() if release < fixed}
