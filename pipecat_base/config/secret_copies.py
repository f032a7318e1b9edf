"""Copies of secrets that a forked process has inherited in freed memory, where any code in it can read them."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Collection, Iterator

MIN_BYTES = 12  # a shorter secret may equal part of something else, which would be overwritten
CHUNK_BYTES = 1024 * 1024
WRITABLE = "rw-p"
HEAPS = ("", "[heap]")


@contextlib.contextmanager
def overwritten(values: Collection[str]) -> Iterator[None]:
    """After the block, which drops the references, overwrite what memory still holds of the values and their items."""
    # Until then the values are kept in shared memory, which is not searched.
    parts = {os.fsencode(part.strip()) for value in values for part in value.split(",")}
    lengths = [len(part) for part in parts if len(part) >= MIN_BYTES]
    with mmap.mmap(-1, sum(lengths) + 1) as secrets, mmap.mmap(-1, CHUNK_BYTES + max(lengths, default=0)) as chunk:
        for part in parts:
            if len(part) >= MIN_BYTES:
                secrets.write(part)
        parts.clear()
        part = b""
        yield
        with contextlib.suppress(OSError), open("/proc/self/mem", "r+b", buffering=0) as memory:
            _overwrite(memory.fileno(), secrets, lengths, chunk)


def _overwrite(memory: int, secrets: mmap.mmap, lengths: Collection[int], chunk: mmap.mmap) -> None:
    for begin, end in _writable_memory():
        for address in range(begin, end, CHUNK_BYTES):
            with contextlib.suppress(OSError), memoryview(secrets) as kept:  # a system may not map what it lists
                size = os.preadv(memory, [chunk], address)
                at = 0
                for length in lengths:
                    _overwrite_in(memory, address, chunk, min(size, end - address), kept[at : at + length])
                    at += length


def _overwrite_in(memory: int, address: int, chunk: mmap.mmap, size: int, secret: memoryview) -> None:
    found = chunk.find(secret, 0, size)
    while found >= 0:
        os.pwrite(memory, b"x" * len(secret), address + found)
        found = chunk.find(secret, found + len(secret), size)


def _writable_memory() -> list[tuple[int, int]]:
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        lines = [line.split() for line in file]
    return [
        (int(begin, 16), int(end, 16))
        for addresses, permissions, _, _, _, *path in lines
        for begin, _, end in [addresses.partition("-")]
        if permissions == WRITABLE and "".join(path) in HEAPS
    ]
