"""Write the licenses of the packages that a lock has brought into a folder, as their authors ask for.

    write-notices.py OUTPUT --locks LOCK ... --folders FOLDER ...

Each package of a folder must be in one of the locks: what is shipped is what was locked.
"""

import argparse
import re
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

OURS = "pipecat-base"
LICENSE_FILES = re.compile(r"(^|/)(licen[cs]es?|copying|notice|authors|copyright)[^/]*(/[^/]+)*$", re.IGNORECASE)
RULE = "=" * 80


def main() -> None:
    """One section a package, by name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--locks", type=Path, nargs="+", required=True)
    parser.add_argument("--folders", nargs="+", required=True)
    options = parser.parse_args()
    locked = set().union(*map(pins, options.locks))
    found = sorted(distributions(path=options.folders), key=name)
    unknown = [pin(package) for package in found if pin(package) not in locked and name(package) != OURS]
    if unknown:
        raise SystemExit(f"write-notices: in no lock: {', '.join(unknown)}")
    sections = [section(package) for package in found if name(package) != OURS]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(f"What this image is made with, and under which licenses.\n{''.join(sections)}")


def pins(lock: Path) -> Iterator[str]:
    """``name==version`` of each line that begins a package."""
    for line in lock.read_text().splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", line)
        if match:
            yield f"{normalized(match[1])}=={match[2]}"


def section(package: Distribution) -> str:
    """Its name, its version, and the texts that came with it; without any, what it says of its license."""
    metadata = package.metadata
    said = metadata.get("License-Expression") or metadata.get("License") or ""
    classifiers = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    license_name = said.strip().splitlines()[0] if said.strip() else ", ".join(classifiers) or "not said"
    texts = [text.strip() for text in license_texts(package)]
    return "\n".join(["", RULE, f"{pin(package)}", f"License: {license_name}", RULE, "", *texts, ""])


def license_texts(package: Distribution) -> Iterator[str]:
    """Of the files beside its metadata, each once."""
    seen = set()
    for file in package.files or []:
        if ".dist-info/" in str(file) and LICENSE_FILES.search(str(file).partition(".dist-info")[2]):
            text = Path(str(file.locate())).read_text(encoding="utf-8", errors="replace")
            if text not in seen:
                seen.add(text)
                yield text


def pin(package: Distribution) -> str:
    """As a lock has it."""
    return f"{name(package)}=={package.version}"


def name(package: Distribution) -> str:
    """As a lock has it."""
    return normalized(package.metadata["Name"])


def normalized(text: str) -> str:
    """As the package index compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", text).lower()


main()
