"""A bot's modules are found wherever ``python -m`` and uvicorn find them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launchers import PATIENCE, Launcher, environment, until

COMMAND = str(Path(sys.executable).with_name("pipecat-base"))
"""Unlike ``python -m pipecat_base``, it does not put the working directory on the path."""
BOT = "async def bot(args):\n    print('common', WHERE, flush=True)\n"


def check(folder: Path, bot: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "check", *options],
        cwd=folder,
        env=environment(PIPECAT_BOT=bot),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.mark.parametrize(
    ("bot", "files"),
    [
        ("src/bot.py", {"src/bot.py": "import common\n", "common/__init__.py": ""}),
        ("src/bot.py", {"src/bot.py": "import common\n", "common.py": ""}),
        ("src/bot.py", {"src/bot.py": "import common.one\n", "common/one.py": ""}),
        ("src/bot.py", {"src/bot.py": "from src.helpers import x\n", "src/helpers.py": "x = 1\n"}),
        ("src/bot.py", {"src/bot.py": "from helpers import x\n", "src/helpers.py": "x = 1\n"}),
        ("src/bot.py", {"src/bot.py": "from .helpers import x\n", "src/helpers.py": "x = 1\n"}),
        ("src/bot.py", {"src/bot.py": "from . import helpers\n", "src/helpers.py": ""}),
        ("src/sales/bot.py", {"src/sales/bot.py": "from sales.x import y\n", "src/sales/x.py": "y = 1\n"}),
        ("src/sales/bot.py", {"src/sales/bot.py": "import shared\n", "src/shared/__init__.py": ""}),
        (
            "src/sales/bot.py",
            {
                "src/sales/__init__.py": "",
                "src/sales/bot.py": "from .x import y\nfrom sales import x\nassert x.imports == [1]\n",
                "src/sales/x.py": "y = 1\nimports = []\nimports.append(1)\n",
            },
        ),
        (
            "agents/sales/bot.py",
            {"agents/sales/bot.py": "from ..common import x\n", "agents/common.py": "x = 1\n"},
        ),
        (
            "agents/sales/bot.py",
            {
                "agents/sales/__init__.py": "",
                "agents/sales/bot.py": "from ..common import x\n",
                "agents/common.py": "x = 1\n",
            },
        ),
        ("bot.py", {"bot.py": "from .helpers import x\n", "__init__.py": "", "helpers.py": "x = 1\n"}),
        ("bot.py", {"bot.py": "import helpers, bot\n", "__init__.py": "1 / 0\n", "helpers.py": ""}),
        ("a/bot.py", {"a/bot.py": '"""Counts\nfrom ... to\n"""\nimport x\n', "a/__init__.py": "1 / 0\n", "a/x.py": ""}),
        (
            "pkg/bot.py",
            {"pkg/__init__.py": "from .bot import bot\n", "pkg/bot.py": "from .x import y\n", "pkg/x.py": "y = 1\n"},
        ),
    ],
)
def test_what_python_and_uvicorn_find_is_found(tmp_path: Path, bot: str, files: dict[str, str]) -> None:
    write(tmp_path, files)
    with (tmp_path / bot).open("a") as file:
        file.write("async def bot(args): ...\n")
    result = check(tmp_path, bot)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_package_is_found_from_another_working_directory(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "app/sales/__init__.py": "",
            "app/sales/x.py": "y = 1\n",
            "app/sales/bot.py": "from .x import y\nfrom sales.x import y\nasync def bot(args): ...\n",
        },
    )
    (tmp_path / "elsewhere").mkdir()
    assert check(tmp_path / "elsewhere", "../app/sales/bot.py").returncode == 0


def test_an_installed_package_with_the_folders_name_stays_what_it_is(tmp_path: Path) -> None:
    bot = "import loguru\nfrom loguru import logger\nfrom helpers import x\nasync def bot(args): ...\n"
    write(tmp_path, {"loguru/bot.py": bot, "loguru/helpers.py": "x = 1\n"})
    assert check(tmp_path, "loguru/bot.py").returncode == 0
    write(tmp_path, {"loguru/bot.py": "from .helpers import x\nasync def bot(args): ...\n"})
    assert 'is not in a package: write "from helpers import x"' in check(tmp_path, "loguru/bot.py").stderr


@pytest.mark.parametrize(
    ("files", "status", "line"),
    [
        (
            {"bot.py": "import tools\n", "backend/tools.py": ""},
            14,
            "bot.py:1 imports tools, which is not found. Your project has backend/tools.py: write backend.tools, or set"
            " PYTHONPATH=backend.",
        ),
        (
            {"bot.py": "from sales.x import y\n", "src/sales/x.py": ""},
            14,
            "bot.py:1 imports sales, which is not found. Your project has src/sales: write src.sales, or set"
            " PYTHONPATH=src.",
        ),
        (
            {"bot.py": "import Helpers\n", "helpers.py": ""},
            14,
            "bot.py:1 imports Helpers, which is not found. Your project has helpers.py: write helpers, in the same"
            " letters.",
        ),
        (
            {"bot.py": "import sales.y\n", "sales/x.py": ""},
            14,
            "An import in bot.py:1 failed: your project has no module sales.y. Check its name and that it was copied.",
        ),
        (
            {"bot.py": "import helpers\n", "helpers.py": "from .x import y\n", "x.py": "y = 1\n"},
            14,
            'helpers.py is not in a package: write "from x import y" instead of "from .x import y".',
        ),
        (
            {"bot.py": "import tools\n", ".venv/pyvenv.cfg": "", "env/pyvenv.cfg": "", "env/tools.py": ""},
            13,
            "bot.py:1 needs the package tools, which is not installed. Add it to requirements.txt",
        ),
    ],
)
def test_the_advice_looks_at_what_lies_there(tmp_path: Path, files: dict[str, str], status: int, line: str) -> None:
    write(tmp_path, files)
    result = check(tmp_path, "bot.py")
    assert line in result.stderr
    assert result.returncode == status


def test_a_bot_in_a_subfolder_is_served_with_paths_from_the_working_directory(tmp_path: Path) -> None:
    write(tmp_path, {"src/bot.py": f"from common import WHERE\n{BOT}    1 / 0\n", "common.py": "WHERE = 1\n"})
    with Launcher(tmp_path, PIPECAT_BOT="src/bot.py") as launcher:
        assert launcher.post({}).status_code == 500
        launcher.wait_for_log("common 1")
        launcher.wait_for_log("src/bot.py")


def test_dev_reads_the_projects_env_file_and_reloads_for_its_modules(tmp_path: Path) -> None:
    bot = f"import os\nfrom common import WHERE\nprint('key', os.environ['KEY'], WHERE, flush=True)\n{BOT}"
    write(tmp_path, {"src/bot.py": bot, "common.py": "WHERE = 1\n", ".env": "KEY=k\n"})
    with Launcher(tmp_path, command=("dev", "--reload"), PIPECAT_BOT="src/bot.py") as launcher:
        launcher.wait_for_log("key k 1")
        write(tmp_path, {"common.py": "WHERE = 2\n"})
        launcher.wait_for_log("key k 2")
        until(lambda: launcher.http.get("/status").status_code == 200, "served")


def test_check_names_the_bot_of_a_package(tmp_path: Path) -> None:
    write(
        tmp_path, {"src/bot.py": "from .x import y\nasync def bot(args): ...\ndef setup(): ...\n", "src/x.py": "y = 1"}
    )
    answer = json.loads(check(tmp_path, "src/bot.py", "--json").stdout)
    assert answer["bot"] == {"file": str(tmp_path / "src" / "bot.py"), "hooks": ["setup"]}
