"""Import names and the packages that have them, where the two differ."""

from __future__ import annotations

import re

from pipecat_base.bot.import_statements import ImportStatement

# The longest match counts: "google.cloud.speech" before "google".
PACKAGES = {
    "attr": "attrs",
    "audioop": "audioop-lts",
    "azure.cognitiveservices.speech": "azure-cognitiveservices-speech",
    "bs4": "beautifulsoup4",
    "camb": "camb-sdk",
    "Crypto": "pycryptodome",
    "cv2": "opencv-python-headless",
    "daily": "daily-python",
    "dateutil": "python-dateutil",
    "deepgram": "deepgram-sdk",
    "discord": "discord.py",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "pymupdf",
    "gi": "pygobject",
    "git": "gitpython",
    "google": "google-genai",
    "google.api_core": "google-api-core",
    "google.auth": "google-auth",
    "google.cloud.secretmanager": "google-cloud-secret-manager",
    "google.genai": "google-genai",
    "google.generativeai": "google-generativeai",
    "google.oauth2": "google-auth",
    "google.protobuf": "protobuf",
    "googleapiclient": "google-api-python-client",
    "grpc": "grpcio",
    "jose": "python-jose",
    "jwt": "pyjwt",
    "kafka": "kafka-python",
    "livekit.rtc": "livekit",
    "livekit.api": "livekit-api",
    "livekit.agents": "livekit-agents",
    "magic": "python-magic",
    "mem0": "mem0ai",
    "moq": "moq-rs",
    "multipart": "python-multipart",
    "MySQLdb": "mysqlclient",
    "nacl": "pynacl",
    "OpenSSL": "pyopenssl",
    "opentelemetry": "opentelemetry-sdk",
    "opentelemetry.instrumentation": "opentelemetry-instrumentation",
    "opentelemetry.sdk": "opentelemetry-sdk",
    "opentelemetry.exporter.otlp.proto.grpc": "opentelemetry-exporter-otlp-proto-grpc",
    "opentelemetry.exporter.otlp.proto.http": "opentelemetry-exporter-otlp-proto-http",
    "PIL": "pillow",
    "pipecat": "pipecat-ai",
    "pipecat_ai_prebuilt": "pipecat-ai-prebuilt",
    "pipecat_cli": "pipecat-ai-cli",
    "pipecat_flows": "pipecat-ai-flows",
    "pipecat_tail": "pipecat-ai-tail",
    "pipecat_whisker": "pipecat-ai-whisker",
    "piper": "piper-tts",
    "pkg_resources": "setuptools",
    "psycopg2": "psycopg2-binary",
    "riva": "nvidia-riva-client",
    "serial": "pyserial",
    "simli": "simli-ai",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "small_webrtc_prebuilt": "pipecat-ai-small-webrtc-prebuilt",
    "socketio": "python-socketio",
    "speech_recognition": "speechrecognition",
    "speechmatics": "speechmatics-agent-stt",
    "speechmatics.agent_stt": "speechmatics-agent-stt",
    "speechmatics.batch": "speechmatics-batch",
    "speechmatics.rt": "speechmatics-rt",
    "speechmatics.voice": "speechmatics-voice",
    "strands": "strands-agents",
    "telegram": "python-telegram-bot",
    "usb": "pyusb",
    "whisper": "openai-whisper",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}


GOOGLE_CLOUD = re.compile(r"google\.cloud\.([a-z]+)")


def listed_package_of(statement: ImportStatement, *, below: str = "") -> str | None:
    """The package of the longest part of a name that is listed, and goes beyond ``below``."""
    return next(filter(None, (_listed(module, below) for module in statement.modules)), None)


def _listed(module: str, below: str) -> str | None:
    parts = module.split(".")
    names = [".".join(parts[:count]) for count in range(len(parts), below.count(".") + bool(below), -1)]
    found = next((name for name in names if name in PACKAGES), None)
    of_google = GOOGLE_CLOUD.match(module)  # google.cloud.speech_v2: google-cloud-speech
    if of_google is not None and found in (None, "google"):
        return f"google-cloud-{of_google[1]}"
    return None if found is None else PACKAGES[found]
