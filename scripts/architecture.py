"""Check that the rooms of the package import only rooms below them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "pipecat_base"
FLOORS = (
    ("cli",),
    ("launcher",),
    ("gateway",),
    ("api",),
    ("bot", "workers"),
    ("auth",),
    ("server",),
    ("telemetry",),
    ("sessions",),
    ("logs",),
    ("config",),
    ("errors",),
)
"""The rooms of the package, from the top. A room imports only rooms on lower floors."""
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def main(root: Path) -> int:
    """Print each problem as ``path:line: text``; the exit status is 1 when there are any."""
    problems: list[str] = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        tree = ast.parse(path.read_text())
        problems += (f"{path}:{line}: {text}" for line, text in _problems(path.relative_to(root / PACKAGE), tree))
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


def _problems(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    room = path.parts[0].removesuffix(".py")
    for node in ast.walk(tree):
        for imported in _imports(node):
            if room in FLOOR_OF and imported != room and FLOOR_OF[imported] <= FLOOR_OF[room]:
                yield node.lineno, f"{room} imports {imported}, which does not stand below it"


def _imports(node: ast.AST) -> Iterator[str]:
    """Names of the rooms from which this statement imports."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    for name in names:
        package, _, rest = name.partition(".")
        room = rest.partition(".")[0]
        if package == PACKAGE and room in FLOOR_OF:
            yield room


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path()))
