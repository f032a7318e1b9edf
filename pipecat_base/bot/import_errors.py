"""Explain why the user's file did not import: the cause and a remedy, in one line each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pipecat_base.bot import installed
from pipecat_base.errors import BotExited, BotImportFailed, BotRaised, BotSyntaxError, DependencyMissing, StartupError
from pipecat_base.logs import tracebacks

# Packages that are installed under another name than they are imported.
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "daily": "daily-python",
    "dotenv": "python-dotenv",
    "google": "google-genai",
    "PIL": "pillow",
    "pipecat": "pipecat-ai",
    "yaml": "pyyaml",
}
SET_VARIABLE = "Set it: in .env beside the bot (pipecat-base dev), with docker run -e, or where the bot is deployed."


def explain(error: BaseException, file: Path) -> StartupError:
    project = str(file.parent)
    frames = tracebacks.users_frames(error.__traceback__, project)
    at = _line_of(frames) or file.name
    if isinstance(error, SyntaxError):
        return _syntax(error, file, frames)
    if isinstance(error, SystemExit):
        return BotExited(
            f"{at} called sys.exit({'' if error.code is None else repr(error.code)}) while it was imported.",
            'Move what runs to "async def bot(args)", or under if __name__ == "__main__".',
            frames=frames,
        )
    missing = next((e for e in _chain(error) if isinstance(e, ModuleNotFoundError) and e.name), None)
    extra = installed.missing_extra(missing) if missing is not None else None
    if missing is not None and extra is not None:
        package = f"{installed.PIPECAT}[{extra}]"
        return DependencyMissing(
            f"{at} needs the package {package}: pipecat is installed without {missing.name}.",
            f"Add {package} to requirements.txt or pyproject.toml and install again.",
            frames=frames,
        )
    if missing is not None and missing.name is not None:
        return _missing(missing.name, error, project, at, frames)
    if isinstance(error, ImportError):
        extra = installed.missing_extra(error)
        message, remedy = f"{error}", "Check that name and the installed version."
        if "relative import" in message:
            message = _one_line(error)
            instead = 'write "from helpers import x" instead of "from .helpers import x".'
            remedy = f"The bot's file is not in a package: {instead}"
        elif extra is not None:
            remedy = f"Add {installed.PIPECAT}[{extra}] to requirements.txt or pyproject.toml: it asks for what fits."
        return BotImportFailed(f"An import in {at} failed: {message}.", remedy, frames=frames)
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


def _syntax(error: SyntaxError, file: Path, frames: list[str]) -> StartupError:
    project = str(file.parent)
    source = error.filename or str(file)
    if not tracebacks.is_users(source, project):
        return BotImportFailed(
            f"An import in {_line_of(frames) or file.name} failed: {error.msg} ({source}, line {error.lineno}).",
            "That package does not support this Python; try another version of it.",
            frames=frames,
        )
    text = (error.text or "").strip()
    return BotSyntaxError(
        f"{os.path.relpath(source, project)}, line {error.lineno}: {error.msg}.",
        f"Fix that line: {text}",
        frames=frames,
    )


def _missing(name: str, error: BaseException, project: str, at: str, frames: list[str]) -> StartupError:
    top = name.partition(".")[0]
    is_own = os.path.isdir(os.path.join(project, top)) or os.path.isfile(os.path.join(project, f"{top}.py"))
    if "." in name and (is_own or installed.has(top)):
        return BotImportFailed(
            f"An import in {at} failed: {'your project' if is_own else f'the installed {top}'} has no module {name}.",
            "Check its name and that it was copied." if is_own else "Check its version.",
            frames=frames,
        )
    reason = "" if isinstance(error, ModuleNotFoundError) else f" ({_one_line(error)})"
    return DependencyMissing(
        f"{at} needs the package {DISTRIBUTIONS.get(top, top)}, which is not installed{reason}.",
        "Add it to requirements.txt or pyproject.toml and install again"
        " (if it is a file of yours, copy it beside the bot).",
        frames=frames,
    )


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
