"""Peak memory of `klarsicht burst denoise` on 48 megapixels x 32 frames, without waiting for all of it.

Memory does not grow with the regions aligned or the tiles done, so only the first ones of each are: everything before
them (reading, noise, hot pixels, whole frames' shifts) is done in full. The 32 frames are one drawn raw frame under 32
names. Prints gigabytes at most after each step.

    python benchmarks/burst/large_burst.py [--megapixels 48] [--frames 32] [--memory 2] [--parts 3]
        [--checkpoint NETWORK]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import denoise
from klarsicht.burst.align import tiled
from klarsicht.burst.denoising import hot_pixels, pipeline
from klarsicht.burst.files import loading, reading
from klarsicht.burst.merging import merge_tile


class EnoughError(Exception):
    """The tiles that were asked for are done."""


def told(step: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """The same work, with what the process has held at most when it is done."""

    def done(*given: Any, **named: Any) -> Any:
        start = time.process_time()
        result = work(*given, **named)
        print(
            f"{step}: {denoise.peak(os.getpid()):.2f} GB at most, {time.process_time() - start:.0f} CPU s", flush=True
        )
        return result

    return done


def first_tiles(work: Callable[..., Any], parts: int) -> Callable[..., Any]:
    def one(merge: Any, tile: Any) -> Any:
        if tile.number == parts:
            raise EnoughError
        print(f"tile {tile.number}: {tile.context.size} in a window of {tile.window.size}", flush=True)
        return told("tile", work)(merge, tile)

    return one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=48)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--memory", type=float, default=2)
    parser.add_argument("--parts", type=int, default=3)
    parser.add_argument("--checkpoint")
    asked = parser.parse_args()
    regions = tiled.regions
    tiled.regions = lambda size, frames: regions(size, frames)[: asked.parts]
    loading.load_frames = told("reading", loading.load_frames)
    hot_pixels.replace_hot_pixels = told("hot pixels", hot_pixels.replace_hot_pixels)
    tiled.align_frames = told(f"whole frames and {asked.parts} regions", tiled.align_frames)
    merge_tile.TileMerger.__call__ = first_tiles(merge_tile.TileMerger.__call__, asked.parts)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "burst").mkdir()
        if not os.fork():  # what drawing a frame takes is not the command's
            denoise.write(folder / "burst", asked.megapixels, 1)
            os._exit(0)
        os.wait()
        for number in range(1, asked.frames):
            os.link(folder / "burst" / "00.dng", folder / "burst" / f"{number:02}.dng")
        settings = pipeline.DenoiseSettings(checkpoint=asked.checkpoint, memory=asked.memory, threads=1)
        try:
            with pipeline.denoise_frames(reading.list_frames([folder / "burst"]), folder / "out.dng", settings):
                pass
        except EnoughError:
            pass
    print(f"{asked.megapixels:g} Mpx x {asked.frames} frames: {denoise.peak(os.getpid()):.2f} GB at most")


if __name__ == "__main__":
    main()
