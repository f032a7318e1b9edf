"""``make bench-image``: the image under the platform's smallest profile, against its own files run without a container.

The floor is the same launcher and Python: the image's files in a folder, entered with chroot under the same limit of
CPU. So root is needed, and cgroups that can be made (version 1 or 2).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from benchmarks.__main__ import wait_until_ready

DOCKER = os.environ.get("DOCKER", "docker")
BOTS = Path(__file__).parent / "bots"
CPUS = 0.5
PROFILE = ["--cpus", str(CPUS), "--memory", "1g"]
PERIOD = 100_000
"""Microseconds over which the kernel counts the CPU's limit."""
CGROUPS = Path("/sys/fs/cgroup")
MB = 1 << 20


def docker(*arguments: str) -> str:
    return subprocess.run([DOCKER, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def limit() -> Iterator[Path]:
    """A cgroup with half a CPU; the file that takes its processes."""
    version_1 = (CGROUPS / "cpu").is_dir()
    group = (CGROUPS / "cpu" if version_1 else CGROUPS) / f"pipecat-base-{os.getpid()}"
    group.mkdir()
    quota = int(CPUS * PERIOD)
    if version_1:
        (group / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        (group / "cpu.max").write_text(f"{quota} {PERIOD}")
    try:
        yield group / "cgroup.procs"
    finally:
        time.sleep(0.2)  # the last process is still leaving
        group.rmdir()


@contextlib.contextmanager
def unpacked(image: str) -> Iterator[Path]:
    """The image's files."""
    folder = Path(tempfile.mkdtemp(prefix="image-"))
    container = docker("create", image)
    try:
        with subprocess.Popen([DOCKER, "export", container], stdout=subprocess.PIPE) as export:
            subprocess.run(["tar", "-x", "-C", str(folder)], stdin=export.stdout, check=True)
        yield folder
    finally:
        docker("rm", container)
        shutil.rmtree(folder, ignore_errors=True)


def without_a_container(root: Path, bot: str, processes: Path) -> float:
    """Milliseconds from exec to the first 200."""
    shutil.copy(BOTS / bot / "bot.py", root / "app" / "bot.py")
    port = free_port()
    path = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    enter = f"echo $$ >{processes}; exec chroot {root} /bin/sh -c 'cd /app && exec pipecat-base'"
    environment = {"PORT": str(port), "PATH": path, "PIPECAT_LOG_LEVEL": "WARNING", "PYTHONUNBUFFERED": "1"}
    began = time.perf_counter()
    quiet = subprocess.DEVNULL
    with subprocess.Popen(["/bin/sh", "-c", enter], env=environment, stdout=quiet, stderr=quiet) as process:
        wait_until_ready(port)
        took = time.perf_counter() - began
        process.kill()
    return took * 1000


@contextlib.contextmanager
def container(image: str, bot: str, *options: str) -> Iterator[tuple[str, int]]:
    port = free_port()
    mounted = f"{BOTS / bot / 'bot.py'}:/app/bot.py:ro"
    run = ["run", "-d", "-p", f"127.0.0.1:{port}:8080", "-v", mounted, "-e", "PIPECAT_LOG_LEVEL=WARNING"]
    found = docker(*run, *PROFILE, *options, image)
    try:
        yield found, port
    finally:
        docker("rm", "-f", found)


def in_a_container(image: str, bot: str) -> tuple[float, float]:
    """Milliseconds to the first 200: from ``docker run``, and from the start of the container's first process."""
    began = time.time()
    with container(image, bot) as (found, port):
        wait_until_ready(port)
        ready = time.time()
        started = docker("inspect", found, "--format", "{{.State.StartedAt}}")
    at = datetime.fromisoformat(started[:26].rstrip("Z") + "+00:00").timestamp()
    return (ready - began) * 1000, (ready - at) * 1000


def memory(image: str) -> float:
    """MB of an idle container, as the engine counts them."""
    with container(image, "trivial") as (found, port):
        wait_until_ready(port)
        time.sleep(3)
        said = json.loads(docker("stats", "--no-stream", "--format", "{{json .}}", found))["MemUsage"].split("MiB")[0]
    return float(said) * MB / 1e6


def cpu(image: str, seconds: float, *options: str) -> float:
    """Milliseconds of CPU that an idle container takes in so many seconds."""
    with container(image, "trivial", *options) as (found, port):
        wait_until_ready(port)
        time.sleep(5)
        before = _cpu_time(found)
        time.sleep(seconds)
        return _cpu_time(found) - before


def _cpu_time(found: str) -> float:
    version_1 = CGROUPS / "cpuacct" / "docker" / found / "cpuacct.usage"
    if version_1.exists():
        return int(version_1.read_text()) / 1e6
    stat = next(CGROUPS.rglob(f"*{found}*/cpu.stat")).read_text()
    return int(stat.split()[1]) / 1e3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    print("| --cpus 0.5 --memory 1g | without a container | docker run | against | goal |\n|---|---|---|---|---|")
    for bot, image in (("trivial", "pipecat-base:slim"), ("realistic", "pipecat-base:full")):
        outside, from_run, from_start = [], [], []
        with unpacked(image) as root, limit() as processes:
            for _ in range(options.rounds + 1):
                outside.append(without_a_container(root, bot, processes))
                run, start = in_a_container(image, bot)
                from_run.append(run)
                from_start.append(start)
        floor = statistics.median(outside[1:])
        for name, goal, times in (("from docker run", "-", from_run), ("from its start", "at most 1.25x", from_start)):
            ours = statistics.median(times[1:])
            print(f"| {bot} bot, {name} | {floor:.0f} ms | {ours:.0f} ms | {ours / floor:.2f}x | {goal} |")
    print(f"| trivial bot, idle memory | - | {memory('pipecat-base:slim'):.1f} MB | - | at most 60 MB |")
    probes = 20
    idle = cpu("pipecat-base:slim", probes, "--no-healthcheck")
    probed = cpu("pipecat-base:slim", probes, "--health-interval", "1s")
    per_minute = (probed - idle) / probes * 2
    print(f"| health checks, CPU in a minute | - | {per_minute:.0f} ms | - | less than 100 ms |")


if __name__ == "__main__":
    main()
