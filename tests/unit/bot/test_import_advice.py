"""The package or the module that an import needs instead."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from pipecat_base.bot import import_errors, moved_names
from pipecat_base.bot.import_statements import ImportStatement
from pipecat_base.errors import StartupError

pytestmark = pytest.mark.needs_newest_packages


def explained(tmp_path: Path, line: str) -> StartupError:
    file = tmp_path / "bot.py"
    file.write_text(line)
    try:
        exec(compile(line, file, "exec"), {"__name__": "bot"})
    except BaseException as error:
        return import_errors.explain(error, file, str(tmp_path))
    raise AssertionError("imported")


@pytest.mark.parametrize(
    ("line", "package"),
    [
        ("import pipecat_flows", "pipecat-ai-flows"),
        ("from pipecat_flows import FlowManager", "pipecat-ai-flows"),
        ("from pipecat_whisker import WhiskerObserver", "pipecat-ai-whisker"),
        ("from pipecat_tail.observer import TailObserver", "pipecat-ai-tail"),
        ("from deepgram import LiveOptions", "deepgram-sdk"),
        ("from google import genai", "google-genai"),
        ("import google.generativeai as genai", "google-generativeai"),
        ("from google.genai import types", "google-genai"),
        ("from google.cloud import texttospeech", "google-cloud-texttospeech"),
        ("from google.cloud import firestore", "google-cloud-firestore"),
        ("import google.cloud.speech_v2", "google-cloud-speech"),
        ("from google.cloud import vision", "google-cloud-vision"),
        ("from google.cloud import secretmanager", "google-cloud-secret-manager"),
        ("from azure.cognitiveservices.speech import SpeechConfig", "azure-cognitiveservices-speech"),
        ("import azure.cognitiveservices.speech as speechsdk", "azure-cognitiveservices-speech"),
        ("from livekit import rtc", "livekit"),
        ("from livekit.agents import Agent", "livekit-agents"),
        (
            "from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter",
            "opentelemetry-exporter-otlp-proto-grpc",
        ),
        ("from speechmatics.voice import SpeakerFocusConfig", "speechmatics-voice"),
        ("from mem0 import MemoryClient", "mem0ai"),
        ("import sklearn.cluster", "scikit-learn"),
        ("import nonexistent_package.part", "nonexistent_package"),
    ],
)
def test_a_missing_module_is_named_by_its_package(tmp_path: Path, line: str, package: str) -> None:
    error = explained(tmp_path, line)
    assert error.code == "dependency_missing"
    assert f"bot.py:1 needs the package {package}, which is not installed" in str(error)
    assert ("copy it beside the bot" in str(error)) is (package == "nonexistent_package")


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        (
            "from pipecat.runner.types import PipecatRunnerArguments",
            'PipecatRunnerArguments is now RunnerArguments. Write "from pipecat.runner.types import RunnerArguments".',
        ),
        (
            "from pipecat.transports.daily import DailyTransport, DailyParams",
            'Write "from pipecat.transports.daily.transport import DailyTransport, DailyParams".',
        ),
        (
            "from pipecat.transports.services.daily import (\n    DailyParams,\n    DailyTransport,\n)",
            'Write "from pipecat.transports.daily.transport import DailyParams, DailyTransport".',
        ),
        (
            "from pipecat.transports.network.fastapi_websocket import FastAPIWebsocketTransport",
            'Write "from pipecat.transports.websocket.fastapi import FastAPIWebsocketTransport".',
        ),
        (
            "from pipecat.transports.network.small_webrtc import SmallWebRTCTransport",
            'Write "from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport".',
        ),
        (
            "from pipecat.transports.network.webrtc_connection import IceServer, SmallWebRTCConnection",
            'Write "from pipecat.transports.smallwebrtc.connection import IceServer, SmallWebRTCConnection".',
        ),
        (
            "from pipecat.transports.network.websocket_server import WebsocketServerTransport",
            'Write "from pipecat.transports.websocket.server import WebsocketServerTransport".',
        ),
        (
            "from pipecat.services.openai import OpenAILLMService",
            'Write "from pipecat.services.openai.llm import OpenAILLMService".',
        ),
        (
            "from pipecat.processors.aggregators.openai_llm_context import OpenAILLMContext, OpenAILLMContextFrame",
            'Write "from pipecat.processors.aggregators.llm_context import LLMContext"'
            ' and "from pipecat.frames.frames import LLMContextFrame".',
        ),
        (
            "from pipecat.services.openai_realtime_beta import SessionProperties, TurnDetection",
            'Write "from pipecat.services.openai.realtime.events import SessionProperties, TurnDetection".',
        ),
        ("from pipecat.runner.types import RunnerArgument", "Is RunnerArguments meant?"),
        ("from pipecat.runner.types import NoSuchArguments", "has NoSuchArguments: another release may have it."),
        ("import pipecat.no_such_module", "Check its version."),
    ],
)
def test_a_name_that_has_moved_is_named_where_it_is(tmp_path: Path, line: str, advice: str) -> None:
    error = explained(tmp_path, line)
    assert error.code == "bot_import_failed"
    assert str(error).strip().endswith(advice)


@pytest.mark.parametrize("name", sorted(moved_names.RENAMED))
def test_each_new_name_is_in_pipecat(name: str) -> None:
    new = moved_names.RENAMED[name]
    advice = moved_names.advice(ImportStatement("pipecat.gone", (name,)))
    assert advice is not None
    assert f"{name} is now {new}. Write" in advice


def test_an_import_of_the_bots_own_that_fails_names_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helpers_of_this_test.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    error = explained(tmp_path, "from helpers_of_this_test import y")
    assert "cannot import name 'y'" in str(error)
    assert str(error).strip().endswith("Check that name and the installed version.")
    sys.modules.pop("helpers_of_this_test")
    importlib.invalidate_caches()
