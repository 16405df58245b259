"""Corners of a grey scene behind a lens that darkens them, as raw converters show a DNG of it: over the middle, so that
1 is right, in linear light, for red, green and blue.

The lens leaves 0.35, 0.45 and 0.49 of the red, green and blue light at the corners, and the file says so: by four
GainMaps in OpcodeList2, or by a FixVignetteRadial in OpcodeList3, then 0.45 of all colours. DNGs: the camera's, a
mosaic; the linear one of `burst denoise` as it was before, with the camera's lists; the linear one that it writes; the
mosaic that `--bayer planes` writes. Programs: darktable (no module for looks), RawTherapee (neutral), LibRaw; and this
package's own TIFF. Corners are measured in squares of 24 pixels, 24 from the border.

    python benchmarks/burst/lens_corrections.py
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rawpy
import tifffile
from tests.burst.conftest import write_dng
from tests.burst.opcodes import gain_map, packed, tag, vignette

from klarsicht.burst.data.bayer import to_mosaic
from klarsicht.burst.data.frame_store import FrameStore
from klarsicht.burst.data.lens_corrections import LISTS, NO_CORRECTIONS
from klarsicht.burst.data.opcode_lists import GainMap, RadialGain
from klarsicht.burst.data.photograph import Photograph
from klarsicht.burst.denoising.interpolated_frames import interpolate_window
from klarsicht.burst.files import dng, lossless_jpeg, write_pictures
from klarsicht.burst.files.reading import read
from klarsicht.burst.files.rendering import Renderer
from klarsicht.ground.pictures import tiff_tags
from klarsicht.ground.pictures.tiff_tags import UNDEFINED, Entry
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SIZE, POINTS = (480, 640), (13, 17)
BLACK, WHITE, GREY = 600, 16383, 0.3
SHARES = (0.35, 0.45, 0.49)  # of light that reaches a corner, in red, green and blue
CELL = {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 2}  # the colours of RGGB
WEIGHTS = np.array([0.5, 1, 2 / 3])[:, None, None]  # of a grey surface in the camera's colours
ROWS, COLUMNS = (np.arange(side, dtype=float) for side in SIZE)
PATCH = 24  # pixels a side, at a distance of as many from the corner
Values = npt.NDArray[np.float64]


def gain_maps() -> list[tuple[int, int, bytes]]:
    """Four GainMaps, one for each place of the cell, of gains that grow with the fourth power of the distance."""
    v, h = (np.linspace(-1, 1, n) for n in POINTS)
    radius = (v[:, None] ** 2 + h**2) / 2
    return [
        gain_map((*place, *SIZE), (1 + (1 / SHARES[c] - 1) * radius**2)[..., None].tolist(), pitch=(2, 2))
        for place, c in CELL.items()
    ]


def lenses() -> dict[str, tuple[int, bytes, Values]]:
    """Each lens: the number of its opcode list, the list, and the gains (3, H, W) that it prescribes."""
    maps = gain_maps()
    of_colour = {c: GainMap.parse(m[2]) for m, c in zip(maps, CELL.values(), strict=True)}
    whole = [replace(of_colour[c], area=(0, 0, *SIZE), pitch=(1, 1)) for c in range(3)]
    fix = vignette((0.0, 1 / SHARES[1] - 1, 0, 0, 0))
    radial = RadialGain.parse(fix[2]).gain(ROWS, COLUMNS, 0, SIZE)
    return {
        "GainMap": (2, packed(*maps), np.stack([m.gain(ROWS, COLUMNS, 0, SIZE) for m in whole])),
        "FixVignetteRadial": (3, packed(fix), np.stack([radial] * 3)),
    }


def spooled(light: npt.NDArray[np.float32], path: Path) -> FrameStore:
    spool = FrameStore(path, (1, len(light) + 1, *light.shape[1:]))
    spool.allocate()
    spool.write_frame(0, np.concatenate([light, np.ones_like(light[:1])]))
    return spool


def files(number: int, data: bytes, gains: Values, folder: Path) -> Iterator[tuple[str, Path]]:
    """Write the DNGs of a lens, and our own picture, which is a TIFF."""
    light = GREY * WEIGHTS / gains
    planes = np.stack([light[c, y::2, x::2] for (y, x), c in CELL.items()])
    counts = np.rint(BLACK + to_mosaic(planes, "RGGB") * (WHITE - BLACK))
    yield "the camera's", write_dng(folder / "camera.dng", counts, extra=[tag(number, data)])
    taken = read(folder / "camera.dng")
    levels = [NoiseLevel(1e-3, 1e-5)] * 4
    mosaic = spooled(taken.light, folder / "mosaic.f32")
    colours = interpolated(taken, mosaic, folder)
    unaware = replace(colours, header=replace(colours.header, lens=NO_CORRECTIONS))
    tags = dng.linear_tags(unaware.header, levels[:3], dng.FULL)
    tags.image[LISTS[number]] = Entry(UNDEFINED, len(data), data)
    with (before := folder / "before.dng").open("wb") as file:
        tiles = lossless_jpeg.cut_tiles(dng.linear_strips(unaware, dng.FULL), *map(lossless_jpeg.tile_side, SIZE))
        tiff_tags.write(file, tags, map(lossless_jpeg.encode_tile, tiles))
    yield "linear, before", before
    dng.write(colours.spool, colours.header, levels[:3], folder / "after.dng")
    yield "linear, now", folder / "after.dng"
    dng.write(mosaic, taken.header, levels, folder / "planes.dng")
    yield "mosaic, now", folder / "planes.dng"
    write_pictures.write_tiff(Renderer(colours.spool, colours.header), folder / "own.tif")
    yield "our TIFF", folder / "own.tif"


def interpolated(taken: Photograph, mosaic: FrameStore, folder: Path) -> Renderer:
    """Interpolate a frame to RGB, as `burst denoise` does."""
    light = interpolate_window(mosaic, 0, mosaic.strip_windows()[0], taken.header)
    return Renderer(spooled(light, folder / "rgb.f32"), replace(taken.header, colour="rgb"))


def developed(program: str, path: Path, folder: Path) -> Values:
    """Develop a DNG to linear light (H, W, 3)."""
    if program == "LibRaw":
        with rawpy.imread(str(path)) as raw:
            return np.asarray(
                raw.postprocess(gamma=(1, 1), no_auto_bright=True, output_bps=16, use_camera_wb=True) / 65535
            )
    out = folder / "theirs.tif"
    out.unlink(missing_ok=True)
    if program == "darktable":
        command = ["darktable-cli", path, out, "--apply-custom-presets", "false", "--icc-type", "SRGB", "--core"]
        command += ["--configdir", folder / "settings", "--library", ":memory:"]
        command += ["--conf", "plugins/darkroom/workflow=none", "--conf", "plugins/imageio/format/tiff/bpp=16"]
    else:
        command = ["rawtherapee-cli", "-q", "-o", out, "-t", "-b16", "-Y", "-c", path]
    settings = {**os.environ, "HOME": str(folder), "OMP_NUM_THREADS": "2"}
    subprocess.run(command, check=True, capture_output=True, env=settings)
    return linear(tifffile.imread(out)[..., :3] / 65535)


def linear(codes: Values) -> Values:
    """Undo the sRGB curve."""
    return np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)


def corner_over_middle(light: Values) -> Values:
    """Compute the mean light of the four corners, in squares of PATCH, over that of the middle."""
    near, far = slice(PATCH, 2 * PATCH), slice(-2 * PATCH, -PATCH)
    corners = np.mean([light[y, x].mean((0, 1)) for y in (near, far) for x in (near, far)], 0)
    H, W = light.shape[:2]
    middle = light[H // 2 - PATCH : H // 2 + PATCH, W // 2 - PATCH : W // 2 + PATCH].mean((0, 1))
    return np.asarray(corners / middle)


def main() -> None:
    print("| file's list | DNG | darktable | RawTherapee | LibRaw |\n|---|---|---|---|---|")
    for lens, (number, data, gains) in lenses().items():
        with tempfile.TemporaryDirectory() as name:
            for kind, path in files(number, data, gains, Path(name)):
                if path.suffix == ".tif":
                    ours = corner_over_middle(linear(tifffile.imread(path) / 65535))
                    print(f"| {lens} | {kind} | {shares(ours)} | | |", flush=True)
                    continue
                programs = ("darktable", "RawTherapee", "LibRaw")
                told = (shares(corner_over_middle(developed(one, path, Path(name)))) for one in programs)
                print(f"| {lens} | {kind} | {' | '.join(told)} |", flush=True)


def shares(values: Values) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


if __name__ == "__main__":
    main()
