"""WAV files, resampling, levels, and G.711 mu-law."""

from __future__ import annotations

import math
import wave

import numpy as np
import soxr
from numpy.typing import ArrayLike, NDArray

Samples = NDArray[np.int16]

PHONE_RATE = 8000
FULL_SCALE = 32768
SILENCE_DBFS = -90.0
MULAW_BIAS = 0x84
MULAW_CLIP = 32635


def read_wav(path: str) -> tuple[Samples, int]:
    """Read a recording, and mix its channels; ValueError when it is not 16-bit PCM WAV."""
    try:
        with wave.open(path, "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is not a PCM WAV file: {error or 'it ends too early'}") from None
    if width != 2:
        raise ValueError(f"{path} has {width * 8}-bit samples; 16-bit PCM is needed")
    frames = np.frombuffer(raw[: len(raw) // (2 * channels) * 2 * channels], "<i2").reshape(-1, channels)
    return (frames.sum(axis=1, dtype=np.int64) // channels).astype(np.int16), rate


def write_wav(path: str, samples: ArrayLike, rate: int = PHONE_RATE) -> None:
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, "<i2").tobytes())


def resample(samples: ArrayLike, rate: int, target: int) -> Samples:
    pcm = np.asarray(samples, np.int16)
    if rate == target:
        return pcm
    # As floats: soxr dithers integers, so that silence would be noise.
    resampled: NDArray[np.float32] = soxr.resample(pcm.astype(np.float32), rate, target)
    return np.clip(np.rint(resampled), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def level_dbfs(samples: Samples) -> float:
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return max(SILENCE_DBFS, 10 * math.log10(power / FULL_SCALE**2)) if power else SILENCE_DBFS


def encode_mulaw(samples: ArrayLike) -> bytes:
    pcm = np.asarray(samples, np.int32)
    magnitude = np.minimum(np.abs(pcm), MULAW_CLIP) + MULAW_BIAS
    exponent = np.frexp(magnitude)[1] - 8
    mantissa = magnitude >> (exponent + 3) & 0x0F
    code: NDArray[np.int32] = np.where(pcm < 0, 0x80, 0) | exponent << 4 | mantissa
    return (~code & 0xFF).astype(np.uint8).tobytes()


def decode_mulaw(data: bytes) -> Samples:
    return _DECODED[np.frombuffer(data, np.uint8)]


_CODES = ~np.arange(256) & 0xFF
_MAGNITUDES = (((_CODES & 0x0F) << 3) + MULAW_BIAS << (_CODES >> 4 & 0x07)) - MULAW_BIAS
_DECODED: Samples = np.where(_CODES & 0x80, -_MAGNITUDES, _MAGNITUDES).astype(np.int16)
