from __future__ import annotations

from pathlib import Path

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
