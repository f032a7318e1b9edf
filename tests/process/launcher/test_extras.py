"""For a pipecat module that cannot be imported, the missing extra is named."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipecat_base.bot import installed
from tests.support.launchers import ROOT, environment, run

PIPECAT_FOLDER = Path(str(importlib.metadata.distribution("pipecat-ai").locate_file("pipecat")))
WANTED = re.compile(r"pipecat-ai\[([\w-]+)\]")
ASK = """
import importlib, json, sys
sys.path.insert(0, "{root}")
from loguru import logger
logger.remove()
from pipecat_base.bot import installed
from pipecat_base.bot.import_errors import _chain
found = {{}}
for name in json.load(sys.stdin):
    try:
        importlib.import_module(name)
    except Exception as error:
        missing = [e for e in _chain(error) if isinstance(e, ModuleNotFoundError)]
        found[name] = installed.missing_extra(missing[0]) if missing else None
print(json.dumps(found))
"""


def _services() -> dict[str, str]:
    """Modules of the installed pipecat, and the extra that each asks for in the line that it logs by itself."""
    found = {}
    for file in sorted(PIPECAT_FOLDER.joinpath("services").rglob("*.py")):
        asked = set(WANTED.findall(file.read_text(encoding="utf-8")))
        if len(asked) == 1:
            module = ".".join(("pipecat", *file.relative_to(PIPECAT_FOLDER).with_suffix("").parts)).removesuffix(
                ".__init__"
            )
            found[module] = asked.pop()
    return found


def test_it_is_the_extra_that_pipecat_names_itself() -> None:
    asked = _services()
    command = [sys.executable, "-W", "ignore", "-c", ASK.format(root=ROOT)]
    done = subprocess.run(
        command, input=json.dumps(list(asked)), capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    found = {name: extra for name, extra in json.loads(done.stdout.splitlines()[-1]).items() if extra is not None}
    assert len(found) > 20, found
    assert found == {name: asked[name] for name in found}


EXTRAS = {"foo": ["foo"], "foo-bar": ["foo-bar-sdk", "shared"], "other": ["shared", "torch"]}


def _asked(module: str, **missing: str) -> str | None:
    """The extra for a module that could not import something."""
    with pytest.raises(ModuleNotFoundError) as found:
        exec("raise ModuleNotFoundError('no words', **missing)", {"__name__": module, "missing": missing})
    return installed.missing_extra(found.value)


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("pipecat.services.a", "foo.client", "foo"),
        ("pipecat.services.a", "foobar", None),  # another package
        ("pipecat.services.a", "torch", "other"),
        ("pipecat.services.foo.stt", "shared", "foo-bar"),  # of those that bring it, the one that is named
        ("pipecat.services.foo_bar.stt", "anything", "foo-bar"),
        ("pipecat_tools.foo", "foo", None),  # not pipecat's
        ("bot", "foo", None),
    ],
)
def test_the_module_that_asked_counts_and_what_it_asked_for(
    monkeypatch: pytest.MonkeyPatch, module: str, missing: str, extra: str | None
) -> None:
    monkeypatch.setattr(installed, "_extras", lambda: EXTRAS)
    assert _asked(module, name=missing) == extra


def test_an_import_error_that_names_no_module_wants_nothing() -> None:
    assert _asked("pipecat.services.deepgram.stt") is None


def test_a_bot_is_told_what_to_add(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "from pipecat.services.soniox.stt import SonioxSTTService\n"
        "from pipecat.services.hume.tts import HumeTTSService\n\n\nasync def bot(args): ...\n"
    )
    result = run("check", cwd=tmp_path)
    assert result.returncode == 13
    assert "bot.py:2 needs the package pipecat-ai[hume]: pipecat is installed without hume." in result.stderr
    assert "Add pipecat-ai[hume] to requirements.txt or pyproject.toml" in result.stderr


def test_a_package_that_the_bot_imports_itself_is_no_extra(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("import hume\n\n\nasync def bot(args): ...\n")
    result = run("check", cwd=tmp_path)
    assert (result.returncode, "bot.py:1 needs the package hume, which" in result.stderr) == (13, True)
