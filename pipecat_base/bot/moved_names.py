"""Names that the installed pipecat has elsewhere than a bot imports them from, found in its source."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pipecat_base.bot import installed
from pipecat_base.bot.import_statements import ImportStatement
from pipecat_base.config.suggestions import nearest

# Names that are gone, and those that do the same now.
RENAMED = {
    "AWSBedrockLLMContext": "LLMContext",
    "AWSNovaSonicLLMContext": "LLMContext",
    "AnthropicLLMContext": "LLMContext",
    "AzureRealtimeBetaLLMService": "AzureRealtimeLLMService",
    "BotInterruptionFrame": "InterruptionWorkerFrame",
    "DailyInputTransportMessageUrgentFrame": "DailyInputTransportMessageFrame",
    "DailyTransportMessageFrame": "DailyOutputTransportMessageFrame",
    "DailyTransportMessageUrgentFrame": "DailyOutputTransportMessageUrgentFrame",
    "FalSmartTurnAnalyzer": "LocalSmartTurnAnalyzerV3",
    "FastPitchTTSService": "NvidiaTTSService",
    "GatedOpenAILLMContextAggregator": "GatedLLMContextAggregator",
    "GeminiLiveContext": "LLMContext",
    "GeminiMultimodalLiveLLMService": "GeminiLiveLLMService",
    "GoogleLLMContext": "LLMContext",
    "GoogleLLMOpenAIBetaService": "GoogleLLMService",
    "InputTransportMessageUrgentFrame": "InputTransportMessageFrame",
    "KrispFilter": "KrispVivaFilter",
    "LLMAssistantContextAggregator": "LLMAssistantAggregator",
    "LLMAssistantResponseAggregator": "LLMAssistantAggregator",
    "LLMMessagesFrame": "LLMMessagesUpdateFrame",
    "LLMUserContextAggregator": "LLMUserAggregator",
    "LLMUserResponseAggregator": "LLMUserAggregator",
    "LiveKitTransportMessageFrame": "LiveKitOutputTransportMessageFrame",
    "LiveKitTransportMessageUrgentFrame": "LiveKitOutputTransportMessageUrgentFrame",
    "LocalSmartTurnAnalyzer": "LocalSmartTurnAnalyzerV3",
    "MinWordsInterruptionStrategy": "MinWordsUserTurnStartStrategy",
    "NimLLMService": "NvidiaLLMService",
    "OpenAILLMContext": "LLMContext",
    "OpenAILLMContextAssistantTimestampFrame": "LLMContextAssistantTimestampFrame",
    "OpenAILLMContextFrame": "LLMContextFrame",
    "OpenAIRealtimeBetaLLMService": "OpenAIRealtimeLLMService",
    "OpenAIRealtimeLLMContext": "LLMContext",
    "ParakeetSTTService": "NvidiaSTTService",
    "PipecatRunnerArguments": "RunnerArguments",
    "PollyTTSService": "AWSPollyTTSService",
    "RivaSTTService": "NvidiaSTTService",
    "RivaSegmentedSTTService": "NvidiaSegmentedSTTService",
    "RivaTTSService": "NvidiaTTSService",
    "StartInterruptionFrame": "InterruptionFrame",
    "TaskObserver": "WorkerObserver",
    "TransportMessageFrame": "OutputTransportMessageFrame",
    "TransportMessageUrgentFrame": "OutputTransportMessageUrgentFrame",
    "UserBotLatencyLogObserver": "UserBotLatencyObserver",
    "VisionImageRawFrame": "UserImageRawFrame",
}
NO_SOURCES = ("cli", "tests")


def advice(statement: ImportStatement) -> str | None:
    """The imports to write instead of one from pipecat, or None."""
    module = statement.module
    found: dict[str, list[str]] = {}
    renamed = []
    for name in statement.names:
        new = name
        place = _place(new, module)
        if place is None and name in RENAMED:
            new = RENAMED[name]
            place = _place(new, module)
            renamed.append(f"{name} is now {new}. ")
        if place is None:
            return _unknown(name, module)
        found.setdefault(place, []).append(new)
    if not found:
        return None
    imports = " and ".join(f'"from {place} import {", ".join(new)}"' for place, new in found.items())
    return f"{''.join(renamed)}Write {imports}."


def _unknown(name: str, module: str) -> str:
    meant = nearest([name], vars(sys.modules[module]) if module in sys.modules else ()).get(name)
    if meant is not None:
        return f"Is {meant} meant?"
    release = f"{installed.PIPECAT} {installed.version(installed.PIPECAT)}"
    return f"No module of {release} has {name}: another release may have it."


def _place(name: str, module: str) -> str | None:
    """The module that defines the name; of several, the one whose own name is most like ``module``."""
    definition = re.compile(rf"^(?:class|def|async def) {name}\b|^{name}\s*[:=]", re.MULTILINE)
    places = [place for place, text in _sources() if name in text and definition.search(text)]
    words = set(re.split(r"[._]", module))
    return max(places, key=lambda place: (len(words & set(re.split(r"[._]", place))), -len(place)), default=None)


def _sources() -> Iterator[tuple[str, str]]:
    top = installed.folder("pipecat") or ""
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in sorted(folders) if folder != top or name not in NO_SOURCES]
        for file in files:
            if file.endswith(".py"):
                path = os.path.join(folder, file)
                parts = Path(os.path.relpath(path, os.path.dirname(top))).with_suffix("").parts
                yield ".".join(part for part in parts if part != "__init__"), _read(path)


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
