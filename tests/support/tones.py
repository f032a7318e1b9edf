"""Tones, to tell one caller's audio from another's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def tone(frequency: float, seconds: float, rate: int = 8000, amplitude: int = 12000) -> list[int]:
    """Signed 16-bit samples."""
    return [round(amplitude * math.sin(2 * math.pi * frequency * n / rate)) for n in range(int(seconds * rate))]


def pitch(samples: Sequence[int], rate: int = 8000) -> float:
    """The dominant frequency, in Hz."""
    spectrum = np.abs(np.fft.rfft(np.asarray(samples, dtype=float)))
    spectrum[0] = 0
    return float(np.argmax(spectrum)) * rate / len(samples)
