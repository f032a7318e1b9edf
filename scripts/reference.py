"""Writes what docs/reference has from the code, between its markers.

``python scripts/reference.py``; with ``--check`` it only says which pages are not current.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pipecat_base.cli import main as cli
from pipecat_base.cli import usage
from pipecat_base.config import reference
from pipecat_base.errors import refusals
from pipecat_base.server.websocket import CLOSES
from pipecat_base.sessions.outcome import CLOSE_CODES, MEANINGS
from pipecat_base.telemetry.call_report import FIELDS
from pipecat_base.telemetry.events import EVENT_KINDS, Check, ListOf, Object
from pipecat_base.telemetry.metrics import Metrics

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
BLOCK = re.compile(r"(<!-- made by make reference: (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
TYPES = {"text": "text", "transcript": "text", "number": "number", "truth": "true or false"}


def exit_statuses() -> Iterator[str]:
    """Every exit status."""
    rows = [(status, f"`{code}`" if code else "-", meaning) for status, code, meaning in cli.exit_statuses()]
    yield table(("status", "code", "meaning"), rows)


def refused() -> Iterator[str]:
    """Every refusal."""
    yield table(
        ("status", "code", "Retry-After", "meaning", "what to do"),
        [(r.status, f"`{r.code}`", r.retry_after or "", r.meaning, r.advice) for r in refusals()],
    )


def outcomes() -> Iterator[str]:
    """Every outcome of a session."""
    yield table(("outcome", "meaning"), [(f"`{outcome.value}`", text) for outcome, text in MEANINGS.items()])


def close_codes() -> Iterator[str]:
    """Every close code, with all its reasons."""
    reasons: dict[int, list[str]] = {}
    for code, reason in (*CLOSE_CODES.values(), *CLOSES.items()):
        reasons.setdefault(code, []).append(reason)
    yield table(("code", "reason"), [(code, "; or ".join(found)) for code, found in sorted(reasons.items())])


def commands() -> Iterator[str]:
    """Every command with its options."""
    for name, parser in cli.commands().items():
        actions = [action for action in parser._actions if action.dest != "help" and action.help != argparse.SUPPRESS]
        words = [f"[{_invocation(a)}]" if a.option_strings or a.nargs == "?" else _invocation(a) for a in actions]
        yield f"## {name}\n\n{parser.description}"
        yield f"```text\n{' '.join([f'pipecat-base {name}', *words])}\n```"
        rows = [(f"`{_invocation(a)}`", (a.help or "") % {"default": a.default}) for a in actions]
        yield table(("argument", "meaning"), rows)
        yield f"```text\n{usage.COMMANDS[name].text()}\n```"


def _invocation(action: argparse.Action) -> str:
    if not action.option_strings:
        return str(action.metavar)
    value = "" if action.nargs == 0 else f" {action.metavar or '|'.join(action.choices or [action.dest.upper()])}"
    return f"{action.option_strings[-1]}{value}"


def metrics() -> Iterator[str]:
    """Every metric."""
    for metric in Metrics().listed():
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        yield f"## {metric.name}\n\n{metric.meaning}."
        unit = f", {metric.unit}" if metric.unit else ""
        yield f"*{metric.kind.capitalize()}{unit}. Labels: {labels}.*"
        if metric.when_bad:
            yield f"**When it is bad.** {metric.when_bad}"


def events() -> Iterator[str]:
    """Every fact that is published."""
    return _events(published=True)


def internal_events() -> Iterator[str]:
    """Every other fact."""
    return _events(published=False)


def _events(*, published: bool) -> Iterator[str]:
    for name, kind in EVENT_KINDS.items():
        if kind.is_published is published:
            content = " Holds what was said: `PCC_EXCLUDE_CONTENT=true` keeps it back." if kind.has_content else ""
            yield f"### {name}\n\n{kind.meaning}.{content}"
            yield "\n".join(_fields(kind.fields))


def _fields(checks: Mapping[str, Check], indent: str = "") -> Iterator[str]:
    for name, check in checks.items():
        if isinstance(check, Object | ListOf):
            yield f"{indent}- `{name}`: {'an object' if isinstance(check, Object) else 'a list of objects'}"
            yield from _fields(check.fields, f"{indent}    ")
        else:
            yield f"{indent}- `{name}`: {TYPES[check.__name__]}"


def report() -> Iterator[str]:
    """Every field of a report."""
    yield table(("field", "meaning"), [(f"`{name}`", text) for name, text in FIELDS.items()])


def variables() -> Iterator[str]:
    """Every setting."""
    yield reference.markdown()


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """In GitHub-flavoured Markdown."""
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


MADE: tuple[Callable[[], Iterator[str]], ...] = (
    exit_statuses,
    refused,
    outcomes,
    close_codes,
    commands,
    metrics,
    events,
    internal_events,
    report,
    variables,
)


def current(page: str) -> str:
    """The page, with its blocks made anew."""
    makers = {maker.__name__: maker for maker in MADE}
    return BLOCK.sub(lambda m: "\n\n".join([m[1].rstrip(), *makers[m[2]](), m[3]]), page)


def main() -> int:
    """Write the pages; 1 where one was not current."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    is_check = parser.parse_args().check
    pages = {path: path.read_text() for path in sorted(FOLDER.glob("*.md"))}
    stale = [path for path, page in pages.items() if current(page) != page]
    for path in stale:
        print(f"docs/reference/{path.name} {'is not current: make reference' if is_check else 'is written'}")
        if not is_check:
            path.write_text(current(pages[path]))
    return int(is_check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
