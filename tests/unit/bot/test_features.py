from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipecat_base.bot.features import FeatureManager, FeatureStatus
from pipecat_base.config.settings import Settings

WHATSAPP = {"WHATSAPP_TOKEN": "a", "WHATSAPP_PHONE_NUMBER_ID": "b", "WHATSAPP_APP_SECRET": "c"}


def features(variables: Mapping[str, str] | None = None, *, verify: bool = False) -> dict[str, Any]:
    return {f.name: f for f in FeatureManager(Settings.load(variables or {})).features(verify=verify)}


def test_the_names_in_their_order() -> None:
    assert list(features())[:8] == [
        "Daily Transport",
        "Websocket Transport",
        "SmallWebRTC Session Arguments",
        "SmallWebRTC Transport",
        "SmallWebRTC ICE Candidates",
        "WhatsApp Integration",
        "Observability Observers",
        "MoQ Session Arguments",
    ]


def test_detection_imports_nothing() -> None:
    import subprocess

    code = (
        "import sys; from pipecat_base.bot.features import FeatureManager\n"
        "from pipecat_base.config.settings import Settings\n"
        "FeatureManager(Settings.load({})).features()\n"
        "print([m for m in ('pipecat', 'aiortc', 'av', 'daily', 'aiohttp', 'fastapi') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of packages that are not ours
def test_what_is_installed_here_is_enabled_and_imports() -> None:
    found = features(verify=True)
    for name in ("Daily Transport", "Websocket Transport", "SmallWebRTC Transport", "SmallWebRTC ICE Candidates"):
        assert found[name].status is FeatureStatus.ENABLED, found[name].line()


def test_nltks_data_is_looked_for_where_nltk_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nltk.py").write_text("")
    (tmp_path / "tokenizers" / "punkt_tab").mkdir(parents=True)
    monkeypatch.setattr("pipecat_base.bot.features.NLTK_ROOTS", ())
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delitem(sys.modules, "nltk", raising=False)  # where pipecat has brought and imported it
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not (Path(path) / "nltk").is_dir()])
    assert features()["NLTK Data"].status is FeatureStatus.DISABLED
    monkeypatch.syspath_prepend(tmp_path)
    assert features()["NLTK Data"].status is FeatureStatus.MISSING_CONFIG
    assert features({"NLTK_DATA": f"/nowhere:{tmp_path}"})["NLTK Data"].status is FeatureStatus.ENABLED


@pytest.mark.parametrize(
    ("variables", "status", "required"),
    [
        ({}, FeatureStatus.MISSING_CONFIG, "WHATSAPP_TOKEN, WHATSAPP_PHONE_NUMBER_ID, WHATSAPP_APP_SECRET"),
        ({"WHATSAPP_TOKEN": "a"}, FeatureStatus.MISSING_CONFIG, "WHATSAPP_PHONE_NUMBER_ID, WHATSAPP_APP_SECRET"),
        ({**WHATSAPP, "WHATSAPP_APP_SECRET": ""}, FeatureStatus.MISSING_CONFIG, "WHATSAPP_APP_SECRET"),
        (WHATSAPP, FeatureStatus.ENABLED, "pip install pipecat-ai[webrtc]"),
    ],
)
def test_the_statuses_of_whatsapp(variables: dict[str, str], status: FeatureStatus, required: str) -> None:
    feature = features(variables)["WhatsApp Integration"]
    assert (feature.status, feature.required) == (status, required)


def put_package(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    for module in [m for m in sys.modules if m.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)


def test_whatsapp_with_a_broken_package_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_package(monkeypatch, tmp_path, "aiortc", "raise OSError('libopus.so.0: cannot open shared object file')\n")
    for name in ("SmallWebRTC Transport", "WhatsApp Integration"):
        feature = features(WHATSAPP, verify=True)[name]
        assert feature.status is FeatureStatus.ERROR
        assert feature.line().endswith(
            "reason: aiortc does not import: OSError: libopus.so.0: cannot open shared object file)"
        )


def test_a_package_that_exits_when_imported_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_package(monkeypatch, tmp_path, "daily", "import sys\nsys.exit(1)\n")
    assert features(verify=True)["Daily Transport"].status is FeatureStatus.ERROR


def test_a_package_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "daily" else real(name))
    feature = features()["Daily Transport"]
    assert feature.line() == (
        "Daily Transport: DISABLED (required: pip install pipecat-ai[daily]; reason: daily is not installed)"
    )


def test_krisp_needs_its_sdk_and_its_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert features()["Krisp VIVA"].status is FeatureStatus.DISABLED
    put_package(monkeypatch, tmp_path, "krisp_audio", "")
    assert features()["Krisp VIVA"].status is FeatureStatus.MISSING_CONFIG
    model = tmp_path / "model.kef"
    assert features({"KRISP_VIVA_FILTER_MODEL_PATH": str(model)})["Krisp VIVA"].status is FeatureStatus.ERROR
    model.write_text("")
    assert features({"KRISP_VIVA_FILTER_MODEL_PATH": str(model)})["Krisp VIVA"].status is FeatureStatus.ENABLED


@pytest.mark.parametrize(
    ("name", "variables", "status"),
    [
        ("WebSocket Authentication", {}, FeatureStatus.DISABLED),
        ("WebSocket Authentication", {"PIPECAT_WEBSOCKET_AUTH": "token"}, FeatureStatus.MISSING_CONFIG),
        (
            "WebSocket Authentication",
            {"PIPECAT_WEBSOCKET_AUTH": "token", "PIPECAT_WEBSOCKET_SECRET": "x"},
            FeatureStatus.ENABLED,
        ),
        ("ESP32 Support", {}, FeatureStatus.DISABLED),
        ("ESP32 Support", {"ESP32_ENABLED": "true", "ESP32_HOST": "10.0.0.1"}, FeatureStatus.ENABLED),
        ("File Uploads", {}, FeatureStatus.DISABLED),
        ("Observability Observers", {"PIPECAT_OBSERVERS": "false"}, FeatureStatus.DISABLED),
        ("Observability Observers", {}, FeatureStatus.ENABLED),
    ],
)
def test_our_own_features(name: str, variables: dict[str, str], status: FeatureStatus) -> None:
    assert features(variables)[name].status is status


def test_the_summary_has_the_form_of_the_replaced_image(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "daily" else real(name))
    found = features({"WHATSAPP_TOKEN": "a"})
    assert list(found["Websocket Transport"].summary()) == ["✅ Websocket Transport: ENABLED"]
    assert list(found["Daily Transport"].summary()) == [
        "◻️ Daily Transport: DISABLED",
        "   Required: pip install pipecat-ai[daily]",
        "   Reason: daily is not installed",
    ]
    variables = "WHATSAPP_PHONE_NUMBER_ID, WHATSAPP_APP_SECRET"
    assert list(found["WhatsApp Integration"].summary()) == [
        "⚠️ WhatsApp Integration: MISSING_CONFIG",
        f"   Required: {variables}",
        f"   Config needed: {variables}",
        f"   Reason: Missing environment variables: {variables}",
    ]
