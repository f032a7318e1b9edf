"""What the documentation says is tried: ``make docs``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.launchers import PATIENCE, ROOT, environment, free_port, until
from tests.system.docs.pages import Block, anchors, blocks, links, pages

PAGES = pages()
BLOCKS = [block for page in PAGES for block in blocks(page)]
APART = {ROOT / "deploy" / "observability" / "README.md", ROOT / "benchmarks" / "README.md"}
"""They have tests of their own."""
SECONDS = 2
"""Of the recording that calls play."""
SHELL = [b for b in BLOCKS if b.language in ("sh", "bash") and "not run" not in b.notes and b.page not in APART]
PYTHON = [block for block in BLOCKS if block.language == "python"]
BOTS = [block for block in PYTHON if "async def bot(" in block.text and "part" not in block.notes]


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    dead = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_names_its_language(block: Block) -> None:
    assert block.language


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_json_parses(block: Block) -> None:
    for line in [block.text] if block.text.startswith("{\n") else block.text.splitlines():
        json.loads(line)


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml_parses(block: Block) -> None:
    list(yaml.safe_load_all(block.text))


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec", flags=0x2000)  # PyCF_ALLOW_TOP_LEVEL_AWAIT


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository, for commands to leave things in."""
    folder = tmp_path_factory.mktemp("docs") / "pipecat-base"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\n"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    with wave.open(str(ROOT / "examples" / "speech.wav")) as long:
        start = long.readframes(SECONDS * long.getframerate())
        with wave.open(str(folder / "examples" / "speech.wav"), "wb") as short:
            short.setparams(long.getparams())
            short.writeframes(start)
    # For make: this environment, so that it makes none.
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (folder / ".venv" / ".installed").touch()
    return folder


def bot_above(block: Block, folder: Path) -> Path:
    """A folder with the last bot that stands above the block, and the files beside it."""
    above = [b for b in PYTHON if b.page == block.page and b.before <= block.before]
    bots = [b for b in above if b in BOTS]
    slot = folder.parent / f"page-{block.page.stem}-{block.line}"
    slot.mkdir(exist_ok=True)
    shutil.copy(folder / "examples" / "speech.wav", slot)
    for beside in above:
        if "file" in beside.notes:
            (slot / beside.notes["file"]).write_text(beside.text)
    if bots:
        (slot / bots[-1].notes.get("file", "bot.py")).write_text(bots[-1].text)
    return slot


Ports = dict[str, int]
"""By those that the pages name."""


def free_ports() -> Ports:
    return {"8080": free_port(), "9464": free_port()}


def variables(ports: Ports) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return environment(PATH=path, PORT=str(ports["8080"]), PIPECAT_ISOLATION=None, PIPECAT_HOST="127.0.0.1")


def moved(text: str, ports: Ports) -> str:
    """To ports that nobody else uses."""
    return re.sub(rf"\b({'|'.join(ports)})\b", lambda match: str(ports[match[1]]), text)


@contextlib.contextmanager
def running(command: str, folder: Path, ports: Ports) -> Iterator[Path]:
    """A command in a group of its own; gives what it has written so far."""
    log = folder.parent / f"{time.monotonic_ns()}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["bash", "-euc", moved(command, ports)],
            cwd=folder,
            env=variables(ports),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield log
    finally:
        for sent, patience in ((signal.SIGINT, 2), (signal.SIGINT, 5), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                break


def wait_for(text: str, log: Path) -> None:
    until(lambda: re.search(text, log.read_text()), f"{text!r} in {log}", 2 * PATIENCE)


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_run(block: Block, copy: Path) -> None:
    ports = free_ports()
    folder = copy
    with contextlib.ExitStack() as stack:
        if "with" in block.notes:
            command, _, slot = block.notes["with"].rpartition(" in ")
            folder = bot_above(block, copy) if slot == "page" else copy / slot
            wait_for("Ready: |Uvicorn running", stack.enter_context(running(command, folder, ports)))
        elif any(b in BOTS for b in BLOCKS if b.page == block.page and b.before < block.before):
            folder = bot_above(block, copy)
        if "at" in block.notes:
            folder = copy / block.notes["at"]
        if "until" in block.notes:
            wait_for(block.notes["until"], stack.enter_context(running(block.text, folder, ports)))
            return
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", moved(block.text, ports)],
            cwd=folder,
            env=variables(ports),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", BOTS, ids=str)
def test_bots_are_fine(block: Block, copy: Path) -> None:
    folder = bot_above(block, copy)
    checked = subprocess.run(
        [sys.executable, "-m", "pipecat_base", "check"],
        cwd=folder,
        env=variables(free_ports()),
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert checked.returncode == 0, checked.stderr
    warnings = [line for line in checked.stdout.splitlines() if line.startswith("Warning")]
    # A bot for phones alone gets its calls from webhooks.
    assert not [line for line in warnings if "bot.py serves twilio, but a POST /start" not in line]
