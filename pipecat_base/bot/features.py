"""Features that are available in this image, found without importing packages unless ``verify`` is True.

The names, their order and the summary's form are the replaced image's; features that it does not have follow them.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pipecat_base.bot import compatibility, installed
from pipecat_base.bot.arguments import ArgumentTypes, load_types
from pipecat_base.config.settings import Settings
from pipecat_base.logs.logger import logger

RULE = "=" * 60
TITLE = "Features available in this base image:"
# nltk searches below these for data, after the environment's own folders.
NLTK_ROOTS = ("/usr", "/usr/local")


class FeatureStatus(StrEnum):
    ENABLED = "ENABLED"
    DISABLED = "DISABLED"  # not installed, or not turned on
    ERROR = "ERROR"  # installed, but it does not import
    MISSING_CONFIG = "MISSING_CONFIG"  # installed and turned on, but a variable is not set


EMOJIS = {
    FeatureStatus.ENABLED: "✅",
    FeatureStatus.DISABLED: "◻️",
    FeatureStatus.ERROR: "❌",
    FeatureStatus.MISSING_CONFIG: "⚠️",
}


@dataclass(frozen=True)
class Feature:
    """An entry of the summary. ``problem`` returns the fault of the imported ``modules``, if they have one."""

    name: str
    status: FeatureStatus
    required: str = ""
    reason: str = ""
    modules: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    problem: Callable[[], str | None] | None = None

    def line(self) -> str:
        if self.status is FeatureStatus.ENABLED:
            return f"{self.name}: {self.status.value}"
        return f"{self.name}: {self.status.value} (required: {self.required}; reason: {self.reason})"

    def summary(self) -> Iterator[str]:
        yield f"{EMOJIS[self.status]} {self.name}: {self.status.value}"
        if self.status is FeatureStatus.ENABLED:
            return
        yield f"   Required: {self.required}"
        if self.missing:
            yield f"   Config needed: {', '.join(self.missing)}"
        yield f"   Reason: {self.reason}"


class FeatureManager:
    def __init__(
        self,
        settings: Settings,
        *,
        has_file_storage: bool = False,
        types: Callable[[], ArgumentTypes] = lambda: load_types(cloud=False),
    ) -> None:
        self._settings = settings
        self._has_file_storage = has_file_storage
        self._types = types

    def features(self, *, verify: bool = False) -> list[Feature]:
        found = [
            self._daily(),
            self._websocket(),
            self._webrtc_arguments(),
            self._webrtc(),
            self._ice_candidates(),
            self.whatsapp(),
            self._observers(),
            self._moq_arguments(),
            self._esp32(),
            self._uploads(),
            self._krisp(),
            self._websocket_authentication(),
            self._nltk_data(),
        ]
        return [_verified(feature) for feature in found] if verify else found

    def log_features_summary(self) -> None:
        # As in the replaced image, the lines come from the module feature_manager.
        log = logger.patch(lambda record: record.update({"name": "feature_manager"}))
        log.info(RULE)
        log.info(TITLE)
        log.info(RULE)
        for feature in self.features(verify=True):
            for line in feature.summary():
                log.info(line)
        log.info(RULE)

    def capabilities(self) -> Mapping[str, str | None]:
        """The reason why each capability cannot be used, or None. Does not import the packages of transports."""
        moq = _verified(self._moq_arguments())
        webrtc = [_verified(self._webrtc_arguments()), self._webrtc()]
        return {
            "transport.daily": _why_not("daily"),
            "transport.moq": _reason(moq) or _why_not("moq"),
            "transport.webrtc": next(filter(None, map(_reason, webrtc)), None),
            "transport.websocket": None,
            "whatsapp": next(filter(None, map(_reason, [*webrtc, self.whatsapp()])), None),
        }

    def _daily(self) -> Feature:
        return _installed("Daily Transport", "pip install pipecat-ai[daily]", installed.DAILY)

    def _websocket(self) -> Feature:
        # uvicorn serves them; a bot needs no pipecat to use the socket.
        if not any(map(installed.has, ("websockets", "wsproto"))):
            return _disabled("Websocket Transport", "pip install websockets", "websockets is not installed")
        return Feature("Websocket Transport", FeatureStatus.ENABLED)

    def _webrtc_arguments(self) -> Feature:
        name = "SmallWebRTC Session Arguments"
        feature = _installed(name, "pip install pipecat-ai>=0.0.91", ("pipecat.runner.types",))
        return dataclasses.replace(feature, problem=lambda: compatibility.why_no_webrtc(self._types()))

    def _moq_arguments(self) -> Feature:
        name = "MoQ Session Arguments"
        feature = _installed(name, "pip install pipecat-ai[moq]>=1.12", ("pipecat.runner.types",))
        if feature.status is FeatureStatus.ENABLED and not installed.defines(
            "pipecat.runner.types", "MOQRunnerArguments"
        ):
            return _disabled(name, feature.required, compatibility.moq_needs())
        return dataclasses.replace(feature, problem=lambda: compatibility.why_no_moq(self._types()))

    def _webrtc(self) -> Feature:
        needed = ("aiortc", "pipecat.transports.smallwebrtc.request_handler")
        return _installed("SmallWebRTC Transport", "pip install pipecat-ai[webrtc]", needed)

    def _ice_candidates(self) -> Feature:
        name = "SmallWebRTC ICE Candidates"
        feature = _installed(name, "pip install pipecat-ai[webrtc]>=0.0.91", self._webrtc().modules or ("aiortc",))
        if feature.status is not FeatureStatus.ENABLED:
            return feature
        if not installed.defines("pipecat.transports.smallwebrtc.request_handler", "SmallWebRTCPatchRequest"):
            return _disabled(name, "pip install pipecat-ai>=0.0.91", "this pipecat has no trickle ICE")
        return feature

    def whatsapp(self) -> Feature:
        name = "WhatsApp Integration"
        settings = self._settings
        values = {
            "WHATSAPP_TOKEN": settings.whatsapp.token,
            "WHATSAPP_PHONE_NUMBER_ID": settings.whatsapp.phone_number_id,
            "WHATSAPP_APP_SECRET": settings.whatsapp.app_secret,
        }
        missing = tuple(variable for variable, value in values.items() if value is None)
        feature = _installed(
            name,
            "pip install pipecat-ai[webrtc]",
            ("aiortc", "pipecat.transports.smallwebrtc.request_handler", "pipecat.transports.whatsapp.api"),
        )
        if feature.status is FeatureStatus.ENABLED and missing:
            reason = f"Missing environment variables: {', '.join(missing)}"
            return Feature(name, FeatureStatus.MISSING_CONFIG, ", ".join(missing), reason, feature.modules, missing)
        return feature

    def _esp32(self) -> Feature:
        name = "ESP32 Support"
        if not self._settings.webrtc.esp32_enabled:
            return _disabled(name, "ESP32_ENABLED, ESP32_HOST", "ESP32_ENABLED is not true")
        return dataclasses.replace(self._webrtc(), name=name)

    def _uploads(self) -> Feature:
        name = "File Uploads"
        if not self._has_file_storage and self._settings.files.uploads_folder is None:
            required = "create_file_storage() in the bot, or PIPECAT_UPLOADS_FOLDER"
            return _disabled(name, required, "neither is there")
        return _installed(name, "pip install pipecat-ai>=1.13", ("pipecat.utils.file_storage",))

    def _observers(self) -> Feature:
        name = "Observability Observers"
        if not self._settings.telemetry.observers:
            return _disabled(name, "PIPECAT_OBSERVERS=true", "turned off")
        needed = ("pipecat.observers.startup_timing_observer", "pipecat.observers.user_bot_latency_observer")
        return _installed(name, "pip install pipecat-ai>=0.0.104", needed)

    def _krisp(self) -> Feature:
        name = "Krisp VIVA"
        feature = _installed(name, "the Krisp VIVA SDK, mounted by the platform", ("krisp_audio",))
        if feature.status is not FeatureStatus.ENABLED:
            return feature
        model = self._settings.files.krisp_viva_model
        if model is None:
            return Feature(
                name, FeatureStatus.MISSING_CONFIG, "KRISP_VIVA_FILTER_MODEL_PATH", "not set", feature.modules
            )
        if not os.path.exists(model):
            reason = "KRISP_VIVA_FILTER_MODEL_PATH names a file that does not exist"
            return Feature(name, FeatureStatus.ERROR, "the model's file", reason, feature.modules)
        return feature

    def _websocket_authentication(self) -> Feature:
        name = "WebSocket Authentication"
        if self._settings.websockets.auth == "none":
            return _disabled(name, "PIPECAT_WEBSOCKET_AUTH=token", "every WebSocket is let in")
        if self._settings.websockets.secret is None:
            reason = "tokens are checked, but nothing outside this process can make one"
            return Feature(name, FeatureStatus.MISSING_CONFIG, "PIPECAT_WEBSOCKET_SECRET", reason)
        return Feature(name, FeatureStatus.ENABLED)

    def _nltk_data(self) -> Feature:
        name = "NLTK Data"
        feature = _installed(name, "nltk, which pipecat-ai < 1.12 brings", ("nltk",))
        if feature.status is not FeatureStatus.ENABLED:
            return feature
        folders = [folder for folder in (self._settings.files.nltk_data or "").split(os.pathsep) if folder]
        folders += [os.path.expanduser("~/nltk_data"), os.path.join(sys.prefix, "nltk_data")]
        shared = ("share", "lib")
        folders += [os.path.join(root, part, "nltk_data") for root in (sys.prefix, *NLTK_ROOTS) for part in shared]
        data = [os.path.join(folder, "tokenizers", "punkt_tab") for folder in folders]
        if any(os.path.exists(path) or os.path.exists(f"{path}.zip") for path in data):
            return feature
        required = "punkt_tab (docker build --build-arg NLTK_DATA=required)"
        return Feature(
            name, FeatureStatus.MISSING_CONFIG, required, "pipecat fetches it when a call needs it", ("nltk",)
        )


def _disabled(name: str, required: str, reason: str) -> Feature:
    return Feature(name, FeatureStatus.DISABLED, required, reason)


def _installed(name: str, required: str, modules: tuple[str, ...]) -> Feature:
    missing = installed.first_missing(modules)
    if missing is not None:
        return Feature(name, FeatureStatus.DISABLED, required, f"{missing} is not installed")
    return Feature(name, FeatureStatus.ENABLED, required, modules=modules)


def _why_not(module: str) -> str | None:
    """The message of an import that fails, or None."""
    return None if installed.has(module) else f"No module named {module!r}"


def _reason(feature: Feature) -> str | None:
    return None if feature.status is FeatureStatus.ENABLED else feature.reason


def _verified(feature: Feature) -> Feature:
    if feature.status not in (FeatureStatus.ENABLED, FeatureStatus.MISSING_CONFIG):
        return feature
    for module in feature.modules:
        try:
            importlib.import_module(module)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            why = f"{module} does not import: {type(error).__name__}: {' '.join(str(error).split())}"
            return dataclasses.replace(feature, status=FeatureStatus.ERROR, reason=why)
    problem = feature.problem() if feature.problem is not None else None
    return feature if problem is None else dataclasses.replace(feature, status=FeatureStatus.ERROR, reason=problem)
