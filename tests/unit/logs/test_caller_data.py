"""Log lines that the installed pipecat may write about its callers."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from loguru import logger

from pipecat_base.logs.caller_data import HARMLESS, HIDDEN, MODULES, hide_caller_data, shown

PLANTED = "+4930111222333"
LEVELS = ("trace", "debug", "info", "success", "warning", "error", "exception", "critical", "log")


def sources() -> Iterator[Path]:
    spec = importlib.util.find_spec("pipecat")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(spec.submodule_search_locations[0])
    for path in sorted(root.rglob("*.py")):
        name = ".".join(("pipecat", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        if f"{name}.".startswith(MODULES) or name.startswith(MODULES):
            yield path


def functions(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from functions(constant)


def lines(path: Path) -> Iterator[tuple[CodeType, int, ast.expr]]:
    """Each call of the logger in a file: the function's code, the line and the message."""
    source = path.read_text()
    by_line: dict[int, CodeType] = {}
    for code in functions(compile(source, str(path), "exec")):
        by_line.update({line: code for _, _, line in code.co_lines() if line})
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "logger"
            and node.args
        ):
            yield by_line[node.lineno], node.lineno, node.args[0]


def test_no_line_of_pipecats_shows_a_value_that_is_not_known_to_be_harmless() -> None:
    seen = 0
    for path in sources():
        for code, line, message in lines(path):
            where = f"{path}:{line}"
            if isinstance(message, ast.Constant):
                assert shown(str(message.value), code) == message.value, where
            elif isinstance(message, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else PLANTED for p in message.values]
                found = shown("".join(map(str, parts)), code)
                assert PLANTED not in found, where
                words = [part for part in parts if part != PLANTED and re.search(r"\w\W|\W\w", str(part))]
                assert all(str(part) in found for part in words), where
                seen += 1
            else:
                assert PLANTED not in shown(PLANTED, code), where
    assert seen > 100


def log(source: str, **variables: Any) -> str:
    """The message that a module of pipecat's logs with this source."""
    messages: list[str] = []
    patched = logger.patch(hide_caller_data)
    sink = logger.add(lambda message: messages.append(message.record["message"]), level=0, format="{message}")
    body = "".join(f"    {line}\n" for line in source.splitlines())
    scope: dict[str, Any] = {"logger": patched, "__name__": "pipecat.runner.planted"}
    try:
        exec(compile(f"def function({', '.join(variables)}):\n{body}", "planted.py", "exec"), scope)
        scope["function"](**variables)
    finally:
        logger.remove(sink)
    return messages[0]


class Transport:
    _session_id = "3f-1"

    def __str__(self) -> str:
        return "Transport#0"


@pytest.mark.parametrize(
    ("source", "variables", "expected"),
    [
        ('logger.debug(f"To {number}")', {"number": "123"}, f"To {HIDDEN}"),
        ('logger.debug(f"To {number} from {number}.")', {"number": "123"}, f"To {HIDDEN} from {HIDDEN}."),
        ('logger.info("Connected")', {}, "Connected"),
        ("logger.error(text)", {"text": "secret"}, HIDDEN),
        ('text = "Daily is not installed"\nlogger.error(text)', {}, "Daily is not installed"),
        ('logger.error("Body: {}", text)', {"text": "secret"}, HIDDEN),
        ('logger.error(f"Body:"\n  f" {text}")', {"text": "secret"}, f"Body: {HIDDEN}"),
        ('log = logger.debug\nlog(f"Body: {text}")', {"text": "secret"}, f"Body: {HIDDEN}"),
        ('logger.opt(depth=0).debug(f"Body: {text}")', {"text": "secret"}, f"Body: {HIDDEN}"),
        (
            'logger.debug(f"{self}: {code} - {text}")',
            {"self": Transport(), "code": 1, "text": "a"},
            f"Transport#0: 1 - {HIDDEN}",
        ),
        (
            'logger.debug(f"State of {self._session_id} is {state}")',
            {"self": Transport(), "state": "open"},
            "State of 3f-1 is open",
        ),
        ('logger.debug(f"Form: {form}")', {"form": {"From": "+49", "To": "a b"}}, f"Form: {HIDDEN}"),
        ('digit == "#"\nlogger.debug(f"Digit: {digit}")', {"digit": "#"}, f"Digit: {HIDDEN}"),
    ],
)
def test_a_line_shows_its_words_and_harmless_values(source: str, variables: dict[str, Any], expected: str) -> None:
    assert log(source, **variables) == expected


def test_a_value_that_cannot_be_read_hides_the_line() -> None:
    class Broken:
        def __str__(self) -> str:
            raise ValueError

    assert log('logger.debug(f"{text}: {self!r}")', text="secret", self=Broken()) == HIDDEN


def test_lines_of_other_modules_are_left_alone() -> None:
    patched: dict[str, Any] = {"name": "bot", "message": "secret"}
    hide_caller_data(patched)  # type: ignore[arg-type]
    assert patched["message"] == "secret"


def test_harmless_values_are_named_by_paths() -> None:
    assert all(re.fullmatch(r"\w+(\.\w+)*", path) for path in HARMLESS)
    assert len(set(HARMLESS)) == len(HARMLESS)
