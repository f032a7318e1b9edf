"""The journal that a killed launcher leaves, and the reports that the next one makes of it."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from pipecat_base.telemetry import journal
from pipecat_base.telemetry.journal import CALLS, Journal


def filed(folder: Path) -> list[str]:
    path = folder / CALLS
    return [json.loads(line)["id"] for line in path.read_text().splitlines()] if path.exists() else []


def journals(folder: Path) -> list[Path]:
    return list(folder.glob("journal-*"))


def killed(folder: Path, *entries: Any) -> None:
    """The journal of a launcher that was killed."""
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    (folder / f"journal-{len(journals(folder))}.jsonl").write_text("\n".join(lines))


def test_a_call_that_had_not_ended_has_its_report(tmp_path: Path) -> None:
    killed(tmp_path, {"begun": {"id": "a", "session_id": "s", "transport": "webrtc", "started_at": "then"}})
    os.utime(journals(tmp_path)[0], (0, 1_000_000_000))
    Journal(str(tmp_path), sends=False).adopt()
    (report,) = [json.loads(line) for line in (tmp_path / CALLS).read_text().splitlines()]
    assert (report["id"], report["session_id"], report["transport"]) == ("a", "s", "webrtc")
    assert (report["started_at"], report["seconds"]) == ("then", None)
    assert report["ended_at"] == "2001-09-09T01:46:40.000+00:00"  # when the launcher last noted anything
    assert (report["outcome"], report["reason"]) == ("failed", "The launcher was killed.")


def test_a_report_that_was_noted_but_not_filed_is_filed_once(tmp_path: Path) -> None:
    (tmp_path / CALLS).write_text('{"id":"filed"}\n')
    begun = [{"begun": {"id": name}} for name in ("filed", "noted", "done")]
    ended = [{"ended": {"id": name}} for name in ("filed", "noted", "done")]
    killed(tmp_path, *begun, *ended, {"filed": "done"}, '{"begun": {"id": "cut off')
    Journal(str(tmp_path), sends=False).adopt()
    assert filed(tmp_path) == ["filed", "noted"]
    Journal(str(tmp_path), sends=False).adopt()
    assert filed(tmp_path) == ["filed", "noted"]


def test_an_unsent_report_is_sent_by_the_next_launcher(tmp_path: Path) -> None:
    ended = [{"ended": {"id": name}} for name in ("sent", "unsent")]
    killed(tmp_path, *ended, {"filed": "sent"}, {"filed": "unsent"}, {"sent": "sent"})
    (tmp_path / CALLS).write_text('{"id":"sent"}\n{"id":"unsent"}\n')
    second = Journal(str(tmp_path), sends=True)
    assert [report["id"] for report in second.adopt()] == ["unsent"]
    second.close()  # killed, as it were: it was not sent
    third = Journal(str(tmp_path), sends=True)
    assert [report["id"] for report in third.adopt()] == ["unsent"]
    third.sent("unsent")
    third.close()
    assert journals(tmp_path) == []
    assert filed(tmp_path) == ["sent", "unsent"]


def test_a_report_that_was_sent_but_not_filed_is_filed_and_not_sent_again(tmp_path: Path) -> None:
    killed(tmp_path, {"ended": {"id": "a"}}, {"sent": "a"})
    assert Journal(str(tmp_path), sends=True).adopt() == []
    assert filed(tmp_path) == ["a"]


def test_an_unsent_report_is_given_up_if_reports_are_no_longer_sent(tmp_path: Path) -> None:
    killed(tmp_path, {"ended": {"id": "unsent"}}, {"filed": "unsent"})
    kept = Journal(str(tmp_path), sends=False)
    assert kept.adopt() == []
    kept.close()
    assert journals(tmp_path) == []


def test_the_oldest_of_too_many_unsent_reports_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_UNSENT", 3)
    kept = Journal(str(tmp_path), sends=True)
    for name in "abcde":
        kept.end({"id": name})
    kept.close()
    assert filed(tmp_path) == list("abcde")
    assert [report["id"] for report in Journal(str(tmp_path), sends=True).adopt()] == list("cde")


def test_a_journal_is_readable_only_by_its_user(tmp_path: Path) -> None:
    kept = Journal(str(tmp_path), sends=False)
    (path,) = journals(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept.close()


def test_a_line_that_was_cut_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / CALLS).write_text('{"id":"whole"}\n{"id":"cut')
    kept = Journal(str(tmp_path), sends=False)
    kept.end({"id": "next"})
    assert (tmp_path / CALLS).read_text().splitlines()[2] == '{"id":"next"}'


def test_an_unreadable_journal_is_set_aside(tmp_path: Path) -> None:
    killed(tmp_path, {"begun": 3})
    killed(tmp_path, {"begun": {"id": "a"}})
    Journal(str(tmp_path), sends=False).adopt()
    assert filed(tmp_path) == ["a"]
    assert len(list(tmp_path.glob("*.unreadable"))) == 1


def test_a_report_that_was_sent_before_it_could_be_filed_is_not_sent_again(tmp_path: Path) -> None:
    (tmp_path / CALLS).mkdir()
    kept = Journal(str(tmp_path), sends=True)
    with pytest.raises(IsADirectoryError):
        kept.end({"id": "a"})
    kept.sent("a")
    (tmp_path / CALLS).rmdir()
    kept.close()
    assert filed(tmp_path) == ["a"]
    assert journals(tmp_path) == []


def test_a_launcher_that_runs_keeps_its_journal(tmp_path: Path) -> None:
    first = Journal(str(tmp_path), sends=False)
    first.begin({"id": "a"})
    Journal(str(tmp_path), sends=False).adopt()
    assert filed(tmp_path) == []
    first.end({"id": "a"})
    first.close()
    assert filed(tmp_path) == ["a"]


def test_a_journal_does_not_grow_with_reports_that_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "COMPACT_AT_BYTES", 10_000)
    kept = Journal(str(tmp_path), sends=True)
    kept.begin({"id": "runs"})
    sizes = []
    for number in range(300):
        name = f"call-{number}"
        kept.begin({"id": name})
        kept.end({"id": name, "reason": "x" * 100})
        if number != 7:
            kept.sent(name)
        (path,) = journals(tmp_path)
        sizes.append(path.stat().st_size)
    assert max(sizes) < 12_000
    assert len(filed(tmp_path)) == 300
    kept.close()
    (tmp_path / CALLS).unlink()  # by a log rotation: only the journal knows which reports were filed
    assert {report["id"] for report in Journal(str(tmp_path), sends=True).adopt()} == {"call-7", "runs"}
    assert filed(tmp_path) == ["runs"]


def test_a_disk_that_is_too_full_to_compact_a_journal_leaves_it_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Journal(str(tmp_path), sends=False)
    (path,) = journals(tmp_path)
    write = journal._write

    def write_to_old_file_alone(descriptor: int, content: bytes) -> None:
        if not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(descriptor, content)

    with monkeypatch.context() as full:
        full.setattr(journal, "_write", write_to_old_file_alone)
        full.setattr(kept, "_compact_at", 10)
        with pytest.raises(OSError, match="No space left"):
            kept.begin({"id": "a"})
    assert journals(tmp_path) == [path]
    kept.end({"id": "a"})
    kept.close()
    assert filed(tmp_path) == ["a"]
    assert journals(tmp_path) == []


def test_many_unsent_reports_do_not_compact_the_journal_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "COMPACT_AT_BYTES", 1_000)
    kept = Journal(str(tmp_path), sends=True)
    names = set()
    for number in range(200):
        kept.end({"id": f"call-{number}", "reason": "x" * 100})
        names |= {path.name for path in journals(tmp_path)}
    assert len(names) < 12
    kept.close()
    assert len(Journal(str(tmp_path), sends=True).adopt()) == 200


def test_no_other_user_reads_reports_in_a_folder_that_is_made_and_a_users_keeps_its_mode(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "made" / "ours"
    theirs.mkdir()
    theirs.chmod(0o755)
    for folder in (theirs, ours):
        ending = Journal(str(folder), sends=True)
        ending.end({"id": "a"})
        ending._compact()
        killed(folder, "[]", '{"begun": 1}')
        Journal(str(folder), sends=True).adopt()
        made = [path for path in folder.iterdir() if not path.name.endswith(".unreadable")]  # by this test
        assert len(made) == 3
        assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o600}
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (theirs, ours, ours.parent)] == [0o755, 0o700, 0o700]
