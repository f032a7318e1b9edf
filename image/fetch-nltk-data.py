"""Fetch the data that nltk needs to end sentences, for bots on pipecat-ai < 1.12: punkt_tab, into DESTINATION.

    fetch-nltk-data.py MODE URL SHA256 DESTINATION

MODE: ``no``; ``optional``, where a failure is told and the build goes on; ``required``, where it ends the build.
"""

import hashlib
import http.client
import io
import sys
import urllib.request
import zipfile
from pathlib import Path

PATIENCE = 30
"""Seconds for each answer of the network."""


def main(mode: str, url: str, sha256: str, destination: str) -> int:
    """The exit status."""
    folder = Path(destination) / "tokenizers"
    folder.mkdir(parents=True)
    if mode == "no":
        return 0
    if mode not in ("optional", "required"):
        print(f"nltk data: NLTK_DATA is {mode}; it is one of no, optional, required", file=sys.stderr)
        return 2
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:  # noqa: S310
            content = answer.read()
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise ValueError(f"its SHA-256 is {found}, not {sha256}")
        zipfile.ZipFile(io.BytesIO(content)).extractall(folder)
    except (OSError, ValueError, http.client.HTTPException, zipfile.BadZipFile) as error:
        print(f"nltk data: {url} is not in this image: {error}", file=sys.stderr)
        return 1 if mode == "required" else 0
    print("nltk data: punkt_tab is in this image")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
