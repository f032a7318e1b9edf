"""What was found, and how it is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class FindingStatus(Enum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        check: What was looked at.
        text: What is so; for what was not checked, why.
        fix: What to do; empty where there is nothing to do.
    """

    check: str
    status: FindingStatus
    text: str
    fix: str = ""

    def line(self, width: int) -> str:
        """For people.

        Args:
            width: Characters of the longest name of a check.
        """
        text = " ".join(f"{self.text}. {self.fix}".split()) if self.fix else self.text
        return f"{self.status.value:<11}  {self.check:<{width}}  {text}"


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, FindingStatus.OK, text)


def warning(check: str, text: str, fix: str) -> Finding:
    """Something that may do harm."""
    return Finding(check, FindingStatus.WARNING, text, fix)


def problem(check: str, text: str, fix: str) -> Finding:
    """Something that does not work."""
    return Finding(check, FindingStatus.PROBLEM, text, fix)


def not_checked(check: str, why: str) -> Finding:
    """It could not be found out."""
    return Finding(check, FindingStatus.NOT_CHECKED, why)


def has_problem(findings: Sequence[Finding]) -> bool:
    """Whether something does not work."""
    return any(finding.status is FindingStatus.PROBLEM for finding in findings)


def as_text(findings: Sequence[Finding]) -> str:
    """A line for each, and one that counts them."""
    width = max(len(finding.check) for finding in findings)
    lines = [finding.line(width) for finding in findings]
    problems, warnings = (
        sum(finding.status is status for finding in findings)
        for status in (FindingStatus.PROBLEM, FindingStatus.WARNING)
    )
    counted = f"{_number(problems, 'problem')}, {_number(warnings, 'warning')}"
    return "\n".join([*lines, "", counted])


def as_json(findings: Sequence[Finding]) -> str:
    """One object."""
    checks = [{"check": f.check, "status": f.status.value, "text": f.text, "fix": f.fix} for f in findings]
    return json.dumps({"ok": not has_problem(findings), "checks": checks}, indent=2, ensure_ascii=False)


def _number(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"
