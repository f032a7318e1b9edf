"""``python -m pipecat_base``."""

import os
import sys

if __name__ == "__main__":  # and not in the processes that a bot spawns, which import this file too
    if sys.path[0] == os.getcwd():
        # Python has put it there. As with the installed command, a platform.py in it must not stand for Python's own.
        del sys.path[0]

    from pipecat_base.cli.main import main

    main()
