from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipecat_base.cli.call import audio
from tests.support.tones import pitch, tone


@pytest.mark.parametrize(
    ("sample", "byte"), [(0, 0xFF), (-1, 0x7F), (32767, 0x80), (-32768, 0x00), (1000, 0xCE), (-1000, 0x4E), (8, 0xFE)]
)
def test_mulaw_is_that_of_the_standard(sample: int, byte: int) -> None:
    assert audio.encode_mulaw([sample]) == bytes([byte])


@pytest.mark.parametrize(
    ("byte", "sample"), [(0xFF, 0), (0x7F, 0), (0x80, 32124), (0x00, -32124), (0xCE, 988), (0x4E, -988), (0xFE, 8)]
)
def test_a_mulaw_byte_is_decoded_as_in_the_standard(byte: int, sample: int) -> None:
    assert audio.decode_mulaw(bytes([byte])).tolist() == [sample]


@given(st.integers(-32768, 32767))
def test_mulaw_keeps_a_sample_within_its_step(sample: int) -> None:
    (decoded,) = audio.decode_mulaw(audio.encode_mulaw([sample]))
    assert abs(decoded - sample) <= max(8, abs(sample) // 16) + 132


def test_every_byte_survives() -> None:
    every = bytes(range(256))
    again = audio.encode_mulaw(audio.decode_mulaw(every))
    assert [a for a, b in zip(again, every, strict=True) if a != b] == [0xFF]  # both zeros become one


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 24000, 44100, 48000])
def test_a_tone_keeps_its_pitch_whatever_the_rate(tmp_path: Path, rate: int) -> None:
    path = str(tmp_path / "tone.wav")
    audio.write_wav(path, tone(440, 0.5, rate), rate)
    recorded, at = audio.read_wav(path)
    assert at == rate
    samples = audio.resample(recorded, rate, audio.PHONE_RATE)
    assert len(samples) == pytest.approx(4000, abs=2)
    assert pitch(samples) == pytest.approx(440, abs=3)
    assert max(samples) == pytest.approx(12000, rel=0.1)


def test_what_8_khz_can_not_carry_is_removed() -> None:
    samples = audio.resample(tone(6000, 0.2, 16000), 16000, 8000)
    assert max(map(abs, samples[100:-100])) < 300


def test_silence_stays_silence_and_the_loudest_sample_is_not_wrapped() -> None:
    assert not audio.resample([0] * 800, 16000, 8000).any()
    assert audio.resample([32767] * 1600, 16000, 8000)[200:-200].min() > 32700
    assert audio.resample([], 16000, 8000).size == 0


@pytest.mark.parametrize(
    ("samples", "dbfs"), [([], -90), ([0, 0], -90), ([32767, -32768], 0), ([16384] * 4, -6.02), ([1, -1], -90)]
)
def test_a_level_is_the_mean_power_against_full_scale(samples: list[int], dbfs: float) -> None:
    assert audio.level_dbfs(np.array(samples, np.int16)) == pytest.approx(dbfs, abs=0.01)


def test_the_channels_of_a_recording_are_mixed(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.array([100, 300, -32768, -32768, 32767, 32767, -1, 0], "<i2").tobytes())
    samples, rate = audio.read_wav(str(path))
    assert (samples.tolist(), rate) == ([200, -32768, 32767, -1], 8000)
