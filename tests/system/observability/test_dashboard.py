"""Every panel of the dashboard shows something after calls of all sorts, in a real Prometheus."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipecat_base.cli.call import audio
from tests.support.launchers import PYTHON, ROOT, Launcher, environment, free_port, until
from tests.support.tones import tone
from tests.system.observability.prometheus import Prometheus, dashboard, needs_prometheus

pytestmark = needs_prometheus
VARIABLES = {"$__rate_interval": "2m", "$job": ".+", "$instance": ".+"}
LOSSY = Path(__file__).with_name("lossy.py")


def panels() -> Iterator[Mapping[str, Any]]:
    for panel in dashboard()["panels"]:
        if panel["type"] != "row":
            yield panel


def targets() -> list[Any]:
    return [
        pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
        for panel in panels()
        for target in panel["targets"]
    ]


def expanded(expression: str) -> str:
    """As Grafana would send it."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def place_calls(launcher: Launcher, bodies: Sequence[Any]) -> list[int]:
    """All at once; the status of each."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda body: launcher.post(body).status_code, bodies))


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """After a mixed load: answered calls, failed ones, refused ones, and one by WebRTC over a bad network."""
    folder = tmp_path_factory.mktemp("dashboard")
    ports = free_port(), free_port()
    common: dict[str, Any] = {"PIPECAT_ISOLATION": "process", "MAX_SESSIONS": "3", "DRAIN_NOTICE": "0"}
    with (
        Launcher("observed", PIPECAT_METRICS_PORT=str(ports[0]), **common) as talker,
        Launcher(
            ROOT / "examples" / "echo", PIPECAT_METRICS_PORT=str(ports[1]), PIPECAT_ICE_SERVERS="[]", **common
        ) as echo,
        Prometheus(folder / "prometheus", *ports) as prometheus,
    ):
        looked_at = "count(count_over_time(pipecat_places[1m]) >= 2) == 2"
        until(lambda: prometheus.query(looked_at), "two looks at each launcher")
        audio.write_wav(str(folder / "tone.wav"), tone(500, 3.0, 16000), 16000)
        call = [
            PYTHON,
            LOSSY,
            "call",
            folder / "tone.wav",
            "--webrtc",
            "--url",
            f"http://127.0.0.1:{echo.port}/api/offer",
            "--tail",
            "1",
        ]
        with subprocess.Popen(
            [*map(str, call)], env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as caller:
            conversation = {"turns": 2, "error": "no answer", "interrupted": True}
            statuses = place_calls(talker, [conversation] * 5 + [{"raise": "boom"}])
            statuses += place_calls(talker, [conversation] * 2 + [{"raise": "boom"}])
            assert set(statuses) == {200, 429, 500}
            said, _ = caller.communicate(timeout=30)
            # 1 where the network let nothing but silence through.
            assert caller.returncode == 0 or "heard silence alone" in said, said
        yield prometheus


@pytest.mark.parametrize("expression", targets())
def test_each_query_of_each_panel_has_a_value(prometheus: Prometheus, expression: str) -> None:
    def values() -> list[float]:
        return [sample.value for sample in prometheus.query(expanded(expression)) if math.isfinite(sample.value)]

    until(values, f"a value of {expression}", timeout=8)


@pytest.mark.parametrize("name", ["job", "instance"])
def test_each_variable_has_values(prometheus: Prometheus, name: str) -> None:
    (variable,) = (each for each in dashboard()["templating"]["list"] if each["name"] == name)
    found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
    assert found
    values = prometheus.get(f"/api/v1/label/{found[2]}/values", **{"match[]": expanded(found[1])})
    assert len(values) == {"job": 1, "instance": 2}[name]


def test_panels_ask_the_data_source_of_the_variable_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    for panel in panels():
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources), panel["title"]
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
    assert "datasource" in {variable["type"] for variable in dashboard()["templating"]["list"]}
