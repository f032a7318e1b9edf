"""Start the launcher: for images whose own CMD or ENTRYPOINT is ``python app.py``.

A project may copy its own app.py over this file. ``import app`` still finds the project's own module.
"""

import importlib.machinery
import importlib.util
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "/opt/pipecat-base/launch.py", *sys.argv[1:]])  # noqa: S606

elsewhere = [folder for folder in sys.path if os.path.abspath(folder) != HERE]
spec = importlib.machinery.PathFinder.find_spec(__name__, elsewhere)
if os.path.isdir(os.path.join(HERE, __name__)):  # a package without __init__.py, which this file would hide
    __path__ = [os.path.join(HERE, __name__)]
elif spec is not None:
    module = sys.modules[__name__] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
else:
    raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)
