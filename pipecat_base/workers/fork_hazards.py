"""Resources that a forked process would share with its siblings or lose, as proc(5) shows them."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

OPENMP = re.compile(r"/(lib(?:gomp|omp|iomp5)[^/]*\.so\S*)")
# Its threads wait for work that a forked process gives to new ones, and its database counts its uses.
ONNXRUNTIME = "onnxruntime"
SQLITE_HEADER = b"SQLite format 3\0"
CAPTURE_THREAD = "bot.jsonl"


def open_descriptors() -> dict[int, str]:
    """Descriptors of this process, and what they refer to: a path, ``socket:[inode]``, ``pipe:[inode]`` ..."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of this very listing
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def fork_hazards(before: Mapping[int, str]) -> list[str]:
    """Describe resources made since ``before`` that must not be forked; each item is a phrase for a log line."""
    return [*_python_threads(), *_native_threads(), *_open_since(before)]


def listening_addresses() -> list[str]:
    """TCP addresses on which this process listens."""
    found = []
    for descriptor, target in open_descriptors().items():
        if target.startswith("socket:"):
            with _opened(descriptor) as sock:
                if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6) and _is_listening(sock):
                    found.append(_shown(sock.getsockname()))
    return found


def _python_threads() -> Iterator[str]:
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and thread.name != CAPTURE_THREAD:
            yield f"the thread {thread.name}"


def _native_threads() -> Iterator[str]:
    """Threads that Python did not start."""
    # The native_id of a main thread is that of the parent's after a fork.
    known = {os.getpid(), *(thread.native_id for thread in threading.enumerate())}
    others = [int(task) for task in os.listdir("/proc/self/task") if int(task) not in known]
    if not others:
        return
    maps = Path("/proc/self/maps").read_text(errors="replace")
    openmp = OPENMP.search(maps)
    if openmp is not None:
        yield f"threads, perhaps of OpenMP ({openmp[1]})"
    elif ONNXRUNTIME not in maps:
        yield f"threads of a library ({', '.join(sorted(set(map(_thread_name, others))))})"


def _thread_name(task: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/self/task/{task}/comm").read_text(errors="replace").strip()
    return "ended"


def _open_since(before: Mapping[int, str]) -> Iterator[str]:
    for descriptor, target in sorted(open_descriptors().items()):
        if before.get(descriptor) != target:
            found = _describe(descriptor, target)
            if found is not None:
                yield f"{found} (descriptor {descriptor})"


def _describe(descriptor: int, target: str) -> str | None:
    """Describe what siblings must not share; None for what they may."""
    if target.startswith("socket:"):
        with _opened(descriptor) as sock:
            return None if sock is None else _describe_socket(sock)
    if target.startswith("pipe:"):
        return "a pipe, perhaps of a process pool or a queue"
    if target == "anon_inode:[eventpoll]":
        return "an event loop"
    if target.startswith("/dev/nvidia"):
        return f"CUDA on {target}"
    if target.startswith("/") and ONNXRUNTIME not in target and _is_sqlite(descriptor):
        return f"the SQLite database {target}"
    return None


def _describe_socket(sock: socket.socket) -> str | None:
    if _is_listening(sock):
        return f"a server on {_shown(sock.getsockname())}"
    with contextlib.suppress(OSError):
        peer = sock.getpeername()
        return f"a connection to {_shown(peer)}" if peer else "a socket pair"
    # Until it has an address nothing arrives there.
    is_unused = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getsockname()[1] == 0
    return None if is_unused else f"a socket on {_shown(sock.getsockname())}"


@contextlib.contextmanager
def _opened(descriptor: int) -> Iterator[socket.socket | None]:
    """A duplicate of the socket; None when it has been closed meanwhile."""
    try:
        sock = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        yield None
        return
    with sock:
        yield sock


def _is_listening(sock: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    return False


def _is_sqlite(descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        return os.pread(descriptor, len(SQLITE_HEADER), 0) == SQLITE_HEADER
    return False


def _shown(address: object) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        return f"[{address[0]}]:{address[1]}" if ":" in str(address[0]) else f"{address[0]}:{address[1]}"
    return address.decode(errors="replace") if isinstance(address, bytes) else str(address)
