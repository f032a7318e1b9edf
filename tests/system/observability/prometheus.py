"""A Prometheus with the files of ``deploy/observability``, on a port of its own, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest
import yaml

from tests.support.launchers import PATIENCE, ROOT, environment, free_port, until

SHIPPED = ROOT / "deploy" / "observability"
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/bin", "/usr/bin"])
WINDOW = "10s"
"""What rates look at, here."""
HELD = "2s"
"""How long what is wrong must last, here."""
needs_prometheus = pytest.mark.skipif(
    any(shutil.which(program, path=SEARCHED) is None for program in ("prometheus", "promtool")),
    reason="this machine lacks prometheus and promtool: apt-get install --no-install-recommends prometheus",
)


def rules() -> list[Mapping[str, Any]]:
    """The alerts that are shipped."""
    content = yaml.safe_load((SHIPPED / "alerts.yaml").read_text())
    return [rule for group in content["groups"] for rule in group["rules"]]


def dashboard() -> Mapping[str, Any]:
    """The dashboard that is shipped."""
    content: Mapping[str, Any] = json.loads((SHIPPED / "dashboard.json").read_text())
    return content


def promtool(*arguments: str | Path) -> str:
    """What it says; it must be content."""
    found = shutil.which("promtool", path=SEARCHED) or "promtool"
    ended = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def shortened(text: str) -> str:
    """Rules that need seconds where those that are shipped need minutes; nothing else is changed."""
    text, windows = re.subn(r"\[\d+[smh]\]", f"[{WINDOW}]", text)
    text, held = re.subn(r"\bfor: \d+[smh]\b", f"for: {HELD}", text)
    assert windows
    assert held
    return text


def scraping(text: str, ports: Sequence[int]) -> str:
    """The configuration for launchers on these ports, that looks at them each second."""
    text, intervals = re.subn(r"_interval: \d+s\b", "_interval: 1s", text)
    assert intervals == 2
    shipped = '"localhost:9464"'
    assert text.count(shipped) == 1
    return text.replace(shipped, ", ".join(f'"127.0.0.1:{port}"' for port in ports))


@dataclass(frozen=True)
class Sample:
    """One of an answer."""

    labels: Mapping[str, str]
    value: float


class Prometheus:
    """One that runs, with its data in ``folder``, and scrapes the launchers whose metrics are on ``ports``."""

    def __init__(self, folder: Path, *ports: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "alerts.yaml").write_text(shortened((SHIPPED / "alerts.yaml").read_text()))
        (folder / "prometheus.yml").write_text(scraping((SHIPPED / "prometheus.yml").read_text(), ports))
        self._log = folder / "prometheus.log"
        port = free_port()
        command = [
            shutil.which("prometheus", path=SEARCHED) or "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log)
        self._since = time.time()
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False)

    def __enter__(self) -> Prometheus:
        try:
            until(self._is_ready, "Prometheus")
            # It looks for its targets for some seconds: there is none until then, and an alert for that.
            until(lambda: self.query("up == 1") and not self.firing(), "a look at a launcher")
            self._since = time.time()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def query(self, expression: str) -> list[Sample]:
        """Its value now."""
        found = self.get("/api/v1/query", query=expression)
        return [Sample(each["metric"], float(each["value"][1])) for each in found["result"]]

    def value(self, expression: str) -> float | None:
        """Of the one sample that there is; None where there is none."""
        samples = self.query(expression)
        assert len(samples) <= 1, samples
        return samples[0].value if samples else None

    def firing(self) -> set[str]:
        """The alerts that fire now."""
        alerts = self.get("/api/v1/alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def fired(self) -> set[str]:
        """The alerts that have fired since it has looked at a launcher for the first time."""
        seconds = max(1, int(time.time() - self._since))
        firing = f'last_over_time(ALERTS{{alertstate="firing"}}[{seconds}s])'
        return {sample.labels["alertname"] for sample in self.query(firing)}

    def get(self, path: str, **parameters: Any) -> Any:
        """Of its API."""
        answer = self._http.get(path, params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        with contextlib.suppress(httpx.TransportError):
            return self._http.get("/-/ready").status_code == 200
        return False

    def _stop(self) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait(PATIENCE)
