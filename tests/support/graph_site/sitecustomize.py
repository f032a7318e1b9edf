"""For a launcher that is to call a Graph API of the test's: every process of it that imports pipecat's client."""

import importlib.util
import os
import sys
from typing import Any

MODULE = "pipecat.transports.whatsapp.api"


class Redirect:
    """Finds the module as everybody does, and changes its address once it is loaded."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            module.WhatsAppApi.BASE_URL = os.environ["GRAPH_URL"]

        spec.loader.exec_module = exec_module
        return spec


if "GRAPH_URL" in os.environ:
    sys.meta_path.insert(0, Redirect())
