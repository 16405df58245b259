"""Export of synthetic bursts to files that are reproducible byte for byte from the same photographs and seed.

DIR/set.json             name, seed, geometry, photographs, levels, exposures, hash of the whole set
DIR/007-gain4.npz        frames (N, C, H, W), truth (C, H, W), exposure, read, shot, displacements (N, 2), angles (N,),
                         path (H, W); see benchmark_sets.BenchmarkSet. Behind a mosaic also colour_filter, its
                         cell, and balance (3,); frames are then interpolated, read and shot as told of them
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np

from klarsicht.burst.synthesis.benchmark_sets import KODAK, BenchmarkSet, benchmark_set
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.ground.machine.disk import fill_folder, write_atomically
from klarsicht.ground.progress import track
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel, noise_level


def write_set(
    photographs: Path, out: Path, *, name: str, gains: Sequence[int], seed: int, geometry: Geometry = KODAK
) -> BenchmarkSet:
    """Write the set's bursts at each gain (none given: all), at the exposures drawn; return the set. Raises UsageError
    for an unknown set or gain, InputError for a folder with other files, CorpusError or ImageError for the photographs,
    StoreError, DiskFull."""
    levels = {gain: noise_level(gain) for gain in gains or GAINS}
    source = read_folder(photographs, geometry)
    benchmark = benchmark_set(name, source.photographs, seed, geometry)
    facts = {
        "set": name,
        "seed": seed,
        "sha256": benchmark.sha256,
        "geometry": asdict(geometry),
        "photographs": source.names,
        "levels": {gain: asdict(level) for gain, level in levels.items()},
    }
    with fill_folder(out):
        hashes = {}
        for index, gain in track(list(product(range(len(benchmark)), levels)), len(benchmark) * len(levels), "bursts"):
            file, content = f"{index:03d}-gain{gain}.npz", burst_bytes(benchmark, index, levels[gain])
            write_atomically(out / file, content)
            hashes[file] = hashlib.sha256(content).hexdigest()
        write_atomically(out / "set.json", (json.dumps(facts | {"files": hashes}, indent=1) + "\n").encode())
    return benchmark


def burst_bytes(benchmark: BenchmarkSet, index: int, level: NoiseLevel) -> bytes:
    """Return one burst in numpy's npz format without a time stamp: the same burst gives the same bytes."""
    exposure = float(benchmark.exposure(index, drawn=True))
    burst, file = benchmark.burst(index, level, exposure), io.BytesIO()
    mosaic = {} if benchmark.cell is None else {"colour_filter": benchmark.cell, "balance": benchmark.balances[index]}
    np.savez(
        file,
        frames=burst.frames,
        truth=benchmark.truth(index, exposure),
        exposure=np.float32(exposure),
        read=burst.noise.read,
        shot=burst.noise.shot,
        displacements=benchmark.displacements[index],
        angles=benchmark.angles[index],
        path=benchmark.paths[index],
        **mosaic,
    )
    return file.getvalue()
