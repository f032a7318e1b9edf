from __future__ import annotations

import os

from pipecat_base.config.secret_copies import CHUNK_BYTES, overwritten


def made() -> bytes:
    return os.urandom(16).hex().encode()


def test_copies_anywhere_in_memory_are_overwritten_after_the_block() -> None:
    first, second = made(), made()
    count = 3 * CHUNK_BYTES // 33
    many = bytearray((first + b"-") * count)  # some begin in one chunk and end in the next
    with overwritten([f"{first.decode()}, {second.decode()}"]):
        assert first != b"x" * 32
    assert first == second == b"x" * 32
    assert many == (b"x" * 32 + b"-") * count


def test_what_is_short_and_what_is_no_secret_stays() -> None:
    short, other = made()[:11], made()
    before = short.decode(), other.decode()
    with overwritten([short.decode(), made().decode(), ""]):
        pass
    assert (short.decode(), other.decode()) == before
