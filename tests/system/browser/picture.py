"""The picture of the page: ``python -m tests.browser.picture docs/page.png``."""

from __future__ import annotations

import sys

from tests.support.launchers import ROOT
from tests.system.browser.browser import drive, gateway, url


def main(path: str) -> None:
    with gateway() as launcher:
        speech = str(ROOT / "examples" / "speech.wav")
        drive("talk", url=url(launcher), microphone=speech, say="Can you hear me?", screenshot=path)


if __name__ == "__main__":
    main(sys.argv[1])
