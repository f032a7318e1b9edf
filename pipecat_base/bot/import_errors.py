"""Explain why the user's file did not import: the cause and a remedy, in one line each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pipecat_base.bot import installed, project
from pipecat_base.errors import BotExited, BotImportFailed, BotRaised, BotSyntaxError, DependencyMissing, StartupError
from pipecat_base.logs import tracebacks

SET_VARIABLE = "Set it: in .env beside the bot (pipecat-base dev), with docker run -e, or where the bot is deployed."


def explain(error: BaseException, file: Path, root: str) -> StartupError:
    frames = tracebacks.users_frames(error.__traceback__, root)
    at = _line_of(frames) or file.name
    if isinstance(error, SyntaxError):
        return _syntax(error, file, root, frames)
    if isinstance(error, SystemExit):
        return BotExited(
            f"{at} called sys.exit({'' if error.code is None else repr(error.code)}) while it was imported.",
            'Move what runs to "async def bot(args)", or under if __name__ == "__main__".',
            frames=frames,
        )
    missing = next((e for e in _chain(error) if isinstance(e, ModuleNotFoundError) and e.name), None)
    if missing is not None:
        from pipecat_base.bot import missing_modules  # only needed here: a start should not wait for it

        reason = "" if isinstance(error, ModuleNotFoundError) else f" ({_one_line(error)})"
        searched = project.search_path(file, Path(root))
        return missing_modules.explain(missing, at=at, reason=reason, root=root, searched=searched, frames=frames)
    if isinstance(error, ImportError):
        return _import_failed(error, at, frames)
    variable = unset_variable(error)
    if variable is not None:
        return BotRaised(
            f"{at} reads the environment variable {variable}, which is not set.", SET_VARIABLE, frames=frames
        )
    text = _one_line(error)
    return BotRaised(
        f"{at} raised {type(error).__name__}{text and f': {text}'}.",
        "It ran while the file was imported; fix it, or move it into bot() or setup().",
        frames=frames,
    )


def unset_variable(error: BaseException) -> str | None:
    """The variable that a failed look-up in ``os.environ`` wanted; None for any other exception."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if not isinstance(error, KeyError) or trace is None or trace.tb_frame.f_code is not os.environ.__getitem__.__code__:
        return None
    return str(error.args[0]) if trace.tb_frame.f_locals.get("self") is os.environ else None


def _syntax(error: SyntaxError, file: Path, root: str, frames: list[str]) -> StartupError:
    source = error.filename or str(file)
    if not tracebacks.is_users(source, root):
        return BotImportFailed(
            f"An import in {_line_of(frames) or file.name} failed: {error.msg} ({source}, line {error.lineno}).",
            "That package does not support this Python; try another version of it.",
            frames=frames,
        )
    text = (error.text or "").strip()
    return BotSyntaxError(
        f"{os.path.relpath(source, root)}, line {error.lineno}: {error.msg}.",
        f"Fix that line: {text}",
        frames=frames,
    )


def _import_failed(error: ImportError, at: str, frames: list[str]) -> StartupError:
    from pipecat_base.bot import missing_modules, module_names, moved_names
    from pipecat_base.bot.import_statements import statement_of

    statement = statement_of(error)
    extra = installed.missing_extra(error)
    package = module_names.listed_package_of(statement, below=statement.module)
    if package is not None and extra is None:  # from google.cloud import speech
        return DependencyMissing(
            f"{at} needs the package {package}, which is not installed.",
            f"Add it {missing_modules.INSTALL}.",
            frames=frames,
        )
    message, remedy = f"{error}", "Check that name and the installed version."
    if "relative import" in message:
        message = _one_line(error)
        remedy = _absolute(at, frames)
    elif extra is not None:
        remedy = f"Add {installed.PIPECAT}[{extra}] to requirements.txt or pyproject.toml: it asks for what fits."
    elif statement.module.partition(".")[0] == "pipecat":
        message = message.partition(" (")[0]
        remedy = moved_names.advice(statement) or remedy
    return BotImportFailed(f"An import in {at} failed: {message}.", remedy, frames=frames)


def _absolute(at: str, frames: list[str]) -> str:
    """The remedy for an import that is relative in a file without a package."""
    line = frames[-1].partition(": ")[2] if frames else ""
    of_module = re.sub(r"^from \.+(?=\w)", "from ", line)
    instead = re.sub(r"^from \.+ import ", "import ", of_module)
    return f'{at.partition(":")[0]} is not in a package: write "{instead}" instead of "{line}".'


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and its causes: libraries wrap a missing module in an exception of their own."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _line_of(frames: list[str]) -> str | None:
    return ":".join(frames[-1].split(":")[:2]).split(" in ")[0] if frames else None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
