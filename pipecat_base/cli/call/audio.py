"""Just enough audio to make a phone call: WAV files, resampling to 8 kHz, and G.711 mu-law.

The standard library had the last two until Python 3.12.
"""

from __future__ import annotations

import array
import math
import sys
import wave
from collections.abc import Sequence

PHONE_RATE = 8000
"""Samples a second, on every phone network."""
FRAME = 160
"""Samples in 20 ms, a phone provider's frame."""
BIAS = 0x84
CLIP = 32635
TAPS = 32


def read_wav(path: str) -> tuple[list[int], int]:
    """A recording as signed 16-bit samples, its channels mixed, and their rate in Hz.

    Raises:
        ValueError: when it is not 16-bit PCM WAV.
    """
    try:
        with wave.open(path, "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is not a PCM WAV file: {error or 'it ends too early'}") from None
    if width != 2:
        raise ValueError(f"{path} has {width * 8}-bit samples; 16-bit PCM is needed")
    samples = array.array("h", raw[: len(raw) // (2 * channels) * 2 * channels])
    if sys.byteorder == "big":
        samples.byteswap()
    mono = [sum(samples[i : i + channels]) // channels for i in range(0, len(samples), channels)]
    return mono, rate


def write_wav(path: str, samples: Sequence[int], rate: int = PHONE_RATE) -> None:
    """Write mono, 16-bit."""
    data = array.array("h", samples)
    if sys.byteorder == "big":
        data.byteswap()
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(data.tobytes())


def resample(samples: Sequence[int], rate: int, target: int) -> list[int]:
    """Change the rate, with a windowed sinc that removes what the target rate cannot carry."""
    if rate == target:
        return list(samples)
    step = rate / target
    cutoff = min(1.0, 1.0 / step)
    reach = int(TAPS / cutoff / 2)
    out = []
    for n in range(int(len(samples) / step)):
        centre = n * step
        first = int(centre) - reach + 1
        total = 0.0
        for k in range(max(0, first), min(len(samples), first + 2 * reach)):
            distance = (k - centre) * cutoff
            window = 0.5 + 0.5 * math.cos(math.pi * (k - centre) / reach)
            sinc = 1.0 if distance == 0 else math.sin(math.pi * distance) / (math.pi * distance)
            total += samples[k] * sinc * window
        out.append(max(-32768, min(32767, round(total * cutoff))))
    return out


def _encode_sample(sample: int) -> int:
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), CLIP) + BIAS
    exponent = magnitude.bit_length() - 8
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    return ~(sign | exponent << 4 | mantissa) & 0xFF


def _decode_byte(byte: int) -> int:
    byte = ~byte & 0xFF
    magnitude = (((byte & 0x0F) << 3) + BIAS << (byte >> 4 & 0x07)) - BIAS
    return -magnitude if byte & 0x80 else magnitude


_DECODED = [_decode_byte(byte) for byte in range(256)]


def encode_mulaw(samples: Sequence[int]) -> bytes:
    """ITU-T G.711 mu-law, a byte a sample."""
    return bytes(map(_encode_sample, samples))


def decode_mulaw(data: bytes) -> list[int]:
    """The inverse, to signed 16-bit samples."""
    return [_DECODED[byte] for byte in data]
