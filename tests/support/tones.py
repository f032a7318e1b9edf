"""Tones, to tell one caller's audio from another's."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def tone(frequency: float, seconds: float, rate: int = 8000, amplitude: int = 12000) -> list[int]:
    """Signed 16-bit samples."""
    return [round(amplitude * math.sin(2 * math.pi * frequency * n / rate)) for n in range(int(seconds * rate))]


def pitch(samples: ArrayLike, rate: int = 8000) -> float:
    """The dominant frequency, in Hz."""
    values = np.asarray(samples, dtype=float)
    spectrum = np.abs(np.fft.rfft(values))
    spectrum[0] = 0
    return float(np.argmax(spectrum)) * rate / len(values)
