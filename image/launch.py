"""Start the launcher in the bot's environment: its packages come first, and what it lacks comes from the image."""

import os
import sys

SITE = "/opt/pipecat-base/site"
# Where Pipecat Cloud mounts Krisp's SDK: as the package, or as the folder that holds it.
KRISP = ("/opt/krisp_viva/krisp_audio", "/krisp/python/pipecat_ai_krisp")

if __name__ == "__main__":  # and not in the processes that a bot spawns, which import this file too
    if sys.path[0] == os.path.dirname(__file__):
        del sys.path[0]
    for mounted in KRISP:
        if os.path.isdir(mounted):
            sys.path += [os.path.dirname(mounted), mounted]
    sys.path.append(SITE)

    from pipecat_base.cli.main import main

    main(site=SITE)
