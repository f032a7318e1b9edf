"""Write packages.json into the launcher's folder: what each package in it needs (read by pipecat_base.bot.packages)."""

import json
import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

OPERATORS = {">=", ">", "<=", "<", "==", "!=", "~="}


def main(site: str) -> None:
    """For the Python that runs this."""
    packages = {normalized(found.metadata["Name"]): entry(found) for found in distributions(path=[site])}
    relax(packages["pipecat-base"]["needs"], site)
    listed = {"python": "{}.{}".format(*sys.version_info), "packages": packages}
    (Path(site) / "packages.json").write_text(json.dumps(listed, sort_keys=True))


def entry(found: Distribution) -> dict[str, Any]:
    """One package."""
    needs: dict[str, list[tuple[str, list[int]]]] = {}
    for requirement in map(Requirement, found.requires or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needs.setdefault(normalized(requirement.name), []).extend(bounds(requirement))
    return {"version": found.version, "needs": needs}


def relax(needs: dict[str, list[tuple[str, list[int]]]], site: str) -> None:
    """Let a bot's older pins start: a security fix that they lack is a warning, not a conflict."""
    sys.path.append(site)
    from pipecat_base.bot.advisories import FIXES

    for name, fixes in FIXES.items():
        others = [bound for bound in needs[name] if bound[0] != ">="]
        needs[name] = [(">=", list(fixes.works_from)), *others]


def bounds(requirement: Requirement) -> list[tuple[str, list[int]]]:
    """In whole numbers, so that nothing has to parse them at the start; what cannot be told so fails the build."""
    found = []
    for specifier in requirement.specifier:
        if specifier.operator not in OPERATORS or not re.fullmatch(r"\d+(\.\d+)*", specifier.version):
            raise SystemExit(f"list-packages: {requirement}: cannot be checked")
        found.append((specifier.operator, [int(part) for part in specifier.version.split(".")]))
    return sorted(found, reverse=True)


def normalized(name: str) -> str:
    """As the package index compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


main(sys.argv[1])
