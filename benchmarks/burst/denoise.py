"""Cost of `klarsicht burst denoise`: seconds and peak memory of a process of its own, reading and writing included.

A burst of raw frames (Bayer DNGs, 14 bits) of a drawn scene, shaken by whole pixels. Without --checkpoint, a network
`swift` with its first weights: the same cost as a trained one.

    python benchmarks/burst/denoise.py [--megapixels 12] [--frames 8] [--memory 2] [--checkpoint NETWORK]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from klarsicht.burst.network.checkpoints import save_network
from klarsicht.burst.network.unet import NetworkSettings, build_network
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.004, 4e-4)
BLACK, WHITE, REACH = 600, 16383, 16


def scene(height: int, width: int) -> np.ndarray:
    """(H, W): waves of many lengths and hard edges, of blocks that do not repeat."""
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    blocks = np.random.default_rng(0).random((height // 131 + 1, width // 97 + 1), np.float32)
    light = 0.3 + 0.1 * np.sin(x / 171) * np.cos(y / 233) + 0.05 * np.sin(x / 7 + y / 11)
    light += 0.2 * blocks[(y // 131).astype(int), (x // 97).astype(int)]
    return light.astype(np.float32)


def write(folder: Path, megapixels: float, frames: int) -> None:
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5) // 2 * 2
    height = round(width * 3 / 4) // 2 * 2
    wide = scene(height + 2 * REACH, width + 2 * REACH)
    for i in range(frames):
        rng = np.random.default_rng(i)
        dy, dx = rng.integers(-REACH // 2, REACH // 2 + 1, 2) * 2 * (i > 0) + REACH
        noisy = LEVEL.sample(wide[dy : dy + height, dx : dx + width], rng)
        counts = np.clip(np.rint(noisy * (WHITE - BLACK) + BLACK), 0, WHITE).astype(np.uint16)
        tifffile.imwrite(folder / f"{i:02}.dng", counts, photometric=32803, extratags=tags(), metadata=None)


def tags() -> list[tuple[object, ...]]:
    matrix = [n for value in (0.9, -0.3, -0.1, -0.5, 1.4, 0.1, -0.1, 0.3, 0.7) for n in (round(value * 10000), 10000)]
    return [
        (271, 2, 0, "Example", True),
        (272, 2, 0, "Example One", True),
        (33421, 3, 2, (2, 2), True),
        (33422, 1, 4, bytes((0, 1, 1, 2)), True),
        (50706, 1, 4, bytes((1, 4, 0, 0)), True),
        (50708, 2, 0, "Example One", True),
        (50713, 3, 2, (2, 2), True),
        (50714, 4, 4, (BLACK,) * 4, True),
        (50717, 4, 1, WHITE, True),
        (50721, 10, 9, matrix, True),
        (50728, 5, 3, (1, 2, 1, 1, 2, 3), True),
        (50778, 3, 1, 21, True),
        (51041, 12, 2, (LEVEL.shot, LEVEL.read**2), True),
    ]


def peak(pid: int) -> float:
    """GB, so far."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9 if "VmHWM:" in status else 0.0


def measure(words: list[str]) -> tuple[float, float, float]:
    """Run klarsicht with such arguments, and return seconds, CPU seconds, and GB at most."""
    start, most = time.perf_counter(), 0.0
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-m", "klarsicht", *words])
    while True:
        done, status, used = os.wait4(pid, os.WNOHANG)
        if done:
            break
        most = max(most, peak(pid))
        time.sleep(0.05)
    if status:
        raise SystemExit(f"the command failed: {status}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--memory", type=float, default=2)
    parser.add_argument("--checkpoint", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "burst").mkdir()
        write(folder / "burst", asked.megapixels, asked.frames)
        network = asked.checkpoint or folder / "swift.safetensors"
        if asked.checkpoint is None:
            save_network(build_network(NetworkSettings(colour="mosaic"), seed=1), network, {})
        words = ["burst", "denoise", str(folder / "burst"), "-o", str(folder / "out.dng"), "--checkpoint", str(network)]
        wall, cpu, most = measure([*words, "--memory", str(asked.memory)])
    print(f"{asked.megapixels:g} Mpx x {asked.frames} frames: {wall:.0f} s, {cpu:.0f} CPU s, {most:.2f} GB at most")


if __name__ == "__main__":
    main()
