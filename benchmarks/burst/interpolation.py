"""Quality of interpolated colours, without noise: photographs halved in size, behind a mosaic and interpolated; PSNR in
dB, as displayed.

A camera whose red is half and whose blue two thirds of green. Rows: Malvar's filters on the mosaic as it is and
balanced first, behind RGGB; the package's renderer, on the same; cokriging behind X-Trans.

    python benchmarks/burst/interpolation.py FOLDER [--count 24]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.bayer import sample_mosaic, to_mosaic
from klarsicht.burst.data.cokriging import interpolate_mosaic
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Header, Rendering, Sensor
from klarsicht.burst.files.demosaic import interpolate_colours
from klarsicht.burst.files.rendering import Renderer
from klarsicht.burst.quality import psnr, tone_mapped
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.burst.synthesis.scenes import Geometry, rgb_light
from x_trans import BALANCE, X_TRANS, sampled

ROWS = ("Malvar, as it is", "Malvar, balanced", "renderer", "cokriging, X-Trans")
Light = npt.NDArray[np.float32]


def halved(light: Light) -> Light:
    """Means of 2 x 2 pixels, of sides that are multiples of 12."""
    H, W = (side // 24 * 24 for side in light.shape[1:])
    means: Light = light[:, :H, :W].reshape(3, H // 2, 2, W // 2, 2).mean((2, 4))
    return means


def rendered(planes: Light) -> Light:
    """The renderer's colours of the camera (3, H, W)."""
    size = (2 * planes.shape[1], 2 * planes.shape[2])
    with tempfile.TemporaryDirectory() as folder:
        spool = FrameStore(Path(folder) / "s", (1, 5, *planes.shape[1:]))
        spool.allocate()
        spool.write_frame(0, np.concatenate([planes, np.ones_like(planes[:1])]))
        gains = tuple(BALANCE.ravel().tolist())
        header = Header(
            Path("a"),
            "mosaic",
            size,
            1,
            "none",
            Sensor("RGGB", (0.0,) * 4, 1.0),
            Rendering((gains[0], gains[1], gains[2])),
        )
        return Renderer(spool, header).linear_window(Window(0, size[0], 0, size[1]))


def measured(light: Light) -> list[float]:
    camera = light / BALANCE
    planes = sample_mosaic(camera)
    gains = (float(BALANCE[0, 0, 0]), float(BALANCE[1, 0, 0]), float(BALANCE[2, 0, 0]))
    found = [
        interpolate_colours(to_mosaic(planes), "RGGB") * BALANCE,
        interpolate_colours(to_mosaic(sample_mosaic(light)), "RGGB"),
        rendered(planes) * BALANCE,
        interpolate_mosaic(sampled(camera), X_TRANS, gains) * BALANCE,
    ]
    return [psnr(tone_mapped(picture, 1.0), tone_mapped(light, 1.0)) for picture in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--count", type=int, default=24)
    asked = parser.parse_args()
    book = read_folder(asked.photographs, Geometry(2, 64, 64, 0)).photographs[: asked.count]
    table = np.array([measured(halved(rgb_light(photograph))) for photograph in book])
    for name, values in zip(ROWS, table.T, strict=True):
        print(f"{name}: {values.mean():.2f}, least {values.min():.2f}")


if __name__ == "__main__":
    main()
