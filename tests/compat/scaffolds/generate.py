"""Run ``pipecat init`` once for each list of arguments on standard input, which is JSON; importing it takes seconds."""

import json
import sys

from pipecat.cli.main import app

for arguments in json.load(sys.stdin):
    app(["init", *arguments], standalone_mode=False)
