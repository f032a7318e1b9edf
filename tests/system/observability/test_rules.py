"""The files of ``deploy/observability`` as promtool sees them, and what their README says of them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.system.observability.prometheus import SHIPPED, needs_prometheus, promtool, rules

pytestmark = needs_prometheus
SERIES = Path(__file__).with_name("rules_test.yaml")


def test_rules_and_configuration_are_valid() -> None:
    assert f"{len(rules())} rules found" in promtool(
        "check", "rules", "--lint=all", "--lint-fatal", SHIPPED / "alerts.yaml"
    )
    assert "is valid" in promtool("check", "config", "--lint=all", "--lint-fatal", SHIPPED / "prometheus.yml")


def test_alerts_fire_at_their_thresholds_and_after_their_durations(tmp_path: Path) -> None:
    for file in (SHIPPED / "alerts.yaml", SERIES):
        shutil.copy(file, tmp_path)
    assert "SUCCESS" in promtool("test", "rules", tmp_path / SERIES.name)


def test_each_alert_is_tried_with_its_own_durations() -> None:
    assert {rule["alert"] for rule in rules()} <= set(re.findall(r"Pipecat\w+", SERIES.read_text()))


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule["alert"]
        assert rule["annotations"].keys() == {"summary", "description"}, rule["alert"]


def test_the_readme_lists_each_alert_with_its_severity() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", (SHIPPED / "README.md").read_text(), re.MULTILINE)
    assert rows == [(rule["alert"], rule["labels"]["severity"]) for rule in rules()]
