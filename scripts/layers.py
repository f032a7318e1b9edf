"""Print each layer of an image, as it is and compressed (what a registry stores and a node pulls)."""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zlib
from typing import IO

MB = 1e6


def main(image: str, most: float = float("inf")) -> None:
    """Print the table; fail when all of it takes more than ``most`` MB compressed."""
    docker = os.environ.get("DOCKER", "docker")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "image.tar")
        subprocess.run([docker, "save", "-o", path, image], check=True)  # noqa: S603
        with tarfile.open(path) as archive:
            (manifest,) = json.load(archive.extractfile("manifest.json"))
            config = json.load(archive.extractfile(manifest["Config"]))
            history = [step for step in config["history"] if not step.get("empty_layer")]
            total = [0.0, 0.0]
            for layer, step in zip(manifest["Layers"], history, strict=True):
                sizes = measure(archive.extractfile(layer))
                total = [a + b for a, b in zip(total, sizes, strict=True)]
                made_by = " ".join(step.get("created_by", "the base").split())
                print(f"{sizes[0]:8.1f} MB {sizes[1]:8.1f} MB gzip  {made_by[:90]}")
            print(f"{total[0]:8.1f} MB {total[1]:8.1f} MB gzip  {image}, at most {most:g} MB")
            if total[1] > most:
                sys.exit(1)


def measure(layer: IO[bytes]) -> tuple[float, float]:
    """Megabytes, as it is and compressed."""
    raw = packed = 0
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
    while chunk := layer.read(1 << 20):
        raw += len(chunk)
        packed += len(compressor.compress(chunk))
    return raw / MB, (packed + len(compressor.flush())) / MB


main(sys.argv[1], *map(float, sys.argv[2:]))
