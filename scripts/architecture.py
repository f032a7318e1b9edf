"""Check the shape of the package: imports between rooms, names of classes, and how docstrings begin."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
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
    ("http_client",),
    ("errors",),
)
"""The rooms of the package, from the top. A room imports only rooms on lower floors."""
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}
FORBIDDEN_OPENING = re.compile(
    r"(What|Who|Whose|Whom|Whether|Those|That|Of|One|It|Its|As|Where|Why|How|When|The same|Another)\b"
)


def main(root: Path) -> int:
    """Print each problem as ``path:line: text``; the exit status is 1 when there are any."""
    problems: list[str] = []
    classes: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted((root / PACKAGE).rglob("*.py")):
        tree = ast.parse(path.read_text())
        problems += (f"{path}:{line}: {text}" for line, text in _problems(path.relative_to(root / PACKAGE), tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(f"{path}:{node.lineno}")
    for name, places in classes.items():
        if len(places) > 1:
            problems.append(f"{places[0]}: class {name} is also defined at {', '.join(places[1:])}")
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


def _problems(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    room = path.parts[0].removesuffix(".py")
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and room in FLOOR_OF:
            for imported in _rooms(node):
                if imported != room and FLOOR_OF[imported] <= FLOOR_OF[room]:
                    yield node.lineno, f"{room} imports {imported}, which does not stand below it"
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            opening = FORBIDDEN_OPENING.match(ast.get_docstring(node) or "")
            if opening is not None:
                yield getattr(node, "lineno", 1), f'a docstring begins with "{opening.group()}"; name its subject'


def _rooms(statement: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Names of the rooms from which the statement imports."""
    names = [alias.name for alias in statement.names]
    if isinstance(statement, ast.ImportFrom):
        names = [f"{statement.module}.{name}" for name in names]
    for name in names:
        package, _, rest = name.partition(".")
        room = rest.partition(".")[0]
        if package == PACKAGE and room in FLOOR_OF:
            yield room


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path()))
