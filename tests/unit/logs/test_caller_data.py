"""Every log line that the installed pipecat may write of its callers, found in its source."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipecat_base.logs.caller_data import HARMLESS, LEVELS, MODULES, UNKNOWN, shown

PLANTED = "+4930111222333"


def sources() -> Iterator[tuple[str, Path]]:
    spec = importlib.util.find_spec("pipecat")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(spec.submodule_search_locations[0])
    for path in sorted(root.rglob("*.py")):
        name = ".".join(("pipecat", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        if f"{name}.".startswith(MODULES) or name.startswith(MODULES):
            yield name, path


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "logger"
            and node.args
        ):
            yield node


def test_no_line_shows_a_value_that_is_not_known_to_be_harmless() -> None:
    seen = 0
    for _, path in sources():
        for call in calls(path):
            message = call.args[0]
            if isinstance(message, ast.JoinedStr):
                said = ""
                for part in message.values:
                    if isinstance(part, ast.Constant):
                        said += str(part.value)
                    elif isinstance(part, ast.FormattedValue):
                        harmless = HARMLESS.fullmatch(ast.unparse(part.value))
                        said += "fine" if harmless else PLANTED
                found = shown(str(path), call.lineno, said)
                assert PLANTED not in found, f"{path}:{call.lineno}"
                # What is known is still said.
                if PLANTED not in said and len(call.args) == 1 and call.end_lineno - call.lineno < 20:  # type: ignore[operator]
                    assert found == said, f"{path}:{call.lineno}"
                seen += 1
            elif not isinstance(message, ast.Constant):
                assert PLANTED not in shown(str(path), call.lineno, PLANTED)
    assert seen > 100


@pytest.mark.parametrize(
    ("source", "message", "expected"),
    [
        ('logger.debug(f"To {number}")', "To 123", "To <number>"),
        ('logger.debug(f"{self}: {code} - {text} ({state})")', "X: 1 - a (b) c", "X: 1 - <text> (<state>)"),
        ('logger.info("Connected")', "Connected", "Connected"),
        ("logger.error(text)", "secret", "<text>"),
        ('logger.error("Body: {}", text)', "Body: secret", UNKNOWN),
        ('logger.error(f"a" f" {text}")', "a secret", "a <text>"),
        ("something_else()", "secret", UNKNOWN),
        ('log = logger.debug\nlog(f"{text}")', "secret", UNKNOWN),
        ('logger.debug(f"{state} then {text}")', "unlike the source", f"{UNKNOWN} <text>"),
    ],
)
def test_a_line_shows_its_words(tmp_path: Path, source: str, message: str, expected: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(source + "\n")
    assert shown(str(path), source.count("\n") + 1, message) == expected


def test_a_line_without_its_source_shows_nothing() -> None:
    assert shown("/nowhere/module.py", 7, "secret") == UNKNOWN
