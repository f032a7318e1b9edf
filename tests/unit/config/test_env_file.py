"""``.env`` beside the bot, read again after a change."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipecat_base.config.env_file import EnvFile


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """As it was, afterwards."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_a_line_that_is_gone_is_gone_from_the_environment_too(tmp_path: Path) -> None:
    os.environ["SET"] = "before"
    file = EnvFile(tmp_path)
    (tmp_path / ".env").write_text("STAYS=1\nCHANGES=1\nGOES=1\nSET=1\n")
    file.read()
    assert file.differing == {"STAYS", "CHANGES", "GOES"}
    (tmp_path / ".env").write_text("STAYS=1\nCHANGES=2\nCOMES=1\n")
    file.read()
    assert file.differing == {"CHANGES", "GOES", "COMES"}
    assert [os.environ.get(name) for name in ("STAYS", "CHANGES", "GOES", "COMES", "SET")] == [
        *("1", "2", None, "1", "before")
    ]
    (tmp_path / ".env").unlink()
    file.read()
    assert not {"STAYS", "CHANGES", "COMES"} & set(os.environ)


def test_a_variable_that_was_set_before_does_not_come_from_the_file(tmp_path: Path) -> None:
    os.environ["SET"] = ""
    (tmp_path / ".env").write_text("SET=1\nNO_VALUE\n\n# mine\nexport TWICE=1\nTWICE=2\n")
    file = EnvFile(tmp_path)
    file.read()
    assert (os.environ["SET"], os.environ["TWICE"]) == ("", "2")
    assert file.names == {"TWICE": ".env:6"}


def test_the_bots_own_dotenv_still_warns(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("no variable\n")
    EnvFile(tmp_path).read()
    assert not logging.getLogger("dotenv.main").disabled


def test_a_password_manager_may_hand_it_out_by_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".env")
    writer = threading.Thread(target=lambda: (tmp_path / ".env").write_text("FROM_FIFO=1\n"))
    writer.start()
    try:
        EnvFile(tmp_path).read()
        assert os.environ["FROM_FIFO"] == "1"
    finally:
        writer.join()
        os.environ.pop("FROM_FIFO", None)
