"""Start the launcher in the bot's environment: its packages come first, and what it lacks comes from the image."""

import sys

sys.path[0] = "/opt/pipecat-base/site"  # instead of this script's folder
sys.path.append(sys.path.pop(0))

from pipecat_base.cli import main  # noqa: E402

main()
