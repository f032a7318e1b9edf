"""The statement behind an import that failed."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True)
class ImportStatement:
    """``from module import names``; without names, ``import module``."""

    module: str
    names: tuple[str, ...] = ()

    @property
    def modules(self) -> list[str]:
        """Every module that it may mean, the longest first."""
        return [*(f"{self.module}.{name}" for name in self.names), self.module]


def statement_of(error: ImportError) -> ImportStatement:
    """The failing statement with the names that are missing, or the error's own text."""
    found = _written(error)
    name = re.match(r"cannot import name '(\w+)'", str(error))
    if name is None:
        return found
    module = error.name or ""
    has = vars(sys.modules[module]) if module in sys.modules else {}
    others = (other for other in found.names if other not in has and other != name[1])
    return ImportStatement(module, (name[1], *others))


def _written(error: ImportError) -> ImportStatement:
    file, line = _innermost(error.__traceback__)
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Import | ast.ImportFrom) and node.lineno <= line <= (node.end_lineno or line):
            names = tuple(alias.name for alias in node.names)
            if isinstance(node, ast.ImportFrom):
                return ImportStatement(node.module or "", names if names != ("*",) else ())
            return ImportStatement(next((n for n in names if n.startswith(error.name or "")), names[0]))
    return ImportStatement(error.name or "")


def _innermost(trace: TracebackType | None) -> tuple[str, int]:
    while trace is not None and trace.tb_next is not None:  # Python omits the frames of its import system
        trace = trace.tb_next
    return ("", 0) if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno)


def _parsed(file: str) -> ast.AST:
    try:
        return ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])
