"""``python -m pipecat_base`` is the console script ``pipecat-base``."""

from pipecat_base.cli import main

if __name__ == "__main__":
    main()
